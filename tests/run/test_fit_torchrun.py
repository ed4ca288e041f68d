"""`noiseless.fit` in a job of torchrun: two workers end with the bits of one process."""

from __future__ import annotations

import torchrun_fit
from small_runs import call

from noiseless.run import team


def test_fit_under_torchrun_has_the_bits_of_one_process(tmp_path):
    for name in ("alone", "job"):
        (tmp_path / name).mkdir()
    alone = torchrun_fit.digests(tmp_path / "alone")
    assert team.launch(2, [str(tmp_path / "job")], restarts=0, program="torchrun_fit") == 0
    for rank in (0, 1):
        assert (tmp_path / "job" / f"digests-{rank}").read_text().splitlines() == alone
    assert call("digest", tmp_path / "job" / "run").out == call("digest", tmp_path / "alone" / "run").out

"""`noiseless verify`: equal digests for any order and number of workers, beside the rounding of plain float32 sums."""

from __future__ import annotations

import re

from small_runs import call, run, small_recipe

from noiseless.ask import verify
from noiseless.files.address import StateAddress


def test_verify_prints_equal_digests_and_the_rounding_of_float32_sums(data, tmp_path, monkeypatch):
    # blocks of 2 on 48 images: 24 blocks, in chunks of 3
    directory = run(tmp_path / "run", small_recipe(data, "fb-clipped", block=2, steps=1, warmup=0))
    monkeypatch.setenv("COLUMNS", "200")
    answer = call("verify", directory.path)
    assert answer.code == 0, answer
    text = answer.out
    assert len(set(re.findall(r"[0-9a-f]{64}", text))) == 1
    assert text.count("equal") >= 6 + 1
    roundings = [float(number) for number in re.findall(r"│ (\d\.\d\de[-+]\d\d) *│\n", text)]
    repeated, *reordered = roundings[:4]
    assert repeated == 0
    # 24 additions in float32, each rounding 6e-8 of the partial sum
    assert all(0 < rounding < 24 * 6e-8 for rounding in reordered)
    assert len(roundings) == 4 + 2  # in float32, and with bfloat16 autocast
    assert not (directory.path / "snapshots").exists()


def test_another_state_has_another_digest(data, tmp_path):
    recipe = small_recipe(data, "fb-clipped", steps=1, warmup=0)
    one = run(tmp_path / "one", recipe)
    other = run(tmp_path / "other", small_recipe(data, "fb-clipped", steps=1, warmup=0, seed=1))
    digests = [
        verify._digest(verify.gradient(StateAddress(directory, None), verify._RecordingAlone(permuted=False)))
        for directory in (one, one, other)
    ]
    assert digests[0] == digests[1] != digests[2]

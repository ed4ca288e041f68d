"""The compiler's surroundings: what a machine lacks, where code is kept, Ctrl-C, and pooling as it is rewritten."""

from __future__ import annotations

import logging
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import oracles
import problems
import pytest
import torch
from torch import nn
from torch._inductor.runtime.cache_dir_utils import default_cache_dir
from torch.fx.experimental.proxy_tensor import make_fx

from noiseless import EmpiricalRisk, Execution, cross_entropy
from noiseless.objective import compiled
from noiseless.objective.compiled import Compiler

PLACE = "TORCHINDUCTOR_CACHE_DIR"


def sweep(compiler):
    """Of a module that is traced but, as it draws random numbers, not made into machine code, which takes seconds."""
    return EmpiricalRisk(
        problems.dropped(), cross_entropy, problems.points(12), block=3, execution=Execution(compiler=compiler)
    ).evaluate()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("CXX", "no-such-compiler", "CXX names no-such-compiler, which is not there"),
        ("PATH", "/nowhere", "no C\\+\\+ compiler is found"),
    ],
)
def test_without_a_compiler_it_is_refused_with_the_remedy(monkeypatch, name, value, said):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=rf"{said}\. Install g\+\+; or start a new run with --compile off"):
        sweep(Compiler())


def test_code_is_kept_with_the_user_where_torch_has_named_its_own_place(monkeypatch, tmp_path):
    # /tmp/torchinductor_USER can be made by anyone before we come, and what lies there is executed
    monkeypatch.setenv(PLACE, default_cache_dir())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    sweep(Compiler())
    place = tmp_path / "noiseless" / "compiled"
    assert os.environ[PLACE] == str(place)
    assert stat.S_IMODE(place.stat().st_mode) == 0o700


def test_a_place_that_the_user_has_named_is_taken(monkeypatch, tmp_path):
    monkeypatch.setenv(PLACE, str(tmp_path / "named"))
    sweep(Compiler())
    assert os.environ[PLACE] == str(tmp_path / "named")


def test_where_code_cannot_be_kept_it_is_told_and_kept_for_the_process(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv(PLACE, default_cache_dir())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    told = []
    sweep(Compiler(told.append))
    assert told[0].startswith(f"compiled code cannot be kept in {tmp_path / 'file' / 'noiseless' / 'compiled'} (")
    place = Path(os.environ[PLACE])
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert place != Path(default_cache_dir())


def test_torch_is_quiet_only_while_it_compiles():
    logger = logging.getLogger("torch.utils.cpp_extension")
    before = logger.level
    with compiled._quiet():
        assert not logger.isEnabledFor(logging.WARNING)
    assert logger.level == before


def test_ctrl_c_reaches_this_process_and_not_the_compiler():
    received = []
    before = signal.signal(signal.SIGINT, lambda number, frame: received.append(number))
    try:
        # in a process of its own group's, as a terminal sends it: the child raises it for itself and goes on
        child = "import os, signal; os.kill(os.getpid(), signal.SIGINT); print('done')"
        with compiled._shielded():
            os.kill(os.getpid(), signal.SIGINT)
            ended = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True)
            assert received == [signal.SIGINT]
        assert (ended.returncode, ended.stdout) == (0, "done\n")
        ended = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True)
        assert ended.returncode != 0  # or the above would show nothing
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("pool", "size", "rewritten"),
    [
        (nn.AvgPool2d(2), (8, 6), (True, True)),
        (nn.AvgPool2d((2, 3)), (8, 6), (True, True)),
        (nn.AvgPool2d((8, 6)), (8, 6), (True, True)),
        (nn.AvgPool2d(2), (7, 5), (False, False)),
        (nn.AvgPool2d(2, ceil_mode=True), (7, 5), (False, False)),
        (nn.AvgPool2d(3, stride=2, padding=1), (8, 6), (False, False)),
        (nn.AvgPool2d(2, stride=1), (8, 6), (False, False)),
        (nn.AvgPool2d(2, padding=1), (8, 6), (False, False)),
        (nn.AvgPool2d(2, padding=1, count_include_pad=False), (8, 6), (False, False)),
        (nn.AvgPool2d(2, count_include_pad=False), (8, 6), (True, True)),
        (nn.AvgPool2d(2, divisor_override=3), (8, 6), (False, False)),
        # torch finds the pixel that row 41 comes from as 41 * float32(1 / 41), which is below 1
        (nn.AvgPool2d(41), (82, 41), (True, False)),
    ],
    ids=str,
)
def test_pooling_is_rewritten_where_windows_tile_the_image_and_left_where_not(pool, size, rewritten):
    drawn = problems.generator()
    x = torch.randn(3, 2, *size, generator=drawn, dtype=torch.float64)
    direction = torch.randn(pool(x).shape, generator=drawn, dtype=torch.float64)

    def given(x, direction):
        x = x.detach().requires_grad_()
        pooled = pool(x)
        return pooled.detach(), torch.autograd.grad(pooled, x, direction)[0]

    graph = make_fx(given, compiled._DECOMPOSED, tracing_mode="fake")(x, direction)
    names = {str(node.target) for node in graph.graph.nodes}
    assert ("aten.avg_pool2d.default" not in names, "aten.avg_pool2d_backward.default" not in names) == rewritten
    for found, expected in zip(graph(x, direction), given(x, direction), strict=True):
        torch.testing.assert_close(found, expected, **oracles.ROUNDING)

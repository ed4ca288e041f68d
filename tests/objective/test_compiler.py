"""Around the compiler: a missing C++ compiler, the directory of the cache, Ctrl-C, and the rewriting of pooling."""

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

CACHE = "TORCHINDUCTOR_CACHE_DIR"


def sweep(compiler):
    """Evaluates a module that draws random numbers: traced, but not compiled to machine code, which takes seconds."""
    return EmpiricalRisk(
        problems.with_dropout(), cross_entropy, problems.points(12), block=3, execution=Execution(compiler=compiler)
    ).evaluate()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("CXX", "no-such-compiler", "CXX names no-such-compiler, which is not there"),
        ("PATH", "/nowhere", "no C\\+\\+ compiler is found"),
    ],
)
def test_a_missing_compiler_is_refused_with_the_remedy(monkeypatch, name, value, message):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=rf"{message}\. Install g\+\+; or start a new run with --compile off"):
        sweep(Compiler())


def test_code_is_cached_in_the_users_directory_instead_of_torchs_default(monkeypatch, tmp_path):
    # anyone can create /tmp/torchinductor_USER before us, and torch executes the code in it
    monkeypatch.setenv(CACHE, default_cache_dir())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    sweep(Compiler())
    directory = tmp_path / "noiseless" / "compiled"
    assert os.environ[CACHE] == str(directory)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_a_cache_directory_that_the_user_has_set_is_used(monkeypatch, tmp_path):
    monkeypatch.setenv(CACHE, str(tmp_path / "named"))
    sweep(Compiler())
    assert os.environ[CACHE] == str(tmp_path / "named")


def test_an_unwritable_cache_gives_a_message_and_a_private_one_is_used(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv(CACHE, default_cache_dir())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    messages = []
    sweep(Compiler(messages.append))
    assert messages[0].startswith(f"compiled code cannot be kept in {tmp_path / 'file' / 'noiseless' / 'compiled'} (")
    directory = Path(os.environ[CACHE])
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert directory != Path(default_cache_dir())


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
        # a terminal sends the signal to the child, too: here the child sends it to itself, and goes on
        child = "import os, signal; os.kill(os.getpid(), signal.SIGINT); print('done')"
        with compiled._shielded():
            os.kill(os.getpid(), signal.SIGINT)
            process = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True)
            assert received == [signal.SIGINT]
        assert (process.returncode, process.stdout) == (0, "done\n")
        process = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True)
        assert process.returncode != 0  # otherwise the above would test nothing
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
        # torch computes the pixel that row 41 comes from as 41 * float32(1 / 41), which is below 1
        (nn.AvgPool2d(41), (82, 41), (True, False)),
    ],
    ids=str,
)
def test_pooling_is_rewritten_only_where_windows_tile_the_image(pool, size, rewritten):
    rng = problems.generator()
    x = torch.randn(3, 2, *size, generator=rng, dtype=torch.float64)
    direction = torch.randn(pool(x).shape, generator=rng, dtype=torch.float64)

    def pool_and_gradient(x, direction):
        x = x.detach().requires_grad_()
        pooled = pool(x)
        return pooled.detach(), torch.autograd.grad(pooled, x, direction)[0]

    graph = make_fx(pool_and_gradient, compiled._DECOMPOSED, tracing_mode="fake")(x, direction)
    names = {str(node.target) for node in graph.graph.nodes}
    assert ("aten.avg_pool2d.default" not in names, "aten.avg_pool2d_backward.default" not in names) == rewritten
    for actual, expected in zip(graph(x, direction), pool_and_gradient(x, direction), strict=True):
        torch.testing.assert_close(actual, expected, **oracles.ROUNDING)

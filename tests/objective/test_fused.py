"""The kernels of Triton, by its interpreter on a CPU: the bits of torch's loops."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="Triton comes with torch's builds for GPUs")
SCRIPT = """
import math
import torch
from noiseless.objective import ExactSum, bins, fused, kernels, resident

torch.manual_seed(0)
resident.stays = lambda device: True


def summed(groups, weights, loops):
    kernels.chosen = lambda device: loops
    total = ExactSum(groups[0].shape[1])
    for terms, its_weights in zip(groups, weights):
        total.add(terms, its_weights)
    total._settle()
    return total


def compared(name, groups, weights):
    one = summed(groups, weights, (fused.largest, fused.deposit))
    other = summed(groups, weights, (kernels.largest, kernels.deposit))
    same = one._top == other._top and torch.equal(one.value().view(torch.int64), other.value().view(torch.int64))
    assert same and (one._special is None) == (other._special is None), name
    print(name)


length = 2 * fused.BLOCK + 77
for dtype in (torch.float32, torch.float64, torch.bfloat16):
    for step in (-70, -20, 0, 3, 40):  # the bins go up by up to three places, or stay
        groups = [(torch.randn(3, length) * 2.0 ** (step * (k - 2))).to(dtype) for k in range(5)]
        weights = [torch.tensor([128.0, 1.0, 3.0], dtype=torch.float64)] * 5
        compared(f"{dtype} {step}", groups, weights)
        for k, special in enumerate((math.inf, -math.inf, math.nan)):
            groups[k][1, 7 * k], groups[4][0, 0] = special, -math.inf
        compared(f"{dtype} {step} not finite", groups, weights)
edges = torch.tensor([[5e-324, 1.7e308, -0.0, 2.0**-1022, 0.5, 1.5, 2.5, -2.5]], dtype=torch.float64)
compared("edges", [edges, edges, -2.0**-30 * edges], [torch.ones(1, dtype=torch.float64)] * 3)
compared("small edges", [edges * 2.0**-1023, edges * 2.0**-1000], [torch.ones(1, dtype=torch.float64)] * 2)
own = [torch.rand(4, length, dtype=torch.float64) for _ in range(3)]
compared("a weight for each element", [torch.randn(4, length) for _ in range(3)], own)
compared("terms that are parts", [torch.randn(length, 4).T for _ in range(3)], own)
"""

COMPILE = """
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from noiseless.objective import fused

TYPES = {"weights": "*fp64", "parts": "*fp64", "bins": "*fp64", "before": "*i64", "top": "*i64", "block": "constexpr"}
for kernel in (fused._largest, fused._deposit):
    for terms in ("*fp32", "*bf16", "*fp64"):
        types = TYPES | {"terms": terms}
        source = ASTSource(kernel, {n: types.get(n, "i32") for n in kernel.arg_names}, {"block": fused.BLOCK})
        print(len(compile(source, target=GPUTarget("cuda", 90, 32)).asm["cubin"]))
"""


def test_the_kernels_compile_for_a_gpu(tmp_path):
    """To the code of an H100 (compute capability 9.0), for which no GPU is needed."""
    environ = os.environ | {"TRITON_CACHE_DIR": str(tmp_path), "TRITON_INTERPRET": "0"}
    done = subprocess.run([sys.executable, "-c", COMPILE], capture_output=True, text=True, env=environ)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(done.stdout.splitlines()) == 6


def test_the_bits_are_those_of_torchs_loops():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, env=os.environ | {"TRITON_INTERPRET": "1"}
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(done.stdout.splitlines()) == 34

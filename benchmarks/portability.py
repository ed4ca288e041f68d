"""Which operations of torch have the same bits on other machines: digests by operation and environment.

Each environment is a process of its own: CPU threads, and instruction sets that are emulated by the environment
variables of ATen, oneDNN and MKL. Each operation is computed forward, backward and double backward, in float32 and
float64, and for a batch's first sample alone; by torch, and by `noiseless.portable`.

    python benchmarks/portability.py --out benchmarks/results/portability/PROCESSOR.json
    python benchmarks/portability.py --against benchmarks/results/portability/PROCESSOR.json   # on another machine
    python benchmarks/portability.py --compiled ...   # some operations by torch.compile
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

THREADS = {f"threads {n}": {"OMP_NUM_THREADS": str(n)} for n in (1, 2, 4)}
AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
OLD = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"}
PINNED = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_CBWR": "AVX2"}
ENVIRONMENTS: dict[str, dict[str, str]] = {
    **THREADS,
    "ATen avx2": {"ATEN_CPU_CAPABILITY": "avx2"},
    "all avx2": AVX2,
    "all default": OLD,
    "pinned to avx2": PINNED,
    "pinned to avx2, threads 4": {**PINNED, "OMP_NUM_THREADS": "4"},
}
"""name -> environment variables; one thread and this machine's instructions where they say nothing else"""
COMPILED = ("exp", "x * y + z", "sum of rows", "softmax", "layer norm")
"""operations that are compiled with --compiled, which takes long"""
ODD = 1003
"""length that is no multiple of a vector's, so that a tensor has a tail"""


def cases() -> dict[str, tuple[Callable[..., Any], list[tuple[int, ...]]]]:
    """Name -> function of tensors, and their shapes; the first dimension of the first one is that of samples."""
    import torch
    import torch.nn.functional as F

    def cross_entropy(x: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(x, torch.arange(len(x)) % x.shape[1], reduction="none")

    def elementwise(function: Callable[[torch.Tensor], torch.Tensor], shift: float = 0.0) -> Any:
        return lambda x: function(x.abs() + shift if shift else x), [(4, ODD)]

    def norm(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return F.batch_norm(x, None, None, w, b, True)

    def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return torch.softmax(q @ k.mT / 8, -1) @ v

    image = (4, 16, 17, 17)
    return {
        **{name: elementwise(getattr(torch, name)) for name in ("exp", "tanh", "erf", "sigmoid", "sin", "cos")},
        **{name: elementwise(getattr(torch, name), 1e-3) for name in ("log", "log1p", "sqrt", "rsqrt", "reciprocal")},
        "gelu": elementwise(F.gelu),
        "relu": elementwise(torch.relu),
        "pow 0.9": elementwise(lambda x: x**0.9, 1e-3),
        "pow 3": elementwise(lambda x: x**3),
        "x + y": (lambda x, y: x + y, [(4, ODD), (4, ODD)]),
        "x * y": (lambda x, y: x * y, [(4, ODD), (4, ODD)]),
        "x / y": (lambda x, y: x / y, [(4, ODD), (4, ODD)]),
        "x * y + z": (lambda x, y, z: x * y + z, [(4, ODD)] * 3),
        "add with alpha": (lambda x, y: torch.add(x, y, alpha=0.3), [(4, ODD)] * 2),
        "addcmul": (lambda x, y, z: torch.addcmul(x, y, z, value=0.3), [(4, ODD)] * 3),
        "addcdiv": (lambda x, y, z: torch.addcdiv(x, y, z + 3, value=0.3), [(4, ODD)] * 3),
        "lerp": (lambda x, y: torch.lerp(x, y, 0.3), [(4, ODD)] * 2),
        "sum of all": (lambda x: x.sum(), [(64, ODD)]),
        "sum of rows": (lambda x: x.sum(1), [(64, ODD)]),
        "sum of columns": (lambda x: x.sum(0), [(64, ODD)]),
        "variance": (lambda x: x.var(1), [(64, ODD)]),
        "norm": (lambda x: x.norm(), [(64, ODD)]),
        "mm": (lambda x, y: x @ y, [(64, 300), (300, 50)]),
        "addmm": (lambda b, x, y: torch.addmm(b, x, y), [(64, 50), (64, 300), (300, 50)]),
        "bmm": (lambda x, y: x @ y, [(8, 30, 40), (8, 40, 50)]),
        "convolution 3x3": (lambda x, w: F.conv2d(x, w, padding=1), [image, (32, 16, 3, 3)]),
        "convolution 3x3, stride 2": (lambda x, w: F.conv2d(x, w, stride=2), [image, (32, 16, 3, 3)]),
        "convolution 1x1": (lambda x, w: F.conv2d(x, w), [image, (32, 16, 1, 1)]),
        "batch norm": (norm, [image, (16,), (16,)]),
        "layer norm": (lambda x, w, b: F.layer_norm(x, (96,), w, b), [(40, 96), (96,), (96,)]),
        "group norm": (lambda x, w, b: F.group_norm(x, 4, w, b), [image, (16,), (16,)]),
        "softmax": (lambda x: torch.softmax(x, 1), [(16, 101)]),
        "log softmax": (lambda x: torch.log_softmax(x, 1), [(16, 101)]),
        "cross entropy": (cross_entropy, [(16, 101)]),
        "attention": (attention, [(4, 20, 64)] * 3),
        "max pool": (lambda x: F.max_pool2d(x, 2), [image]),
        "average pool": (lambda x: F.avg_pool2d(x, 3, 2, 1), [image]),
        "embedding": (lambda w: F.embedding(torch.arange(60) % 7, w), [(9, 33)]),
    }


def optimizers() -> dict[str, Callable[[list[Any]], Any]]:
    """Name -> constructor of an optimizer over parameters."""
    from functools import partial

    import torch

    from noiseless.optim import make_optimizer

    kinds: dict[str, Callable[[list[Any]], Any]] = {}
    for foreach in (False, True):
        suffix = ", foreach" if foreach else ""
        kinds[f"SGD{suffix}"] = partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=1e-3, foreach=foreach)
        kinds[f"AdamW{suffix}"] = partial(torch.optim.AdamW, lr=1e-2, foreach=foreach)
    return {**kinds, "Muon": lambda p: make_optimizer("Muon", p, lr=1e-2)}


def value(shape: tuple[int, ...], number: int, dtype: Any) -> Any:
    """Numbers in (-2, 2) that no machine computes differently: whole numbers times a power of two."""
    import torch

    from noiseless import keyed

    words = keyed.words(number, "portability", 0, torch.arange(math.prod(shape)))
    mantissa = words[..., 0] * 2**20 + (words[..., 1] >> 12) if dtype == torch.float64 else words[..., 0] >> 9
    bits = 52 if dtype == torch.float64 else 23
    return ((mantissa - 2 ** (bits - 1)).to(dtype) * 2.0 ** (2 - bits)).reshape(shape)


def text(tensors: Any) -> str:
    """Digest of tensors."""
    total = hashlib.sha256()
    for t in tensors:
        total.update(t.detach().contiguous().numpy().tobytes())
    return total.hexdigest()[:16]


def measure(compiled: bool) -> dict[str, str]:
    """The digests of this process: of torch's operations, and of portable ones unless operations are compiled."""
    import torch

    from noiseless.portable import arithmetic

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    found: dict[str, str] = {}
    for name, (function, shapes) in cases().items():
        if compiled and name not in COMPILED:
            continue
        for dtype in (torch.float32, torch.float64):
            kind = f"{name}, {str(dtype)[6:]}"
            inputs = [value(shape, k, dtype).requires_grad_() for k, shape in enumerate(shapes)]
            if compiled:
                found |= _derivatives(f"compiled: {kind}", torch.compile(function), inputs, 1)
                continue
            for portable in (False, True):
                with arithmetic(portable):
                    case = f"{'portable' if portable else 'torch'}: {kind}"
                    found |= _derivatives(case, function, inputs, 2) | _alone(case, name, function, inputs)
    for name, make in {} if compiled else optimizers().items():
        for portable in (False, True):
            if not (portable and "foreach" in name):
                with arithmetic(portable):
                    found[f"{'portable' if portable else 'torch'}: {name}: 5 steps"] = _steps(make)
    return found


def _derivatives(case: str, function: Callable[..., Any], inputs: list[Any], order: int) -> dict[str, str]:
    """Digests of a function's value, its gradient, and the gradient of that."""
    import torch

    out = function(*inputs)
    found = {f"{case}: forward": text([out])}
    first = torch.autograd.grad(out, inputs, value(tuple(out.shape), 90, out.dtype), create_graph=order > 1)
    found[f"{case}: backward"] = text(first)
    moving = [g for g in first if g.requires_grad]
    if order > 1 and moving:
        along = [value(tuple(g.shape), 91, g.dtype) for g in moving]
        again = torch.autograd.grad(moving, inputs, along, allow_unused=True)
        found[f"{case}: double backward"] = text([g for g in again if g is not None])
    return found


def _alone(case: str, name: str, function: Callable[..., Any], inputs: list[Any]) -> dict[str, str]:
    """Whether the result of a batch's first sample is the same without the others, where samples are independent."""
    import torch

    if name in ("batch norm", "embedding", "sum of all", "sum of columns", "norm", "addmm"):
        return {}
    weights = ("mm", "convolution", "layer norm", "group norm")
    shared = 1 if name.startswith(weights) else len(inputs)
    with torch.no_grad():
        alone = function(*(x[:1] if k < shared else x for k, x in enumerate(inputs)))
        return {f"{case}: alone as in a batch": str(torch.equal(alone[0], function(*inputs)[0]))}


def _steps(make: Callable[[list[Any]], Any]) -> str:
    """Digest of parameters after 5 steps of an optimizer."""
    import torch

    from noiseless.portable.powers import portable_powers

    parameters = [value((50, 33), 5, torch.float32), value((33, 20), 6, torch.float32)]
    optimizer = make([p.requires_grad_() for p in parameters])
    for step in range(5):
        for k, p in enumerate(parameters):
            p.grad = value(tuple(p.shape), 10 * step + k, torch.float32)
        with portable_powers(optimizer):
            optimizer.step()
    return text(parameters)


def processor() -> str:
    """The processor's name and its family, model and stepping."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    known = {key.strip(): text.strip() for key, _, text in (line.partition(":") for line in lines)}
    numbers = [known.get(key, "") for key in ("cpu family", "model", "stepping")]
    return f"{known.get('model name', platform.processor())}, {platform.machine()}, {'-'.join(numbers)}"


def count_roots(count: int = 150_000) -> None:
    """Prints how many of torch's square roots differ from numpy's, which are the processor's and correctly rounded."""
    import numpy as np
    import torch

    torch.set_num_threads(1)
    numbers = torch.rand(count, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 100
    for values in (numbers.float(), numbers):
        off = int((values.sqrt().numpy() != np.sqrt(values.numpy())).sum())
        print(f"{values.dtype}: {off} of {count} square roots of torch are not the nearest number")


def main() -> int:
    """Measures in all environments, prints what differs, and writes or compares a file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, help="file for the digests")
    parser.add_argument("--against", type=Path, help="file of another machine, to be compared")
    parser.add_argument("--compiled", action="store_true", help="each operation by torch.compile")
    parser.add_argument("--roots", action="store_true", help="count square roots that are not the nearest number")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.roots:
        count_roots()
        return 0
    if given.child:
        given.child.write_text(json.dumps(measure(given.compiled)))
        return 0
    import torch

    flags = ["--compiled"] if given.compiled else []
    environments = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, variables in ENVIRONMENTS.items():
            path = Path(folder) / "digests.json"
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", **variables}
            command = [sys.executable, __file__, "--child", str(path), *flags]
            subprocess.run(command, env=environment, check=True)  # noqa: S603
            environments[name] = json.loads(path.read_text())
    first = environments["threads 1"]
    different = {name: sorted(k for k in first if found.get(k) != first[k]) for name, found in environments.items()}
    result = {
        "processor": processor(), "torch": torch.__version__, "capability": torch.backends.cpu.get_cpu_capability(),
        "digests": first, "different": different,
    }  # fmt: skip
    for name, keys in different.items():
        for kind in ("compiled",) if given.compiled else ("torch", "portable"):
            every = [key for key in first if key.startswith(kind)]
            count = sum(key in every for key in keys)
            print(f"{name}: {count} of {len(every)} digests of {kind} differ from those of one thread")
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(result, indent=1) + "\n")
    if given.against:
        other = json.loads(given.against.read_text())
        apart = sorted(k for k in first if other["digests"].get(k) != first[k])
        print(f"{len(apart)} of {len(first)} differ from {other['processor']}:", *apart, sep="\n  ")
        return 5 if any(key.startswith("portable") for key in apart) else 0
    return 0


if __name__ == "__main__":
    sys.exit(main())

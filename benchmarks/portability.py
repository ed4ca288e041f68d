"""Which operations of torch have the same bits on other machines: digests by operation and environment.

Each environment is a process of its own: CPU threads, and instruction sets that are emulated by the environment
variables of ATen, oneDNN and MKL. Each operation is computed forward, backward and double backward, in float32 and
float64, and for a batch's first sample alone.

    python benchmarks/portability.py --out benchmarks/results/portability/PROCESSOR.json
    python benchmarks/portability.py --against benchmarks/results/portability/PROCESSOR.json   # on another machine
    python benchmarks/portability.py --portable ...   # the same under noiseless.portable
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

THREADS = {f"threads {n}": {"OMP_NUM_THREADS": str(n)} for n in (1, 2, 4)}
AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
OLD = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"}
PINNED = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_CBWR": "AVX2"}
ENVIRONMENTS: dict[str, dict[str, str]] = {
    **THREADS,
    "ATen avx2": {"ATEN_CPU_CAPABILITY": "avx2"},
    "ATen default": {"ATEN_CPU_CAPABILITY": "default"},
    "oneDNN AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2"},
    "oneDNN SSE41": {"ONEDNN_MAX_CPU_ISA": "SSE41"},
    "MKL AVX2": {"MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    "MKL COMPATIBLE": {"MKL_CBWR": "COMPATIBLE"},
    "all avx2": AVX2,
    "all avx2, threads 2": {**AVX2, "OMP_NUM_THREADS": "2"},
    "all default": OLD,
    "pinned to avx2": PINNED,
    "pinned to avx2, threads 4": {**PINNED, "OMP_NUM_THREADS": "4"},
}
"""name -> environment variables; one thread and this machine's instructions where they say nothing else"""
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

    kinds = {}
    for foreach in (False, True):
        suffix = ", foreach" if foreach else ""
        sgd = partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=1e-3, foreach=foreach)
        kinds[f"SGD{suffix}"] = sgd
        kinds[f"AdamW{suffix}"] = partial(torch.optim.AdamW, lr=1e-2, foreach=foreach)
    return {**kinds, "Muon": lambda p: make_optimizer("Muon", p, lr=1e-2)}


def value(shape: tuple[int, ...], number: int, dtype: Any) -> Any:
    """Numbers in (-2, 2) that no machine computes differently: whole numbers times a power of two."""
    import torch

    from noiseless import keyed

    words = keyed.words(number, "portability", 0, torch.arange(int(torch.tensor(shape).prod())))
    mantissa = words[..., 0] * 2**20 + (words[..., 1] >> 12) if dtype == torch.float64 else words[..., 0] >> 9
    bits = 52 if dtype == torch.float64 else 23
    return ((mantissa - 2 ** (bits - 1)).to(dtype) * 2.0 ** (2 - bits)).reshape(shape)


def text(tensors: Any) -> str:
    """Digest of tensors."""
    total = hashlib.sha256()
    for t in tensors:
        total.update(t.detach().contiguous().numpy().tobytes())
    return total.hexdigest()[:16]


def measure(portable: bool, compiled: bool) -> dict[str, str]:
    """The digests of this process."""
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    if portable:
        from noiseless.portable import arithmetic
    found = {}
    for name, (function, shapes) in cases().items():
        if compiled:
            function = torch.compile(function)
        for dtype in (torch.float32, torch.float64):
            kind = f"{name}, {str(dtype)[6:]}"
            inputs = [value(shape, k, dtype).requires_grad_() for k, shape in enumerate(shapes)]
            try:
                with arithmetic() if portable else nullcontext():
                    out = function(*inputs)
                    found[f"{kind}: forward"] = text([out])
                    if not compiled and out.ndim and len(out) == len(inputs[0]) and name != "batch norm":
                        same = len(inputs[0]) == len(inputs[-1])
                        part = [x[:1] if k == 0 or (same and x.shape == inputs[0].shape) else x
                                for k, x in enumerate(inputs)]  # fmt: skip
                        alone = function(*(part if name not in ("mm", "attention", "bmm") else _first(name, inputs)))
                        found[f"{kind}: alone as in a batch"] = str(bool(torch.equal(alone[0], out[0])))
                    first = torch.autograd.grad(
                        out, inputs, value(tuple(out.shape), 90, dtype), create_graph=not compiled
                    )
                    found[f"{kind}: backward"] = text(first)
                    if not compiled and any(g.requires_grad for g in first):
                        scalar = [g * value(tuple(g.shape), 91, dtype) for g in first if g.requires_grad]
                        again = torch.autograd.grad(
                            scalar, inputs, [value(tuple(s.shape), 92, dtype) for s in scalar], allow_unused=True
                        )
                        found[f"{kind}: double backward"] = text([g for g in again if g is not None])
            except Exception as error:
                found[f"{kind}: refused"] = f"{type(error).__name__}: {str(error)[:120]}"
    if not compiled:
        for name, make in optimizers().items():
            parameters = [value((50, 33), 5, torch.float32), value((33, 20), 6, torch.float32)]
            with arithmetic() if portable else nullcontext():
                optimizer = make([p.requires_grad_() for p in parameters])
                for step in range(5):
                    for k, p in enumerate(parameters):
                        p.grad = value(tuple(p.shape), 10 * step + k, torch.float32)
                    optimizer.step()
            found[f"{name}: 5 steps"] = text(parameters)
    return found


def _first(name: str, inputs: list[Any]) -> list[Any]:
    return [inputs[0][:1], inputs[1]] if name == "mm" else [x[:1] for x in inputs]


def processor() -> str:
    """The processor's name and its family, model and stepping."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    known = {key.strip(): text.strip() for key, _, text in (line.partition(":") for line in lines)}
    numbers = [known.get(key, "") for key in ("cpu family", "model", "stepping")]
    return f"{known.get('model name', platform.processor())}, {platform.machine()}, {'-'.join(numbers)}"


def main() -> int:
    """Measures in all environments, prints what differs, and writes or compares a file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, help="file for the digests")
    parser.add_argument("--against", type=Path, help="file of another machine, to be compared")
    parser.add_argument("--portable", action="store_true", help="under noiseless.portable")
    parser.add_argument("--compiled", action="store_true", help="each operation by torch.compile")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        given.child.write_text(json.dumps(measure(given.portable, given.compiled)))
        return 0
    import torch

    flags = [f"--{name}" for name in ("portable", "compiled") if getattr(given, name)]
    environments = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, variables in ENVIRONMENTS.items():
            path = Path(folder) / "digests.json"
            environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
            subprocess.run([sys.executable, __file__, "--child", str(path), *flags], env=environment, check=True)
            environments[name] = json.loads(path.read_text())
    first = environments["threads 1"]
    result = {
        "processor": processor(), "torch": torch.__version__, "capability": torch.backends.cpu.get_cpu_capability(),
        "flags": flags, "digests": first,
        "different": {name: sorted(k for k in first if found.get(k) != first[k])
                      for name, found in environments.items()},
    }  # fmt: skip
    result["digests in the environment"] = {
        name: {k: environments[name].get(k) for k in keys}
        for name, keys in result["different"].items()
        if name in ("all avx2", "all default", "pinned to avx2")
    }
    for name, keys in result["different"].items():
        print(f"{name}: {len(keys)} of {len(first)} differ from one thread with this machine's instructions")
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(result, indent=1) + "\n")
    if given.against:
        other = json.loads(given.against.read_text())
        different = sorted(k for k in first if other["digests"].get(k) != first[k])
        print(f"{len(different)} of {len(first)} differ from {other['processor']}:", *different, sep="\n  ")
        return 5 if different else 0
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Relative errors of float32 from float64: loss, gradient and Hessian product, beside plain contiguous PyTorch's.

Each ReLU is replaced by GELU: at a kink one rounding turns a unit on, which adds 1e-3 to some draws and nothing to
others. Medians over draws of parameters and images.

Run: .venv/bin/python benchmarks/accuracy.py [--models resnet8 ...] [--draws 5] [--compile]
"""

from __future__ import annotations

import argparse
import copy
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from noiseless import EmpiricalRisk, Execution, cross_entropy, models
from noiseless.models.form import Form
from noiseless.objective.compiled import Compiler

MODELS = ("resnet8", "resnet8:group", "resnet8:skipinit", "resnet18", "vgg11", "speednet128")
Errors = tuple[float, float, float]
"""of loss, gradient and Hessian product"""


def main() -> None:
    """Prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS), help="names, or name:norm")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--pixels", type=int, default=16)
    parser.add_argument("--compile", action="store_true", help="compiled code as well, which takes minutes for a model")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print("| model | blocks in a chunk | way | loss | gradient | ratio | Hessian product | ratio |")
    print("| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: |")
    for name in args.models:
        rows: dict[tuple[int, str], list[Errors]] = {}
        for seed in range(args.draws):
            for key, errors in draw(name, seed, args.images, args.pixels, args.compile).items():
                rows.setdefault(key, []).append(errors)
        plain: list[float] = []
        for (blocks, way), drawn in rows.items():
            loss, gradient, product = (median(column) for column in zip(*drawn, strict=True))
            plain = [gradient, product] if way == "plain" else plain
            ratios = gradient / plain[0], product / plain[1]
            numbers = f"{loss:.1e} | {gradient:.1e} | {ratios[0]:.2f} | {product:.1e} | {ratios[1]:.2f}"
            print(f"| {name} | {blocks} | {way} | {numbers} |", flush=True)


def draw(name: str, seed: int, images: int, pixels: int, compiled: bool) -> dict[tuple[int, str], Errors]:
    """Errors of each way to compute one draw, in one block and in four, which for batch norm is another function.

    Returns:
        (number of blocks, way) -> errors; plain contiguous PyTorch comes first.
    """
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(images, 3, pixels, pixels, generator=generator)
    y = torch.randint(0, 10, (images,), generator=generator)
    kind, _, norm = name.partition(":")
    form = Form(norm=norm or "batch")  # type: ignore[arg-type]
    model = smooth(models.build(kind, channels=3, classes=10, seed=seed, form=form, size=(pixels, pixels)).train())
    v = torch.randn(sum(p.numel() for p in model.parameters() if p.requires_grad), generator=generator)
    compilers = {"ours": None, **({"ours, compiled": Compiler()} if compiled else {})}
    found: dict[tuple[int, str], Errors] = {}
    for blocks in (1, 4):
        exact = plainly(copy.deepcopy(model).double(), x.double(), y, v.double(), blocks)
        found[blocks, "plain"] = apart(plainly(copy.deepcopy(model), x, y, v, blocks), exact)
        for way, compiler in compilers.items():
            execution, module = Execution(chunk=blocks, compiler=compiler), copy.deepcopy(model)
            risk = EmpiricalRisk(module, cross_entropy, (x, y), block=images // blocks, execution=execution)
            evaluation = risk.evaluate()
            found[blocks, way] = apart((evaluation.loss, evaluation.gradient, risk.hvp(v[None])[0]), exact)
    return found


def plainly(model: nn.Module, x: Tensor, y: Tensor, v: Tensor, blocks: int) -> tuple[float, Tensor, Tensor]:
    """Loss, gradient and Hessian product by plain PyTorch: means over blocks of equal size."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    parts = zip(x.chunk(blocks), y.chunk(blocks), strict=True)
    loss = torch.stack([F.cross_entropy(model(inputs), target) for inputs, target in parts]).mean()
    gradient = flat(torch.autograd.grad(loss, parameters, create_graph=True))
    return loss.item(), gradient.detach(), flat(torch.autograd.grad(gradient, parameters, v))


def flat(tensors: tuple[Tensor, ...]) -> Tensor:
    """One vector of all tensors."""
    return torch.cat([t.reshape(-1) for t in tensors])


def apart(one: tuple[float, Tensor, Tensor], exact: tuple[float, Tensor, Tensor]) -> Errors:
    """Relative errors, of vectors in L2."""
    vectors = zip(one[1:], exact[1:], strict=True)
    gradient, product = (((a.double() - b).norm() / b.norm()).item() for a, b in vectors)
    return abs(one[0] / exact[0] - 1), gradient, product


def smooth(module: nn.Module) -> nn.Module:
    """The module with GELU in place of each ReLU."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.ReLU:
                setattr(parent, name, nn.GELU())
    return module


if __name__ == "__main__":
    main()

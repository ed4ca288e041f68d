"""Times a library user's full-batch step beside a plain PyTorch loop, or Hessian products beside curvlinops', in turns.

Run it alone on the machine: .venv/bin/python benchmarks/library.py [--rounds 15] [--threads 1] [--products]
Both sides have the same module, 1,000 examples, loss and optimizer. The plain loop is zero_grad, forward of all
examples at once, backward, step. Numbers are medians over the rounds, and of the ratios of each round, with the
smallest and largest. With `--products`, one Hessian-vector product is timed instead: of this program, compiled and not,
of curvlinops, and of torch.func's `jvp` of `grad`, compiled and not. (Compiling curvlinops' operator from outside gains
nothing, and it has no option for it; its product is such a `jvp` too.)
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from itertools import pairwise
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp

from noiseless import EmpiricalRisk, Execution, cross_entropy, take_step
from noiseless.objective.compiled import Compiler

EXAMPLES = 1000
CLASSES = 10
Timed = Callable[[], object]


class Tokens(nn.Module):
    """Class scores of sequences of 32 tokens: an embedding, a body `[n, 32, 64] -> [n, 32, 64]`, their mean, a head."""

    def __init__(self, body: nn.Module, attends: bool):
        super().__init__()
        self.embed, self.body, self.head, self.attends = nn.Embedding(100, 64), body, nn.Linear(64, CLASSES), attends

    def forward(self, words: Tensor) -> Tensor:
        """The scores `[n, CLASSES]`."""
        h = self.body(self.embed(words))
        return self.head((h if self.attends else h[0]).mean(1))


def perceptron() -> nn.Module:
    """784-256-256-128-10: 300,938 parameters."""
    sizes = (784, 256, 256, 128)
    layers = [layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(sizes[-1], CLASSES))


def convolutional() -> nn.Module:
    """Two convolutions and a linear layer on images of 28 x 28 pixels."""
    convolutions = nn.Conv2d(1, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU()
    return nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(1568, CLASSES))


def transformer() -> nn.Module:
    """Two encoder layers of width 64."""
    layer = nn.TransformerEncoderLayer(64, 4, 128, dropout=0.0, batch_first=True)
    return Tokens(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), attends=True)


def recurrent() -> nn.Module:
    """An LSTM of width 64."""
    return Tokens(nn.LSTM(64, 64, batch_first=True), attends=False)


MODELS = {"MLP": perceptron, "convolutional": convolutional, "transformer": transformer, "LSTM": recurrent}


def main() -> None:
    """Prints Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--products", action="store_true", help="time Hessian products instead of steps")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, {args.threads} thread(s)\n")
    for number, name in enumerate(args.models):
        sides = products(name) if args.products else steps(name)
        seconds = in_turns(sides, args.rounds)
        first, *others = sides
        if number == 0:
            print(f"| model | {first}, ms | " + " | ".join(f"{other}, ratio" for other in others) + " |")
            print("| --- |" + " ---: |" * len(sides))
        cells = [spread([1e3 * s for s in seconds[first]], 1)]
        cells += [spread([a / b for a, b in zip(seconds[o], seconds[first], strict=True)], 2) for o in others]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def steps(name: str) -> dict[str, Timed]:
    """A step of the plain loop, and of this program in one block and in blocks of 128."""
    sides: dict[str, Timed] = {}
    module, x, y = problem(name)
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-3, momentum=0.9)

    def plain() -> None:
        optimizer.zero_grad()
        F.cross_entropy(module(x), y).backward()
        optimizer.step()

    sides["plain loop"] = plain
    for title, block in (("one block", None), ("blocks of 128", 128)):
        ours, x, y = problem(name)
        own = torch.optim.SGD(ours.parameters(), lr=1e-3, momentum=0.9)
        risk = EmpiricalRisk(ours, cross_entropy, (x, y), block=block)
        sides[title] = lambda own=own, risk=risk: take_step(own, risk)  # type: ignore[misc]
    return sides


def products(name: str) -> dict[str, Timed]:
    """A Hessian-vector product by torch.func, curvlinops, and this program."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from curvlinops import HessianLinearOperator  # type: ignore[import-untyped]

    module, x, y = problem(name)
    parameters = {key: p.detach() for key, p in module.named_parameters()}
    v = torch.randn(sum(p.numel() for p in parameters.values()), generator=torch.Generator().manual_seed(2))
    pieces = zip(parameters.items(), v.split([p.numel() for p in parameters.values()]), strict=True)
    tangents = {key: piece.view(p.shape) for (key, p), piece in pieces}
    criterion = nn.CrossEntropyLoss()
    operator = HessianLinearOperator(module, criterion, list(module.parameters()), [(x, y)], check_deterministic=False)

    def by_func(tangents: dict[str, Tensor]) -> object:
        gradient = grad(lambda values: criterion(functional_call(module, values, (x,)), y))
        return jvp(gradient, (parameters,), (tangents,))[1]

    def ours(compiler: Compiler | None) -> Timed:
        risk = EmpiricalRisk(problem(name)[0], cross_entropy, (x, y), execution=Execution(compiler=compiler))
        return lambda: risk.hvp(v[None])

    compiled = torch.compile(by_func)
    return {
        "torch.func compiled": lambda: compiled(tangents),
        "torch.func": lambda: by_func(tangents),
        "curvlinops": lambda: operator @ v,
        "ours compiled": ours(Compiler()),
        "ours": ours(None),
    }


def problem(name: str) -> tuple[nn.Module, Tensor, Tensor]:
    """A model with its initial parameters, inputs and classes."""
    torch.manual_seed(0)
    shape = (EXAMPLES, 1, 28, 28) if name in ("MLP", "convolutional") else (EXAMPLES, 32)
    x = torch.randn(shape) if len(shape) == 4 else torch.randint(100, shape)
    return MODELS[name](), x, torch.arange(EXAMPLES) % CLASSES


def in_turns(sides: dict[str, Timed], rounds: int) -> dict[str, list[float]]:
    """Seconds of each side in each round; two calls before them are not timed."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(-2, rounds):
        for name, call in sides.items():
            start = time.perf_counter()
            call()
            if number >= 0:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def spread(values: list[float], digits: int) -> str:
    """Median (smallest to largest)."""
    return f"{median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


if __name__ == "__main__":
    main()

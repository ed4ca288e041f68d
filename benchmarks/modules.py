"""The table of docs/modules.md: value, gradient, penalised gradient and Hessian product of many modules.

Run it from the root of the repository: .venv/bin/python benchmarks/modules.py [kind ...] > docs/modules.md
Without a kind ("Activations", "Losses", ...), the page has all.
The cases and the oracle are those of tests/test_modules.py, in tests/module_cases.
"""

from __future__ import annotations

import importlib
import platform
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision

HEADER = """# Modules that were compared

Look up whether a layer, loss or model like yours was compared with plain PyTorch, and what is refused. The table has
{count} modules. {right} are right. {partly} have no second derivative in torch, and {refused} are refused, each with
the sentence that is shown.

```python
risk = EmpiricalRisk(module.double(), loss, data, block=3)
risk.evaluate().loss, risk.evaluate().gradient
GradientPenalty(risk, 0.5, lr=4.0, method="exact").evaluate().gradient  # and method="central"
risk.hvp(V)
```

The other side is a loop over the same blocks: `loss(module(*inputs), target)` and `torch.autograd.grad` in float64,
with `create_graph=True` for second derivatives. Where torch's second derivative is wrong or missing (a star), the other
side is a difference of gradients of fourth order instead.

- Each number is the largest relative error (gradients and products: in L2), of blocks computed one at a time and two at
  once (`Execution(chunk=2)`). `make soak` fails above
  {limits}; with a star above {difference:.0e};
  for image models above ten times that.
- *float32*: the larger error of value and gradient of the same module in float32, against float64.
- *One at a time*: the module does not run under `torch.func.vmap`, or does not follow the parameters that it is given,
  so a larger chunk changes nothing. A warning says so.
- Dropout and stochastic depth are off, or in `eval()`, because their masks are keyed by block. Images are 32 x 32
  or 64 x 64, in blocks of 2.

{versions}.
Made by `python benchmarks/modules.py > docs/modules.md`.
"""
COLUMNS = "| module | value | gradient | penalised, exact | penalised, central | Hessian product | float32 | |"


def cell(row: Any, column: str) -> str:
    """One number of a row, or what is said in its place."""
    if column in row.refusals or "value" in row.refusals:
        return "refused"
    star = "*" if column in ("exact", "product") and not row.case.doubly else ""
    return f"{row.errors[column]:.0e}{star}"


def line(row: Any, columns: tuple[str, ...]) -> str:
    """A row of the table."""
    cells = [row.case.name, *(cell(row, column) for column in columns)]
    refusals = list(row.refusals.values())
    words = refusals[0].replace("|", "\\|").replace("\n", " ") if refusals else "one at a time" if row.alone else ""
    return "| " + " | ".join([*cells, "" if row.float32 is None else f"{row.float32:.0e}", words]) + " |"


def section(kind: str, tally: Counter[str]) -> str:
    """The table of one kind of modules; counts them as right, partly, refused or wrong.

    Args:
        kind: a key of `module_cases.KINDS`.
        tally: is increased.

    Returns:
        The heading and the table.
    """
    cases, compare = (importlib.import_module(f"module_cases{name}") for name in ("", ".compare"))
    lines = [f"\n## {kind}\n", COLUMNS, "| --- |" + " ---: |" * 6 + " --- |"]
    for case in cases.KINDS[kind]:
        row = compare.compare(case)
        problems = row.problems()
        print(case.name, *problems, sep=": ", file=sys.stderr, flush=True)
        outcome = "refused" if "value" in row.refusals else "partly" if row.refusals else "right"
        tally["wrong" if problems else outcome] += 1
        lines.append(line(row, compare.COLUMNS))
    return "\n".join(lines)


def page(sections: dict[str, str], tally: Counter[str]) -> str:
    """The whole page; it names the kinds that it has no section of."""
    compare = importlib.import_module("module_cases.compare")
    limits: dict[str, list[str]] = {f"{limit:.0e}": [] for limit in compare.TOLERANCES.values()}
    for column, limit in compare.TOLERANCES.items():
        limits[f"{limit:.0e}"].append(column)
    header = HEADER.format(
        count=tally.total(),
        **{outcome: tally[outcome] for outcome in ("right", "partly", "refused")},
        limits=", ".join(f"{limit} ({', '.join(columns)})" for limit, columns in limits.items()),
        difference=compare.DIFFERENCE,
        versions=f"Python {platform.python_version()}, torch {torch.__version__}, torchvision"
        f" {torchvision.__version__}, timm {timm.__version__}",
    )
    missing = [kind for kind in importlib.import_module("module_cases").KINDS if kind not in sections]
    left_out = f"\nNot in this table, but in `make soak`: {', '.join(missing)}.\n" if missing else ""
    return header + left_out + "\n".join(sections.values())


def main() -> None:
    """Compares the modules of all kinds, or of those in the arguments, and prints the page.

    Raises:
        SystemExit: if a module is wrong, in which case nothing is printed.
    """
    torch.set_num_threads(1)
    kinds = sys.argv[1:] or list(importlib.import_module("module_cases").KINDS)
    tally: Counter[str] = Counter()
    sections = {kind: section(kind, tally) for kind in kinds}
    if tally["wrong"]:
        raise SystemExit(f"{tally['wrong']} modules are not as expected")
    print(page(sections, tally))


sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
if __name__ == "__main__":
    main()

"""The table of docs/modules.md: value, gradient, penalised gradient and Hessian product of many modules.

Run it from the root of the repository: .venv/bin/python benchmarks/modules.py [kind ...] > docs/modules.md
It compares the modules of these kinds ("Activations", "Losses", ...; all without one), puts their rows into
benchmarks/results/modules.csv in place of the kinds' earlier ones, and prints the page of all rows there.
The cases and the oracle are those of tests/test_modules.py, in tests/module_cases.
"""

from __future__ import annotations

import csv
import importlib
import platform
import sys
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision

TABLE = Path(__file__).parent / "results" / "modules.csv"
COLUMNS = ("value", "gradient", "exact", "central", "product", "float32")
FIELDS = ("kind", "module", *COLUMNS, "by differences", "alone", "refused", "because")
PAGE = """# Modules that were compared

Look up whether a layer, loss or model like yours was compared with plain PyTorch, and what is refused. {count} modules
were compared: {right} are right, {partly} have no second derivative in torch, and {refused} are refused, each with the
sentence that is shown.

```python
risk = EmpiricalRisk(module.double(), loss, data, block=3)
risk.evaluate().loss, risk.evaluate().gradient
GradientPenalty(risk, 0.5, lr=4.0, method="exact").evaluate().gradient  # and method="central"
risk.hvp(V)
```

The other side is a loop over the same blocks: `loss(module(*inputs), target)` and `torch.autograd.grad` in float64,
with `create_graph=True` for second derivatives. Where torch's second derivative is wrong or missing (a star), the other
side is a difference of gradients of fourth order instead.

{versions}.
Made by `python benchmarks/modules.py > docs/modules.md`; the numbers of each module are in
`benchmarks/results/modules.csv`. `make soak` compares them all again.

## Largest errors

| kind | modules | value | gradient | penalised, exact | penalised, central | Hessian product | float32 |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
{largest}

- Each number is the largest relative error (gradients and products: in L2) of the kind's modules, of blocks computed
  one at a time and two at once (`Execution(chunk=2)`); with a star, of those compared with differences. `make soak`
  fails above {limits}; with a star above {difference:.0e}; for image models above ten times that.
- *float32*: the larger error of value and gradient of the same module in float32, against float64. It fails above 1e-4,
  for image models 1e-1, or {times:.0f} times the error of plain PyTorch in float32 where that is larger: batch norm
  over two small images multiplies rounding.
- Dropout and stochastic depth are off, or in `eval()`, because their masks are keyed by block. Images are 32 x 32
  or 64 x 64, in blocks of 2.

## Right

A star: compared with differences. A small circle: the module does not run under `torch.func.vmap`, or does not follow
the parameters that it is given, so that its blocks are computed one at a time, and a larger chunk changes nothing.

{names}

## Refused

| module | what | sentence |
| --- | --- | --- |
{refusals}
"""


def rows_of(kind: str) -> list[dict[str, str]]:
    """Compares the modules of a kind.

    Args:
        kind: a key of `module_cases.KINDS`.

    Returns:
        A row of the table a module.

    Raises:
        SystemExit: if one of them is not as expected.
    """
    cases, compare = (importlib.import_module(f"module_cases{name}") for name in ("", ".compare"))
    rows = []
    for case in cases.KINDS[kind]:
        row = compare.compare(case)
        problems = row.problems()
        print(case.name, *problems, sep=": ", file=sys.stderr, flush=True)
        if problems:
            raise SystemExit(f"{case.name} is not as expected")
        rows.append(written(kind, row))
    return rows


def written(kind: str, row: Any) -> dict[str, str]:
    """A row of the comparison as it stands in the table."""
    errors = {**row.errors, "float32": row.float32}
    return {
        "kind": kind,
        "module": row.case.name,
        **{name: "" if errors.get(name) is None else f"{errors[name]:.1e}" for name in COLUMNS},
        "by differences": "" if row.case.doubly else "yes",
        "alone": "yes" if row.alone else "",
        "refused": "all" if "value" in row.refusals else " and ".join(row.refusals),
        "because": next(iter(row.refusals.values()), "").replace("\n", " "),
    }


def largest(kind: str, rows: list[dict[str, str]]) -> str:
    """The row of the page's first table: the largest error of each column, starred where by differences."""
    cells = []
    for column in COLUMNS:
        errors: dict[str, list[float]] = {"": [], "*": []}
        for row in (row for row in rows if row[column]):
            starred = row["by differences"] and column in ("exact", "product")
            errors["*" if starred else ""].append(float(row[column]))
        cells.append(", ".join(f"{max(found):.0e}{star}" for star, found in errors.items() if found))
    return "| " + " | ".join([kind, str(len(rows)), *cells]) + " |"


def named(kind: str, rows: list[dict[str, str]]) -> str:
    """The names of the modules of a kind that are right, with their signs."""
    names = [
        f"`{row['module']}`" + "*" * bool(row["by differences"]) + "°" * bool(row["alone"])
        for row in rows
        if not row["refused"]
    ]
    return f"**{kind}** ({len(names)}): {'; '.join(names)}.\n"


def page(rows: list[dict[str, str]]) -> str:
    """The whole page."""
    compare = importlib.import_module("module_cases.compare")
    limits: dict[str, list[str]] = {}
    for column, limit in compare.TOLERANCES.items():
        limits.setdefault(f"{limit:.0e}", []).append(column)
    kinds = {kind: [row for row in rows if row["kind"] == kind] for kind in dict.fromkeys(row["kind"] for row in rows)}
    refused = [row for row in rows if row["refused"]]
    words = {row["module"]: row["because"].replace("|", "\\|") for row in refused}
    return PAGE.format(
        count=len(rows),
        right=len(rows) - len(refused),
        partly=sum(row["refused"] != "all" for row in refused),
        refused=sum(row["refused"] == "all" for row in refused),
        versions=f"Python {platform.python_version()}, torch {torch.__version__}, torchvision"
        f" {torchvision.__version__}, timm {timm.__version__}",
        largest="\n".join(largest(kind, of_kind) for kind, of_kind in kinds.items()),
        limits=", ".join(f"{limit} ({', '.join(columns)})" for limit, columns in limits.items()),
        difference=compare.DIFFERENCE,
        times=compare.TIMES_PLAIN,
        names="\n".join(named(kind, of_kind) for kind, of_kind in kinds.items()).rstrip(),
        refusals="\n".join(f"| `{row['module']}` | {row['refused']} | {words[row['module']]} |" for row in refused),
    ).rstrip()


def main() -> None:
    """Compares the modules of all kinds, or of those in the arguments, and prints the page."""
    torch.set_num_threads(1)
    known = list(importlib.import_module("module_cases").KINDS)
    kinds = sys.argv[1:] or known
    rows = []
    if TABLE.exists():
        with TABLE.open(newline="") as stream:
            rows = [row for row in csv.DictReader(stream) if row["kind"] not in kinds]
    rows += [row for kind in kinds for row in rows_of(kind)]
    rows.sort(key=lambda row: known.index(row["kind"]))
    with TABLE.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(page(rows))


sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
if __name__ == "__main__":
    main()

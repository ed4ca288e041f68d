"""The mutants of a source: a seeded sample over the places in the code that cosmic-ray's operators can change."""

from __future__ import annotations

import ast
import hashlib
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.provider import OperatorProvider

ARITHMETIC = ("Add", "Sub", "Mul", "Div", "FloorDiv", "Mod", "Pow")
LEFT_OUT = ("VariableReplacer", "VariableInserter", "ExceptionReplacer")
"""these need arguments, or a name that the source does not import"""

Position = tuple[int, int]  # line from 1, column from 0


@dataclass(frozen=True)
class Mutant:
    """A source file with one change."""

    file: str
    """path below src/noiseless"""
    line: int
    operator: str
    """name of cosmic-ray's operator"""
    before: str
    """the line, without its indentation"""
    after: str
    code: str
    """text of the file with the change"""


def sample(sources: dict[str, str], count: int, seed: int) -> tuple[list[Mutant], dict[str, int]]:
    """Draws places in the code, and one mutation at each.

    Places are put in the order of a hash of the seed, the file, and the text around them, so that a change of one file
    leaves the sample in the others as it is, and a larger sample begins with a smaller one.

    Args:
        sources: text of each file.
        count: number of mutants.
        seed: of the sample.

    Returns:
        The mutants, and the number of places in each file.
    """
    drawn: list[tuple[str, str, list[tuple[str, int]], Position]] = []
    places: dict[str, int] = {}
    for file, text in sources.items():
        lines, seen = text.splitlines(), dict[str, int]()
        sites = _sites(text)
        places[file] = len(sites)
        for (start, _, kind), changes in sorted(sites.items()):
            around = f"{seed}\0{file}\0{lines[start[0] - 1]}\0{start[1]}\0{kind}"
            seen[around] = again = seen.get(around, -1) + 1  # the same line may be there twice
            drawn.append((hashlib.sha256(f"{around}\0{again}".encode()).hexdigest(), file, changes, start))
    mutants: list[Mutant] = []
    for key, file, changes, start in sorted(drawn):
        if len(mutants) == count:
            break
        for turn in range(len(changes)):  # from a drawn one on, the first that compiles
            operator, occurrence = changes[(int(key[:8], 16) + turn) % len(changes)]
            mutant = _mutant(file, sources[file], operator, occurrence, start[0])
            if mutant is not None:
                mutants.append(mutant)
                break
    return mutants, places


def _sites(text: str) -> dict[tuple[Position, Position, str], list[tuple[str, int]]]:
    """The mutations of a text, each an operator and an occurrence, by place and kind."""
    left_out = list(_left_out(ast.parse(text)))
    tree, provider = get_ast(text), OperatorProvider()
    sites: dict[tuple[Position, Position, str], list[tuple[str, int]]] = {}
    for name in provider:
        if name in LEFT_OUT or not _sensible(name):
            continue
        operator, occurrence = provider[name](), -1
        for node in ast_nodes(tree):
            for start, end in operator.mutation_positions(node):
                occurrence += 1
                inside = any(low <= start and end <= high for low, high in left_out)
                if not inside and getattr(node.parent, "type", "") not in ("parameters", "param"):
                    sites.setdefault((start, end, name.split("_")[0]), []).append((name, occurrence))
    return sites


def _sensible(name: str) -> bool:
    binary = re.fullmatch(r"ReplaceBinaryOperator_(\w+)_(\w+)", name)
    if binary:
        return (binary[1] in ARITHMETIC) == (binary[2] in ARITHMETIC)
    comparison = re.fullmatch(r"ReplaceComparisonOperator_(\w+)_(\w+)", name)
    return not comparison or comparison[1].startswith("Is") == comparison[2].startswith("Is")


def _left_out(tree: ast.Module) -> Iterator[tuple[Position, Position]]:
    """Where nothing is computed: annotations, imports for type checkers, and `__all__`."""
    for node in ast.walk(tree):
        parts: list[ast.AST | None] = []
        if isinstance(node, ast.AnnAssign | ast.arg):
            parts.append(node.annotation)
        elif isinstance(node, ast.FunctionDef):
            parts.append(node.returns)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            parts.append(node)
        for part in parts:
            if isinstance(part, ast.expr | ast.stmt):
                yield (part.lineno, part.col_offset), (part.end_lineno or 0, part.end_col_offset or 0)


def _mutant(file: str, text: str, operator: str, occurrence: int, line: int) -> Mutant | None:
    """The mutant, or none if it does not compile or is the source."""
    code = mutate_code(text, OperatorProvider()[operator](), occurrence)
    if code is None:
        return None
    try:
        with warnings.catch_warnings(action="ignore"):
            if ast.dump(compile(code, file, "exec", ast.PyCF_ONLY_AST)) == ast.dump(ast.parse(text)):
                return None
            compile(code, file, "exec")
    except (SyntaxError, ValueError):
        return None
    old, new = text.splitlines(), code.splitlines()
    after = new[line - 1] if len(new) == len(old) else "(removed)"
    return Mutant(file, line, operator, old[line - 1].strip(), after.strip(), code)

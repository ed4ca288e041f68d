"""Writes tables of benchmarks into pages of the documentation, between marks."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def put(page: Path, name: str, text: str) -> None:
    """Replaces the text between `<!-- name -->` and `<!-- /name -->` in a page; raises if it has no such marks."""
    marks = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
    replaced, count = re.subn(marks, lambda match: f"{match[1]}{text}\n{match[2]}", page.read_text(), flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"{page} has no place for {name}: <!-- {name} --> ... <!-- /{name} -->")
    page.write_text(replaced)

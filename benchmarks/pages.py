"""Tables of the documentation that a benchmark makes: each stands between marks in its page."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def put(page: Path, name: str, text: str) -> None:
    """Puts a text between `<!-- name -->` and `<!-- /name -->`; raises where the page has no such place."""
    marks = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
    made, count = re.subn(marks, lambda found: f"{found[1]}{text}\n{found[2]}", page.read_text(), flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"{page} has no place for {name}: <!-- {name} --> ... <!-- /{name} -->")
    page.write_text(made)

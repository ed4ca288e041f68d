"""The values of an answer that docs/questions.md needs, from its file: numbers and thinned series, no vectors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def values(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())["found"]

"""Where downloaded and packed data sets are kept."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "NOISELESS_DATA"
"""environment variable with the directory"""


def home(given: str | Path | None = None) -> Path:
    """The directory of data sets: the given one, else that of `NOISELESS_DATA`, else `~/.cache/noiseless/data`."""
    return Path(given or os.environ.get(VARIABLE) or "~/.cache/noiseless/data").expanduser().absolute()

"""The directory of downloaded and packed data sets."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "NOISELESS_DATA"
"""environment variable with the directory"""


def home(directory: str | Path | None = None) -> Path:
    """The directory of data sets: `directory`, else the variable `NOISELESS_DATA`, else `~/.cache/noiseless/data`."""
    return Path(directory or os.environ.get(VARIABLE) or "~/.cache/noiseless/data").expanduser().absolute()

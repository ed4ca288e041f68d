"""The directory of downloaded and packed data sets."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "NOISELESS_DATA"
"""environment variable with the directory"""

NOWHERE = Path("/dev/null/noiseless/data")
"""stands for the default directory where a user has no home: nothing is there, and nothing can be made"""


def home(directory: str | Path | None = None) -> Path:
    """The directory of data sets: `directory`, else the variable `NOISELESS_DATA`, else `~/.cache/noiseless/data`."""
    named = directory or os.environ.get(VARIABLE)
    try:
        return Path(named or "~/.cache/noiseless/data").expanduser().absolute()
    except RuntimeError:  # neither HOME nor an entry in the list of users
        if named:
            raise ValueError(f"the home directory in {named} is not known: give a path without ~") from None
        return NOWHERE

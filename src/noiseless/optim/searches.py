"""Line searches by name, as recipes write them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from noiseless.errors import UnknownNameError
from noiseless.optim.backtracking import ArmijoSearch, NonMonotoneSearch, RestartingSearch
from noiseless.optim.linesearch import LineSearch
from noiseless.optim.strongwolfe import StrongWolfeSearch

LINE_SEARCHES: dict[str, Callable[..., LineSearch]] = {
    "armijo": ArmijoSearch,
    "wolfe": StrongWolfeSearch,
    "non-monotone": NonMonotoneSearch,
    "restarting": RestartingSearch,
}
"""name -> class: the registry of line searches"""


def line_search_options(name: str) -> list[str]:
    """The options of a line search.

    Args:
        name: a key of `LINE_SEARCHES`.

    Returns:
        The names of its options, in the order of its signature.

    Raises:
        UnknownNameError: for an unknown search, with the nearest names.
    """
    if name not in LINE_SEARCHES:
        raise UnknownNameError("line search", name, LINE_SEARCHES)
    return list(inspect.signature(LINE_SEARCHES[name]).parameters)


def make_line_search(name: str, **options: Any) -> LineSearch:
    """Makes a line search by its name.

    Args:
        name: "armijo", "wolfe", "non-monotone", "restarting", or another key of `LINE_SEARCHES`.
        options: its settings; the others have their defaults.

    Returns:
        The search.

    Raises:
        UnknownNameError: for an unknown search or option, with the nearest names.
    """
    known = line_search_options(name)
    for option in options:
        if option not in known:
            raise UnknownNameError(f"option of the line search {name}", option, known)
    return LINE_SEARCHES[name](**options)


def line_search_name(search: LineSearch) -> str:
    """The name of a search in the registry; if it is not registered, the name of its class."""
    names = (name for name, kind in LINE_SEARCHES.items() if kind is type(search))
    return next(names, type(search).__name__)

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
        name: in `LINE_SEARCHES`.

    Returns:
        Their names, in its order.

    Raises:
        UnknownNameError: with the nearest names.
    """
    if name not in LINE_SEARCHES:
        raise UnknownNameError("line search", name, LINE_SEARCHES)
    return list(inspect.signature(LINE_SEARCHES[name]).parameters)


def make_line_search(name: str, **options: Any) -> LineSearch:
    """A line search by its name.

    Args:
        name: "armijo", "wolfe", "non-monotone", "restarting", or what else `LINE_SEARCHES` has.
        options: its numbers; those that are not given have their defaults.

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
    """The name of a search in the registry, or that of its class."""
    names = (name for name, kind in LINE_SEARCHES.items() if kind is type(search))
    return next(names, type(search).__name__)

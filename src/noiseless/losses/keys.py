"""What identifies a loss, for what is remembered about it."""

from __future__ import annotations

from collections.abc import Hashable
from types import MethodType
from weakref import WeakMethod, ref


class Identity:
    """A key that is equal only for the same object, also for objects that have no hash, such as dataclasses."""

    def __init__(self, thing: object):
        self.thing = thing

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Identity) and self.thing is other.thing

    def __hash__(self) -> int:
        return id(self.thing)


def key_of(loss: object) -> Hashable:
    """A loss as a key: by a weak reference where there can be one, because a loss may hold its module."""
    try:
        key = WeakMethod(loss) if isinstance(loss, MethodType) else ref(loss)
        hash(key)
    except TypeError:
        return Identity(loss)
    return key

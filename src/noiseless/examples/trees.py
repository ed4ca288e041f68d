"""Inputs and targets that are more than one tensor: trees, that is tensors in dicts, tuples and lists, at any depth.

torch calls them pytrees. What reads examples (steps 2 and 3 of a training step) treats a tensor as the smallest tree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils._pytree import keystr, tree_leaves, tree_leaves_with_path, tree_map

Tree = Any
"""a tensor, or a dict, tuple or list of trees"""
Inputs = tuple[Tree, ...] | dict[str, Tree]
"""a module's positional arguments, or its keyword arguments"""
TARGETS = ("labels", "label", "target", "targets")
"""names under which the target stands in a batch with names"""


def first_tensor(tree: Tree) -> Tensor:
    """The first tensor of a tree, which must have one."""
    while type(tree) is tuple and tree:  # faster than torch's `tree_leaves`
        tree = tree[0]
    return tree if isinstance(tree, Tensor) else tree_leaves(tree)[0]


def mapped(function: Callable[[Tensor], Tensor], tree: Tree) -> Tree:
    """A tree of the same form, with the function's results in place of its tensors."""
    if isinstance(tree, Tensor):
        return function(tree)
    if type(tree) is tuple:  # faster than torch's `tree_map`
        return tuple(mapped(function, part) for part in tree)
    return tree_map(function, tree)


def called(function: Callable[..., Any], inputs: Inputs) -> Any:
    """What a function, or a module, returns for its positional or keyword arguments."""
    return function(**inputs) if isinstance(inputs, dict) else function(*inputs)


def parted(batch: Mapping[str, Tree] | Sequence[Tree]) -> tuple[Inputs, Tree]:
    """Divides a batch into the module's inputs and the target.

    Args:
        batch: `(input, ..., target)`, or trees by name, of which one is the target: see `TARGETS`.

    Returns:
        Inputs, positional or by name, and the target.

    Raises:
        ValueError: if there is no input, or not exactly one target.
    """
    if isinstance(batch, Mapping):
        named = [name for name in TARGETS if name in batch]
        if len(named) != 1 or len(batch) == 1:
            raise ValueError(
                f"a batch with names must hold the module's inputs and one target, called {' or '.join(TARGETS)}, but"
                f" holds {', '.join(map(str, batch)) or 'nothing'}"
            )
        return {name: tree for name, tree in batch.items() if name != named[0]}, batch[named[0]]
    if not isinstance(batch, (tuple, list)) or len(batch) < 2:
        got = f"{len(batch)}" if isinstance(batch, (tuple, list)) else type(batch).__name__
        raise ValueError(f"data must be the model's inputs and a target, a tuple of at least 2 tensors, not {got}")
    *inputs, target = batch
    return tuple(inputs), target


def named_tensors(batch: Mapping[str, Tree] | Sequence[Tree]) -> list[tuple[str, Tensor]]:
    """The tensors of a batch, with their places in it, such as `1`, `0['a']` or `'pixels'`.

    Args:
        batch: trees, by position or name.

    Returns:
        (place, tensor), in their order.

    Raises:
        ValueError: if something in it is no tensor.
    """
    items = batch.items() if isinstance(batch, Mapping) else enumerate(batch)
    found = [(f"{key!r}{keystr(path)}", leaf) for key, tree in items for path, leaf in tree_leaves_with_path(tree)]
    for place, leaf in found:
        if not isinstance(leaf, Tensor):
            raise ValueError(
                f"{place} of the data is of type {type(leaf).__name__}, but inputs and target must be tensors, or"
                " dicts, tuples and lists of tensors: convert it or leave it out"
            )
    return found

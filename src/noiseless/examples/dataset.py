"""Data sets of single examples: torch's map-style data sets, lists, Hugging Face's `datasets`. They are read by block.

Step 2 of a training step: a block's examples are taken by their numbers and put together by a collate function.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, default_collate, default_convert

from noiseless.examples.blocks import Examples, TensorExamples, first_not_finite
from noiseless.examples.trees import Tree, mapped, named_tensors, parted

Collate = Callable[[list[Any]], Any]
"""a list of examples -> the batch of these: trees of tensors `(input, ..., target)`, or by name"""
CHECKED = 8
"""number of examples that are taken twice, to see whether they are fixed"""


class DatasetExamples:
    """A data set of single examples as `Examples`: each block is loaded when it is taken, and collated by itself.

    Each sweep loads all examples again. If they fit in memory and have one shape, load them once, which is faster:
    `EmpiricalRisk(module, loss, default_collate([dataset[i] for i in range(len(dataset))]))`.

    Args:
        dataset: has `__len__` and `__getitem__`: a `torch.utils.data.Dataset`, a list of `(input, ..., target)` or of
            dicts, a `datasets.Dataset` of Hugging Face (in the format "torch"). Or a `DataLoader`: its data set and its
            `collate_fn` are used, not its batch size, order, sampler and workers.
        collate: puts a list of examples together; None: the `DataLoader`'s `collate_fn`, or torch's `default_collate`.
            A batch with names is given to the module as keyword arguments, see `Examples.take`.
        workers: processes that load the blocks of a sweep ahead, up to two blocks each; they change no result. In a job
            of several workers each loads its own blocks by itself.

    Raises:
        ValueError: for a data set without numbers, such as an `IterableDataset`, an empty one, one whose examples
            differ when they are taken twice, or hold something other than tensors.
    """

    def __init__(self, dataset: Any, collate: Collate | None = None, workers: int = 0):
        if isinstance(dataset, DataLoader):
            dataset, collate = dataset.dataset, collate or _collate_of(dataset)
        _refuse_stream(dataset)
        if not len(dataset):
            raise ValueError("the data set is empty")
        if isinstance(workers, bool) or not isinstance(workers, int) or workers < 0:
            raise ValueError(f"workers must be a number of processes, 0 for none, not {workers!r}")
        self.dataset, self.collate, self.workers = dataset, collate or default_collate, workers
        self._blocks = _Blocks(dataset, self.collate)
        self._plan: list[list[int]] = []
        self._loader: DataLoader[Any] | None = None
        self._ahead: Iterator[tuple[list[int], Any]] | None = None
        if self.collate is default_collate:
            _refuse_lists(self._blocks.items([0])[0])
        for number in range(0, len(self), -(-len(self) // CHECKED)):
            self._check_fixed(number)

    def __len__(self) -> int:
        return len(self.dataset)

    def take(self, index: Tensor) -> Sequence[Tree] | Mapping[str, Tree]:
        """The examples with these numbers, those of the last axis collated together.

        Args:
            index: example numbers, int64 `[..., n]`.

        Returns:
            What `collate` returns for n examples, with the other axes of the index before those of its tensors.

        Raises:
            ValueError: for examples that cannot be collated, or are not finite, and for several blocks whose tensors
                differ in shape.
        """
        rows = index.reshape(-1, index.shape[-1]).tolist()
        blocks = [self._checked(self._loaded(numbers), numbers) for numbers in rows]
        return blocks[0] if index.ndim == 1 else _stacked(blocks, index.shape[:-1])

    def expect(self, index: Sequence[Tensor]) -> None:
        """Lets the workers load blocks ahead.

        Args:
            index: of the calls of `take` that come next, in their order, int64 `[K, n]` each.
        """
        if not self.workers or not index:
            return
        self._plan[:] = [numbers for part in index for numbers in part.tolist()]
        if self._loader is None:
            self._loader = DataLoader(
                self._blocks, batch_size=None, sampler=self._plan, collate_fn=_unchanged, num_workers=self.workers,
                persistent_workers=True, generator=torch.Generator(),
            )  # fmt: skip
        self._ahead = zip(list(self._plan), self._loader, strict=False)

    def _loaded(self, numbers: list[int]) -> Any:
        """The collated examples with these numbers, from the workers if they have loaded them."""
        ahead, self._ahead = self._ahead, None
        try:
            planned, batch = next(ahead, (None, None)) if ahead else (None, None)
        except RuntimeError as error:  # a worker was killed
            warnings.warn(f"the workers that load the data failed, so they are not used: {error}", stacklevel=2)
            self.workers, self._loader, planned = 0, None, None
        if planned != numbers or batch is None:
            return self._blocks.collated(numbers)
        self._ahead = ahead
        return batch

    def _checked(self, batch: Any, numbers: list[int]) -> Sequence[Tree] | Mapping[str, Tree]:
        """The batch, if it is one."""
        if isinstance(batch, Mapping):
            batch = dict(batch)
        elif not isinstance(batch, (tuple, list)):
            raise ValueError(
                f"{_block(numbers)} of the data set, collated, are of type {type(batch).__name__}, but must be"
                " (input, ..., target), or a dict with the module's arguments and the target"
            )
        parted(batch)
        for place, tensor in named_tensors(batch):
            if (row := first_not_finite(tensor)) is not None:
                where = f"example {numbers[row]}" if len(tensor) == len(numbers) else _block(numbers)
                raise ValueError(f"tensor {place} of the data holds NaN or infinity, in {where}")
        return batch

    def _check_fixed(self, number: int) -> None:
        first, second = (named_tensors(self._checked(self._blocks.collated([number]), [number])) for _ in range(2))
        same = len(first) == len(second) and all(
            place == other and torch.equal(a, b) for (place, a), (other, b) in zip(first, second, strict=True)
        )
        if not same:
            raise ValueError(
                f"example {number} of the data set is another one when it is taken again, but a sum over the full data"
                " set needs fixed examples: leave random augmentation and masking out, or draw it from a"
                " torch.Generator that is seeded with the example's number"
            )


class _Blocks(Dataset[Any]):
    """A data set whose items are blocks, and their numbers lists of example numbers."""

    def __init__(self, dataset: Any, collate: Collate):
        self.dataset, self.collate = dataset, collate

    def __getitem__(self, numbers: list[int]) -> Any:
        """A block; None if it cannot be loaded: a process that needs it loads it once more, and raises the error."""
        try:
            return self.collated(numbers)
        except Exception:
            return None

    def items(self, numbers: list[int]) -> list[Any]:
        """The examples, each by itself."""
        together = getattr(self.dataset, "__getitems__", None)  # as a DataLoader does
        return together(numbers) if together else [self.dataset[number] for number in numbers]

    def collated(self, numbers: list[int]) -> Any:
        """The examples together.

        Returns:
            The batch, as the collate function returns it.

        Raises:
            ValueError: if `default_collate` does not take them.
        """
        items = self.items(numbers)
        if self.collate is not default_collate:
            return self.collate(items)
        try:
            return default_collate(items)
        except (RuntimeError, TypeError, KeyError, ValueError) as error:
            raise ValueError(
                f"torch's default_collate cannot put {_block(numbers)} of the data set together"
                f" ({str(error).splitlines()[0]}): give DatasetExamples(data, collate=...), for example to pad them"
            ) from error


def _unchanged(batch: Any) -> Any:
    return batch


def examples_of(data: Any) -> Examples:
    """Any data as examples.

    Args:
        data: an `Examples`; tensors, as `TensorExamples` takes them; or a data set, as `DatasetExamples` takes it. A
            tuple holds inputs and target of all examples; a list is a data set, unless it is a list of tensors.

    Returns:
        The examples.

    Raises:
        ValueError: for data that are none of these, and what the two classes raise.
    """
    tensors = data
    if isinstance(data, DataLoader) and data.collate_fn is default_collate:
        tensors = data.dataset
    if type(tensors) is TensorDataset:  # as fast as the tensors themselves
        return TensorExamples(tensors.tensors)
    if _is_dataset(data):
        return DatasetExamples(data)
    return data if _is_examples(data) else TensorExamples(data)


def _is_examples(data: Any) -> bool:
    """Whether data are `Examples`: arrays, and data sets of other libraries, have a method `take` of another kind."""
    if Examples in type(data).__mro__:
        return True
    return isinstance(data, Examples) and not hasattr(data, "__array__") and not hasattr(data, "__getitem__")


def _is_dataset(data: Any) -> bool:
    if isinstance(data, (DataLoader, Dataset)):
        return True
    if isinstance(data, (Tensor, tuple, Mapping, str, bytes)) or hasattr(data, "__array__") or _is_examples(data):
        return False
    if isinstance(data, list):
        return not all(isinstance(part, Tensor) for part in data)
    return hasattr(data, "__getitem__") or isinstance(data, Iterable)


def _collate_of(loader: DataLoader[Any]) -> Collate | None:
    """The collate function of a DataLoader."""
    if loader.batch_sampler is None and not isinstance(loader.dataset, IterableDataset):
        if loader.collate_fn is not default_convert:
            raise ValueError(
                "a DataLoader with batch_size=None collates single examples: give DatasetExamples(data, collate=...)"
            )
        return None
    return loader.collate_fn


def _refuse_stream(dataset: Any) -> None:
    lacks = [name for name in ("__len__", "__getitem__") if not hasattr(dataset, name)]
    if isinstance(dataset, IterableDataset) or lacks:
        why = "is an IterableDataset" if isinstance(dataset, IterableDataset) else f"has no {' and no '.join(lacks)}"
        raise ValueError(
            f"the data set ({type(dataset).__name__}) {why}, but a sum over the full data set needs the same examples,"
            " by their numbers, at each sweep: give a data set with __len__ and __getitem__, for example a list of the"
            " stream's examples"
        )


def _refuse_lists(item: Any) -> None:
    """Refuses named lists, such as token numbers, which `default_collate` would take apart, number by number."""
    if not isinstance(item, Mapping):
        return
    lists = [str(name) for name, value in item.items() if isinstance(value, list)]
    if lists:
        raise ValueError(
            f"{', '.join(lists)} of the data set's examples are lists, not tensors: give tensors (for Hugging Face's"
            ' data sets, dataset.with_format("torch")), or DatasetExamples(data, collate=...) to make tensors of them'
        )


def _stacked(blocks: list[Any], shape: torch.Size) -> Sequence[Tree] | Mapping[str, Tree]:
    """Blocks as one batch, whose tensors have the axes `shape` before their own."""
    if len(blocks) == 1:
        return mapped(lambda t: t.reshape(*shape, *t.shape), blocks[0])
    shapes = [{place: list(t.shape) for place, t in named_tensors(block)} for block in blocks]
    other = next((block for block in shapes if block != shapes[0]), None)
    if other is not None:
        place = next(place for place in {**shapes[0], **other} if shapes[0].get(place) != other.get(place))
        raise ValueError(
            f"blocks of the data set differ in shape when they are collated (tensor {place}: {shapes[0].get(place)} and"
            f" {other.get(place)}), so they cannot be computed together: set the execution's chunk to 1, or let collate"
            " pad all examples to one shape"
        )
    return tree_map(lambda *parts: torch.stack(parts).reshape(*shape, *parts[0].shape), *blocks)


def _block(numbers: list[int]) -> str:
    """Example numbers, for error messages."""
    return f"examples {', '.join(map(str, numbers[:4]))}{', ...' if len(numbers) > 4 else ''}"

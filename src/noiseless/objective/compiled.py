"""Compiled code for the forward and backward of a chunk, where a sweep spends its time.

For each shape of its arguments, a function is traced once into one graph of tensor operations, forward and backward
together. torch's inductor compiles the graph and fuses the operations between convolutions. The code is a pure function
of graph, shapes, thread count and processor, so each worker and each restart gets the same bits. They are not those of
uncompiled code, which rounds in other places.
"""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from noiseless.system import blocked

_CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"
_LARGEST_EXACT = 40
"""largest side of a window, in pixels, for which nearest upsampling is exact; it computes positions in float32"""

Function = Callable[..., tuple[Tensor, ...]]


class Compiler:
    """Compiles functions at their first call and keeps the code.

    Args:
        on_message: called with a line of text when something cannot be compiled and is computed uncompiled.

    Attributes:
        on_message: as above; it may be replaced at any time.
    """

    def __init__(self, on_message: Callable[[str], None] = lambda text: None):
        self.on_message = on_message
        self._cache: dict[Hashable, Function | None] = {}

    def call(
        self, key: Hashable, function: Function, *arguments: Tensor, keep_layout: bool = False
    ) -> tuple[Tensor, ...] | None:
        """Calls the compiled form of a function.

        Args:
            key: what the function depends on besides its arguments.
            function: takes tensors only, has no side effects, and returns a tuple of tensors.
            arguments: contiguous tensors.
            keep_layout: whether convolutions keep the memory format of their input; else they become channels-last.

        Returns:
            What the function returns, up to rounding; None if it cannot be compiled, for example because it draws
            random numbers, which would not be keyed.

        Raises:
            ValueError: if there is no working C++ compiler; uncompiled code would change the bits of a run that has
                begun.
        """
        cache_key = (key, torch.get_num_threads(), *((a.shape, a.dtype, a.device) for a in arguments))
        if cache_key not in self._cache:
            self._cache[cache_key] = self._compiled(function, arguments, keep_layout)
        code = self._cache[cache_key]
        with torch.no_grad():
            return None if code is None else tuple(code(*arguments))

    def _compiled(self, function: Function, arguments: tuple[Tensor, ...], keep_layout: bool) -> Function | None:
        reason = missing() if arguments[0].device.type == "cpu" else None
        if reason:
            raise _refusal(f"{reason}. Install g++")
        with _quiet(), _shielded():
            self._set_cache_directory()
            try:
                with torch._inductor.config.patch(layout_optimization=not keep_layout):
                    return self._traced(function, arguments)
            except Exception as error:  # a broken compiler or a full disk; torch wraps the cause in its own error
                raise _refusal(
                    f"compiling it fails ({_first_line(error)}). Check g++, and the directory of compiled code,"
                    f" {os.environ[_CACHE_VARIABLE]}, which may be removed"
                ) from error

    def _traced(self, function: Function, arguments: tuple[Tensor, ...]) -> Function | None:
        """The function, traced and compiled; None, after a message, if it cannot be traced or draws random numbers."""
        try:
            graph = make_fx(function, _DECOMPOSED, tracing_mode="fake")(*arguments)
        except Exception as error:  # whatever a model's own Python raises when its tensors have no values
            if "randomness" not in str(error):  # vmap itself refuses random numbers
                self.on_message(
                    f"the model cannot be traced into one graph, so it is not compiled ({_first_line(error)})"
                )
                return None
            graph = None
        if graph is None or _draws(graph):
            self.on_message(
                "the model draws random numbers (dropout), which compiled code would not key, so it is not compiled"
            )
            return None
        # a convolution's gradient may have another memory layout than when it was traced, which no view can reshape
        for node in graph.graph.nodes:
            if node.target is torch.ops.aten.view.default:
                node.target = torch.ops.aten.reshape.default
        graph.recompile()
        return torch._inductor.standalone_compile(
            graph, list(arguments), dynamic_shapes="from_example_inputs", donate_graph_module=True
        )

    def _set_cache_directory(self) -> None:
        """Sets torch's directory of compiled code: that of the environment variable, or one in the user's home."""
        from torch._inductor.runtime.cache_dir_utils import default_cache_dir

        named = os.environ.get(_CACHE_VARIABLE)
        # torch sets its default when it is loaded; that is in /tmp, where other users may have put code before
        set_by_user = named is not None and named != default_cache_dir()
        directory = Path(named) if named is not None and set_by_user else _default_directory()
        try:
            directory.mkdir(0o700, parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=directory).close()
        except OSError as error:
            self.on_message(
                f"compiled code cannot be kept in {directory} ({error.strerror}), so each process compiles its own"
            )
            directory = Path(tempfile.mkdtemp(prefix="noiseless-"))
            atexit.register(shutil.rmtree, directory, ignore_errors=True)
        os.environ[_CACHE_VARIABLE] = str(directory)


def missing() -> str | None:
    """What is missing on this machine for compiling.

    Returns:
        The start of a sentence, or None if nothing is missing.
    """
    named = os.environ.get("CXX")
    if named:
        return None if shutil.which(named) else f"CXX names {named}, which is not there"
    return None if any(shutil.which(name) for name in ("g++", "clang++", "c++")) else "no C++ compiler is found"


def _default_directory() -> Path:
    """Directory of compiled code in the user's own cache, because code, unlike runs, must not come from others."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "noiseless" / "compiled"


def _draws(graph: GraphModule) -> bool:
    return any(
        isinstance(node.target, torch._ops.OpOverload) and torch.Tag.nondeterministic_seeded in node.target.tags
        for node in graph.graph.nodes
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Context manager in which torch does not log that there is no GPU, as it does when it loads its compilers."""
    logger = logging.getLogger("torch.utils.cpp_extension")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def _shielded() -> Iterator[None]:
    """Context manager that keeps Ctrl-C, which a terminal sends to child processes as well, from g++.

    An interrupted g++ would make torch's tests of the processor find fewer features. Another thread of this process
    receives the signal, and its handler runs once g++ is done.
    """
    done = threading.Event()
    threading.Thread(target=done.wait, daemon=True).start()  # started first, so it does not block the signals
    try:
        with blocked():
            yield
    finally:
        done.set()


def _refusal(why: str) -> ValueError:
    return ValueError(
        f"this is to be computed by compiled code, but {why}; or start a new run with --compile off, whose last bits"
        " differ"
    )


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]


def _avg_pool2d(x: Tensor, kernel: list[int], stride: list[int] | None = None, *rest: Any) -> Tensor:
    """Average pooling with windows that tile the image: a mean over reshaped axes, which inductor can fuse."""
    if not _tiles(x, kernel, stride, rest):
        return NotImplemented
    n, c, h, w = x.shape
    a, b = kernel if len(kernel) == 2 else kernel * 2
    return x.reshape(n, c, h // a, a, w // b, b).mean((3, 5))


def _avg_pool2d_backward(gradient: Tensor, x: Tensor, kernel: list[int], stride: list[int], *rest: Any) -> Tensor:
    if not _tiles(x, kernel, stride, rest) or max(kernel) > _LARGEST_EXACT:
        return NotImplemented
    a, b = kernel if len(kernel) == 2 else kernel * 2
    return torch.ops.aten.upsample_nearest2d.default(gradient / (a * b), list(x.shape[2:]))


def _tiles(x: Tensor, kernel: list[int], stride: list[int] | None, rest: tuple[Any, ...]) -> bool:
    """Whether pooling windows tile the image: no overlap, no pixel left out, no padding, no other divisor."""
    padding = rest[0] if rest else [0]
    sizes = kernel if len(kernel) == 2 else kernel * 2
    plain = not any(padding) and (len(rest) < 4 or rest[3] is None)
    steps = list(stride or kernel)
    same = (steps if len(steps) == 2 else steps * 2) == list(sizes)
    return x.ndim == 4 and plain and same and not any(n % k for n, k in zip(x.shape[2:], sizes, strict=True))


_DECOMPOSED: Mapping[Any, Callable[..., Any]] = {
    torch.ops.aten.avg_pool2d.default: _avg_pool2d,
    torch.ops.aten.avg_pool2d_backward.default: _avg_pool2d_backward,
}

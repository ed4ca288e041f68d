"""Compiled code for what costs time: a chunk's forward and backward.

A function is traced once into one graph of tensor operations, forward and backward together, for one shape of its
arguments, and made into machine code by torch's inductor, which fuses what stands between convolutions. The code is
a pure function of graph, shapes, thread count and processor: the same on each worker and after each restart, and so
are its bits. They are not those of uncompiled code, which rounds in other places.
"""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import signal
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

_PLACE = "TORCHINDUCTOR_CACHE_DIR"
_EXACT = 40
"""pixels of a window's side up to which nearest upsampling, whose places are float32 products, is exact"""

Function = Callable[..., tuple[Tensor, ...]]


class Compiler:
    """Compiles functions at their first call, and keeps them.

    Args:
        tell: gets a line where something cannot be compiled, and is computed without.

    Attributes:
        tell: see above.
    """

    def __init__(self, tell: Callable[[str], None] = lambda text: None):
        self.tell = tell
        self._kept: dict[Hashable, Function | None] = {}

    def call(self, key: Hashable, function: Function, *arguments: Tensor) -> tuple[Tensor, ...] | None:
        """Calls the compiled form of a function.

        Args:
            key: what the function depends on besides its arguments.
            function: of tensors alone, without side effects; gives a tuple of tensors.
            arguments: contiguous tensors.

        Returns:
            What the function returns, up to rounding; None where it cannot be compiled, as with random numbers, which
            would not be keyed.

        Raises:
            ValueError: without a C++ compiler that works: to compute without would change the bits of a run that has
                begun.
        """
        place = (key, torch.get_num_threads(), *((a.shape, a.dtype, a.device) for a in arguments))
        if place not in self._kept:
            self._kept[place] = self._compiled(function, arguments)
        code = self._kept[place]
        with torch.no_grad():
            return None if code is None else tuple(code(*arguments))

    def _compiled(self, function: Function, arguments: tuple[Tensor, ...]) -> Function | None:
        lacking = missing() if arguments[0].device.type == "cpu" else None
        if lacking:
            raise _refusal(f"{lacking}. Install g++")
        with _quiet(), _shielded():
            self._keep_code()
            try:
                return self._made(function, arguments)
            except Exception as error:  # a compiler that does not work, a full disk: torch wraps it in its own
                raise _refusal(
                    f"compiling it fails ({_first_line(error)}). See to g++, and to {os.environ[_PLACE]}, where"
                    " compiled code is kept and may be removed"
                ) from error

    def _made(self, function: Function, arguments: tuple[Tensor, ...]) -> Function | None:
        """Traced and compiled; None, and told, where that cannot be."""
        try:
            graph = make_fx(function, _DECOMPOSED, tracing_mode="fake")(*arguments)
        except Exception as error:  # whatever a model's own Python raises when its tensors have no values
            if "randomness" not in str(error):  # which vmap refuses by itself
                self.tell(f"the model cannot be traced into one graph, so it is not compiled ({_first_line(error)})")
                return None
            graph = None
        if graph is None or _draws(graph):
            self.tell("the model draws random numbers (dropout), which compiled code would not key: it is not compiled")
            return None
        # a convolution's gradient may come in another layout than it was traced with, of which there is no view
        for node in graph.graph.nodes:
            if node.target is torch.ops.aten.view.default:
                node.target = torch.ops.aten.reshape.default
        graph.recompile()
        return torch._inductor.standalone_compile(
            graph, list(arguments), dynamic_shapes="from_example_inputs", donate_graph_module=True
        )

    def _keep_code(self) -> None:
        """Names the directory of compiled code to torch: the one that the user has named, or one of the user's own."""
        from torch._inductor.runtime.cache_dir_utils import default_cache_dir

        named = os.environ.get(_PLACE)
        # torch's default, which it names by itself once it is loaded, is in /tmp, where others may put code before us
        given = named is not None and named != default_cache_dir()
        place = Path(named) if named is not None and given else _kept_code()
        try:
            place.mkdir(0o700, parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=place).close()
        except OSError as error:
            self.tell(f"compiled code cannot be kept in {place} ({error.strerror}): each process makes its own")
            place = Path(tempfile.mkdtemp(prefix="noiseless-"))
            atexit.register(shutil.rmtree, place, ignore_errors=True)
        os.environ[_PLACE] = str(place)


def missing() -> str | None:
    """What this machine lacks for compiling.

    Returns:
        A few words, or None where nothing is missing.
    """
    named = os.environ.get("CXX")
    if named:
        return None if shutil.which(named) else f"CXX names {named}, which is not there"
    return None if any(shutil.which(name) for name in ("g++", "clang++", "c++")) else "no C++ compiler is found"


def _kept_code() -> Path:
    """Where compiled code is kept: with the user, as code, unlike runs, is not to be taken from others."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "noiseless" / "compiled"


def _draws(graph: GraphModule) -> bool:
    return any(
        isinstance(node.target, torch._ops.OpOverload) and torch.Tag.nondeterministic_seeded in node.target.tags
        for node in graph.graph.nodes
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Within it torch does not log that there is no GPU, of which it takes note where its compilers are loaded."""
    logger = logging.getLogger("torch.utils.cpp_extension")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def _shielded() -> Iterator[None]:
    """Within it Ctrl-C, which a terminal sends to g++ as well, does not reach it.

    It would end half-way, and torch's trials of what the processor can do would find less. This process takes the
    signal, in another thread, and its handler runs once g++ is done.
    """
    done = threading.Event()
    threading.Thread(target=done.wait, daemon=True).start()  # it has the mask from before
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        done.set()


def _refusal(why: str) -> ValueError:
    return ValueError(
        f"this is to be computed by compiled code, but {why}; or start a new run with --compile off, which gives other"
        " last bits"
    )


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]


def _avg_pool2d(x: Tensor, kernel: list[int], stride: list[int] | None = None, *rest: Any) -> Tensor:
    """Pooling of windows that tile the image, as a mean over reshaped axes, which fuses with its neighbours."""
    if not _tiles(x, kernel, stride, rest):
        return NotImplemented
    n, c, h, w = x.shape
    a, b = kernel if len(kernel) == 2 else kernel * 2
    return x.reshape(n, c, h // a, a, w // b, b).mean((3, 5))


def _avg_pool2d_backward(gradient: Tensor, x: Tensor, kernel: list[int], stride: list[int], *rest: Any) -> Tensor:
    if not _tiles(x, kernel, stride, rest) or max(kernel) > _EXACT:
        return NotImplemented
    a, b = kernel if len(kernel) == 2 else kernel * 2
    return torch.ops.aten.upsample_nearest2d.default(gradient / (a * b), list(x.shape[2:]))


def _tiles(x: Tensor, kernel: list[int], stride: list[int] | None, rest: tuple[Any, ...]) -> bool:
    """Whether pooling windows neither overlap, nor leave or add pixels."""
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

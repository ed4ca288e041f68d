"""How a sweep is computed: affects speed, memory and the last bits of a block's gradient, but no mathematics."""

from __future__ import annotations

from dataclasses import dataclass, field

from noiseless.documented import documented
from noiseless.examples.blocks import check_size
from noiseless.objective.compiled import Compiler
from noiseless.objective.workers import Alone, Workers


@documented
@dataclass(frozen=True, eq=False)
class Execution:
    """Who computes the blocks of a sweep, how many at once, and with which code.

    Raises:
        ValueError: if the chunk is not a positive number of blocks.
    """

    workers: Workers = field(default_factory=Alone)
    """the processes that share the sweeps; they change no bit"""
    chunk: int = 1
    """blocks computed at once; above 1 the module must run under `torch.func.vmap`"""
    compiler: Compiler | None = None
    """compiles the code that computes a chunk; None: nothing is compiled"""
    compile_products: bool = True
    """whether the compiler, if there is one, also compiles Hessian products of the risk"""
    check: bool = True
    """whether the first sweep compares loss and gradient of a few examples with plain autograd through the module"""

    def __post_init__(self) -> None:
        check_size("chunk", self.chunk, 2**31, "blocks")

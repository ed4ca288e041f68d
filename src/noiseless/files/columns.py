"""The columns of a run's record that are shown: how they are called and drawn. Torch is not needed here.

A column has an entry here and a function in `run/record.py` (or comes from a question, see `run/periodic.py`). The page
and the terminal read the entry; a column without one is in `metrics.jsonl` alone.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """How a column is called and drawn. A small screen leaves out what has the highest rank."""

    heading: str | None = None
    """of the table in a terminal; None: not in it"""
    width: int = 9
    """of the table's column, in characters"""
    rank: int = 100
    """among the table's columns"""
    label: str | None = None
    """of the curve in a terminal; None: none is drawn"""
    label_rank: int = 100
    """among the curves in a terminal and the figures on the page"""
    title: str | None = None
    """of the figure on the page; None: none of this kind"""
    axis: str = ""
    """the figure's quantity with its unit"""
    log: bool = False
    """whether the figure's axis is logarithmic"""


COLUMNS: dict[str, Column] = {
    "step": Column(heading="step", width=6, rank=0),
    "passes": Column(heading="passes", width=8, rank=11),
    "lr": Column(
        heading="lr", rank=7, label="learning rate", label_rank=6, title="Learning rate", axis="learning rate"
    ),
    "train_loss": Column(
        heading="loss", width=8, rank=1, label="training loss", label_rank=0,
        title="Training loss, without penalty", axis="training loss", log=True,
    ),
    "train_accuracy": Column(heading="train %", width=7, rank=2),
    "gradient_norm": Column(
        heading="gradient", rank=4, label="gradient norm", label_rank=2,
        title="Gradient norm, before clipping", axis="gradient norm, L2", log=True,
    ),
    "parameter_norm": Column(heading="|theta|", rank=10, title="Parameter norm", axis="parameter norm, L2"),
    "penalty": Column(
        heading="penalty", rank=6, label="penalty", label_rank=5, title="Penalty", axis="penalty", log=True
    ),
    "sharpness": Column(heading="sharpness", rank=8, label="sharpness", label_rank=3),
    "noise_scale": Column(heading="noise", rank=9, label="noise scale", label_rank=4),
    "test_loss": Column(label_rank=1, title="Test loss", axis="test loss", log=True),
    "test_accuracy": Column(heading="test %", width=7, rank=3, label="test accuracy", label_rank=1),
    "seconds": Column(heading="seconds", width=8, rank=5),
}  # fmt: skip
"""by key, in the order in which they stand in a terminal's table"""

"""How the columns of a run's record are named and drawn, on the page and in a terminal. Torch is not needed here.

The values of a column come from a function in `run/record.py` or from an analysis in `run/periodic.py`. A column
without an entry here is in `metrics.jsonl` only.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """How a column is named and drawn. A small screen leaves out the highest ranks."""

    heading: str | None = None
    """heading in a terminal's table; None: not in the table"""
    width: int = 9
    """width in a terminal's table, in characters"""
    rank: int = 100
    """rank among the table's columns"""
    label: str | None = None
    """label of the curve in a terminal; None: no curve"""
    label_rank: int = 100
    """rank among the curves in a terminal and the figures on the page"""
    title: str | None = None
    """title of the figure on the page; None: no such figure"""
    axis: str = ""
    """label of the figure's axis: quantity and unit"""
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
        title="Training loss, before each step", axis="training loss, without penalty", log=True,
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
"""columns by key, in the order of a terminal's table"""

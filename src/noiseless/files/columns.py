"""The columns of a run's record that are shown: how they are called and drawn. Torch is not needed here.

A column has an entry here and a function in `run/record.py` (or comes from a question, see `run/periodic.py`). The page
and the terminal read the entry; a column without one is in `metrics.jsonl` alone.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """How a column is called and drawn. In narrow terminals, columns of lower rank come first."""

    heading: str | None = None
    """of the table in a terminal; None: not in it"""
    width: int = 9
    """of the table's column, in characters"""
    rank: int = 100
    """among the table's columns"""
    label: str | None = None
    """of the curve in a terminal; None: none is drawn"""
    label_rank: int = 100
    """among the curves"""
    title: str | None = None
    """of the figure on the page; None: none of this kind"""
    axis: str = ""
    """the figure's quantity with its unit"""
    log: bool = False
    """whether the figure's axis is logarithmic"""


COLUMNS: dict[str, Column] = {
    "step": Column("step", 6, 0),
    "passes": Column("passes", 8, 11),
    "lr": Column("lr", 9, 7, "learning rate", 6, "Learning rate", "learning rate"),
    "train_loss": Column("loss", 8, 1, "training loss", 0, "Training loss, without penalty", "training loss", log=True),
    "train_accuracy": Column("train %", 7, 2),
    "gradient_norm": Column(
        "gradient", 9, 4, "gradient norm", 2, "Gradient norm, before clipping", "gradient norm, L2", log=True
    ),
    "parameter_norm": Column("|theta|", 9, 10, title="Parameter norm", axis="parameter norm, L2"),
    "penalty": Column("penalty", 9, 6, "penalty", 5, "Penalty", "penalty", log=True),
    "sharpness": Column("sharpness", 9, 8, "sharpness", 3),
    "noise_scale": Column("noise", 9, 9, "noise scale", 4),
    "test_loss": Column(label_rank=1, title="Test loss", axis="test loss", log=True),
    "test_accuracy": Column("test %", 7, 3, "test accuracy", 1),
    "seconds": Column("seconds", 8, 5),
}
"""by key, in the order in which they stand in a terminal's table"""

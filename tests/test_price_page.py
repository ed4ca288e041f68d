"""docs/price.md and its files of results: rows that run again, noise of re-cutting by hand, tables as in the files."""

import math
from pathlib import Path

import pytest
import torch

from noiseless.recipes.ladder import differences


def row(contender, passes, accuracy=90.0):
    return {"contender": contender, "passes": passes, "accuracy": accuracy, "deviation": 1.0}


def test_rows_that_ran_again_replace_the_old_ones_alone(benchmark):
    before = [row("sgd", 30), row("sgd", 60), row("aggregated", 30)]
    rows = benchmark("price").merged(before, [row("aggregated", 30, 95.0), row("muon", 15)])
    assert rows == [row("sgd", 30), row("sgd", 60), row("muon", 15), row("aggregated", 30, 95.0)]


def test_noise_to_signal_by_hand(benchmark):
    noise_to_signal = benchmark("controls").noise_to_signal
    # mean (2, 0), squared norm 4; deviations of 1 twice, s^2 = 2; signal^2 = 4 - 2 / 2 = 3
    gradients = [torch.tensor([2.0, 1.0]), torch.tensor([2.0, -1.0])]
    assert noise_to_signal(gradients) == pytest.approx(math.sqrt(2 / 3))
    assert noise_to_signal([g - torch.tensor([2.0, 0.0]) for g in gradients]) == math.inf


def test_controls_differ_in_what_their_names_say(benchmark):
    recipes = benchmark("controls").recipes()

    def changed_fields(name, base):
        return set(differences(recipes[name], recipes[base]))

    assert changed_fields("aggregated, blocks cut once", "aggregated") == {"shuffle"}
    assert changed_fields("mini-batches of 64, momentum 0.6", "aggregated") == {"regime", "parts", "momentum"}
    assert changed_fields("tuned Muon, regularised like aggregated", "tuned Muon") == {
        "label_smoothing", "weight_decay", "norm_block", "optimizer_options",
    }  # fmt: skip


def test_the_page_quotes_the_files(benchmark):
    price, controls = benchmark("price"), benchmark("controls")
    page = Path("docs/price.md").read_text()
    assert price.table() in page
    for table in controls.tables(price.load("controls")).split("\n\n"):
        assert table in page

"""docs/cifar.md and the ledger agree: the page's tables are those that benchmarks/cifarreport.py makes."""

import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

PAGE = (Path(__file__).parents[1] / "docs/cifar.md").read_text()


def test_the_page_has_the_tables_of_the_ledger(benchmark):
    report = benchmark("cifarreport")
    ledger = report.Ledger(report.LEDGER)
    for experiment in report.PLANNED:
        assert report.with_results(PAGE, experiment, report.lines(experiment, ledger)) == PAGE, (
            f"run benchmarks/cifarreport.py --write: the ledger of {experiment} has changed"
        )
    for experiment in report.TRIALS:
        assert report.with_results(PAGE, experiment, report.trial_lines(experiment, ledger), "trials") == PAGE, (
            f"run benchmarks/cifarreport.py --write: the ledger has other trials of {experiment}"
        )


def test_a_difference_is_that_of_the_accuracies_with_an_interval_over_seeds_and_images(benchmark):
    """With D = 0.01 (mean over 3 seeds of the difference in images of 10,000), and var D = V_seeds + V_images - V_both,
    computed here by numpy's sample variances."""
    report = benchmark("cifarreport")
    arms = report.groups("A", report.Ledger(report.LEDGER))
    d = 100 * (arms["A-mini"].correct.astype(float) - arms["A-full"].correct)
    seeds, images = d.shape
    v_seeds, v_images = d.mean(1).var(ddof=1) / seeds, d.mean(0).var(ddof=1) / images
    residual = d - d.mean(1, keepdims=True) - d.mean(0) + d.mean()
    v_both = (residual**2).sum() / ((seeds - 1) * (images - 1)) / (seeds * images)
    variance = max(v_seeds + v_images - v_both, v_seeds, v_images, v_both)
    (row,) = re.findall(r"^\| mini - full \| (\S+) \| (\S+) to (\S+) \|", PAGE, re.M)
    difference, low, high = map(float, row)
    assert difference == pytest.approx(d.mean(), abs=0.005)
    assert (low + high) / 2 == pytest.approx(difference, abs=0.01)
    widest = stats.t.ppf(0.975, seeds - 1) * np.sqrt(variance)  # fewest degrees of freedom that the sum can have
    assert 0 < (high - low) / 2 <= widest + 0.01


def test_settings_at_the_end_of_an_axis_are_marked(benchmark):
    report = benchmark("cifarreport")
    arms = report.groups("A", report.Ledger(report.LEDGER))
    assert arms["A-full-group"].setting == "0.2*, 0.15"
    assert arms["A-full"].setting == "0.4, 0.15"

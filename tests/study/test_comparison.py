"""Differences in accuracy, against known variance components, a naive analysis of variance and plain t tests."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats

from noiseless.study.comparison import agreement, compare


def random_groups(seeds, images, rng):
    """Correctness of two groups, `[seeds[0], images]` and `[seeds[1], images]`, on images of different difficulty."""
    hard = rng.uniform(0.2, 0.9, images)
    return tuple(rng.random((count, images)) < hard + shift for count, shift in zip(seeds, (0.1, 0.0), strict=True))


# Known variance components. A run is right with the probability p_g + c_i + x_gi + a_gs: effects of the image on both
# groups, of the image on group g, and of the seed, each uniform in -w ... w, which has the variance w^2 / 3.
RIGHT = (0.64, 0.6)  # p_g: the expected difference is 4 points
COMMON, GROUP, SEED = 0.1, 0.1, 0.06  # w; a probability lies in 0.34 ... 0.9


def simulate(seeds, images, rng):
    common = rng.uniform(-COMMON, COMMON, images)
    return tuple(
        rng.random((count, images))
        < p + common + rng.uniform(-GROUP, GROUP, images) + rng.uniform(-SEED, SEED, (count, 1))
        for count, p in zip(seeds, RIGHT, strict=True)
    )


def expected(seeds, images):
    """Expectations of V_seeds, V_images and V_interaction in squared points.

    An answer is 0 or 1, so its variance is p (1 - p). Of that, SEED^2 / 3 is common to all images of a seed, and
    (COMMON^2 + GROUP^2) / 3 to all seeds of an image; the rest, e_g, is the interaction. In the difference COMMON
    cancels, and the others occur once for each group. Groups of independent runs may be compared as paired or not.
    """
    rest = [p * (1 - p) - (SEED**2 + COMMON**2 + GROUP**2) / 3 for p in RIGHT]
    of_interaction = sum(e / (count * images) for e, count in zip(rest, seeds, strict=True))
    of_seeds = sum(SEED**2 / 3 / count for count in seeds) + of_interaction
    of_images = 2 * GROUP**2 / 3 / images + of_interaction
    return tuple(100**2 * value for value in (of_seeds, of_images, of_interaction))


@pytest.mark.parametrize(
    ("seeds", "images", "paired"),
    [((5, 5), 200, True), ((5, 5), 200, False), ((4, 7), 200, False), ((3, 3), 300, True), ((3, 3), 300, False)],
)
def test_variance_and_coverage_where_the_components_are_known(seeds, images, paired):
    rng, count = np.random.default_rng(0), 2000
    comparisons = [compare(*simulate(seeds, images, rng), paired) for _ in range(count)]
    expectations = expected(seeds, images)
    names = ("variance_seeds", "variance_images", "variance_interaction")
    for name, value in zip(names, expectations, strict=True):
        sample = np.array([getattr(comparison, name) for comparison in comparisons])
        # four standard errors of the mean over the data sets
        assert sample.mean() == pytest.approx(value, abs=4 * sample.std() / math.sqrt(count)), name
    differences = np.array([comparison.difference for comparison in comparisons])
    total = expectations[0] + expectations[1] - expectations[2]
    true_difference = 100 * (RIGHT[0] - RIGHT[1])
    assert differences.mean() == pytest.approx(true_difference, abs=4 * math.sqrt(total / count))
    # a sample variance of n nearly normal values has the relative error sqrt(2 / n)
    assert differences.var(ddof=1) == pytest.approx(total, rel=4 * math.sqrt(2 / count))
    covered = sum(low <= true_difference <= high for low, high in (c.interval(0.95) for c in comparisons)) / count
    # Satterthwaite's degrees of freedom are an approximation; the share itself has the standard error 0.005
    assert 0.92 <= covered <= 0.98


def test_two_seeds_give_intervals_that_are_too_short_where_seeds_vary_most():
    """As docs/compare.md warns: with one degree of freedom, a small V_seeds gives too many degrees of freedom."""
    rng, count = np.random.default_rng(1), 1000
    covered = 0
    for _ in range(count):
        low, high = compare(*simulate((2, 2), 1000, rng), True).interval(0.95)
        covered += low <= 100 * (RIGHT[0] - RIGHT[1]) <= high
    assert 0.8 < covered / count < 0.92


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def naive(table):
    """The three variances of a table `[S, M]` in points, by the formulas, cell by cell."""
    rows, columns = range(len(table)), range(len(table[0]))
    grand_mean = mean(table[s][i] for s in rows for i in columns)
    by_row = [mean(table[s][i] for i in columns) for s in rows]
    by_column = [mean(table[s][i] for s in rows) for i in columns]
    s, m = len(rows), len(columns)
    of_seeds = sum((r - grand_mean) ** 2 for r in by_row) / (s - 1) / s
    of_images = sum((c - grand_mean) ** 2 for c in by_column) / (m - 1) / m
    rest = sum((table[j][i] - by_row[j] - by_column[i] + grand_mean) ** 2 for j in rows for i in columns)
    return of_seeds, of_images, rest / ((s - 1) * (m - 1)) / (s * m)


@pytest.mark.parametrize(
    ("seed", "simple"), [*((seed, False) for seed in range(3)), *((s, True) for s in (3, 8, 9, 10))]
)
def test_paired_groups_against_a_naive_analysis_of_variance(seed, simple):
    a, b = random_groups((4, 4), 9, np.random.default_rng(seed))
    table = [[100.0 * (int(x) - int(y)) for x, y in zip(*rows, strict=True)] for rows in zip(a, b, strict=True)]
    v_seeds, v_images, v_interaction = naive(table)
    comparison = compare(a, b, True)
    assert comparison.difference == pytest.approx(mean(map(mean, table)), abs=1e-12)
    names = ("variance_seeds", "variance_images", "variance_interaction")
    for name, value in zip(names, (v_seeds, v_images, v_interaction), strict=True):
        assert getattr(comparison, name) == pytest.approx(value, rel=1e-12, abs=1e-12)  # both in float64
    assert comparison.variance == pytest.approx(
        max(v_seeds + v_images - v_interaction, v_seeds, v_images, v_interaction), rel=1e-12
    )
    assert (v_seeds > v_interaction and v_images > v_interaction) == simple
    if simple:  # Satterthwaite's degrees of freedom of the three variances; otherwise some of them are left out
        below = v_seeds**2 / 3 + v_images**2 / 8 + v_interaction**2 / 24
        assert comparison.degrees == pytest.approx(comparison.variance**2 / below, rel=1e-12)


@pytest.mark.parametrize(
    ("seed", "simple"), [*((seed, True) for seed in (0, 1, 8, 9)), *((s, False) for s in (2, 3, 4))]
)
def test_unpaired_groups_against_a_naive_analysis_of_variance(seed, simple):
    a, b = random_groups((3, 5), 9, np.random.default_rng(seed))
    parts = [naive([[100.0 * int(x) for x in row] for row in group]) for group in (a, b)]
    v_seeds, v_interaction = (parts[0][k] + parts[1][k] for k in (0, 2))
    by_image = [100 * (mean(a[:, i]) - mean(b[:, i])) for i in range(9)]
    v_images = np.var(by_image, ddof=1) / 9
    comparison = compare(a, b, False)
    assert comparison.difference == pytest.approx(mean(by_image), abs=1e-12)
    assert comparison.variance_seeds == pytest.approx(v_seeds, rel=1e-12)
    assert comparison.variance_images == pytest.approx(v_images, rel=1e-12)
    assert comparison.variance_interaction == pytest.approx(v_interaction, rel=1e-12)
    total = v_seeds + v_images - v_interaction
    assert comparison.variance == pytest.approx(max(total, v_seeds, v_images, v_interaction), rel=1e-12)
    assert (comparison.variance == pytest.approx(total, rel=1e-12)) == simple
    if simple:
        below = sum(p[0] ** 2 / (s - 1) + p[2] ** 2 / (8 * (s - 1)) for p, s in zip(parts, (3, 5), strict=True))
        assert comparison.degrees == pytest.approx(total**2 / (below + v_images**2 / 8), rel=1e-12)


def constant_rows(rights, images=6):
    """Runs that classify all images correctly or none: `[S, M]`."""
    return np.repeat(np.array(rights, dtype=bool)[:, None], images, axis=1)


def test_without_variance_over_images_it_is_the_paired_t_test_over_seeds():
    rights = [1, 1, 0, 1, 1], [0, 1, 0, 0, 1]
    comparison = compare(*(constant_rows(seeds) for seeds in rights), True)
    reference = stats.ttest_rel(*rights)
    assert comparison.degrees == pytest.approx(reference.df)
    assert comparison.p == pytest.approx(reference.pvalue, rel=1e-10)
    interval = reference.confidence_interval(0.95)
    assert comparison.interval(0.95) == pytest.approx((100 * interval.low, 100 * interval.high), rel=1e-10)


def test_without_variance_over_images_unpaired_groups_have_welchs_t_test():
    rights = [1, 1, 0, 1, 1], [0, 1, 0]
    comparison = compare(*(constant_rows(seeds) for seeds in rights), False)
    reference = stats.ttest_ind(*rights, equal_var=False)
    assert comparison.degrees == pytest.approx(reference.df, rel=1e-10)
    assert comparison.p == pytest.approx(reference.pvalue, rel=1e-10)


@pytest.mark.parametrize("paired", [True, False])
def test_one_seed_gives_the_paired_t_test_over_images_and_is_marked(paired):
    a, b = random_groups((1, 1), 40, np.random.default_rng(3))
    comparison = compare(a, b, paired)
    reference = stats.ttest_rel(a[0].astype(float), b[0].astype(float))
    assert comparison.images_only
    assert (comparison.variance_seeds, comparison.variance_interaction) == (None, None)
    assert (comparison.degrees, comparison.p) == (39, pytest.approx(reference.pvalue, rel=1e-10))


def test_one_seed_in_one_of_the_groups_leaves_the_images_alone():
    a, b = random_groups((1, 4), 40, np.random.default_rng(4))
    comparison = compare(a, b, False)
    reference = stats.ttest_rel(a.mean(0), b.mean(0))
    assert comparison.images_only
    assert comparison.p == pytest.approx(reference.pvalue, rel=1e-10)
    assert not compare(*random_groups((2, 2), 40, np.random.default_rng(4)), False).images_only


@pytest.mark.parametrize(("seeds", "paired"), [((3, 3), True), ((3, 3), False), ((2, 5), False), ((1, 3), False)])
def test_swapped_groups_give_the_negative_difference(seeds, paired):
    a, b = random_groups(seeds, 50, np.random.default_rng(5))
    forward, swapped = compare(a, b, paired), compare(b, a, paired)
    assert forward.difference == -swapped.difference != 0
    assert forward.variance == pytest.approx(swapped.variance, rel=1e-14)
    low, high = forward.interval(0.9)
    assert swapped.interval(0.9) == pytest.approx((-high, -low), rel=1e-12)
    assert forward.p == pytest.approx(swapped.p, rel=1e-12)
    assert forward.equivalence(3.0) == pytest.approx(swapped.equivalence(3.0), rel=1e-12)
    counts = agreement(a, b, paired)
    swapped_counts = agreement(b, a, paired)
    assert (counts.only_first, counts.only_second) == (swapped_counts.only_second, swapped_counts.only_first)


def booleans(rows):
    return rows.flatmap(lambda count: arrays.arrays(bool, st.tuples(st.just(count), st.just(12))))


@settings(deadline=None, derandomize=True, max_examples=100)
@given(booleans(st.integers(1, 4)), booleans(st.integers(1, 4)), st.randoms(use_true_random=False))
def test_the_order_of_images_and_seeds_does_not_change_a_bit(a, b, random):
    images, first_order, second_order = (random.sample(range(n), n) for n in (12, len(a), len(b)))
    assert compare(a[first_order][:, images], b[second_order][:, images], False) == compare(a, b, False)
    assert agreement(a[first_order][:, images], b[second_order][:, images], False) == agreement(a, b, False)
    if len(a) == len(b):
        assert compare(a[first_order][:, images], b[first_order][:, images], True) == compare(a, b, True)
        assert agreement(a[first_order][:, images], b[first_order][:, images], True) == agreement(a, b, True)


def test_without_any_variance_the_difference_is_certain():
    right, wrong = constant_rows([1, 1, 1]), constant_rows([0, 0, 0])
    alike, apart = compare(right, right, True), compare(right, wrong, True)
    assert (alike.difference, alike.variance, alike.p, alike.equivalence(0.5)) == (0, 0, 1, 0)
    assert (apart.difference, apart.variance, apart.p, apart.equivalence(0.5)) == (100, 0, 0, 1)
    assert apart.interval(0.95) == (100, 100)


def test_differences_that_cancel_in_every_mean_are_not_certain():
    # all means over seeds or images are 0, and V_seeds + V_images - V_interaction is negative. The residual mean square
    # is 4 * 100^2 / ((2 - 1) (2 - 1)), over S M = 4
    comparison = compare(np.array([[True, False], [False, True]]), np.array([[False, True], [True, False]]), True)
    assert (comparison.variance_seeds, comparison.variance_images) == (0, 0)
    assert comparison.variance == comparison.variance_interaction == 100**2


@pytest.mark.parametrize(("paired", "pairs"), [(True, [(s, s) for s in range(3)]), (False, None)])
def test_who_is_right_is_counted_pair_by_pair(paired, pairs):
    a, b = random_groups((3, 3 if paired else 2), 20, np.random.default_rng(6))
    pairs = pairs or list(itertools.product(range(3), range(2)))
    counts = dict.fromkeys(itertools.product((True, False), repeat=2), 0)
    for s, t in pairs:
        for i in range(20):
            counts[bool(a[s, i]), bool(b[t, i])] += 1
    agreed = agreement(a, b, paired)
    assert agreed.pairs == len(pairs)
    named = {
        (True, True): agreed.both, (True, False): agreed.only_first, (False, True): agreed.only_second,
        (False, False): agreed.neither,
    }  # fmt: skip
    assert named == {key: pytest.approx(count / len(pairs)) for key, count in counts.items()}


@pytest.mark.parametrize(
    ("first", "second", "paired", "message"),
    [
        ((2, 5), (2, 6), False, "with the same images"),
        ((2, 5), (3, 5), True, "with the same images"),
        ((5,), (5,), True, "seeds, images"),
        ((0, 5), (0, 5), True, "seeds, images"),
        ((2, 1), (2, 1), True, "at least two"),
    ],
)
def test_what_cannot_be_compared_is_refused(first, second, paired, message):
    for call in (compare, agreement):
        with pytest.raises(ValueError, match=message):
            call(np.ones(first, bool), np.ones(second, bool), paired)

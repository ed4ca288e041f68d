"""docs/price.md: its tables agree with each other, and a race of a few leaves the rest of them as it was."""

import pytest

from noiseless.run.contenders import CONTENDERS


@pytest.fixture
def price(benchmark):
    return benchmark("price")


@pytest.fixture
def page(price):
    return {name: price.taken(price.PAGE, name) for name in price.RACES}


def test_points_are_those_of_the_accuracies_beside_them(price, page):
    for name, text in page.items():
        command, _, tables = text.partition("\n\n")
        assert price.Tables.parsed(text).markdown().strip() == tables.strip(), name
        assert command == f"`noiseless race {' '.join(price._flags(name, name in price.WIDE))}`"


def test_bars_are_those_of_the_tables(price):
    assert price._bars().strip() == price.taken(price.PAGE, "bars").strip()


def test_what_ran_again_replaces_its_own_cells_alone(price, page):
    before = price.Tables.parsed(page["digits"])
    again, new = ("aggregated", 30), ("sgd", 7)
    few = price.Tables(before.titles, {again: "12.50 ± 0.25", new: "1.00 ± 0.50"}, {again: "lr 2", new: "lr 1"})
    found = before.renewed(few)
    for own, old, changed in (
        (found.accuracy, before.accuracy, few.accuracy),
        (found.settings, before.settings, few.settings),
    ):
        assert own == {**old, **changed}
        assert list(own) == sorted(own, key=lambda key: (list(CONTENDERS).index(key[0]), key[1]))
    assert found.mean(*again) == 12.5
    assert "| sgd | 1.00 ± 0.50 |" in found.markdown()
    assert f"| aggregated | 30 | {12.5 - before.mean('sgd', 30):+.2f} |" in found.markdown()

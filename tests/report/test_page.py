"""The report: one HTML file that opens without a network, with the table, the curves and each run's settings."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from small_runs import npz, run, small_recipe

from noiseless.report import page, summary

FETCHING = {"src", "href", "xlink:href", "srcset", "data", "action", "poster"}
VOID = {"meta", "br", "hr", "img", "link", "input"}


class Reader(HTMLParser):
    """Collects tags, attributes that make a browser fetch, and table cells; checks that tags close in order."""

    def __init__(self):
        super().__init__()
        self.tags, self.fetched, self.cells, self.open = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.fetched += [value for name, value in attrs if name in FETCHING]
        if tag in ("td", "th"):
            self.cells.append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.fetched += [value for name, value in attrs if name in FETCHING]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.cells[-1] += data


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Runs, the page's text, and what a browser sees in it."""
    path = tmp_path_factory.mktemp("report")
    data = npz(path / "tiny.npz")
    directories = [
        run(path / f"{name}-{seed}", small_recipe(data, name, seed=seed, steps=2))
        for name, seed in (("fb", 0), ("fb", 1), ("fb-regularized", 0))
    ]
    runs = summary.read(directories)
    page.write(path / "page.html", runs, "A <b>title</b> & more")
    text = (path / "page.html").read_text()
    reader = Reader()
    reader.feed(text)
    assert not reader.open
    return runs, text, reader


def test_it_has_one_table_and_one_drawing(written):
    _, text, reader = written
    assert text.startswith("<!doctype html>")
    assert reader.tags.count("table") == 1
    assert reader.tags.count("svg") == 1
    assert "path" in reader.tags
    assert "script" not in reader.tags


def test_the_table_holds_the_cells_of_the_summaries(written):
    runs, _, reader = written
    expected = [*summary.HEADINGS, *(cell for line in summary.by_recipe(runs) for cell in line.cells())]
    assert reader.cells == expected


def test_nothing_is_fetched(written):
    _, text, reader = written
    assert all(value.startswith("#") for value in reader.fetched), reader.fetched
    assert all(target.strip("'\"").startswith("#") for target in re.findall(r"url\(([^)]*)\)", text))
    assert "@import" not in text
    assert "link" not in reader.tags


def test_what_users_write_is_escaped(written):
    _, text, reader = written
    assert "A &lt;b&gt;title&lt;/b&gt; &amp; more" in text
    assert "b" not in reader.tags


def test_each_run_is_there_with_its_settings_and_environment(written):
    runs, text, reader = written
    assert reader.tags.count("details") == len(runs)
    for each in runs:
        assert str(each.directory.path) in text
    assert "&quot;penalty&quot;: 0.5" in text
    assert "&quot;torch&quot;" in text


def test_the_same_runs_give_the_same_table_and_a_run_alone_has_no_band(written, tmp_path):
    runs, _, reader = written
    page.write(tmp_path / "again.html", runs, "other")
    again = Reader()
    again.feed((tmp_path / "again.html").read_text())
    assert again.cells == reader.cells
    page.write(tmp_path / "alone.html", runs[:1], "alone")
    assert "±" not in re.sub(r"<p>.*?</p>", "", (tmp_path / "alone.html").read_text())


def test_runs_that_were_never_evaluated_or_are_perfect_can_be_drawn(written, tmp_path):
    """Where the first panel has nothing to show (a test error of 0 has no logarithm) the others keep their legend."""
    runs, _, _ = written
    bare = [{k: v for k, v in row.items() if not k.startswith("test_")} for row in runs[0].rows]
    perfect = [row | {"test_accuracy": 1.0} for row in runs[0].rows]
    for rows in (bare, perfect):
        page.write(tmp_path / "page.html", [replace(runs[0], rows=rows)], "a title")
        text = (tmp_path / "page.html").read_text()
        assert "<!-- fb -->" in text  # matplotlib writes each text of a drawing, here the legend's, as a comment too


def test_a_seed_without_errors_counts_in_the_mean(written):
    """A test error of 0 has no logarithm, but it is a result."""
    runs, _, _ = written
    perfect = replace(runs[0], rows=[row | {"test_accuracy": 1.0} for row in runs[0].rows])
    (line,) = summary.by_recipe([perfect, runs[1]])
    curve = page._curve(line, "test_error")
    assert curve.passes == [row["passes"] for row in runs[0].rows]
    assert curve.values.tolist() == [[0.0, 0.0], [1 - row["test_accuracy"] for row in runs[1].rows]]


def test_the_drawing_warns_of_nothing(written, tmp_path, recwarn):
    """Whatever a recipe is called, and whatever its values: zeros, a mixture, letters that the font lacks."""
    runs, _, _ = written
    odd = [
        replace(run, recipe=replace(run.recipe, name=f"$a{number}$ _日本"), rows=rows)
        for number, (run, rows) in enumerate(
            (run, [row | dict.fromkeys(("train_loss", "gradient_norm", "penalty", "lr"), 0.0) for row in run.rows])
            for run in runs
        )
    ]
    for some in (odd, [*runs, *odd]):
        page.write(tmp_path / "page.html", some, "odd")
        assert "<!-- $a0$ _日本 -->" in (tmp_path / "page.html").read_text()
    assert not recwarn.list

"""The report: one HTML file that opens without a network, with the table, the figures and each run's settings."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import plotly.graph_objects
import pytest
from plotly.offline import get_plotlyjs
from shown_runs import analysed, answer, axis, row, shown
from small_runs import call, npz, refused, run, small_recipe

import noiseless.report
from noiseless.printable import CONTROLS
from noiseless.report import page, summary
from noiseless.report.contents import sections
from noiseless.report.plots import plots
from noiseless.report.themes import PALETTE, Pool, templates

FETCHING = {"src", "href", "xlink:href", "srcset", "data", "action", "poster"}
VOID = {"meta", "br", "hr", "img", "link", "input"}
HOSTILE = "</script><script>window.hurt=1</script><b>x</b>"


class Reader(HTMLParser):
    """Collects tags, attributes that make a browser fetch, table cells and scripts; checks that tags close in order."""

    def __init__(self):
        super().__init__()
        self.tags, self.fetched, self.cells, self.open, self.ids, self.scripts = [], [], [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.fetched += [value for name, value in attrs if name in FETCHING]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag in ("td", "th"):
            self.cells.append("")
        if tag == "script":
            self.scripts.append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.cells[-1] += data
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data


def read(path):
    reader = Reader()
    reader.feed(path.read_text())
    assert not reader.open
    assert len(reader.ids) == len(set(reader.ids))
    return reader


def data(reader):
    """The page's JSON."""
    return json.loads(reader.scripts[0])


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Runs that were trained, the page's text, and what a browser sees in it."""
    path = tmp_path_factory.mktemp("report")
    arrays = npz(path / "tiny.npz")
    directories = [
        run(path / f"{name}-{seed}", small_recipe(arrays, name, seed=seed, steps=2))
        for name, seed in (("fb", 0), ("fb", 1), ("fb-regularized", 0))
    ]
    runs = summary.read(directories)
    page.write(path / "page.html", runs, "A <b>title</b> & more")
    return runs, (path / "page.html").read_text(), read(path / "page.html")


def test_a_page_has_a_table_and_an_element_for_each_plot(written):
    _, text, reader = written
    assert text.startswith("<!doctype html>")
    assert reader.tags.count("table") == 1
    content = data(reader)
    assert len(content["plots"]) == 9
    assert {plot["id"] for plot in content["plots"]} <= set(reader.ids)
    assert all(set(plot["views"]) == {"passes", "steps", "seconds"} for plot in content["plots"])


def test_the_table_holds_the_cells_of_the_summaries(written):
    runs, _, reader = written
    expected = [*summary.HEADINGS, *(cell for line in summary.by_recipe(runs) for cell in line.cells())]
    assert reader.cells == expected


def test_nothing_is_fetched(written):
    """Outside the library's script the page has no address, and its policy makes the browser refuse any."""
    _, text, reader = written
    assert all(value.startswith("#") for value in reader.fetched), reader.fetched
    rest = text.replace(page._plotly(), "")
    assert len(rest) < len(text) - 1e6
    assert "://" not in re.sub("SUPPORT_URL.*|BUG_REPORT_URL.*", "", rest)
    assert "@import" not in rest
    assert "url(" not in rest
    assert "link" not in reader.tags
    assert "default-src 'none'" in rest


def test_what_users_write_is_escaped(written, tmp_path):
    _, text, reader = written
    assert "A &lt;b&gt;title&lt;/b&gt; &amp; more" in text
    assert "b" not in reader.tags
    page.write(tmp_path / "page.html", [analysed(tmp_path / HOSTILE.replace("/", "|"), name=HOSTILE)], HOSTILE)
    hostile = read(tmp_path / "page.html")
    assert hostile.tags.count("script") == 3
    assert "b" not in hostile.tags
    names = {
        trace["name"] for plot in data(hostile)["plots"] for view in plot["views"].values() for trace in view["data"]
    }
    assert not any("<" in name for name in names)  # plotly reads HTML in names
    assert any("&lt;b&gt;x&lt;/b&gt;" in name for name in names)


def test_no_control_character_of_a_run_reaches_the_page(tmp_path):
    evil = "a\x1b]0;x\x07\u202eb\x85<i>"
    run_ = analysed(tmp_path / "r\x1bun\udcff")
    for values in run_.rows:
        values["layers"] = {evil + name: numbers for name, numbers in values["layers"].items()}
    answer(
        run_, "landscape", "other", step=8, axes=[axis(3, evil)], loss=[1.0, 0.5, 1.0], accuracy=[0.5] * 3,
        penalised=None, batch_norm="block", passes=3.0, done=3, total=3,
    )  # fmt: skip
    environment = {"torch": evil, evil: evil, "command": ["noiseless", evil]}
    (run_.directory.path / "environment.json").write_text(json.dumps(environment))
    path = tmp_path / "page.html"
    page.write(path, [run_], evil)
    text = path.read_text()
    assert CONTROLS.search(text.replace(get_plotlyjs(), "")) is None
    drawn = list(_strings(data(read(path))))
    assert [name for name in drawn if r"a\x1b]0;x" in name]  # the name of a layer, and the label of an axis
    assert [name for name in drawn if CONTROLS.search(name)] == []


def _strings(value):
    """All texts within a value of JSON."""
    if isinstance(value, str):
        yield value
    for part in [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []:
        yield from _strings(part)


def test_each_run_is_there_with_its_command_settings_and_environment(written, tmp_path):
    runs, text, reader = written
    assert reader.tags.count("details") == len(runs)
    for finished in runs:
        assert str(finished.directory.path) in text
    assert "&quot;penalty&quot;: 0.5" in text
    assert "&quot;torch&quot;" in text
    bare = shown(tmp_path / "run", [row(0)])
    page.write(tmp_path / "page.html", [bare], "x")
    assert "<pre>noiseless train fb --run-dir &#x27;runs/a b&#x27;</pre>" in (tmp_path / "page.html").read_text()
    (bare.directory.path / "environment.json").unlink()
    page.write(tmp_path / "page.html", [bare], "x")
    assert "environment.json cannot be read" in (tmp_path / "page.html").read_text()


def test_the_same_runs_give_the_same_bytes(written, tmp_path):
    runs, text, _ = written
    page.write(tmp_path / "again.html", runs, "A <b>title</b> & more")
    assert (tmp_path / "again.html").read_text() == text
    page.write(tmp_path / "alone.html", runs[:1], "alone")
    assert "±" not in re.sub(r"<p>.*?</p>", "", (tmp_path / "alone.html").read_text().replace(page._plotly(), ""))


def test_runs_that_were_never_evaluated_or_are_perfect_have_a_page(written, tmp_path):
    runs, _, _ = written
    bare = [{k: v for k, v in row.items() if not k.startswith("test_")} for row in runs[0].rows]
    perfect = [row | {"test_accuracy": 1.0} for row in runs[0].rows]
    for rows, count in ((bare, 5), (perfect, 8)):
        page.write(tmp_path / "page.html", [replace(runs[0], rows=rows)], "a title")
        assert len(data(read(tmp_path / "page.html"))["plots"]) == count


def test_the_script_and_each_list_of_numbers_are_in_the_page_once(tmp_path):
    runs = [shown(tmp_path / f"{k}", [row(step) for step in range(500)], name=f"r{k}") for k in range(4)]
    page.write(tmp_path / "page.html", runs, "x")
    content = data(read(tmp_path / "page.html"))
    assert len({tuple(numbers) for numbers in content["lists"]}) == len(content["lists"]) < 12
    assert (tmp_path / "page.html").stat().st_size < len(page._plotly().encode()) + 150e3


def test_plotly_accepts_every_plot(tmp_path):
    """Plotly's classes check each property of each trace and layout, and refuse unknown ones."""
    runs = [analysed(tmp_path / f"{k}", seed=k, clip=0.25) for k in range(2)] + [analysed(tmp_path / "b", name="b")]
    pool = Pool()
    drawn = [
        plot
        for section in sections(summary.by_recipe(runs))
        for figure in section.figures
        for plot in plots(figure, pool)
    ]

    def resolved(value):
        if isinstance(value, dict):
            return pool.lists[value["$"]] if "$" in value else {k: resolved(v) for k, v in value.items()}
        return [resolved(v) for v in value] if isinstance(value, list) else value

    assert sum(plot["surface"] for plot in drawn) == 4
    for plot in drawn:
        for view in plot["views"].values():
            figure = plotly.graph_objects.Figure(resolved(view["data"]), resolved(view["layout"]))
            assert len(figure.data) >= 1
    for template in templates().values():
        plotly.graph_objects.layout.Template(template)
    with pytest.raises(ValueError, match="nothing"):
        plotly.graph_objects.Figure([{"type": "scatter", "nothing": 1}])


def test_every_colour_has_one_for_the_dark_ground(tmp_path):
    runs = [analysed(tmp_path / f"{k}", name=f"r{k}") for k in range(11)]
    pool = Pool()
    drawn = [plots(figure, pool) for section in sections(summary.by_recipe(runs)) for figure in section.figures]
    used = set(re.findall(r'"(?:color|fillcolor)": ?"([^"]*)"', json.dumps(drawn)))
    assert len(used) == 10
    assert used <= PALETTE.keys()


def test_the_command_writes_page_and_figures(written, tmp_path):
    runs, _, _ = written
    paths = [finished.directory.path for finished in runs]
    answer = call("report", *paths, "-o", tmp_path / "r.html", "--figures", tmp_path / "figures", "--over", "steps")
    assert answer.code == 0, answer.err
    assert "figures: 9 in" in answer.out
    assert (tmp_path / "r.html").exists()
    assert len(list((tmp_path / "figures").iterdir())) == 27
    assert "over,x,series,value,lowest,highest" in (tmp_path / "figures" / "train-loss.csv").read_text()
    (tmp_path / "file").touch()
    refused("report", *paths, "-o", tmp_path / "r.html", "--figures", tmp_path / "file", names=(tmp_path / "file",))
    (runs[0].directory.path / "analysis").mkdir()
    (runs[0].directory.path / "analysis" / "noise-1.json").write_text("{}")
    left_out = call("report", *paths, "-o", tmp_path / "r.html")
    assert left_out.code == 0
    assert "noise-1.json is left out" in left_out.err
    (runs[0].directory.path / "analysis" / "noise-1.json").unlink()


def test_a_long_title_is_broken_into_lines(tmp_path):
    name = "a recipe <i> " * 8
    pool = Pool()
    (section,) = sections(summary.by_recipe([shown(tmp_path / "0", [row(0)], name=name)]))
    figure = replace(section.figures[0], title=f"Eigenvalues: {name}")
    ((plot,),) = [plots(figure, pool)]
    title = plot["views"]["steps"]["layout"]["title"]["text"]
    assert title.count("<br>") == 2
    assert title.replace("<br>", " ") == f"Eigenvalues: {name}".strip().replace("<i>", "&lt;i&gt;")


def test_the_page_needs_no_drawing_library_and_the_command_line_no_report():
    """Training writes a page at its end, and should not import what the page does not use."""
    program = "import sys, noiseless.report.page; sys.exit(bool({'plotly', 'matplotlib'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
    rooms = "('report.page', 'report.contents', 'report.plots', 'report.drawing')"
    program = f"import sys, noiseless.cli, noiseless.commands; sys.exit(any(m.endswith({rooms}) for m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_the_files_beside_the_code_are_packaged():
    beside = {p.name for p in Path(noiseless.report.__file__).parent.iterdir() if p.suffix in (".js", ".css")}
    packaged = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert beside == {"page.js", "page.css"}
    assert all(f'"report/{name}"' in packaged for name in beside)

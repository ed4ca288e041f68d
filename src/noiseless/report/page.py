"""The report: one HTML file that opens without a network, with the ladder's table and all figures of runs."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from noiseless.files import environment
from noiseless.files.atomic import write_bytes
from noiseless.recipes.command import command_of
from noiseless.report.contents import sections
from noiseless.report.facts import facts_of
from noiseless.report.figures import OVER, AnyFigure, Section, Table
from noiseless.report.looks import COLOURS, DARK, MARKERS
from noiseless.report.plots import has_surface, plots
from noiseless.report.summary import HEADINGS, LOSS, Run, Summary, by_recipe
from noiseless.report.themes import PALETTE, Json, Pool, templates, text_of

POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; img-src data: blob:;"
    " font-src data:; worker-src blob:; form-action 'none'; base-uri 'none'"
)
"""content security policy: the browser may load nothing from elsewhere; plotly's script needs `unsafe-eval`"""
LIGHT_PAGE = {
    "ground": "#ffffff",
    "ink": "#1a1a1a",
    "soft": "#555555",
    "line": "#d0d0d0",
    "shade": "#f2f2f2",
    "link": "#005a91",
}
DARK_PAGE = {
    "ground": "#15181c",
    "ink": "#e6e6e6",
    "soft": "#a8a8a8",
    "line": "#3d434b",
    "shade": "#262b31",
    "link": "#7cc4f5",
}
"""colours of the page without its plots, by the names of their CSS variables"""
INTRO = (
    "Mean ± sample standard deviation over seeds. A pass is one gradient evaluation over the whole training set;"
    " seconds are the mean time of a run's steps."
)


def write(path: Path, runs: Sequence[Run], title: str, labels: Sequence[str] = ()) -> None:
    """Writes the report of runs; the same runs give the same bytes.

    Args:
        path: of the HTML file.
        runs: at least one, each with at least one row. The runs of a recipe are drawn as their mean, with a band from
            the smallest to the largest.
        title: heading of the page.
        labels: names of the recipes, in the order of first appearance; empty: their own.
    """
    summaries = by_recipe(runs, labels)
    page_sections = sections(summaries)
    links = [("table", "Table"), *((section.id, section.title) for section in page_sections), ("runs", "Runs")]
    pool = Pool()
    page_plots = [plot for section in page_sections for figure in section.figures for plot in plots(figure, pool)]
    data = {"over": OVER, "plots": page_plots, "lists": pool.lists, "palette": PALETTE, "templates": templates()}
    parts = [
        f"<h1>{text_of(title)}</h1>{facts_of(summaries)}<nav>{_links(links)}</nav>",
        f'<h2 id="table">Table</h2><p>{INTRO} {LOSS}</p>{_table(Table(HEADINGS, [s.cells() for s in summaries]))}',
        "<noscript><p>The figures of this page need JavaScript, which is off in this browser."
        " noiseless report RUN --figures DIR writes them as files.</p></noscript>",
        _bar(summaries),
        *(_section(section) for section in page_sections),
        '<h2 id="runs">Runs</h2>',
        *(_run(run) for run in runs),
    ]
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{text_of(title)}</title><style>{_variables()}\n{_asset('page.css')}</style></head>"
        f"<body>{''.join(parts)}"
        f'<script type="application/json" id="plots">{_quoted(data)}</script>'
        f"<script>{_plotly()}</script><script>{_asset('page.js')}</script></body></html>\n"
    )
    write_bytes(path, page.encode())


def _plotly() -> str:
    from plotly.offline import get_plotlyjs  # imported here because it is slow

    return get_plotlyjs()


def _asset(name: str) -> str:
    """The text of a file in the directory of this module."""
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _quoted(data: Json) -> str:
    """JSON for a script element, with `<` escaped, so that no text in it can close the element."""
    return json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _variables() -> str:
    """The colours as CSS variables: light or dark as the system is set or the reader chooses, light on paper."""
    light, dark = (
        "".join(f"--{name}:{value};" for name, value in {**names, **_looks(colours)}.items())
        for names, colours in ((LIGHT_PAGE, COLOURS), (DARK_PAGE, DARK))
    )
    return (
        f":root{{color-scheme:light;{light}}}"
        f"@media(prefers-color-scheme:dark){{:root{{color-scheme:dark;{dark}}}}}"
        f":root[data-theme=light]{{color-scheme:light;{light}}}:root[data-theme=dark]{{color-scheme:dark;{dark}}}"
        f"@media print{{:root,:root[data-theme]{{color-scheme:light;{light}}}}}"
    )


def _looks(colours: Sequence[str]) -> dict[str, str]:
    return {f"look{k}": colour for k, colour in enumerate(colours)}


def _bar(summaries: Sequence[Summary]) -> str:
    """The bar with the choice of axis and theme, and the legend of all figures."""
    recipes = "".join(
        f'<button data-look="{look}" aria-pressed="true" title="show or hide"><svg viewBox="-17 -7 34 14" fill="none"'
        f' style="color:var(--look{look % len(COLOURS)})"><path d="M-17 0h34" stroke="currentColor" stroke-width="2"/>'
        f'<path d="{MARKERS[look % len(MARKERS)][2]}" fill="currentColor"/></svg> {text_of(summary.name)}</button>'
        for look, summary in enumerate(summaries)
    )
    overs = "".join(f'<button data-over="{over}" aria-pressed="false">{over}</button>' for over in OVER)
    themes = "".join(f'<button data-theme="{name}" aria-pressed="false">{name}</button>' for name in ("light", "dark"))
    return (
        f'<div class="bar"><span class="choice">curves over {overs}</span><span class="choice">{themes}</span>'
        f'<span class="legend">{recipes}</span></div>'
    )


def _links(links: Sequence[tuple[str, str]]) -> str:
    return "".join(f'<a href="#{place}">{text_of(name)}</a>' for place, name in links)


def _section(section: Section) -> str:
    figures = "".join(_figure(figure) for figure in section.figures)
    table = _table(section.table) if section.table else ""
    return (
        f'<section><h2 id="{section.id}">{text_of(section.title)}</h2><p>{text_of(section.text)}</p>'
        f'<div class="figures">{figures}</div>{table}</section>'
    )


def _figure(figure: AnyFigure) -> str:
    title = text_of(figure.title)
    plot = f'<div class="plot" id="plot-{figure.id}" role="img" aria-label="{title}"></div>'
    if has_surface(figure):
        surface = (
            f'<div class="plot surface" id="surface-{figure.id}" role="img" aria-label="{title}, as a surface"></div>'
        )
        plot = f'<div class="pair">{plot}{surface}</div>'
    note = f"<figcaption>{text_of(figure.note)}</figcaption>" if figure.note else ""
    kind = "wide" if figure.wide else "narrow"
    return f'<figure class="{kind}" id="figure-{figure.id}">{plot}{note}</figure>'


def _table(table: Table) -> str:
    head = "".join(f"<th>{text_of(heading)}</th>" for heading in table.headings)
    body = "".join("<tr>" + "".join(f"<td>{text_of(c)}</td>" for c in row) + "</tr>" for row in table.rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _run(run: Run) -> str:
    """One run: the command that repeats it, its environment and its recipe."""
    recipe = json.dumps(asdict(run.directory.config().recipe), indent=2)
    environment, command = _environment(run)
    return (
        f"<h3>{text_of(str(run.directory.path))}</h3><pre>{text_of(command)}</pre>"
        f"<details><summary>environment and recipe</summary><pre>{text_of(environment)}</pre>"
        f"<pre>{text_of(recipe)}</pre></details>"
    )


def _environment(run: Run) -> tuple[str, str]:
    """The text of `environment.json`, and the command that repeats the run."""
    try:
        values = environment.read(run.directory.path)
        text, command = json.dumps(values, indent=2), values["command"]
        # `noiseless reproduce` would repeat all rows of the table
        return text, shlex.join(
            command_of(run.directory.config()) if command[:2] == ["noiseless", "reproduce"] else command
        )
    except (ValueError, KeyError, TypeError) as error:
        return (
            f"environment.json cannot be read: {error}",
            "the command is unknown, because environment.json cannot be read",
        )

"""Gradient noise: its scale, the signal it is beside, and how both depend on the block's size and the layer."""

from __future__ import annotations

from collections.abc import Sequence

from noiseless.report.asked import Asked, asked, at, distinct, looks, whole
from noiseless.report.curvature import shown
from noiseless.report.curves import Quantity, panel
from noiseless.report.figures import Axis, Curves, Section, Series, Table, View, numbers, scale
from noiseless.report.summary import Summary

TEXT = (
    "The noise scale tr(S) / |g|^2, in examples, is the batch size at which the noise of a stochastic gradient would be"
    " as large as the gradient (arXiv 1812.06162). Points were asked at single states."
)
HEADINGS = (
    "state", "block", "blocks", "gradient norm", "noise scale", "signal to noise", "alignment", "momentum cosine",
    "passes",
)  # fmt: skip
PANELS = (
    ("noise-scale", Quantity("noise_scale", "Noise scale", "noise scale, examples", True)),
    ("signal-to-noise", Quantity("signal_to_noise", "Signal to noise of a block's gradient", "signal to noise", True)),
)


def section(summaries: Sequence[Summary]) -> Section:
    """All that the runs know of their gradients' noise."""
    ones = asked(summaries, "noise")
    figures = []
    for name, quantity in PANELS:

        def more(summary: Summary, look: int, over: str, key: str = quantity.key) -> list[Series]:
            x, y = at([one for one in ones if one.look == look], over, lambda found: found[key])
            return [Series(f"{summary.name}, asked", x, y, look, "points")] if x else []

        figures += panel(name, quantity, summaries, more)
    return Section("noise", "Gradient noise", TEXT, [*figures, *_by_block(ones), *_by_layer(ones)], _table(ones))


def _by_block(ones: Sequence[Asked]) -> list[Curves]:
    """Signal to noise over the block's size."""
    having = [one for one in ones if one.found.get("by_block")]
    chosen, legend = looks(having)
    series = []
    for one, name, look in zip(having, _names(having), chosen, strict=True):
        with whole(one) as found:
            sizes = numbers(each["block"] for each in found["by_block"])
            ratios = numbers(each["signal_to_noise"] for each in found["by_block"])
        pairs = sorted((x, k) for k, x in enumerate(sizes) if x is not None)
        series.append(Series(name, [x for x, _ in pairs], [ratios[k] for _, k in pairs], look))
    values = [y for each in series for y in each.y]
    if all(value is None for value in values):
        return []
    x = Axis("examples a block", scale(float(x) for each in series for x in each.x))
    y = Axis("signal to noise", scale(values))
    view = {"block": View(x, series)}
    return [Curves("signal-to-noise-by-block", "Signal to noise by block size", y, view, legend=legend)]


def _by_layer(ones: Sequence[Asked]) -> list[Curves]:
    """Signal to noise of each parameter, at the last state that was asked of each run."""
    having = [one for one in ones if one.found.get("layers")]
    last = {id(one.run): one for one in having}  # answers come by rising step
    chosen, legend = looks(list(last.values()))
    series = []
    for one, name, look in zip(last.values(), _names(list(last.values())), chosen, strict=True):
        with whole(one) as found:
            layers = found["layers"]
            values = numbers(layers[layer]["signal_to_noise"] for layer in layers)
        series.append(Series(name, list(layers), values, look, "points"))
    values = [y for each in series for y in each.y]
    if all(value is None for value in values):
        return []
    view = {"layer": View(Axis("parameter"), series)}
    axis = Axis("signal to noise", scale(values))
    return [Curves("signal-to-noise-by-layer", "Signal to noise by layer", axis, view, legend=legend, wide=True)]


def _names(ones: Sequence[Asked]) -> list[str]:
    return distinct([one.name for one in ones], [one.answer.name for one in ones])


def _table(ones: Sequence[Asked]) -> Table | None:
    rows = []
    for one in ones:
        keys = ("gradient_norm", "noise_scale", "signal_to_noise", "alignment", "momentum_cosine", "passes")
        with whole(one) as found:
            rows.append((one.name, str(found["block"]), str(found["blocks"]), *(shown(found.get(key)) for key in keys)))
    return Table(HEADINGS, rows) if rows else None

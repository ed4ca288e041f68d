"""What an answer says, in two sentences made of its numbers: the words follow the numbers, also where they change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Entry = Mapping[str, Any]


def _sharpness(entry: Entry) -> str:
    first, *others = entry["largest"]
    edge = entry.get("stability")
    beside = "no edge is known for this optimizer" if edge is None else f"{first / edge:.2f} of the edge, {edge:.4g}"
    return (
        f"The largest eigenvalue of the Hessian is {first:.4g}: {beside}. "
        f"The next ones are {' and '.join(f'{value:.4g}' for value in others)}."
    )


def _ggn(entry: Entry) -> str:
    first, *others = entry["largest"]
    return (
        f"The largest eigenvalue of the Gauss-Newton matrix is {first:.4g}, the next are "
        f"{' and '.join(f'{value:.4g}' for value in others)}. "
        "What the Hessian has besides comes from the network's own second derivatives."
    )


def _layers(entry: Entry) -> str:
    rows = sorted(entry["layers"], key=lambda layer: -layer["largest"][0])
    most = max(entry["layers"], key=lambda layer: layer["trace"]["value"])
    return (
        f"The sharpest block is that of `{rows[0]['name']}` ({rows[0]['largest'][0]:.4g}), the flattest that of "
        f"`{rows[-1]['name']}` ({rows[-1]['largest'][0]:.3g}). "
        f"`{most['name']}` has the largest trace, {most['trace']['value']:.3g} ± {most['trace']['error']:.2g}."
    )


def _noise(entry: Entry) -> str:
    variance = f"One example's gradient has the variance {entry['covariance_trace']:.4g}"
    if entry.get("noise_scale") is None:
        return f"{variance}. A noise scale is not given: {entry.get('reason', '')}."
    low, high = entry["noise_scale_interval"]
    top = "" if high is None else f"{high:,.0f}"
    return (
        f"{variance}. The noise scale, the batch with as much noise as signal, is {entry['noise_scale']:,.0f} examples "
        f"(95 % interval {low:,.0f} to {top}) where there are {entry['examples']}."
    )


def _landscape(entry: Entry) -> str:
    loss, middle = entry["loss"], len(entry["loss"]) // 2
    accuracy = entry["accuracy"]
    return (
        f"The loss is {loss[middle]:.4g} in the middle of a random line, {loss[0]:.4g} and {loss[-1]:.4g} at its ends. "
        f"The accuracy is {100 * accuracy[middle]:.0f} %, and {100 * accuracy[0]:.0f} and {100 * accuracy[-1]:.0f} %."
    )


def _flatness(entry: Entry) -> str:
    return (
        f"At a distance of {entry['radius']:g} the loss is higher by "
        f"{entry['mean_increase']:.3g} ± {entry['standard_error']:.2g}. "
        f"This is the mean over {entry['directions']} filter-normalised random directions."
    )


def _edge(entry: Entry) -> str:
    ratio = [value / edge for value, edge in zip(entry["sharpness"], entry["edge"], strict=True)]
    where = (
        f"from {ratio[0]:.2f} of the edge at step {entry['steps'][0]} to {ratio[-1]:.2f} at step {entry['steps'][-1]}"
    )
    measure = "The sharpness in spectral norms goes" if entry["measure"] == "spectral" else "The sharpness goes"
    return (
        f"{measure} {where}. It crosses the edge {entry['crossings']} times, with {entry['catapults']} catapults, "
        f"and the loss rises in {entry['rises']} steps."
    )


def _sharpen(entry: Entry) -> str:
    sums = {name: sum(causes[name] for causes in entry["causes"]) for name in entry["causes"][0]}
    parts = ", ".join(f"{name} {value:+.3g}" for name, value in sums.items() if value)
    change, predicted, second = (sum(entry[name]) for name in ("change", "predicted", "second_order"))
    return (
        f"In {len(entry['change'])} steps the largest eigenvalue changes by {change:+.4g}, and the causes add up to "
        f"{predicted:+.4g} (second order: {second:+.4g}). The causes are {parts}."
    )


def _flow(entry: Entry) -> str:
    words = []
    for name, flow in entry["by_flow"].items():
        share = [value for value in flow["share"] if value is not None][-1]
        parted = "has not parted" if flow["parted"] is None else f"parted after {flow['parted']} steps"
        words.append(f"the {name} flow {parted} (distance {100 * share:.2g} % of the run's own way)")
    observed = [value for value in entry["observed"]["mean_loss"] if value is not None][-1]
    ends = ", ".join(
        f"{name} {[value for value in flow['mean_loss'] if value is not None][-1]:.4g}"
        for name, flow in entry["by_flow"].items()
    )
    return f"At the end {', and '.join(words)}. The run's mean loss is {observed:.4g}; predicted are {ends}."


def _decompose(entry: Entry) -> str:
    words = []
    for part in entry["batches"]:
        found = part["without"]
        length = found["coefficient"]["value"]
        size = found["displacement"]["value"]
        text = "is not told from 0" if size is None or length is None else (
            f"has the length {size:.3g}, and along the prediction {length:.3f} of it"
        )  # fmt: skip
        words.append(f"with batches of {part['batch']} it {text}")
    return (
        f"The mean difference of one pass from full-batch steps, at lr {entry['lr']:g}: {'; '.join(words)}. "
        "1 is what implicit regularisation and curvature drift predict."
    )


def _fork(entry: Entry) -> str:
    height = entry["barriers"]["loss"]
    over = (
        "no barrier is measured, as the ends are equal" if height is None else f"the barrier is {height['height']:.3g}"
    )
    flip = entry.get("flip")
    changes = ", ".join(f"another {name}" for name in entry["changes"])
    what = changes if flip is None else "the other lowest bit in one weight"
    return (
        f"With {what} from step {entry['step']} on, the runs end {entry['distance'][-1]:.3g} apart. "
        f"On the line between the ends, {over} for the training loss."
    )


def _dial(entry: Entry) -> str:
    rows = [
        line.split("|")[1:4] for line in entry["table"].splitlines() if line.startswith("| ") and "---" not in line
    ][1:]
    arms = ", ".join(f"{row[0].strip()} {row[1].strip()}" for row in rows)
    return f"Test accuracy in %, by source of noise: {arms}. The measured noise is in the answer's table."


SAYS: dict[str, Callable[[Entry], str]] = {
    "sharpness": _sharpness,
    "ggn": _ggn,
    "layers": _layers,
    "noise": _noise,
    "landscape": _landscape,
    "flatness": _flatness,
    "edge-muon": _edge,
    "sharpen": _sharpen,
    "flow": _flow,
    "decompose": _decompose,
    "fork": _fork,
    "fork-resnet-0-1": _fork,
    "dial": _dial,
}
"""question -> its sentences; edges and forks of the published findings have tables of their own"""

"""`noiseless decompose`: its answer beside a naive loop, resume, workers, report, wrong input."""

from __future__ import annotations

import pytest
import torch
from small_runs import call, copy, files, npz, refused, run, small_recipe, words

from noiseless.analysis.decompose import drawn_order
from noiseless.ask.decompose import Store, carry_out, prepare
from noiseless.ask.onepass import DecomposeOptions
from noiseless.ask.state import load_state
from noiseless.files import answers
from noiseless.files.address import StateAddress
from noiseless.report import summary
from noiseless.report.contents import sections

ORDERS, BATCH, LR = 3, 12, 0.04


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A linear model after 2 full-batch steps, in blocks of 16."""
    data = npz(tmp_path_factory.mktemp("data") / "tiny.npz")
    recipe = small_recipe(data, "fb", model="linear", steps=2, dtype="float64", augment="none")
    return run(tmp_path_factory.mktemp("runs") / "run", recipe, keep_every=1)


def options(**changes) -> DecomposeOptions:
    return DecomposeOptions(**({"batches": (BATCH,), "orders": ORDERS, "lr": LR} | changes))


def naive(finished) -> tuple[torch.Tensor, list[torch.Tensor], list[torch.Tensor]]:
    """Displacements of the full batch, and of each order both ways, without and with replacement, by plain torch."""
    state = load_state(StateAddress(finished, 2))
    model, images = state.experiment.model.eval(), state.risk.selection.examples
    x, y = images.take(torch.arange(48))
    start = {name: p.detach().clone() for name, p in model.named_parameters()}

    def gradients(numbers):
        for p in model.parameters():
            p.grad = None
        torch.nn.functional.cross_entropy(model(x[numbers]), y[numbers]).backward()
        return [p.grad for p in model.parameters()]

    def walk(batches):
        for name, p in model.named_parameters():
            p.data.copy_(start[name])
        for numbers in batches:
            for p, g in zip(model.parameters(), gradients(numbers), strict=True):
                p.data -= LR * g
        return torch.cat([(p.detach() - start[name]).flatten() for name, p in model.named_parameters()])

    everything = torch.arange(48)
    full, means = walk([everything] * 4), {False: [], True: []}
    at_start = {}
    for kind in (False, True):
        for number in range(ORDERS):
            batches = drawn_order(0, number, 48, kind).split(BATCH)
            end = (walk(batches) + walk(batches[::-1])) / 2
            if kind:
                walk([])
                noise = sum(torch.cat([g.flatten() for g in gradients(numbers)]) for numbers in batches)
                at_start = torch.cat([g.flatten() for g in gradients(everything)])
                end = end + LR * (noise - 4 * at_start)
            means[kind].append(end - full)
    return full, means[False], means[True]


def length(vectors: list[torch.Tensor]) -> float | None:
    """The unbiased length of a mean: from products of different orders."""
    pairs = [float(a @ b) for i, a in enumerate(vectors) for j, b in enumerate(vectors) if i != j]
    return (sum(pairs) / len(pairs)) ** 0.5 if sum(pairs) > 0 else None


def test_the_answer_is_that_of_a_naive_loop(finished):
    full, without, drawn = naive(finished)
    answer = carry_out(prepare(load_state(StateAddress(finished, 2)), options()))
    (part,) = answer.values["batches"]
    assert (part["updates"], part["batch"]) == (4, BATCH)
    assert part["full_norm"] == pytest.approx(float(full.norm()), rel=1e-9)
    assert part["without"]["displacement"]["value"] == pytest.approx(length(without), rel=1e-7)
    expected = length(drawn)  # None where noise makes the estimate of its square negative
    found = part["with"]["displacement"]["value"]
    assert found is None if expected is None else found == pytest.approx(expected, rel=1e-7)
    # of one state, the full-batch steps, the products of a state, and 3 orders of 6 and 3 passes
    assert answer.values["passes"] == 4 + 4 + ORDERS * 9


def test_a_small_rate_has_the_predicted_drift(finished):
    """What is left is of third order in the rate: against the difference, it falls with the rate."""
    shares = []
    for lr in (0.04, 0.01):
        values = carry_out(prepare(load_state(StateAddress(finished, 2)), options(lr=lr, replacement=False))).values
        without = values["batches"][0]["without"]
        shares.append(abs(without["coefficient"]["value"] - 1))
        assert without["cosine"]["value"] > 0.98
        assert values["batches"][0]["with"] is None
    assert shares[1] < 0.5 * shares[0]


def test_an_interrupted_decomposition_goes_on_to_the_same_bits(finished, tmp_path):
    at_once, halted = copy(finished, tmp_path / "at-once"), copy(finished, tmp_path / "halted")
    answer = carry_out(prepare(load_state(StateAddress(at_once, 1)), options()))
    done = []

    def stop(passes):
        done.append(passes)
        if len(done) == 5:
            raise KeyboardInterrupt

    job = prepare(load_state(StateAddress(halted, 1)), options())
    with pytest.raises(KeyboardInterrupt):
        carry_out(job, stop)
    (kept,) = (path for path in job.folder.iterdir() if path.name == "batch-12-without-2.safetensors")
    kept.write_bytes(kept.read_bytes()[:-8])  # damaged: computed again
    assert len(list(job.folder.iterdir())) == 5
    assert carry_out(prepare(load_state(StateAddress(halted, 1)), options())) == answer
    assert not job.folder.exists()


def test_two_processes_do_not_compute_the_same_decomposition(finished, tmp_path):
    """The first one to end would remove the vectors that the other one reads."""
    directory = copy(finished, tmp_path / "run")
    job = prepare(load_state(StateAddress(directory, 1)), options())
    with Store(job).unfinished.locked():
        names = ("is being computed by another process", job.folder.name)
        refused("decompose", f"{directory.path}@1", "--batches", BATCH, "--orders", ORDERS, "--lr", LR, names=names)
    assert carry_out(job).values["orders"] == ORDERS


def test_the_command_prints_saves_and_draws(finished, tmp_path):
    directory = copy(finished, tmp_path / "run")
    before = files(directory.path)
    flags = ("--batches", 24, 12, "--orders", 3, "--lr", 0.2)
    estimate = call("decompose", f"{directory.path}@1", *flags, "--estimate")
    assert (estimate.code, files(directory.path)) == (0, before)
    assert "48 examples in batches of 24, 12, rate 0.2, 3 orders, each also backwards: 62 passes" in words(estimate.out)
    answer = call("decompose", f"{directory.path}@1", *flags)
    assert (answer.code, answer.err) == (0, "")
    text = words(answer.out)
    assert all(word in text for word in ("batches of 24", "implicit regularisation", "with replacement: difference"))
    (saved,) = answers.read(directory, "decompose")
    assert saved.name == "1-lr-0.2-batches-24-12-orders-3-seed-0"
    shown = sections(summary.by_recipe(summary.read([directory])))
    drawn = {figure.id: figure for section in shown for figure in section.figures}
    series = {line.name: line for line in drawn["one-pass-1"].views["batch"].series}
    assert series["curvature drift"].x == [12.0, 24.0]
    assert series["curvature drift"].y == [part["curvature_norm"] for part in saved.values["batches"][::-1]]


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        (("--batches", 7), ("48 examples", "7", "6 or 8")),
        (("--batches", 48), ("two batches or more",)),
        (("--orders", 2), ("--orders", "3", "2")),
        (("--lr", 0), ("--lr", "0")),
        (("--lr", 1e300), ("finite", "smaller --lr")),
    ],
)
def test_wrong_input_is_one_sentence(finished, tmp_path, flags, names):
    refused("decompose", copy(finished, tmp_path / "run").path, *flags, names=names)

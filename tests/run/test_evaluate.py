"""Evaluation: the plain cross entropy, whatever loss a run minimises, and averages over mirror images."""

import math

import pytest
import torch
from small_runs import IMAGES, TESTED, call, prepare, refused, run, small_recipe
from torch import nn

from noiseless.recipes.flags import with_flags
from noiseless.run.evaluate import score


@pytest.fixture(scope="module")
def experiment(data):
    """A run's objects in float64, with running statistics that are not the initial ones."""
    prepared = prepare(small_recipe(data, "fb", dtype="float64"))
    objective = next(iter(prepared.regime.objectives(0)))
    objective.accept(objective.evaluate())
    return prepared


def _naive(model, images, labels, flips):
    """Mean loss and share of hits, one image at a time, by explicit probabilities."""
    model.eval()
    losses, hits = [], 0
    for image, label in zip(images, labels.tolist(), strict=True):
        views = [image]
        if flips:
            mirror = torch.empty_like(image)
            for column in range(image.shape[2]):
                mirror[:, :, column] = image[:, :, image.shape[2] - 1 - column]
            views.append(mirror)
        with torch.no_grad():
            outputs = [model(view[None])[0].exp() for view in views]
        p = sum(output / output.sum() for output in outputs) / len(outputs)
        losses.append(-math.log(p[label]))
        hits += int(p.argmax()) == label
    return sum(losses) / len(losses), hits / len(losses)


@pytest.mark.parametrize("flips", [False, True])
def test_a_score_is_the_mean_over_images_one_at_a_time(experiment, flips):
    images, labels = experiment.train.take(torch.arange(IMAGES))
    result = score(experiment.model.train(), experiment.train, flips)
    assert experiment.model.training  # the mode is not changed
    loss, accuracy = _naive(experiment.model, images, labels, flips)
    assert result.loss == pytest.approx(loss, rel=1e-10)  # float64
    assert result.accuracy == accuracy


def test_mirrored_images_have_the_same_score(experiment):
    class Mirrored:
        def __len__(self):
            return TESTED

        def take(self, index):
            x, y = experiment.test.take(index)
            return x.flip(-1), y

    plain, mirrored = (score(experiment.model, images) for images in (experiment.test, Mirrored()))
    both = [score(experiment.model, images, flips=True) for images in (experiment.test, Mirrored())]
    assert plain.loss != mirrored.loss  # or the test would show nothing
    assert both[0].loss == pytest.approx(both[1].loss, rel=1e-12)
    # -log is convex: the loss of the mean is at most the mean of the losses
    assert both[0].loss < (plain.loss + mirrored.loss) / 2


def test_a_confident_mistake_has_a_finite_loss(experiment):
    # exp(-2000) is 0 in any float: the probabilities are never formed
    class Sure(nn.Module):
        def forward(self, x):
            return torch.tensor([[2000.0, 0.0, 0.0, 0.0]], dtype=x.dtype).expand(len(x), 4)

    result = score(Sure(), experiment.test, flips=True)
    wrong = (experiment.test.labels != 0).double().mean().item()
    assert result.loss == pytest.approx(2000 * wrong)
    assert result.accuracy == pytest.approx(1 - wrong)


def test_a_run_with_test_flips_evaluates_with_flips_and_so_does_evaluate(data, tmp_path):
    plain, flipped = (
        run(tmp_path / str(flips), small_recipe(data, "fb", steps=2, test_flips=flips)) for flips in (False, True)
    )
    last, experiment = flipped.rows()[-1], prepare(flipped.config().recipe)
    experiment.model.load_state_dict(flipped.state())
    result = score(experiment.model, experiment.test, flips=True)
    assert (last["test_loss"], last["test_accuracy"]) == (result.loss, result.accuracy)
    assert last["test_loss"] != plain.rows()[-1]["test_loss"]
    answer = call("evaluate", flipped.path)
    assert "averaged over the image and its mirror image" in answer.out
    assert f"test   loss {result.loss:.6f}" in answer.out
    assert "mirror" not in call("evaluate", plain.path).out


def test_evaluate_reads_the_training_images_without_policy_and_crop(data, tmp_path):
    recipe = small_recipe(data, "fb", policy="rand", padding=3, flip=0.5)
    directory = run(tmp_path / "run", recipe)
    clean = prepare(with_flags(recipe, policy="none", augment="none"))
    clean.model.load_state_dict(directory.state())
    result = score(clean.model, clean.train)
    answer = call("evaluate", directory.path)
    assert f"train  loss {result.loss:.6f}  accuracy {result.accuracy:.4%}" in answer.out


@pytest.mark.parametrize(
    ("changes", "target", "other"),
    [
        ({"label_smoothing": 0.2}, 0.85, 0.05),  # 4 classes: 1 - s + s / 4, and s / 4
        ({"label_smoothing": 0.3, "compat": "published"}, 0.7, 0.1),  # 1 - s, and s / 3
        ({"loss": "incorrect"}, 1.0, 0.0),
        ({"loss": "incorrect", "label_smoothing": 0.2}, 0.85, 0.05),
    ],
)
def test_a_run_minimises_its_loss_and_is_evaluated_by_the_plain_cross_entropy(changes, target, other, data, tmp_path):
    # one block of all images, not augmented: the first row is the loss of the initial parameters
    recipe = small_recipe(data, "fb", dtype="float64", block=IMAGES, augment="none", steps=2, warmup=0, **changes)
    directory = run(tmp_path / "run", recipe, evaluate_every=1)
    experiment = prepare(recipe)
    images, labels = experiment.train.take(torch.arange(IMAGES))
    log_p = experiment.model.train()(images).detach().log_softmax(1)
    targets = torch.full_like(log_p, other).scatter_(1, labels[:, None], target)
    losses = -(targets * log_p).sum(1)
    if "loss" in changes:
        losses[log_p.argmax(1) == labels] = 0.0
    assert directory.rows()[0]["train_loss"] == pytest.approx(losses.mean().item(), rel=1e-10)
    experiment.model.load_state_dict(directory.state())
    loss, accuracy = _naive(experiment.model, *experiment.test.take(torch.arange(TESTED)), flips=False)
    last = directory.rows()[-1]
    assert (last["test_loss"], last["test_accuracy"]) == (pytest.approx(loss, rel=1e-10), accuracy)


@pytest.mark.parametrize(
    ("flag", "value", "names"),
    [
        ("--label-smoothing", "1", ("--label-smoothing", "below 1")),
        ("--label-smoothing", "-0.1", ("--label-smoothing", "-0.1")),
        ("--label-smoothing", "nan", ("--label-smoothing", "nan")),
        ("--stop-perfect", "-1", ("--stop-perfect", "-1", "at least 0")),
        ("--full-penalty", "-1", ("--full-penalty", "-1")),
    ],
)
def test_numbers_out_of_range_are_refused(flag, value, names, data, tmp_path):
    refused("train", "fb", "--data", data, flag, value, "--run-dir", tmp_path / "run", names=names)
    assert not (tmp_path / "run").exists()

"""The stochastic regime is plain mini-batch training: it equals a loop of a few lines in ordinary PyTorch."""

import pytest
import torch
import torch.nn.functional as F
from small_runs import IMAGES, prepare, run, small_recipe

from noiseless import keyed, models


def plain_loop(norm, images, labels, order_of, steps, block, lr_of):
    """Ordinary mini-batch SGD in float64: the model's own batch norm, its own running statistics, torch's SGD."""
    model = models.build("resnet2", 1, 4, models.Form(norm), seed=0).double().train()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    losses = []
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = lr_of(step)
        total = 0.0
        for part in order_of(step).split(block):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(images[part]), labels[part])
            loss.backward()
            optimizer.step()
            total += loss.item() * len(part)
        losses.append(total / len(images))
    return model, losses


@pytest.mark.parametrize(("replacement", "norm"), [(False, "batch"), (True, "batch"), (False, "group")])
def test_the_stochastic_regime_equals_a_plain_loop(data, tmp_path, replacement, norm):
    # blocks of 20 on 48 images: the last mini-batch is short
    recipe = small_recipe(
        data, "sgd", augment="none", dtype="float64", steps=2, block=20, warmup=0, replacement=replacement, norm=norm
    )
    images, labels = prepare(recipe).train.take(torch.arange(IMAGES))

    def order_of(step):
        if replacement:
            return keyed.integers(0, "replacement", step, torch.arange(IMAGES), IMAGES)
        return keyed.permutation(0, "shuffle", step, IMAGES)

    # without a warm-up the cosine begins at step 0; its horizon is 4: lr (1 + cos(pi t / 4)) / 2
    rates = [0.1, 0.1 * (1 + 0.5**0.5) / 2]
    model, losses = plain_loop(norm, images, labels, order_of, 2, 20, rates.__getitem__)
    directory = run(tmp_path / "run", recipe)
    state, expected = directory.state(), model.state_dict()
    assert state.keys() == expected.keys()
    # The two sum in another order; float64 rounds to 1e-16, and six updates through batch norm amplify that
    # by several orders of magnitude at most.
    for name, tensor in expected.items():
        torch.testing.assert_close(state[name], tensor, rtol=1e-9, atol=1e-11)
    assert [row["train_loss"] for row in directory.rows()] == pytest.approx(losses, rel=1e-9)
    if norm == "batch":
        assert state["stem.1.num_batches_tracked"] == 6
        assert not torch.equal(state["stem.1.running_var"], torch.ones_like(state["stem.1.running_var"]))

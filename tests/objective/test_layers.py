"""What an objective cannot train is refused with a remedy; sparse gradients are made dense."""

from __future__ import annotations

import copy

import problems
import pytest
import torch
from torch import nn

from noiseless import EmpiricalRisk, Execution, cross_entropy, parameter_space
from noiseless.errors import ModuleError
from noiseless.objective import layout
from noiseless.objective.compiled import Compiler


class Bag(nn.Module):
    """Mean of embeddings, and a linear layer."""

    def __init__(self, kind=nn.Embedding, **how):
        super().__init__()
        self.embedding, self.head = kind(10, 4, **how), nn.Linear(4, 3)

    def forward(self, x):
        x = self.embedding(x)
        return self.head(x if x.ndim == 2 else x.mean(1))


def tokens():
    rng = problems.generator(3)
    return torch.randint(10, (11, 3), generator=rng), problems.points()[1]


@pytest.mark.parametrize("kind", [nn.Embedding, nn.EmbeddingBag])
def test_an_embedding_that_renormalises_itself_is_refused_with_its_name(kind):
    with pytest.raises(ValueError, match=r"^embedding is an embedding with max_norm=1.*set max_norm to None"):
        EmpiricalRisk(Bag(kind, max_norm=1.0), cross_entropy, tokens())
    with pytest.raises(ValueError, match=r"^the module is an embedding with max_norm=0.5"):
        EmpiricalRisk(nn.Embedding(10, 3, max_norm=0.5), cross_entropy, tokens())


@pytest.mark.parametrize(("kind", "chunk"), [(nn.Embedding, 1), (nn.Embedding, 3), (nn.EmbeddingBag, 1)])
def test_sparse_gradients_are_made_dense_with_a_warning(kind, chunk):
    model = problems.fill(Bag(kind, sparse=True))
    plain = copy.deepcopy(model)
    plain.embedding.sparse = False
    settings = {"block": 4, "execution": Execution(chunk=chunk)}
    with pytest.warns(UserWarning, match="the sparse gradients of embedding are computed dense"):
        risk = EmpiricalRisk(model, cross_entropy, tokens(), **settings)
    expected = EmpiricalRisk(plain, cross_entropy, tokens(), **settings).evaluate()
    assert torch.equal(risk.evaluate().gradient, expected.gradient)
    assert model.embedding.sparse  # outside a sweep it is as it was


def spectral():
    module = nn.Linear(3, 3)
    module.spectrum = nn.Parameter(torch.zeros(3, 2, dtype=torch.cfloat))
    return module


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (spectral(), r"complex parameters cannot be trained: spectrum \(torch.complex64\).*view_as_complex"),
        (nn.Sequential(nn.Linear(3, 3), nn.LazyLinear(3)), "1.weight, 1.bias of a lazy layer has no shape yet: call"),
    ],
)
def test_parameters_that_are_no_part_of_a_real_vector_are_refused(module, message):
    with pytest.raises(ValueError, match=message):
        parameter_space(module)


class Shared(nn.Module):
    """Two parameters of the same memory: an autoencoder's decoder is the transpose of its encoder."""

    def __init__(self, view):
        super().__init__()
        self.encoder = nn.Parameter(torch.randn(3, 4))
        self.decoder = nn.Parameter(view(self.encoder.data))


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("view", [lambda w: w.T, lambda w: w[1:], lambda w: w.view(2, 6)], ids=["T", "part", "shape"])
def test_parameters_that_share_memory_are_refused(view, frozen):
    module = Shared(view)
    module.decoder.requires_grad_(not frozen)
    with pytest.raises(ValueError, match=r"the parameters (encoder and decoder|decoder and encoder) share memory"):
        parameter_space(module)


def test_parameters_side_by_side_in_one_storage_are_no_fault():
    module, storage = nn.Module(), torch.randn(24)
    module.one, module.two = nn.Parameter(storage[:12].view(3, 4)), nn.Parameter(storage[12:].view(4, 3))
    assert len(parameter_space(module)) == 24


class Centers(nn.Module):
    """A loss with parameters of its own: the distance to a center for each class."""

    def __init__(self):
        super().__init__()
        self.centers = nn.Parameter(torch.zeros(3, 3, dtype=torch.float64))

    def forward(self, output, target):
        return (output - self.centers[target]).square().sum(1)


class WithLoss(nn.Module):
    """A module whose forward computes the loss."""

    def __init__(self):
        super().__init__()
        self.scores, self.loss = problems.perceptron(), Centers()

    def forward(self, x, y):
        return self.loss(self.scores(x), y)


def test_a_loss_with_trainable_parameters_is_refused_and_the_remedy_works():
    x, y = problems.points()
    with pytest.raises(ValueError, match=r"the loss has trainable parameters \(centers\).*\(x, y, y\)"):
        EmpiricalRisk(problems.perceptron(), Centers(), (x, y))
    EmpiricalRisk(problems.perceptron(), Centers().requires_grad_(False), (x, y)).evaluate()
    module = WithLoss()
    expected = torch.autograd.grad(module(x, y).mean(), list(module.parameters()))
    risk = EmpiricalRisk(module, lambda output, target: output, (x, y, y), block=4)
    gradients = risk.space.split(risk.evaluate().gradient).values()
    for one, other in zip(gradients, expected, strict=True):
        torch.testing.assert_close(one, other)


class Viewing(nn.Module):
    """Flattens with `view`, as torch's own tutorials do."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.convolution, self.dropout, self.head = nn.Conv2d(3, 4, 3), nn.Dropout(dropout), nn.Linear(4 * 6 * 6, 3)

    def forward(self, x):
        return self.head(self.dropout(self.convolution(x).relu()).view(len(x), -1))


def images():
    rng = problems.generator(4)
    return torch.randn(11, 3, 8, 8, generator=rng, dtype=torch.float64), problems.points()[1]


@pytest.mark.parametrize(
    ("block", "chunk", "compiler"), [(11, 1, None), (5, 1, None), (5, 2, None), (4, 2, None), (5, 1, Compiler())]
)
def test_a_model_that_flattens_by_view_is_right(block, chunk, compiler):
    model = problems.fill(Viewing())
    x, y = images()
    expected = torch.autograd.grad(nn.functional.cross_entropy(model(x), y), list(model.parameters()))
    execution = Execution(chunk=chunk, compiler=compiler)
    risk = EmpiricalRisk(model, cross_entropy, (x, y), block=block, execution=execution)
    for one, other in zip(risk.space.split(risk.evaluate().gradient).values(), expected, strict=True):
        torch.testing.assert_close(one, other)


def test_what_was_drawn_before_it_refused_the_format_is_drawn_again():
    model = problems.fill(Viewing(dropout=0.5))
    first, again = (EmpiricalRisk(model, cross_entropy, images(), block=4).evaluate() for _ in range(2))
    assert torch.equal(first.gradient, again.gradient)  # the first tried channels-last format in its first block
    layout._contiguous.add(other := copy.deepcopy(model))
    assert torch.equal(EmpiricalRisk(other, cross_entropy, images(), block=4).evaluate().gradient, first.gradient)


def test_another_error_of_a_model_is_its_own():
    model = problems.fill(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(100, 3)))
    with pytest.raises(ModuleError, match="mat1 and mat2 shapes cannot be multiplied"):
        EmpiricalRisk(model, cross_entropy, images(), block=4).evaluate()

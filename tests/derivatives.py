"""A table of torch's layers, losses and other operations, for the sweep over their second and third derivatives."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from problems import generator, targets
from torch import Tensor, nn
from torch.nn.utils import parametrizations

COUNT = 4

Layer = tuple[Callable[[], nn.Module], tuple[int, ...]]


def curved(output: Tensor, target: Tensor) -> Tensor:
    """A loss with derivatives of all orders up to the third, and more."""
    return (output.sin() + 0.3 * output.square() + 0.1 * output**3).flatten(1).mean(1)


def inputs(shape: tuple[int, ...]) -> Tensor:
    """Input of a layer of the table: without a shape, numbers of tokens."""
    if not shape:
        return torch.randint(7, (COUNT, 3), generator=generator())
    return torch.randn(COUNT, *shape, generator=generator(), dtype=torch.float64)


def target(kind: str) -> Tensor:
    real = targets(COUNT, 4)
    return {
        "class": torch.tensor([0, 2, 3, 2]),
        "labels": torch.tensor([[3, 0, -1, 1], [1, -1, -1, -1], [2, 1, 0, -1], [-1, 2, 0, 1]]),
        "real": real,
        "share": real.softmax(1),
        "sign": real.sign(),
    }[kind]


class Around(nn.Module):
    """A layer behind a parameter that is added to its input, so that derivatives of the input count."""

    def __init__(self, layer: nn.Module, shape: tuple[int, ...]):
        super().__init__()
        self.layer = layer
        self.shift = nn.Parameter(torch.randn(shape))

    def forward(self, x: Tensor) -> Tensor:
        output = self.layer(x + self.shift if x.is_floating_point() else x)
        return output[0] if isinstance(output, tuple) else output


class Call(nn.Module):
    """A function of the input and of parameters in these shapes."""

    def __init__(self, function: Callable[..., Any], *shapes: tuple[int, ...]):
        super().__init__()
        self.function = function
        self.weights = nn.ParameterList([nn.Parameter(torch.randn(shape)) for shape in shapes])

    def forward(self, x: Tensor) -> Any:
        return self.function(x, *self.weights)


class Attention(nn.Module):
    def __init__(self, weights: bool = False, masked: bool = False, **options: Any):
        super().__init__()
        self.weights, self.masked = weights, masked
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True, **options)

    def forward(self, x: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(3, dtype=x.dtype) if self.masked else None
        return self.attention(x, x, x, need_weights=self.weights, attn_mask=mask)[0]


class EncoderDecoder(nn.Transformer):
    def __init__(self) -> None:
        super().__init__(6, 2, 1, 1, 8, dropout=0.0, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x, x[:, :2])


class Bags(nn.Module):
    """Bags of unequal length, one of them empty, or all of one length with weights."""

    def __init__(self, mode: str, weights: bool = False, last: bool = False):
        super().__init__()
        self.bag = nn.EmbeddingBag(7, 4, mode=mode, include_last_offset=last)
        self.weights = nn.Parameter(torch.randn(3)) if weights else None
        self.last = last

    def forward(self, x: Tensor) -> Tensor:
        if self.weights is not None:
            return self.bag(x, per_sample_weights=self.weights.expand(x.shape))
        offsets = torch.tensor([0, 2, 2, 7] + [12] * self.last)
        return self.bag(x.flatten(), offsets)


class Packed(nn.LSTM):
    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        lengths = torch.tensor([3] * (len(x) - 1) + [2])
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
        return nn.utils.rnn.pad_packed_sequence(super().forward(packed)[0], batch_first=True)[0]  # type: ignore[arg-type]


def _old_weight_norm() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated, and still used
        return nn.utils.weight_norm(nn.Conv1d(3, 4, 2))


def _encoder_layer(**options: Any) -> nn.Module:
    return nn.TransformerEncoderLayer(6, 2, 8, batch_first=True, **options)


def _causal(x: Tensor, weight: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(x @ weight, x, x, is_causal=True)


def _grouped(x: Tensor, weight: Tensor) -> Tensor:
    queries, keys = torch.stack([x @ weight] * 4, 1), torch.stack([x] * 2, 1)
    return F.scaled_dot_product_attention(queries, keys, keys, enable_gqa=True)


def _batch_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.batch_norm(x, None, None, weight, bias, training=True)


REPLACED: dict[str, Layer] = {
    "weight norm": (lambda: parametrizations.weight_norm(nn.Linear(5, 4)), (5,)),
    "weight norm of columns": (lambda: parametrizations.weight_norm(nn.Linear(5, 4), dim=1), (5,)),
    "weight norm of all": (lambda: parametrizations.weight_norm(nn.Linear(5, 4), dim=None), (5,)),
    "weight norm by a hook": (_old_weight_norm, (3, 4)),
    "Hardsigmoid": (nn.Hardsigmoid, (5,)),
    "LayerNorm": (lambda: nn.LayerNorm(5), (5,)),
    "LayerNorm of two dimensions": (lambda: nn.LayerNorm((2, 3), bias=False), (2, 3)),
    "torch.layer_norm": (lambda: Call(lambda x, w, b: torch.layer_norm(x, (5,), w, b), (5,), (5,)), (5,)),
    "InstanceNorm1d": (lambda: nn.InstanceNorm1d(4), (4, 5)),
    "InstanceNorm2d": (lambda: nn.InstanceNorm2d(2, affine=True), (2, 3, 3)),
    "F.batch_norm": (lambda: Call(_batch_norm, (4,), (4,)), (4, 3)),
    "EmbeddingBag of sums": (lambda: nn.EmbeddingBag(7, 4, mode="sum"), ()),
    "EmbeddingBag of means": (lambda: nn.EmbeddingBag(7, 4), ()),
    "EmbeddingBag of maxima": (lambda: nn.EmbeddingBag(7, 4, mode="max"), ()),
    "EmbeddingBag with padding": (lambda: nn.EmbeddingBag(7, 4, padding_idx=-6), ()),
    "EmbeddingBag with weights": (lambda: Bags("sum", weights=True), ()),
    "EmbeddingBag with offsets, sums": (lambda: Bags("sum", last=True), ()),
    "EmbeddingBag with offsets, means": (lambda: Bags("mean"), ()),
    "EmbeddingBag with offsets, maxima": (lambda: Bags("max"), ()),
    "MultiheadAttention": (Attention, (3, 6)),
    "F.scaled_dot_product_attention": (lambda: Call(_causal, (6, 6)), (3, 6)),
}
"""what torch has no second or third derivative of, or a wrong one"""

LAYERS: dict[str, Layer] = REPLACED | {
    "MultiheadAttention with weights": (lambda: Attention(weights=True), (3, 6)),
    "MultiheadAttention with a mask": (lambda: Attention(masked=True), (3, 6)),
    "MultiheadAttention in eval": (lambda: Attention().eval(), (3, 6)),
    "MultiheadAttention with biases": (lambda: Attention(add_bias_kv=True, add_zero_attn=True), (3, 6)),
    "attention of groups": (lambda: Call(_grouped, (6, 6)), (3, 6)),
    "TransformerEncoderLayer": (lambda: _encoder_layer(dropout=0.0), (3, 6)),
    "TransformerEncoderLayer, GELU": (lambda: _encoder_layer(dropout=0.0, activation="gelu", norm_first=True), (3, 6)),
    "TransformerEncoder in eval": (lambda: nn.TransformerEncoder(_encoder_layer(), 2).eval(), (3, 6)),
    "Transformer": (EncoderDecoder, (3, 6)),
    "LSTM": (lambda: nn.LSTM(4, 3, 2, batch_first=True, bidirectional=True), (3, 4)),
    "LSTM with a projection": (lambda: nn.LSTM(4, 3, proj_size=2, batch_first=True), (3, 4)),
    "LSTM of packed sequences": (lambda: Packed(4, 3, batch_first=True), (3, 4)),
    "GRU": (lambda: nn.GRU(4, 3, 2, batch_first=True, bidirectional=True), (3, 4)),
    "RNN": (lambda: nn.RNN(4, 3, batch_first=True), (3, 4)),
    "RNN, ReLU": (lambda: nn.RNN(4, 3, nonlinearity="relu", batch_first=True), (3, 4)),
    "LSTMCell": (lambda: nn.LSTMCell(4, 3), (4,)),
    "GRUCell": (lambda: nn.GRUCell(4, 3), (4,)),
    "RMSNorm": (lambda: nn.RMSNorm(5), (5,)),
    "GroupNorm": (lambda: nn.GroupNorm(2, 4), (4, 3)),
    "BatchNorm1d": (lambda: nn.BatchNorm1d(4), (4,)),
    "BatchNorm2d in eval": (lambda: nn.BatchNorm2d(2).eval(), (2, 3, 3)),
    "InstanceNorm1d in eval": (lambda: nn.InstanceNorm1d(4, track_running_stats=True).eval(), (4, 5)),
    "LocalResponseNorm": (lambda: nn.LocalResponseNorm(2), (4, 3, 3)),
    "Embedding": (lambda: nn.Embedding(7, 4), ()),
    "GELU": (nn.GELU, (5,)),
    "GELU, tanh": (lambda: nn.GELU("tanh"), (5,)),
    "GLU": (nn.GLU, (6,)),
    "Softmax": (lambda: nn.Softmax(-1), (5,)),
    "LogSoftmax": (lambda: nn.LogSoftmax(-1), (5,)),
    "Conv2d": (lambda: nn.Conv2d(2, 3, 2), (2, 4, 4)),
    "MaxPool2d": (lambda: nn.MaxPool2d(2), (2, 4, 4)),
}
for _name in (
    "CELU", "ELU", "Hardshrink", "Hardswish", "Hardtanh", "LeakyReLU", "LogSigmoid", "Mish", "PReLU", "RReLU", "ReLU",
    "ReLU6", "SELU", "SiLU", "Sigmoid", "Softplus", "Softshrink", "Softsign", "Tanh", "Tanhshrink",
):  # fmt: skip
    LAYERS[_name] = (getattr(nn, _name), (5,))

_EACH = {"reduction": "none"}
LOSSES: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], str]] = {
    "CrossEntropyLoss": (nn.CrossEntropyLoss(label_smoothing=0.1, **_EACH), "class"),
    "CrossEntropyLoss of shares": (nn.CrossEntropyLoss(**_EACH), "share"),
    "MultiMarginLoss": (nn.MultiMarginLoss(**_EACH), "class"),
    "MultiMarginLoss, squared": (
        nn.MultiMarginLoss(p=2, margin=0.7, weight=torch.tensor([1.0, 2.0, 3.0, 4.0]).double(), **_EACH),
        "class",
    ),
    "MultiLabelMarginLoss": (nn.MultiLabelMarginLoss(**_EACH), "labels"),
    "MultiLabelSoftMarginLoss": (nn.MultiLabelSoftMarginLoss(**_EACH), "share"),
    "MSELoss": (nn.MSELoss(**_EACH), "real"),
    "L1Loss": (nn.L1Loss(**_EACH), "real"),
    "SmoothL1Loss": (nn.SmoothL1Loss(**_EACH), "real"),
    "HuberLoss": (nn.HuberLoss(**_EACH), "real"),
    "BCEWithLogitsLoss": (nn.BCEWithLogitsLoss(**_EACH), "share"),
    "binary cross entropy": (lambda output, y: F.binary_cross_entropy(output.sigmoid(), y, **_EACH), "share"),
    "negative log-likelihood": (lambda output, y: F.nll_loss(output.log_softmax(1), y, **_EACH), "class"),
    "KLDivLoss": (lambda output, y: F.kl_div(output.log_softmax(1), y, **_EACH), "share"),
    "PoissonNLLLoss": (nn.PoissonNLLLoss(full=True, **_EACH), "share"),
    "GaussianNLLLoss": (lambda o, y: F.gaussian_nll_loss(o, y, o.square() + 0.1, **_EACH), "real"),
    "HingeEmbeddingLoss": (nn.HingeEmbeddingLoss(**_EACH), "sign"),
    "SoftMarginLoss": (nn.SoftMarginLoss(**_EACH), "sign"),
    "CosineEmbeddingLoss": (
        lambda output, y: F.cosine_embedding_loss(output, y, torch.ones(len(y), dtype=y.dtype), **_EACH),
        "real",
    ),
    "TripletMarginLoss": (lambda output, y: F.triplet_margin_loss(output, y, y.flip(1), 5.0, **_EACH), "real"),
}


def _of_matrices(name: str, *arguments: Any) -> Layer:
    def function(x: Tensor) -> Tensor:
        result = getattr(torch.linalg, name)(x @ x.mT / 4 + torch.eye(3, dtype=x.dtype), *arguments)
        return result if result.ndim > 1 else result[:, None]

    return lambda: Call(function), (3, 3)


def _by_row(name: str) -> Layer:
    def function(x: Tensor) -> Tensor:
        result = getattr(torch, name)(x, -1)
        result = result if isinstance(result, Tensor) else result[0]
        return result if result.ndim > 1 else result[:, None]

    return lambda: Call(function), (4,)


def _sampled(mode: str, x: Tensor, affine: Tensor) -> Tensor:
    grid = F.affine_grid(affine[None].expand(len(x), 2, 3) / 3, [len(x), 1, 3, 3], align_corners=False)
    return F.grid_sample(x, grid, mode=mode, align_corners=False)


FURTHER: dict[str, Layer] = {
    "spectral norm in eval": (lambda: parametrizations.spectral_norm(nn.Linear(5, 4)).eval(), (5,)),
    "orthogonal": (lambda: parametrizations.orthogonal(nn.Linear(4, 4)), (4,)),
    "Threshold": (lambda: nn.Threshold(0.1, 2.0), (5,)),
    "Softmin": (lambda: nn.Softmin(-1), (5,)),
    "FractionalMaxPool2d": (
        lambda: nn.FractionalMaxPool2d(
            2, output_size=2, _random_samples=torch.full((COUNT, 2, 2), 0.3, dtype=torch.float64)
        ),
        (2, 5, 5),
    ),
    "MaxUnpool2d": (lambda: Call(lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2)), (2, 4, 4)),
    "Fold": (lambda: nn.Fold((3, 3), 2), (8, 4)),
    "Unfold": (lambda: nn.Unfold(2), (2, 3, 3)),
    "Bilinear": (lambda: Call(lambda x, w: F.bilinear(x, x, w), (3, 4, 4)), (4,)),
    "CosineSimilarity": (lambda: Call(lambda x, w: F.cosine_similarity(x, w, -1)[:, None], (4,)), (4,)),
    "normalize": (lambda: Call(lambda x: F.normalize(x, dim=-1)), (4,)),
    "bilinear sampling": (lambda: Call(partial(_sampled, "bilinear"), (2, 3)), (1, 4, 4)),
    "bicubic sampling": (lambda: Call(partial(_sampled, "bicubic"), (2, 3)), (1, 4, 4)),
    "interpolate": (lambda: Call(lambda x: F.interpolate(x, (3, 3), mode="bilinear", antialias=True)), (2, 5, 5)),
    "rfft": (lambda: Call(lambda x: torch.fft.rfft(x).abs()), (6,)),
}
for _p in (1.0, 2.0, 3.0):
    FURTHER[f"cdist, p = {_p}"] = (lambda p=_p: Call(lambda x, w: torch.cdist(x, w, p=p), (3, 4)), (4,))
for _d, _shape in ((1, (2, 6)), (2, (2, 4, 4)), (3, (2, 4, 4, 4))):
    for _name, _arguments in (
        ("Conv", (2, 3, 2)), ("ConvTranspose", (2, 3, 2)), ("MaxPool", (2,)), ("AvgPool", (2,)),
        ("AdaptiveAvgPool", (2,)), ("AdaptiveMaxPool", (2,)), ("LPPool", (2, 2)), ("ReflectionPad", (1,)),
        ("ReplicationPad", (1,)), ("CircularPad", (1,)),
    ):  # fmt: skip
        FURTHER[f"{_name}{_d}d"] = (partial(getattr(nn, f"{_name}{_d}d"), *_arguments), _shape)
    FURTHER[f"Upsample, {_d}"] = (
        partial(nn.Upsample, scale_factor=2, mode={1: "linear", 2: "bicubic", 3: "trilinear"}[_d]),
        _shape,
    )
for _name in ("prod", "cumprod", "cummax", "sort", "std", "var", "logsumexp", "median", "amax"):
    FURTHER[f"torch.{_name}"] = _by_row(_name)
for _name in ("erf", "digamma", "i0", "i1e", "logit", "sinc", "entr", "ndtri", "log_ndtr", "erfcx"):
    FURTHER[f"special.{_name}"] = (lambda name=_name: Call(lambda x: getattr(torch.special, name)(x.sigmoid())), (4,))
for _name in ("inv", "det", "cholesky", "svdvals", "eigvalsh", "pinv", "cond"):
    FURTHER[f"linalg.{_name}"] = _of_matrices(_name)

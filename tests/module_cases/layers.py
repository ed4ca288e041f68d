"""Cases: torch's activations, normalisations, linear and convolutional layers, poolings, and what changes shapes."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from module_cases.case import Call, Case, Column, layer, numbers, reals

WRITES = "writes its buffer"
_NO_SECOND: dict[Column, str] = {"exact": "torch does not have", "product": "torch does not have"}
NO_EMBEDDING = "max_norm"


class Squared(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.square() + 0.1


def _unpooled(x: Tensor, d: int) -> Tensor:
    pool, unpool = (getattr(F, f"max_{name}pool{d}d") for name in ("", "un"))
    return unpool(*pool(x, 2, return_indices=True), 2)


ACTIVATIONS = [
    layer(name, getattr(nn, name), 5, doubly=name != "Hardsigmoid")
    for name in (
        "CELU", "ELU", "GELU", "Hardshrink", "Hardsigmoid", "Hardswish", "Hardtanh", "LeakyReLU", "LogSigmoid", "Mish",
        "PReLU", "ReLU", "ReLU6", "SELU", "SiLU", "Sigmoid", "Softplus", "Softshrink", "Softsign", "Tanh", "Tanhshrink",
        "Identity",
    )
] + [
    layer("RReLU, eval", nn.RReLU, 5, train=False),
    layer("GELU, tanh", partial(nn.GELU, "tanh"), 5),
    layer("Threshold", partial(nn.Threshold, 0.1, 2.0), 5),
    layer("GLU", nn.GLU, 6),
    layer("Softmax", partial(nn.Softmax, -1), 5),
    layer("Softmax2d", nn.Softmax2d, 3, 2, 2),
    layer("Softmin", partial(nn.Softmin, -1), 5),
    layer("LogSoftmax", partial(nn.LogSoftmax, -1), 5),
    layer("ReLU in place", lambda: nn.Sequential(nn.Linear(5, 4), nn.ReLU(inplace=True), nn.Linear(4, 3)), 5),
    layer("Dropout, eval", lambda: nn.Sequential(nn.Linear(5, 4), nn.Dropout(0.5)), 5, train=False),
    layer("Dropout, p = 0", lambda: nn.Sequential(nn.Linear(5, 4), nn.Dropout(0.0)), 5),
    layer("AlphaDropout, eval", lambda: nn.Sequential(nn.Linear(5, 4), nn.AlphaDropout(0.5)), 5, train=False),
]  # fmt: skip

_TRACKED = {"affine": True, "track_running_stats": True}
NORMALISATIONS = [
    case
    for d, shape in ((1, (4, 5)), (2, (4, 3, 3)), (3, (4, 2, 2, 2)))
    for case in (
        layer(f"BatchNorm{d}d", partial(getattr(nn, f"BatchNorm{d}d"), 4), *shape),
        layer(f"BatchNorm{d}d, eval", partial(getattr(nn, f"BatchNorm{d}d"), 4), *shape, train=False),
        layer(f"InstanceNorm{d}d", partial(getattr(nn, f"InstanceNorm{d}d"), 4, affine=True), *shape),
        layer(
            f"InstanceNorm{d}d, tracked, eval", partial(getattr(nn, f"InstanceNorm{d}d"), 4, **_TRACKED), *shape,
            train=False,
        ),
        layer(
            f"InstanceNorm{d}d, tracked", partial(getattr(nn, f"InstanceNorm{d}d"), 4, **_TRACKED), *shape,
            refused={"value": WRITES},
        ),
    )
] + [
    layer("BatchNorm1d of vectors", partial(nn.BatchNorm1d, 4), 4),
    layer("BatchNorm2d, untracked", partial(nn.BatchNorm2d, 4, track_running_stats=False), 4, 3, 3),
    layer("BatchNorm2d, no affine", partial(nn.BatchNorm2d, 4, affine=False, momentum=None), 4, 3, 3),
    layer("SyncBatchNorm, eval", partial(nn.SyncBatchNorm, 4), 4, 3, 3, train=False,
          refused={"value": "use torch.nn.BatchNorm"}),
    layer("LayerNorm", partial(nn.LayerNorm, 5), 3, 5),
    layer("RMSNorm", partial(nn.RMSNorm, 5), 3, 5),
    layer("GroupNorm", partial(nn.GroupNorm, 2, 4), 4, 3),
    layer("LocalResponseNorm", partial(nn.LocalResponseNorm, 2), 4, 3, 3),
    layer("CrossMapLRN2d", partial(nn.CrossMapLRN2d, 3), 4, 3, 3, refused=_NO_SECOND),
]  # fmt: skip

DENSE = [
    layer("Linear", partial(nn.Linear, 5, 3), 5),
    layer("Linear, no bias", partial(nn.Linear, 5, 3, bias=False), 4, 5),
    Case("Bilinear", partial(nn.Bilinear, 3, 4, 2), (reals(8, 3), reals(8, 4, seed=4), reals(8))),
    Case("LazyLinear, never called", partial(nn.LazyLinear, 3), (reals(8, 4), reals(8)), refused={"value": "lazy"}),
]
for _d, _shape in ((1, (2, 6)), (2, (2, 5, 5)), (3, (2, 4, 4, 4))):
    DENSE += [
        layer(f"Conv{_d}d", partial(getattr(nn, f"Conv{_d}d"), 2, 3, 2, stride=2, padding=1), *_shape),
        layer(f"Conv{_d}d, groups", partial(getattr(nn, f"Conv{_d}d"), 2, 4, 2, groups=2, dilation=2), *_shape),
        layer(f"ConvTranspose{_d}d", partial(getattr(nn, f"ConvTranspose{_d}d"), 2, 3, 2, stride=2), *_shape),
    ]

_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}
POOLINGS = []
for _d, _shape in ((1, (2, 6)), (2, (2, 4, 4)), (3, (2, 4, 4, 4))):
    POOLINGS += [
        layer(f"{name}{_d}d", partial(getattr(nn, f"{name}{_d}d"), *arguments), *_shape)
        for name, arguments in (
            ("MaxPool", (2,)), ("AvgPool", (2,)), ("AdaptiveAvgPool", (2,)), ("AdaptiveMaxPool", (3,)),
            ("LPPool", (2, 2)), ("ReflectionPad", (1,)), ("ReplicationPad", (1,)), ("CircularPad", (1,)),
            ("ZeroPad", (1,)),            ("ConstantPad", (1, 0.5)),
        )
    ]  # fmt: skip
    POOLINGS += [
        layer(f"MaxUnpool{_d}d", partial(Call, partial(_unpooled, d=_d)), *_shape),
        layer(f"Upsample{_d}d, nearest", partial(nn.Upsample, scale_factor=2), *_shape),
        layer(f"Upsample{_d}d", partial(nn.Upsample, scale_factor=2, mode=_MODES[_d]), *_shape),
    ]  # fmt: skip


def _fractional(d: int, x: Tensor) -> Tensor:
    samples = torch.full((*x.shape[:2], d), 0.3, dtype=x.dtype)
    return getattr(F, f"fractional_max_pool{d}d")(x, 2, output_size=2, _random_samples=samples)


SHAPES = [
    layer("fractional_max_pool2d", partial(Call, partial(_fractional, 2)), 2, 5, 5),
    layer("fractional_max_pool3d", partial(Call, partial(_fractional, 3)), 2, 4, 4, 4),
    layer("PixelShuffle", partial(nn.PixelShuffle, 2), 4, 3, 3),
    layer("PixelUnshuffle", partial(nn.PixelUnshuffle, 2), 2, 4, 4),
    layer("ChannelShuffle", partial(nn.ChannelShuffle, 2), 4, 2, 2),
    layer("Fold", partial(nn.Fold, (3, 3), 2), 8, 4),
    layer("Unfold", partial(nn.Unfold, 2), 2, 3, 3),
    layer("Flatten", lambda: nn.Sequential(nn.Flatten(), nn.Unflatten(1, (3, 4))), 3, 2, 2),
    layer("interpolate, bicubic", partial(Call, lambda x: F.interpolate(x, (7, 7), mode="bicubic")), 1, 4, 4),
    layer("grid_sample", partial(Call, lambda x, w: F.grid_sample(
        x, F.affine_grid(w[None].expand(len(x), 2, 3) / 3, [len(x), 1, 3, 3], align_corners=False), align_corners=False
    ), (2, 3)), 1, 4, 4),
    layer("CosineSimilarity", partial(Call, lambda x, w: F.cosine_similarity(x, w, -1)[:, None], (4,)), 4),
    layer("PairwiseDistance", partial(Call, lambda x, w: F.pairwise_distance(x, w.expand_as(x))[:, None], (4,)), 4),
    layer("cdist", partial(Call, torch.cdist, (3, 4)), 2, 4),
    layer("einsum", partial(Call, lambda x, u, v: torch.einsum("bij,jk,ikl->bl", x, u, v), (4, 2), (3, 2, 5)), 3, 4),
]  # fmt: skip

EMBEDDINGS = [
    Case(name, make, (numbers(6, 8, 4), reals(8)), **options)
    for name, make, options in (
        ("Embedding", partial(nn.Embedding, 6, 3), {}),
        ("Embedding, padding_idx", partial(nn.Embedding, 6, 3, padding_idx=2), {}),
        ("Embedding, sparse", partial(nn.Embedding, 6, 3, sparse=True), {"doubly": False}),
        ("Embedding, max_norm", partial(nn.Embedding, 6, 3, max_norm=1.0), {"refused": {"value": NO_EMBEDDING}}),
        ("Embedding, frozen", lambda: nn.Sequential(
            nn.Embedding.from_pretrained(reals(6, 3)), nn.Linear(3, 2)
        ), {}),
        ("EmbeddingBag, sum", partial(nn.EmbeddingBag, 6, 3, mode="sum"), {"doubly": False}),
        ("EmbeddingBag, mean", partial(nn.EmbeddingBag, 6, 3, padding_idx=1), {"doubly": False}),
        ("EmbeddingBag, max", partial(nn.EmbeddingBag, 6, 3, mode="max"), {"doubly": False}),
        ("EmbeddingBag, sparse", partial(nn.EmbeddingBag, 6, 3, mode="sum", sparse=True), {"doubly": False}),
        ("EmbeddingBag, max_norm", partial(nn.EmbeddingBag, 6, 3, max_norm=1.0), {"refused": {"value": NO_EMBEDDING}}),
    )
]  # fmt: skip


def _parametrized() -> nn.Module:
    linear = nn.Linear(5, 3)
    parametrize.register_parametrization(linear, "weight", Squared())
    return linear


_SPECTRAL: dict[Column, str] = {"value": WRITES}
PARAMETRIZATIONS = [
    layer("weight_norm", lambda: parametrizations.weight_norm(nn.Linear(5, 3)), 5, doubly=False),
    layer("weight_norm of Conv2d", lambda: parametrizations.weight_norm(nn.Conv2d(2, 3, 2)), 2, 4, 4, doubly=False),
    layer("orthogonal", lambda: parametrizations.orthogonal(nn.Linear(4, 4)), 4),
    layer("orthogonal, Cayley", lambda: parametrizations.orthogonal(nn.Linear(4, 4), orthogonal_map="cayley"), 4),
    layer("spectral_norm", lambda: parametrizations.spectral_norm(nn.Linear(5, 3)), 5, refused=_SPECTRAL),
    layer("spectral_norm, eval", lambda: parametrizations.spectral_norm(nn.Linear(5, 3)), 5, train=False),
    layer("parametrization of one's own", _parametrized, 5),
]

CASES = [
    *ACTIVATIONS, *NORMALISATIONS, *DENSE, *POOLINGS, *SHAPES, *EMBEDDINGS, *PARAMETRIZATIONS,
]  # fmt: skip

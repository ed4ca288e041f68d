"""Kronecker factors (KFAC) of linear and convolutional layers, summed exactly over all blocks.

A layer with weights W `[o, d]` maps inputs a `[d]` to `z = W a` at R places of each example: R is 1 for a linear layer
on vectors, the number of positions for a sequence, of pixels for a convolution, whose inputs are patches. A bias is the
last column of W, with input 1. Let the curvature in the outputs f of a block be `C = sum_k l_k u_k u_k^T`, and g_k the
gradient of `u_k . f` at z. The block of the layer is approximated by `B (x) A` (Martens and Grosse 2015, arXiv
1503.05671; convolutions: Grosse and Martens 2016, arXiv 1602.01407; the two forms for shared weights: Eschenhagen et
al. 2023, arXiv 2311.00636):

    expand:  A = (1 / W) sum_i w_i (1 / R) sum_r a_ir a_ir^T
             B = (1 / W) sum_b w_b sum_k l_k sum_i sum_r g_kir g_kir^T
    reduce:  A = (1 / W) sum_i w_i a_i a_i^T, with a_i = (1 / R) sum_r a_ir
             B = (1 / W) sum_b w_b sum_k l_k sum_i g_ki g_ki^T, with g_ki = sum_r g_kir

where w_i is the weight of example i, w_b that of its block, and W the sum of all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from noiseless.errors import UnknownNameError
from noiseless.examples.blocks import Batch
from noiseless.objective.base import FORWARD
from noiseless.objective.gaussnewton import BACKWARD, GAUSS_NEWTON, spectrum
from noiseless.objective.gradients import BlockLoss
from noiseless.objective.kronecker_layers import Layer, kronecker_layers
from noiseless.objective.outputs import GaussNewtonKind, Outputs, outputs_of
from noiseless.objective.partial import Report
from noiseless.objective.products import any_order
from noiseless.objective.risk import EmpiricalRisk
from noiseless.objective.scores import total_weight
from noiseless.objective.usercode import user_code

Sharing = Literal["expand", "reduce"]


@dataclass(frozen=True)
class KroneckerFactor:
    """The two factors of one layer: its block, on the rows of `[W | bias]` one after the other, is `B (x) A`."""

    input: Tensor
    """A, float64 `[d, d]`; with a bias, the last row and column belong to it"""
    gradient: Tensor
    """B, float64 `[o, o]`"""
    parameters: tuple[str, ...]
    """names of the weight and, if it is trained, the bias"""


def kronecker_factors(
    risk: EmpiricalRisk, kind: GaussNewtonKind = "ggn", sharing: Sharing = "expand"
) -> tuple[dict[str, KroneckerFactor], float]:
    """The Kronecker factors of all linear and convolutional layers, in one sweep.

    If the examples of a block do not depend on each other, the gradients of all of them come from one backward, and K
    is the number of an example's outputs. Otherwise (batch norm in training mode) each output of a block takes a
    backward of its own, so that no products of different examples enter. Which it is, is checked for each block.

    Args:
        risk: of which the matrix is taken. Examples must be in the first dimension of each layer's input.
        kind: which matrix is approximated, see `outputs_of`.
        sharing: the form for layers that are applied at several places.

    Returns:
        Name of the layer -> its factors, without layers that the forward never calls; and the cost in passes.

    Raises:
        UnknownNameError: for another kind or form.
        ValueError: if the kind does not fit the loss, there is no such layer, or a layer's input does not have the
            examples in its first dimension.
    """
    if sharing not in get_args(Sharing):
        raise UnknownNameError("form for shared weights", sharing, get_args(Sharing))
    layers = kronecker_layers(risk.space)
    if not layers:
        raise ValueError("the module has no linear or convolutional layer with trainable weights: it has no factors")
    scoring = outputs_of(risk.loss, kind)
    of_outputs = replace(risk.block_loss, scoring=scoring)
    lengths = {}
    for name, layer in layers.items():
        for what, size in zip(("input", "gradient"), layer.sizes, strict=True):
            lengths[f"{name}.{what}"] = size * (size + 1) // 2

    def report(batch: Batch) -> Report:
        with any_order(of_outputs), user_code(of_outputs.module, GAUSS_NEWTON):
            factors, weight, backwards = _of_block(of_outputs, scoring, layers, batch, sharing)
        packed = {name: (_packed(factor)[None], weight[None]) for name, factor in factors.items()}
        share = torch.tensor([[float(backwards * batch.size)]], dtype=torch.float64)
        return Report(packed, {"weight": weight[None], "backwards": share})

    summed = risk.sweep(report, lengths, {"weight": 1, "backwards": 1}, chunk=1)
    weight = total_weight(summed.scalars["weight"][0])
    factors = {}
    for name, layer in layers.items():
        A, B = (_unpacked(summed.vectors[f"{name}.{what}"] / weight) for what in ("input", "gradient"))
        if A.any() or B.any():
            factors[name] = KroneckerFactor(A, B, layer.parameters)
    backwards = float(summed.scalars["backwards"].sum()) / risk.blocks.count
    return factors, (FORWARD + BACKWARD * backwards) * risk.passes


def _of_block(
    of_outputs: BlockLoss, scoring: Outputs, layers: Mapping[str, Layer], batch: Batch, sharing: Sharing
) -> tuple[dict[str, Tensor], Tensor, int]:
    """Both factors of each layer, the weight of the block, and the number of backwards."""
    calls: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in layers}
    with _watched(layers, calls):
        outputs, weight = of_outputs.value(batch, 0)
    n, shares = batch.size, scoring.shares()
    factors: dict[str, Tensor] = {}
    for name, layer in layers.items():
        d, o = layer.sizes
        factors[f"{name}.gradient"] = outputs.new_zeros(o, o, dtype=torch.float64)
        if calls[name]:
            a = torch.cat([_by_example(name, x, n) for x, _ in calls[name]], 1).double()
            places = a.shape[1]
            a = a.mean(1, keepdim=True) if sharing == "reduce" else a / places**0.5
            factors[f"{name}.input"] = torch.einsum("n,nri,nrj->ij", shares.double(), a, a)
        else:
            factors[f"{name}.input"] = outputs.new_zeros(d, d, dtype=torch.float64)
    watched = [(name, z) for name in layers for _, z in calls[name]]
    targets = [z for _, z in watched]
    count = 0
    for values, vector in _terms(scoring, outputs, targets):
        gradients = torch.autograd.grad(outputs, targets, vector, retain_graph=True, allow_unused=True)
        count += 1
        by_layer: dict[str, list[Tensor]] = {}
        for (name, z), gradient in zip(watched, gradients, strict=True):
            g = torch.zeros_like(z) if gradient is None else gradient
            by_layer.setdefault(name, []).append(_by_example(name, layers[name].outputs(g), n))
        for name, parts in by_layer.items():
            g = torch.cat(parts, 1).double()
            g = g.sum(1, keepdim=True) if sharing == "reduce" else g
            factors[f"{name}.gradient"] += torch.einsum("n,nri,nrj->ij", values, g, g)
    return factors, weight, count + (n > 1)  # the check takes a backward, too


def _terms(scoring: Outputs, outputs: Tensor, targets: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """The terms `l_k u_k u_k^T` of the curvature in the outputs.

    Args:
        scoring: of the block.
        outputs: f, `[M]`.
        targets: the outputs of the layers.

    Yields:
        l `[n]` float64, one for each example, and u `[M]`: the terms of all examples together if none depends on
        another, else one term after the other.
    """
    n, places = scoring.examples, scoring.places()
    if places is None or _coupled(scoring, outputs, targets, places):
        for value, vector in spectrum(scoring, outputs):
            yield torch.full((n,), value, dtype=torch.float64, device=outputs.device), vector
        return
    columns, at = [], outputs.detach()
    for k in range(places.shape[1]):
        unit = torch.zeros_like(at)
        unit[places[:, k]] = 1
        columns.append(scoring.curvature(at, unit)[places])
    values, vectors = torch.linalg.eigh(torch.stack(columns, 2).double())  # [n, M / n], [n, M / n, M / n]
    least = len(columns) * torch.finfo(at.dtype).eps * values.abs().max()
    for k in range(len(columns)):
        if bool((values[:, k].abs() > least).any()):
            vector = torch.zeros_like(at)
            vector[places] = vectors[:, :, k].to(at)
            yield values[:, k], vector


def _coupled(scoring: Outputs, outputs: Tensor, targets: Sequence[Tensor], places: Tensor) -> bool:
    """Whether the first example's outputs or loss depend on other examples: derivatives that are not exactly 0."""
    if len(places) == 1 or not targets:
        return False
    probe = torch.zeros_like(outputs)
    probe[places[0]] = torch.linspace(1, 2, places.shape[1], dtype=probe.dtype, device=probe.device)
    if scoring.curvature(outputs.detach(), probe)[places[1:]].any():
        return True
    gradients = torch.autograd.grad(outputs, list(targets), probe, retain_graph=True, allow_unused=True)
    return any(bool(g[len(g) // len(places) :].any()) for g in gradients if g is not None)


@contextmanager
def _watched(layers: Mapping[str, Layer], calls: dict[str, list[tuple[Tensor, Tensor]]]) -> Iterator[None]:
    """A context in which each call of a layer is stored: its inputs `[rows, places, d]`, and its output."""

    def hook(name: str, layer: Layer) -> Any:
        def store(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            calls[name].append((layer.inputs(args[0].detach()), output))
            return output.clone()  # so that what follows in place does not change the output

        return store

    handles = [layer.module.register_forward_hook(hook(name, layer)) for name, layer in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _by_example(name: str, rows: Tensor, n: int) -> Tensor:
    """Values `[rows, places, d]` by example, `[n, all places of an example, d]`."""
    if len(rows) % n:
        raise ValueError(
            f"layer {name} gets {len(rows)} rows of a block of {n} examples: Kronecker factors need the examples in the"
            " first dimension"
        )
    return rows.reshape(n, -1, rows.shape[-1])


def _packed(matrix: Tensor) -> Tensor:
    """The lower triangle of a symmetric matrix `[m, m]`: `[m (m + 1) / 2]`."""
    row, column = torch.tril_indices(*matrix.shape, device=matrix.device)
    return matrix[row, column]


def _unpacked(packed: Tensor) -> Tensor:
    """The symmetric matrix with a lower triangle."""
    size = round((2 * len(packed) + 0.25) ** 0.5 - 0.5)
    row, column = torch.tril_indices(size, size, device=packed.device)
    matrix = packed.new_zeros(size, size)
    matrix[row, column] = packed
    matrix[column, row] = packed
    return matrix

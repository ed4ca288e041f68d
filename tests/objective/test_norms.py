"""Squared norms: summed in float64 for vectors of any dtype, which are not changed."""

import math

import problems
import pytest
import torch

from noiseless.objective.base import SLICE, square_norms


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(5,), (1,), (3, 7), (2, SLICE + 3), (2 * SLICE,)])
def test_square_norms_are_exact_sums_and_do_not_change_their_input(dtype, shape):
    # a slice in float64 is no copy, so that an operation in place would write into the caller's gradient
    vectors = (torch.randn(shape, generator=problems.generator(), dtype=torch.float64) * 1e-3).to(dtype)
    before = vectors.clone()
    norms = square_norms(vectors)
    assert torch.equal(vectors, before)
    assert norms.dtype == torch.float64
    assert norms.shape == shape[:-1]
    for value, vector in zip(norms.reshape(-1).tolist(), vectors.reshape(-1, shape[-1]), strict=True):
        exact = math.fsum(x * x for x in vector.double().tolist())
        # positive terms: a relative 1.1e-16 for the square, and for each of some twenty levels of torch's pairwise sum
        assert value == pytest.approx(exact, rel=25 * 1.2e-16, abs=0)


def test_the_largest_float32_has_a_norm():
    assert square_norms(torch.tensor([3e38, 3e38])).item() == pytest.approx(2 * 9e76, rel=1e-6)

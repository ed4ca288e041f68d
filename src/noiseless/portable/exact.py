"""Operations of ATen that have the same bits on every machine as they are, by name.

They move or select numbers, or do one IEEE operation an element. What adds or multiplies more than once an element is
not here, nor what a processor approximates; nor square roots, which torch takes from MKL, where they are not rounded as
IEEE has it, and differ between AVX2 and AVX-512.
"""

from __future__ import annotations

ARITHMETIC = frozenset(
    {
        "mul", "div", "neg", "abs", "sign", "sgn", "floor", "ceil", "round", "trunc", "copysign", "clamp",
        "clamp_min", "clamp_max", "maximum", "minimum", "fmax", "fmin", "max", "min", "amax", "amin", "aminmax",
        "argmax",
        "argmin", "any", "all", "relu", "threshold", "threshold_backward", "hardtanh", "hardtanh_backward",
        "leaky_relu",
        "leaky_relu_backward", "where", "masked_fill", "nan_to_num", "eq", "ne", "lt", "le", "gt", "ge", "logical_and",
        "logical_or", "logical_not", "logical_xor", "isnan", "isinf", "isfinite", "isposinf", "isneginf", "signbit",
        "equal", "nonzero", "count_nonzero", "allclose", "isclose",
    }
)  # fmt: skip
"""one IEEE operation an element, comparisons, choices"""
MOVES = frozenset(
    {
        "clone", "copy", "_to_copy", "_local_scalar_dense", "detach", "alias", "lift", "lift_fresh", "lift_fresh_copy",
        "view", "_unsafe_view", "reshape", "_reshape_alias", "expand", "permute", "transpose", "t", "squeeze",
        "unsqueeze", "slice", "select", "split", "split_with_sizes", "unbind", "as_strided", "cat", "stack",
        "constant_pad_nd", "flip", "roll", "repeat", "index", "index_select", "gather", "masked_select", "embedding",
        "tril", "triu", "diagonal", "unfold", "select_backward", "slice_backward", "slice_scatter", "select_scatter",
        "fill", "fill_", "zero", "zero_", "full", "full_like", "zeros", "zeros_like", "ones", "ones_like", "empty",
        "empty_like", "empty_strided", "new_empty", "new_empty_strided", "new_full", "new_zeros", "new_ones",
        "scalar_tensor", "arange", "eye", "index_fill", "masked_scatter", "set_", "resize_", "view_as_real",
        "diagonal_backward", "unsafe_split", "unsafe_split_with_sizes", "max_pool2d_with_indices",
        "max_pool2d_with_indices_backward", "frexp", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle",
        "is_same_size", "hash_tensor", "is_pinned", "_pin_memory",
    }
)  # fmt: skip
"""copies, views, choices of elements; the gradient of a max pool adds to an element in the order of the outputs"""
COLLECTIVES = frozenset(
    f"c10d::{name}"
    for name in ("allreduce_", "allgather_", "_allgather_base_", "broadcast_", "gather_", "barrier", "send", "recv_")
)
"""exchanges between workers: they move numbers, and what they add are the whole numbers of exact sums"""
EXACT = ARITHMETIC | MOVES | COLLECTIVES

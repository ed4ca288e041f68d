"""Modules as users have them, an oracle by plain autograd, and what compares the two."""

from module_cases import images, layers, losses, programs, reaching, sequences

KINDS = {
    "Activations": layers.ACTIVATIONS,
    "Normalisation": layers.NORMALISATIONS,
    "Linear layers and convolutions": layers.DENSE,
    "Pooling, padding, upsampling": layers.POOLINGS,
    "Shapes and distances": layers.SHAPES,
    "Embeddings": layers.EMBEDDINGS,
    "Parametrizations": layers.PARAMETRIZATIONS,
    "Recurrent layers, attention, text": sequences.CASES,
    "Losses": losses.CASES,
    "Ways to parameters": reaching.CASES,
    "Programs in the forward": programs.CASES,
    "timm and torchvision": images.CASES,
}
CASES = [case for cases in KINDS.values() for case in cases]
QUICK = {
    "GELU", "BatchNorm2d", "InstanceNorm2d, tracked", "Conv2d", "weight_norm", "GRUCell",
    "scaled_dot_product_attention, causal", "decoder, tied", "CrossEntropyLoss, weights", "CTCLoss",
    "activation checkpointing, reentrant", "physics-informed, autograd.grad", "graph layer, index_add",
}  # fmt: skip
"""names of the cases that `make test` runs"""

"""Digests of tiny portable runs and derivatives, which every machine should compute; see docs/portable.md."""

from __future__ import annotations

from collections.abc import Mapping

PUBLISHED: Mapping[str, str] = {
    "fb, SGD, 2 steps": "4ce3bce477544066e1dec36682dce2eaeebf8181adfad0573ba3396026cab310",
    "fb-regularized, a gradient penalty, 1 step": "74f38fba344e90819ee8b109f656b18def0cf79555d02d36dec2dbab5cd1c27f",
    "sgd, shuffled, random crops, 4 updates": "d5ab43c16caef0065d7eb3f58c684a018ce725b694c6b7d2936e060ed0383de7",
    "fb, AdamW, group norm, 2 steps": "248d457a49e9f84841cb5e5a4eaeaa5fbcfc239234a75c8bc062ba122d8ce09b",
    "fb, Muon, no norm, 1 step": "c824cddc12ea0cf3e233121ad28b4cab3a674a2d554e6683e5add981c1428bf3",
    "convolutions: gradient, Hessian product": "ba6176e059074c0ddc2a27ef5c9013452879a8ca7e40894385e7717d7a817bc0",
    "attention: gradient, Hessian product": "8369c3f50cd88756a226f2f845be1a2e30e6433844683905ac890b4e71c8c17d",
}
"""name of a case in `ask/published.py` -> SHA-256"""

"""Cases: recurrent layers and cells, attention, torch's transformers, and models in the style of Hugging Face."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from module_cases.case import COUNT, Case, layer, numbers, reals


class Cell(nn.Module):
    """A cell in a loop over time."""

    def __init__(self, cell: nn.Module):
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor) -> Tensor:
        state = None
        for step in x.unbind(1):
            state = self.cell(step, state)
        return state[0] if isinstance(state, tuple) else state


class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 3, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return nn.utils.rnn.pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=3)[0]


class Attention(nn.Module):
    def __init__(self, weights: bool = False, causal: bool = False, padded: bool = False, **options: Any):
        super().__init__()
        self.weights, self.causal, self.padded = weights, causal, padded
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True, **options)

    def forward(self, x: Tensor) -> Tensor:
        mask = torch.ones(3, 3, dtype=torch.bool).triu(1) if self.causal else None
        padding = torch.tensor([[False, False, True]]).expand(len(x), 3) if self.padded else None
        output, weights = self.attention(
            x, x, x, need_weights=self.weights, attn_mask=mask, key_padding_mask=padding
        )  # fmt: skip
        return output if weights is None else output + weights.sum(-1, keepdim=True)


class TwoSequences(nn.Module):
    """A layer of memory and target, with the input in both places."""

    def __init__(self, made: nn.Module):
        super().__init__()
        self.made = made

    def forward(self, x: Tensor) -> Tensor:
        return self.made(x, x[:, :2])


_T = {"dim_feedforward": 8, "dropout": 0.0, "batch_first": True}


def _encoder(layers: int, **options: Any) -> nn.Module:
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(6, 2, **_T, **options), layers, enable_nested_tensor=False)


class Scaled(nn.Module):
    """Attention by the function, with projections of its own."""

    def __init__(self, causal: bool):
        super().__init__()
        self.project, self.causal = nn.Linear(6, 18), causal

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.project(x).unflatten(-1, (3, 2, 3)).transpose(1, 3).unbind(2)
        return F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)


TORCH = [
    layer(name, make, 3, 4)
    for name, make in (
        ("RNN", lambda: nn.RNN(4, 3, batch_first=True)),
        ("RNN, ReLU", lambda: nn.RNN(4, 3, nonlinearity="relu", batch_first=True)),
        ("GRU", lambda: nn.GRU(4, 3, batch_first=True)),
        ("GRU, bidirectional", lambda: nn.GRU(4, 3, bidirectional=True, batch_first=True)),
        ("LSTM", lambda: nn.LSTM(4, 3, batch_first=True)),
        ("LSTM, 2 layers, bidirectional", lambda: nn.LSTM(4, 3, 2, bidirectional=True, batch_first=True)),
        ("LSTM, projected", lambda: nn.LSTM(4, 3, proj_size=2, batch_first=True)),
        ("RNNCell", lambda: Cell(nn.RNNCell(4, 3))),
        ("GRUCell", lambda: Cell(nn.GRUCell(4, 3))),
        ("LSTMCell", lambda: Cell(nn.LSTMCell(4, 3))),
    )
] + [
    layer(name, make, 3, 6, **options)
    for name, make, options in (
        ("MultiheadAttention", Attention, {}),
        ("MultiheadAttention, with weights", partial(Attention, weights=True), {}),
        ("MultiheadAttention, causal", partial(Attention, causal=True), {}),
        ("MultiheadAttention, padded", partial(Attention, padded=True), {}),
        ("MultiheadAttention, bias_k", partial(Attention, add_bias_kv=True, add_zero_attn=True), {}),
        ("scaled_dot_product_attention", partial(Scaled, False), {}),
        ("scaled_dot_product_attention, causal", partial(Scaled, True), {}),
        ("TransformerEncoderLayer", partial(nn.TransformerEncoderLayer, 6, 2, **_T), {}),
        ("TransformerEncoderLayer, eval", partial(nn.TransformerEncoderLayer, 6, 2, **_T),
         {"train": False}),
        ("TransformerEncoderLayer, GELU, norm first",
         partial(nn.TransformerEncoderLayer, 6, 2, activation="gelu", norm_first=True, **_T), {}),
        ("TransformerEncoder, 2 layers", partial(_encoder, 2), {}),
        ("TransformerDecoderLayer", lambda: TwoSequences(nn.TransformerDecoderLayer(6, 2, **_T)), {}),
        ("TransformerDecoder", lambda: TwoSequences(
            nn.TransformerDecoder(nn.TransformerDecoderLayer(6, 2, **_T), 1)), {}),
        ("Transformer", lambda: TwoSequences(
            nn.Transformer(6, 2, 1, 1, 8, dropout=0.0, batch_first=True)), {}),
    )
]  # fmt: skip

_LENGTHS = torch.tensor([3, 2, 3, 1, 2, 3, 3, 1])
PACKED = Case("LSTM of packed sequences", Packed, (reals(COUNT, 3, 4), _LENGTHS, reals(COUNT)))


@dataclass
class Config:
    """What a model of this style is made from."""

    vocabulary: int = 11
    width: int = 8
    heads: int = 2
    layers: int = 2
    places: int = 5
    classes: int = 3
    causal: bool = False
    tied: bool = False


@dataclass
class ModelOutput:
    logits: Tensor
    hidden: Tensor


class TextLayer(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.before, self.after = nn.LayerNorm(config.width), nn.LayerNorm(config.width)
        self.query, self.key, self.value, self.output = (nn.Linear(config.width, config.width) for _ in range(4))
        self.up, self.down = nn.Linear(config.width, 16), nn.Linear(16, config.width)

    def forward(self, h: Tensor, mask: Tensor) -> Tensor:
        x = self.before(h)
        q, k, v = (
            part(x).unflatten(-1, (self.config.heads, -1)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        h = h + self.output(F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2))
        return h + self.down(F.gelu(self.up(self.after(h))))


class TextModel(nn.Module):
    """An encoder with a classifier, or a causal decoder with scores of the next token."""

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocabulary, config.width, padding_idx=0)
        self.places = nn.Embedding(config.places, config.width)
        self.layers = nn.ModuleList([TextLayer(config) for _ in range(config.layers)])
        self.norm = nn.LayerNorm(config.width)
        outputs = config.vocabulary if config.causal else config.classes
        self.head = nn.Linear(config.width, outputs, bias=not config.tied)
        if config.tied:
            self.head.weight = self.tokens.weight
        self.register_buffer("position_ids", torch.arange(config.places)[None], persistent=False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> ModelOutput:
        n, length = input_ids.shape
        mask = attention_mask.bool()[:, None, None, :].expand(n, 1, length, length)
        if self.config.causal:
            mask = mask & torch.ones(length, length, dtype=torch.bool).tril()
        h = self.tokens(input_ids) + self.places(self.position_ids[:, :length])
        for part in self.layers:
            h = part(h, mask)
        h = self.norm(h)
        return ModelOutput(self.head(h if self.config.causal else h[:, 0]), h)


def next_token(output: ModelOutput, labels: Tensor) -> Any:
    """Cross entropy of the next token; labels of -100 do not count."""
    scores, following = output.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
    return F.cross_entropy(scores, following, reduction="none").view(len(labels), -1), labels[:, 1:] != -100


def of_logits(output: ModelOutput, labels: Tensor) -> Tensor:
    return F.cross_entropy(output.logits, labels, reduction="none")


def _batch(labels: Callable[[Tensor, Tensor], Tensor]) -> dict[str, Tensor]:
    mask = torch.arange(5) < torch.tensor([5, 3, 4, 5, 2, 5, 4, 3])[:, None]
    ids = (numbers(10, COUNT, 5) + 1) * mask
    return {"input_ids": ids, "attention_mask": mask.long(), "labels": labels(ids, mask)}


_CLASSES = _batch(lambda ids, mask: ids[:, 0] % 3)
_TOKENS = _batch(lambda ids, mask: torch.where(mask, ids, -100))
_COUNTED = {"loss": next_token, "weight": lambda labels: (labels[:, 1:] != -100).sum()}
TEXT = [
    Case("encoder, Hugging Face style", lambda: TextModel(Config()), _CLASSES, of_logits),
    Case("decoder, Hugging Face style", lambda: TextModel(Config(causal=True)), _TOKENS, **_COUNTED),
    Case("decoder, tied", lambda: TextModel(Config(causal=True, tied=True)), _TOKENS, **_COUNTED),
    Case("decoder, eval", lambda: TextModel(Config(causal=True)), _TOKENS, train=False, **_COUNTED),
]

CASES = [*TORCH, PACKED, *TEXT]

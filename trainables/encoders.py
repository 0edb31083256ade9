"""Text encoders: rows of token ids through layers of self-attention to what the first token has become."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from trainables.distiller import Outputs
from trainables.form import Form
from trainables.network import PENULTIMATE, Network

PADDING = 0
"""The token id that fills rows up, and to which nothing attends."""
LONGEST = 512
"""Positions that BERT and ALBERT have embeddings for."""


@final
class TextEncoder(Network):
    """Inputs are (B, L) int64. Stages layer1, layer2, ... are what the first token is after each layer: (B, D), as feature methods take it.

    That token stands for the whole text: what the pooler reads, and what Patient KD matches (Sun et al. 2019, arXiv:1908.09355).
    """

    def __init__(
        self, embeddings: nn.Module, blocks: nn.ModuleList, order: Sequence[int], pooler: nn.Module, dropout: float, head: nn.Linear
    ) -> None:
        """``order``: which of the blocks each layer is; the same one may be several layers."""
        super().__init__()
        self.stages = tuple(f"layer{number + 1}" for number in range(len(order)))
        self.embeddings, self.blocks, self.order, self.pooler = embeddings, blocks, tuple(order), pooler
        self.dropout = nn.Dropout(dropout) if dropout > 0 else nn.Identity()
        self.head = head

    def forward(self, inputs: Tensor, features: Sequence[str] = ()) -> Outputs:
        maps: dict[str, Tensor] = {}
        # The first token is attended to even where it is padding: a row of nothing else would have nothing to attend to.
        is_first = torch.arange(inputs.shape[1], device=inputs.device) == 0  # (L,)
        attended = ((inputs != PADDING) | is_first)[:, None, None, :]  # (B, 1, 1, L)
        x = self.embeddings(inputs)  # (B, L, D)
        for stage, number in zip(self.stages, self.order, strict=True):
            x = self.blocks[number](x, attended)
            if stage in features:
                maps[stage] = x[:, 0]
        x = self.dropout(self.pooler(x))  # (B, D)
        if PENULTIMATE in features:
            maps[PENULTIMATE] = x
        return Outputs(self.head(x), maps)


@final
class FirstToken(nn.Module):
    """A layer and tanh on the first of the tokens."""

    def __init__(self, dense: nn.Module) -> None:
        super().__init__()
        self.dense = dense

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, D) -> (B, D)"""
        pooled: Tensor = self.dense(x[:, 0]).tanh()
        return pooled


def check_text(title: str, form: Form, vocabulary: int) -> None:
    """Raise ValueError if inputs are not rows (L,) of token ids that are short enough, or have ids that a network of so many has not."""
    if len(form.shape) != 1 or not 1 <= form.shape[0] <= LONGEST:
        raise ValueError(
            f"{title} needs inputs (L,) of at most {LONGEST} token ids, but got shape={tuple(form.shape)}. Cut the texts, or take a family for "
            "pictures."
        )
    if form.vocabulary is not None and form.vocabulary > vocabulary:
        raise ValueError(
            f"{title} needs a vocabulary as large as the tokenizer's, {form.vocabulary}, but got vocabulary={vocabulary}. Raise it, or take the "
            "tokenizer that the network was made for."
        )

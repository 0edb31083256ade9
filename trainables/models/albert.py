"""ALBERT in four sizes, as a classifier of texts: one layer, gone through again and again. The extra ``models``.

Lan et al. 2020 (arXiv:1909.11942), table 1, without dropout within layers, as its version 2. Built by ``transformers`` from its
configuration, or with ``weights`` of a checkpoint, whose classifier is kept where it has the data's number of classes.
Inputs are (B, L) int64 token ids of ALBERT's vocabulary, without padding behind the text or with 0 there; all are of the first segment.

Initialisation as in the library: normal with standard deviation 0.02, biases 0.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import nn

from search_spaces import Choice, IntUniform, Text, Uniform, tunable
from trainables.encoders import FirstToken, TextEncoder, check_text
from trainables.extras import MODELS
from trainables.form import Form
from trainables.network import Family, Network
from trainables.pretrained import fitted, made, stocked

_SIZES = {"base": (12, 768, 12), "large": (24, 1024, 16), "xlarge": (24, 2048, 16), "xxlarge": (12, 4096, 64)}
"""Layers, width and heads of attention."""


@dataclass(frozen=True)
class ALBERT(Family):
    """Stages layer1, layer2, ...: what the first token is after each pass through the layer, (B, D)."""

    extra: ClassVar[str] = MODELS
    packages: ClassVar[tuple[str, ...]] = ("transformers",)

    size: str = tunable("base", Choice(tuple(_SIZES)), "layers and width: 12x768, 24x1024, 24x2048 or 12x4096")
    vocabulary: int = tunable(30000, IntUniform(1000, 200000), "token ids", low=2)
    dropout: float = tunable(
        0.1, Uniform(0.0, 0.3), "share of what the classifier reads that a training step leaves out", off=0.0, low=0.0, high=1.0
    )
    weights: str = tunable(
        "", Text(), "folder, below KDSWEEP_DATA if relative, or hub id of a checkpoint to start from; none by default", off=""
    )
    revision: str = tunable("", Text(), "commit of the hub id; the newest by default", off="")

    def untrained(self) -> ALBERT:
        return replace(self, weights="")

    def fits(self, form: Form) -> None:
        check_text("ALBERT", form, self.vocabulary)

    def stocked(self) -> tuple[str, ...]:
        return stocked("ALBERT", "Albert", self._settings(), self.weights, self.revision)

    def build(self, shape: tuple[int, ...], classes: int) -> Network:
        self.fits(Form(shape, classes))
        found = made("ALBERT", "Albert", "ForSequenceClassification", self._settings(), classes, self.weights, self.revision)
        body, head = found.albert, fitted(found.classifier, classes)
        opening = nn.Sequential(body.embeddings, body.encoder.embedding_hidden_mapping_in)
        pooler = FirstToken(body.pooler)
        return TextEncoder(opening, nn.ModuleList(body.encoder.albert_layer_groups), [0] * _SIZES[self.size][0], pooler, self.dropout, head)

    def _settings(self) -> dict[str, Any]:
        layers, width, heads = _SIZES[self.size]
        return {
            "vocab_size": self.vocabulary,
            "num_hidden_layers": layers,
            "hidden_size": width,
            "num_attention_heads": heads,
            "intermediate_size": 4 * width,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        }

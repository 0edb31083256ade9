"""BERT in six sizes, as a classifier of texts: the extra ``models``.

Devlin et al. 2019 (arXiv:1810.04805); the small sizes are those of Turc et al. 2019 (arXiv:1908.08962). Built by ``transformers`` from its
configuration, or with ``weights`` of a checkpoint, whose classifier is kept where it has the data's number of classes.
Inputs are (B, L) int64 token ids of BERT's vocabulary, without padding behind the text or with 0 there; all are of the first segment.

Initialisation as in the library: normal with standard deviation 0.02 (the paper cuts it off at two deviations), biases 0.
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

_SIZES = {"tiny": (2, 128), "mini": (4, 256), "small": (4, 512), "medium": (8, 512), "base": (12, 768), "large": (24, 1024)}
"""Layers and width; there is a head of attention for every 64 of the width."""


@dataclass(frozen=True)
class BERT(Family):
    """Stages layer1, layer2, ...: what the first token is after each layer, (B, D)."""

    extra: ClassVar[str] = MODELS
    packages: ClassVar[tuple[str, ...]] = ("transformers",)

    size: str = tunable("base", Choice(tuple(_SIZES)), "layers and width: 2x128, 4x256, 4x512, 8x512, 12x768 or 24x1024")
    vocabulary: int = tunable(30522, IntUniform(1000, 200000), "token ids", low=2)
    dropout: float = tunable(
        0.1,
        Uniform(0.0, 0.3),
        "share that a training step leaves out, in layers, in attention and before the classifier",
        off=0.0,
        low=0.0,
        high=1.0,
    )
    weights: str = tunable(
        "", Text(), "folder, below KDSWEEP_DATA if relative, or hub id of a checkpoint to start from; none by default", off=""
    )
    revision: str = tunable("", Text(), "commit of the hub id; the newest by default", off="")

    def untrained(self) -> BERT:
        return replace(self, weights="")

    def fits(self, form: Form) -> None:
        check_text("BERT", form, self.vocabulary)

    def stocked(self) -> tuple[str, ...]:
        return stocked("BERT", "Bert", self._settings(), self.weights, self.revision)

    def build(self, shape: tuple[int, ...], classes: int) -> Network:
        self.fits(Form(shape, classes))
        found = made("BERT", "Bert", "ForSequenceClassification", self._settings(), classes, self.weights, self.revision)
        body, head = found.bert, fitted(found.classifier, classes)
        pooler = FirstToken(body.pooler.dense)
        return TextEncoder(body.embeddings, nn.ModuleList(body.encoder.layer), range(_SIZES[self.size][0]), pooler, self.dropout, head)

    def _settings(self) -> dict[str, Any]:
        layers, width = _SIZES[self.size]
        return {
            "vocab_size": self.vocabulary,
            "num_hidden_layers": layers,
            "hidden_size": width,
            "num_attention_heads": width // 64,
            "intermediate_size": 4 * width,
            "hidden_dropout_prob": self.dropout,
            "attention_probs_dropout_prob": self.dropout,
        }

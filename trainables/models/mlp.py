"""MLP: fully connected hidden layers with rectifiers, the smallest network that can be a teacher or a student."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from search_spaces import IntUniform, Uniform, tunable
from trainables.distiller import Outputs
from trainables.form import Form
from trainables.network import PENULTIMATE, Family, Network


@dataclass(frozen=True)
class MLP(Family):
    """Stages hidden1, hidden2, ... are the (B, width) outputs of the rectifiers."""

    width: int = tunable(128, IntUniform(16, 512), "units of each hidden layer", low=1)
    depth: int = tunable(2, IntUniform(1, 4), "hidden layers", low=1)
    dropout: float = tunable(
        0.0, Uniform(0.0, 0.5), "share of units that a training step leaves out, behind every hidden layer", off=0.0, low=0.0, high=1.0
    )

    def fits(self, form: Form) -> None:
        if len(form.shape) < 2:
            raise ValueError(
                f"MLP needs inputs (C, H, W), but got token ids of shape={tuple(form.shape)}. Take a family for texts, such as bert."
            )

    def build(self, shape: tuple[int, ...], classes: int) -> Network:
        return _MLP(math.prod(shape), self, classes)


class _MLP(Network):
    def __init__(self, inputs: int, family: MLP, classes: int) -> None:
        super().__init__()
        width, depth = family.width, family.depth
        self.dropout = nn.Dropout(family.dropout) if family.dropout > 0 else nn.Identity()
        self.stages = tuple(f"hidden{i + 1}" for i in range(depth))
        self.hidden = nn.ModuleList(nn.Linear(inputs if i == 0 else width, width) for i in range(depth))
        self.head = nn.Linear(width, classes)

    def forward(self, inputs: Tensor, features: Sequence[str] = ()) -> Outputs:
        maps: dict[str, Tensor] = {}
        x = inputs.flatten(1)  # (B, C, H, W) -> (B, C*H*W)
        for stage, layer in zip(self.stages, self.hidden, strict=True):
            x = layer(x).relu()
            if stage in features:
                maps[stage] = x
            x = self.dropout(x)
        if PENULTIMATE in features:
            maps[PENULTIMATE] = x
        return Outputs(self.head(x), maps)

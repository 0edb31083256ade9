"""CNN: stages of one 3x3 convolution, each on half the resolution and twice the channels of the one before.

Deliberately without batch norm: rows of a batch do not see each other, unless the method makes them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces import Choice, IntUniform, Uniform, tunable
from trainables.distiller import Outputs
from trainables.form import Form
from trainables.network import PENULTIMATE, Family, Network

GROUP, NONE = "group", "none"
POOL, FLATTEN = "pool", "flatten"
_GROUPS = 8


@dataclass(frozen=True)
class CNN(Family):
    """Stages stage1, stage2, ... are the (B, C, H, W) outputs of the rectifiers, before they are halved by max pooling."""

    width: int = tunable(16, IntUniform(4, 64), "channels of the first stage", low=1)
    depth: int = tunable(2, Choice((2, 3)), "stages")
    norm: str = tunable(GROUP, Choice((GROUP, NONE)), "what follows a convolution: group norm or nothing", off=NONE)
    dropout: float = tunable(
        0.0, Uniform(0.0, 0.5), "share of what the classifier reads that a training step leaves out", off=0.0, low=0.0, high=1.0
    )
    head: str = tunable(FLATTEN, Choice((POOL, FLATTEN)), "what the classifier sees: the mean over positions, or every position")

    def fits(self, form: Form) -> None:
        smallest = 2 ** (self.depth - 1)
        if len(form.shape) != 3 or min(form.shape[1:]) < smallest:
            raise ValueError(
                f"CNN needs inputs (C, H, W) of at least {smallest}x{smallest} at depth={self.depth}, but got shape={tuple(form.shape)}."
            )

    def build(self, shape: tuple[int, ...], classes: int) -> Network:
        self.fits(Form(shape, classes))
        return _CNN(shape, self, classes)


class _CNN(Network):
    def __init__(self, shape: tuple[int, ...], family: CNN, classes: int) -> None:
        super().__init__()
        self.stages = tuple(f"stage{i + 1}" for i in range(family.depth))
        channels = [shape[0], *(family.width * 2**i for i in range(family.depth))]
        self.convolutions = nn.ModuleList(nn.Conv2d(a, b, kernel_size=3, padding=1) for a, b in itertools.pairwise(channels))
        grouped = family.norm == GROUP
        self.norms = nn.ModuleList(nn.GroupNorm(math.gcd(c, _GROUPS), c) if grouped else nn.Identity() for c in channels[1:])
        halvings = 2 ** (family.depth - 1)
        positions = (shape[1] // halvings) * (shape[2] // halvings) if family.head == FLATTEN else 1
        self.flattens = family.head == FLATTEN
        self.dropout = nn.Dropout(family.dropout) if family.dropout > 0 else nn.Identity()
        self.head = nn.Linear(channels[-1] * positions, classes)

    def forward(self, inputs: Tensor, features: Sequence[str] = ()) -> Outputs:
        maps: dict[str, Tensor] = {}
        x = inputs
        for index, (stage, convolution, norm) in enumerate(zip(self.stages, self.convolutions, self.norms, strict=True)):
            if index > 0:
                x = F.max_pool2d(x, 2)
            x = norm(convolution(x)).relu()  # (B, C, H, W)
            if stage in features:
                maps[stage] = x
        x = self.dropout(x.flatten(1) if self.flattens else x.mean(dim=(2, 3)))  # (B, D)
        if PENULTIMATE in features:
            maps[PENULTIMATE] = x
        return Outputs(self.head(x), maps)

"""StandIn: a small network in the place of a large one, with the stages that the methods of a study ask it for by name.

For rehearsals alone (``trainables.rehearsal``): what a method makes of a network's outputs and maps can be seen on any network that has
them, and three convolutions train a thousand steps while a ResNet-50 does one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch.nn.functional as F
from torch import Tensor, nn

from trainables.distiller import Outputs
from trainables.network import PENULTIMATE, Family, Network

_WIDTHS = (16, 32, 64)
"""Channels of the convolutions, each on half the side of the one before; of texts the last is the width throughout."""
_TOKENS = 4096
"""Rows of the table of words. Token ids are taken modulo that."""


@dataclass(frozen=True)
class StandIn(Family):
    """Not a family that a study can name. For pictures, maps are (B, C, H, W); for token ids (B, L), (B, D)."""

    stages: tuple[str, ...]
    """Names of the network that it stands for, spread over its own layers."""
    dropout: float
    """Before the classifier: some methods look at how sure a network with dropout is."""

    @classmethod
    def of(cls, network: Network) -> Self:
        """What stands for a network."""
        shares = [module.p for module in network.modules() if isinstance(module, nn.Dropout)]
        return cls(network.stages, max(shares, default=0.0))

    def build(self, shape: tuple[int, ...], classes: int) -> Network:
        return _Pictures(shape, self, classes) if len(shape) == len(("C", "H", "W")) else _Texts(self, classes)


class _Small(Network):
    def __init__(self, family: StandIn, classes: int) -> None:
        super().__init__()
        self.stages = family.stages
        self.dropout = nn.Dropout(family.dropout)
        self.head = nn.Linear(_WIDTHS[-1], classes)

    def _layer(self, stage: int) -> int:
        """That of so many layers whose output a stage gets."""
        return stage * len(_WIDTHS) // len(self.stages)

    def _said(self, maps: Sequence[Tensor], last: Tensor, features: Sequence[str]) -> Outputs:
        read = self.dropout(last)
        found = {name: maps[self._layer(number)] for number, name in enumerate(self.stages) if name in features}
        return Outputs(self.head(read), found | ({PENULTIMATE: read} if PENULTIMATE in features else {}))


class _Pictures(_Small):
    def __init__(self, shape: tuple[int, ...], family: StandIn, classes: int) -> None:
        super().__init__(family, classes)
        inputs = (shape[0], *_WIDTHS)
        self.convolutions = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in zip(inputs, _WIDTHS, strict=False))

    def forward(self, inputs: Tensor, features: Sequence[str] = ()) -> Outputs:
        maps = [inputs]
        for convolution in self.convolutions:
            maps.append(convolution(maps[-1]).relu())
        return self._said(maps[1:], maps[-1].mean(dim=(2, 3)), features)


class _Texts(_Small):
    def __init__(self, family: StandIn, classes: int) -> None:
        super().__init__(family, classes)
        width = _WIDTHS[-1]
        self.words = nn.Embedding(_TOKENS, width)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in _WIDTHS)

    def forward(self, inputs: Tensor, features: Sequence[str] = ()) -> Outputs:
        maps = [self.words(inputs % _TOKENS).mean(dim=1)]
        for layer in self.layers:
            maps.append(F.relu(layer(maps[-1])))
        return self._said(maps[1:], maps[-1], features)

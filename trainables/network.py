"""The contract of a network family: a frozen dataclass that builds a module which returns Outputs and names its stages."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from search_spaces import check
from trainables.distiller import Outputs
from trainables.form import Form
from trainables.recipe import FLOAT32

FIRST, MIDDLE, LAST, PENULTIMATE = ("first", "middle", "last", "penultimate")


class Network(nn.Module, ABC):
    """A module from inputs (B, C, H, W) to Outputs."""

    stages: tuple[str, ...]
    """Names of the feature maps that ``forward`` can return, from the input to the output."""
    head: nn.Linear
    """The classifier. What it reads, (B, D), is the feature "penultimate"."""

    @abstractmethod
    def forward(self, inputs: Tensor, features: Sequence[str] = ()) -> Outputs:
        """Logits, and the maps of the named stages; "penultimate" is one of the names."""

    def stage(self, name: str) -> str:
        """The stage that a method means: its own name, or first, middle or last."""
        count = len(self.stages)
        return {FIRST: self.stages[0], MIDDLE: self.stages[count // 2], LAST: self.stages[-1]}.get(name, name)


@dataclass(frozen=True)
class Family(ABC):
    """A network family as a value: its fields are width, depth and the like."""

    extra: ClassVar[str] = ""
    """Which extra of kdsweep it needs, if any."""
    packages: ClassVar[tuple[str, ...]] = ()
    """Packages of it, by the names that they are imported by."""

    def __post_init__(self) -> None:
        check(self)

    def fits(self, form: Form) -> None:  # noqa: B027 # some read everything
        """Raise ValueError where a network of the family cannot read such rows. Nothing is built."""

    def stocked(self) -> tuple[str, ...]:
        """Look whether this machine has what the family is made from, such as weights, without reading or fetching that: remarks.

        Raises:
            ValueError: it has not, or what it has does not fit.
            ImportError: the extra is not installed.
        """
        return ()

    @abstractmethod
    def build(self, shape: tuple[int, ...], classes: int) -> Network:
        """A freshly initialised network for inputs of ``shape`` (C, H, W), drawn from torch's global generator."""

    def untrained(self) -> Family:
        """The same family without weights to start from."""
        return self


def batch_norms(network: nn.Module) -> tuple[nn.modules.batchnorm._BatchNorm, ...]:
    """The layers that normalise over the rows they are given together, and remember mean and variance."""
    return tuple(module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm))


def outputs_of(network: Network, inputs: Tensor, features: Sequence[str] = (), precision: str = FLOAT32) -> Outputs:
    """What a network returns, in float32 whatever it computes in: (B, C, H, W) -> (B, K) logits and (B, ...) maps by the names asked for."""
    stages = {name: network.stage(name) for name in features}
    wanted = tuple(dict.fromkeys(stages.values()))
    with torch.autocast(inputs.device.type, dtype=torch.bfloat16, enabled=precision != FLOAT32):
        found: Outputs = network(inputs, wanted)
    # In the order of their axes, however the network computed them: what is drawn "like" a map is drawn in the order of its memory.
    return Outputs(found.logits.float(), {name: found.features[stage].float().contiguous() for name, stage in stages.items()})

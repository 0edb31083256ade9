"""Rows on the device, the order in which training visits them, and batches of static shape cut from them.

Whatever is padded repeats the first row of its batch at weight 0, so that a method which writes by row number writes the
same thing twice. A network with batch norm sees what is padded: for it, other rows of the pass fill up, at weight 0 too. They are
normalised with the batch as far as one worker has them; what only makes the shares of several workers equal is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from trainables.augmentation import Augmentation, augmentation_named
from trainables.device import Device, seed_of
from trainables.distiller import Outputs
from trainables.pixels import Inputs, inputs_on
from trainables.source import Splits


@dataclass(frozen=True)
class Resident:
    """The splits of one block, as far as they stay on a device. Labels that are only measured against stay on the host."""

    inputs: Inputs
    """(N, ...)."""
    label: Tensor
    """(N,) int64: true class of a row of A, 0 for a row of U."""
    is_labelled: Tensor
    """(N,) float32."""
    labelled: int
    holdout_inputs: Inputs
    """(M, ...)."""
    holdout_labels: Tensor
    """(M,) int64 on the host."""
    test_inputs: Inputs | None
    test_labels: Tensor | None
    """(T,) int64 on the host."""
    classes: int
    augmentation: Augmentation | None = None
    """What training shows instead of plain rows."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W), or (L,) of token ids."""
        return tuple(self.inputs.shape[1:])


def resident(splits: Splits, device: Device) -> Resident:
    """The splits on the device, but for pictures that are read along the way. Whatever a source says of the rows behind A is dropped here.

    Raises:
        ValueError: inputs of a form that nothing here can show, or an augmentation that is not for them.
        Unreadable: a picture of a set that is small enough to be read at once.
    """
    there = device.torch_device
    is_labelled = torch.arange(len(splits.labels)) < splits.labelled  # (N,)
    given = (splits.inputs, splits.holdout_inputs, splits.test_inputs)
    inputs, holdout, test = inputs_on(given, splits.scaling, device)
    if inputs is None or holdout is None:
        raise ValueError("Splits need training and held-out inputs, but got none.")
    return Resident(
        inputs=inputs,
        label=torch.where(is_labelled, splits.labels, 0).to(there),
        is_labelled=is_labelled.float().to(there),
        labelled=splits.labelled,
        holdout_inputs=holdout,
        holdout_labels=splits.holdout_labels,
        test_inputs=test,
        test_labels=splits.test_labels,
        classes=splits.classes,
        augmentation=augmentation_named(splits.augmentation, tuple(inputs.shape[1:]), is_stored=not isinstance(inputs, Tensor)),
    )


class Epoch(NamedTuple):
    """Row numbers of one pass, as one worker sees them: S steps of B rows, each a tensor of its own on the device."""

    rows: tuple[Tensor, ...]
    """S times (B,) int64."""
    weight: tuple[Tensor, ...]
    """S times (B,) float32: 0 where a row only fills up."""
    total: tuple[Tensor, ...]
    """S times () float32: rows of the whole batch over all workers."""
    numbers: tuple[Tensor, ...]
    """``rows`` on the host."""


@dataclass(frozen=True)
class Order:
    """Which rows each step trains on: a permutation per epoch that depends on the seed and the epoch alone."""

    rows: int
    batch: int
    """Rows of the whole batch; more than there are rows means all of them."""
    epochs: int
    seed: int
    is_mixed: bool = False
    """Whether rows of a batch are normalised together: it is then filled up with the rows that follow, from the start of the pass again."""

    @property
    def length(self) -> int:
        """Rows of the whole batch, as it comes out."""
        return min(self.batch, self.rows)

    @property
    def steps_per_epoch(self) -> int:
        """The last one may be filled up."""
        return -(-self.rows // self.length)

    @property
    def steps(self) -> int:
        """Of the whole training."""
        return self.epochs * self.steps_per_epoch

    def epoch(self, number: int, device: Device) -> Epoch:
        """The pass of a number: worker r of W takes every W-th row of each batch, from the r-th on."""
        generator = torch.Generator().manual_seed(seed_of("order", self.seed, number))
        permutation = torch.randperm(self.rows, generator=generator)
        count, length = self.steps_per_epoch, self.length
        shares = device.size * device.pieces
        wide = -(-length // shares) * shares
        place = torch.arange(wide).expand(count, wide)
        start = torch.arange(count).unsqueeze(1) * length  # (S, 1)
        real = (place < length) & (start + place < self.rows)  # (S, B over all workers)
        filling = (start + place) % self.rows if self.is_mixed else start
        rows = permutation[torch.where(real, start + place, filling)]
        mine = slice(device.rank, None, device.size)
        numbers = rows[:, mine]
        weight, total = device.unbound(real[:, mine].float()), device.unbound(real.sum(1).float())
        return Epoch(device.unbound(numbers), weight, total, numbers.unbind())


def taken(outputs: Outputs, rows: Tensor, axis: int = 0) -> Outputs:
    """The outputs of some rows: (N, ...) and (B,) -> (B, ...); with ``axis`` 1, (V, N, ...) -> (V, B, ...)."""
    maps = {name: value.index_select(axis, rows) for name, value in outputs.features.items()}
    return Outputs(outputs.logits.index_select(axis, rows), maps)

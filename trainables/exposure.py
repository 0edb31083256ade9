"""Exposure: what a training shows of its rows in every view, and what the teacher says of it.

The teacher sees the very pictures that the student sees: Beyer, Zhai, Royer, Markeeva, Anil, Kolesnikov, "Knowledge distillation: a
good teacher is patient and consistent", CVPR 2022, https://arxiv.org/abs/2106.05237, section 3. Of views that never change it is
asked once per row, of all others at every step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from trainables import augmentation
from trainables.augmentation import augmented, cut
from trainables.batches import Resident, taken
from trainables.device import Device, seed_of
from trainables.distiller import Needs, Outputs
from trainables.pixels import Pictures, ready
from trainables.teachers import FrozenTeacher, stacked
from trainables.views import DRAWS, FIXED, PARTNER, PLAIN, STRONG, WEAK, check_views, shown


class Exposure:
    """Inputs and teacher's outputs of batches, view by view."""

    def __init__(self, needs: Needs, data: Resident, rows: int, teacher: FrozenTeacher | None, seed: int, device: Device) -> None:
        """``rows``: N. ``seed``: of whatever is drawn. ValueError for a view that the data do not have."""
        check_views(needs.views, data.shape)
        self._kinds, self._features = needs.views, needs.features
        self._data, self._rows, self._seed, self._device = data, rows, seed, device
        self._teacher = teacher if needs.teacher else None
        self._draws_something = any(kind not in (*FIXED, PARTNER) for kind in self._kinds)
        labels = data.label[: data.labelled].cpu() if PARTNER in self._kinds else torch.zeros(0)
        self._classes = [members for c in range(data.classes) if len(members := (labels == c).nonzero().squeeze(1))]
        # Plain and turned pictures are changed alike; every other view is changed on its own.
        self._slots = [0 if kind in FIXED else 1 + index for index, kind in enumerate(self._kinds)]
        self._draws: Tensor | None = None
        self._changes: dict[int, Tensor] = {}
        self._partner: Tensor | None = None
        self._read: Iterator[Tensor] | None = None
        self._remembered = data.augmentation is None and self._teacher is not None and self._teacher.remembers(data.inputs, needs.features)
        for kind in self._kinds:
            # Asked within the first step, it would make a graph of that step which no later student of the teacher has.
            if self._remembered and self._teacher is not None and kind in (*FIXED, PARTNER):
                self._teacher.over("train", data.inputs, needs.features, PLAIN if kind == PARTNER else kind)

    def start(self, epoch: int, numbers: Sequence[Tensor] = ()) -> None:
        """Draw what an epoch is made of, by row.

        ``numbers``: the rows of each step that is still to come, on the host: pictures that are not in memory are read in this order.
        """
        there = self._device.torch_device
        if self._draws_something:
            self._draws = self._drawn("views", epoch, len(self._kinds), DRAWS).to(there)
        if self._data.augmentation is not None:
            wanted = sorted(set(self._slots))
            found = self._drawn("augmentation", epoch, 1 + len(self._kinds), augmentation.DRAWS)
            self._changes = {slot: found[slot].to(there) for slot in wanted}
        partner = torch.arange(self._rows)
        if PARTNER in self._kinds:
            generator = torch.Generator().manual_seed(seed_of("partner", self._seed, epoch))
            for members in self._classes:
                partner[members] = members[torch.randint(len(members), members.shape, generator=generator)]
            self._partner = partner.to(there)
        if isinstance(self._data.inputs, Pictures) and self._data.inputs.is_streamed:
            self._read = self._data.inputs.ahead([self._distinct(rows, partner) for rows in numbers])

    def of(self, rows: Tensor) -> tuple[Tensor, Outputs]:
        """(B,) row numbers -> inputs (B, C, H, W) and the teacher's outputs for them; (V, B, ...) with several views.

        Of pictures that are not in memory, the rows have to be those of the next step.
        """
        read = None if self._read is None else next(self._read)
        pairs = [self._view(index, kind, rows, read) for index, kind in enumerate(self._kinds)]
        if len(pairs) == 1:
            return pairs[0]
        inputs, outputs = zip(*pairs, strict=True)
        return torch.stack(inputs), stacked(outputs)

    def _drawn(self, what: str, epoch: int, count: int, each: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed_of(what, self._seed, epoch))
        return torch.rand(count, self._rows, each, generator=generator)

    def _distinct(self, rows: Tensor, partner: Tensor) -> Tensor:
        """Row numbers of what a step shows: its own rows, then their partners."""
        return torch.cat([rows, partner[rows]]) if PARTNER in self._kinds else rows

    def _view(self, index: int, kind: str, rows: Tensor, read: Tensor | None) -> tuple[Tensor, Outputs]:
        whose, offset = rows, 0
        if kind == PARTNER and self._partner is not None:
            whose, offset, kind = self._partner.index_select(0, rows), len(rows), PLAIN
        inputs = self._augmented(index, kind, rows, whose, None if read is None else read[offset : offset + len(rows)])
        is_fixed = kind in FIXED or self._draws is None
        draws = None if is_fixed or self._draws is None else self._draws[index].index_select(0, rows)
        inputs = shown(kind, inputs, draws)
        if self._teacher is None:
            return inputs, Outputs(torch.empty(0, device=self._device.torch_device), {})
        if is_fixed and self._remembered:
            return inputs, taken(self._teacher.over("train", self._data.inputs, self._features, kind), whose)
        return inputs, self._teacher.live(inputs, self._features)

    def _augmented(self, index: int, kind: str, rows: Tensor, whose: Tensor, read: Tensor | None) -> Tensor:
        """The plain inputs of a view, (B, ...), changed by what is drawn for its rows."""
        stored, wanted = self._data.inputs, self._data.augmentation
        if wanted is None and read is None:
            return self._device.spread(ready(stored, whose))
        pixels = read if read is not None else stored.pixels(whose) if isinstance(stored, Pictures) else stored.index_select(0, whose)
        pixels = self._device.spread(pixels)
        if wanted is None:
            return stored.scaled(pixels) if isinstance(stored, Pictures) else pixels
        draws = self._changes[self._slots[index]].index_select(0, rows)
        if kind in (WEAK, STRONG):  # which move a picture already
            wanted = replace(wanted, crop="", cuts=False, operations=wanted.operations if kind == STRONG else 0)
        pixels = augmented(wanted, pixels, draws)
        inputs = stored.scaled(pixels) if isinstance(stored, Pictures) else pixels
        return cut(inputs, draws[:, 5], draws[:, 6]) if wanted.cuts else inputs

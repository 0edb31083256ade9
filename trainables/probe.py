"""RowProbe: what a method's ``prepare`` may look at. Every worker sees all of it, as it is: nothing is augmented here.

Outputs over so many rows that a teacher does not remember them are asked for batch by batch, every time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from trainables.batches import Resident, taken
from trainables.device import Device, seed_of
from trainables.distiller import Batch, Needs, Outputs
from trainables.evaluate import outputs_over, padded, rows_at_once
from trainables.network import Network, outputs_of
from trainables.pixels import Inputs, in_turn
from trainables.recipe import FLOAT32
from trainables.teachers import REMEMBERED_BYTES, FrozenTeacher, stacked
from trainables.views import FIXED, PLAIN, shown


@dataclass(frozen=True)
class RowProbe:
    """Batches in row order over the N training rows of a trial, or the M held-out ones."""

    needs: Needs
    data: Resident
    rows: int
    """N."""
    teacher: FrozenTeacher | None
    network: Network
    """The student."""
    device: Device
    precision: str = FLOAT32
    """Of the student."""
    others: Mapping[str, FrozenTeacher] = field(default_factory=dict)
    """Further networks, by the method's names for them."""

    def holdout(self) -> Iterator[tuple[Batch, Outputs]]:
        if not self.needs.holdout or self.teacher is None:
            raise ValueError("Reading held-out rows needs Needs(holdout=True) and a teacher, but the method declares otherwise.")
        yield from self._taught_over("holdout", self.data.holdout_inputs, self._held_out)

    def train(self) -> Iterator[tuple[Batch, Outputs]]:
        yield from self._taught_over("train", self.data.inputs, self._training)

    def passes(self, count: int) -> Iterator[tuple[Batch, Tensor]]:
        teacher = self._taught
        if 4 * self.rows * teacher.network.head.out_features > REMEMBERED_BYTES:
            raise ValueError(
                f"Passes need the logits of all training rows to be at most {REMEMBERED_BYTES:,} bytes a pass, but got {self.rows:,} rows of "
                f"{teacher.network.head.out_features:,} classes. Use a smaller part of the data, or another method."
            )
        layers = [module for module in teacher.network.modules() if isinstance(module, nn.Dropout)]
        for layer in layers:
            layer.train()
        try:
            with self.device.generators_kept():
                self.device.seed(seed_of("passes", self.rows, count))
                found = []
                for _ in range(count):
                    parts = []
                    chosen = [row for row, _weight in padded(self.rows, rows_at_once(self.data.inputs))]
                    for inputs in in_turn(self.data.inputs, chosen):
                        parts.append(teacher.live(inputs).logits)
                        self.device.boundary()
                    found.append(torch.cat(parts)[: self.rows])
        finally:
            for layer in layers:
                layer.eval()
        for batch, outputs in _in_order(*self._training, Outputs(torch.stack(found), {}), count, leading=True):
            yield batch, outputs.logits

    def head(self) -> tuple[Tensor, Tensor]:
        head = self._taught.network.head
        return head.weight.detach().clone(), head.bias.detach().clone()

    def other(self, name: str, part: str) -> Iterator[tuple[Batch, Outputs]]:
        inputs, labels = self._part(part)
        other = self.others[name]
        if other.remembers(inputs, self.needs.features):
            yield from _in_order(*labels, other.over(part, inputs, self.needs.features), 1)
        else:
            yield from self._asked(inputs, labels, lambda shown_now: other.live(shown_now, self.needs.features), (PLAIN,))

    def student(self, part: str) -> Iterator[tuple[Batch, Outputs]]:
        inputs, labels = self._part(part)
        if 4 * len(inputs) * self.network.head.out_features > REMEMBERED_BYTES:
            yield from self._asked(inputs, labels, self._says, (PLAIN,))
        else:
            found = outputs_over(self.network, inputs, self.device, self.needs.features, self.precision)
            yield from _in_order(*labels, found, 1)

    @torch.no_grad()
    def _says(self, inputs: Tensor) -> Outputs:
        """The student, in evaluation mode."""
        training = self.network.training
        self.network.eval()
        found = outputs_of(self.network, inputs, self.needs.features, self.precision)
        self.network.train(training)
        return found

    def _part(self, part: str) -> tuple[Inputs, tuple[Tensor, Tensor]]:
        if part != "holdout":
            return self.data.inputs, self._training
        if not self.needs.holdout:
            raise ValueError("Reading held-out rows needs Needs(holdout=True), but the method declares otherwise.")
        return self.data.holdout_inputs, self._held_out

    def _taught_over(self, part: str, inputs: Inputs, labels: tuple[Tensor, Tensor]) -> Iterator[tuple[Batch, Outputs]]:
        teacher, kinds, features = self._taught, self.needs.views, self.needs.features
        if teacher.remembers(inputs, features, len(kinds)):
            yield from _in_order(*labels, teacher.views(part, inputs, kinds, features), len(kinds))
        else:
            yield from self._asked(inputs, labels, lambda shown_now: teacher.live(shown_now, features), kinds)

    def _asked(
        self, inputs: Inputs, labels: tuple[Tensor, Tensor], ask: Callable[[Tensor], Outputs], kinds: Sequence[str]
    ) -> Iterator[tuple[Batch, Outputs]]:
        """Outputs of one batch at a time, in every view, one that changes shown plain."""
        batches = list(padded(len(inputs), rows_at_once(inputs), self.device.pieces))
        for (rows, weight), plain in zip(batches, in_turn(inputs, [rows for rows, _ in batches]), strict=True):
            found = stacked([ask(shown(kind if kind in FIXED else PLAIN, plain)) for kind in kinds])
            self.device.boundary()
            yield _batch(*labels, rows, weight), found

    @property
    def _taught(self) -> FrozenTeacher:
        if self.teacher is None or not self.needs.teacher:
            raise ValueError("Reading the teacher's outputs needs Needs(teacher=True), but the method declares otherwise.")
        return self.teacher

    @property
    def _training(self) -> tuple[Tensor, Tensor]:
        return self.data.label[: self.rows], self.data.is_labelled[: self.rows]

    @property
    def _held_out(self) -> tuple[Tensor, Tensor]:
        label = self.data.holdout_labels.to(self.data.label.device)
        return label, torch.ones_like(label, dtype=torch.float32)


def _in_order(label: Tensor, is_labelled: Tensor, found: Outputs, views: int, leading: bool = False) -> Iterator[tuple[Batch, Outputs]]:
    """``leading``: there is an axis in front of the rows even if its length is 1."""
    axis = int(views > 1 or leading)
    for rows, weight in padded(len(label)):
        batch = _batch(label, is_labelled, rows, weight)
        yield batch, taken(found, batch.row, axis)


def _batch(label: Tensor, is_labelled: Tensor, rows: Tensor, weight: Tensor) -> Batch:
    there = label.device
    rows, weight = rows.to(there), weight.to(there)
    return Batch(label[rows], is_labelled[rows], rows, weight, weight.sum(), torch.zeros((), device=there))

"""Tiny facts, batches, outputs and a Probe, built by hand: five classes, 64 training rows of which 24 are labelled, 40 held out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from trainables.distiller import Batch, Facts, Needs, Outputs

CLASSES, ROWS, LABELLED, HELD_OUT = 5, 64, 24, 40
_STUDENT_MAP, _TEACHER_MAP = (4, 4, 4), (6, 4, 4)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def facts(needs: Needs | None = None, classes: int = CLASSES, rows: int = ROWS, holdout_rows: int = HELD_OUT) -> Facts:
    stages = needs.features if needs else ()
    student = {"logits": (classes,), **dict.fromkeys(stages, _STUDENT_MAP)}
    teacher = {"logits": (classes,), **dict.fromkeys(stages, _TEACHER_MAP)}
    return Facts(classes, rows, holdout_rows, student, teacher)


def batch(row: Tensor, truth: Tensor, labelled: int = LABELLED, weight: Tensor | None = None, progress: float = 0.5) -> Batch:
    """The batch of these rows as the step makes it: the label of a row that is not among the first ``labelled`` is 0."""
    is_labelled = (row < labelled).float()
    weight = torch.ones(len(row)) if weight is None else weight
    return Batch(
        label=truth[row] * is_labelled.long(),
        is_labelled=is_labelled,
        row=row,
        weight=weight,
        total=weight.sum(),
        progress=torch.tensor(progress),
    )


def outputs(needs: Needs, shapes: dict[str, tuple[int, ...]], count: int, seed: int, scale: float = 1.0) -> Outputs:
    """Random outputs of a network for ``count`` rows; every tensor is a leaf that wants a gradient."""
    rng = generator(seed)
    views = (needs.views,) if needs.views > 1 else ()
    drawn = {name: (scale * torch.randn(*views, count, *shape, generator=rng)).requires_grad_() for name, shape in sorted(shapes.items())}
    return Outputs(drawn["logits"], {name: drawn[name] for name in needs.features})


def take(outputs: Outputs, row: Tensor, views: int = 1) -> Outputs:
    """The outputs of some rows."""
    axis = 1 if views > 1 else 0
    return Outputs(outputs.logits.index_select(axis, row), {n: v.index_select(axis, row) for n, v in outputs.features.items()})


def detached(outputs: Outputs) -> Outputs:
    return Outputs(outputs.logits.detach().clone(), {n: v.detach().clone() for n, v in outputs.features.items()})


@dataclass(frozen=True)
class Probe:
    """A Probe over known outputs, in batches of ``size``; the last one is padded with rows that must not be looked at."""

    train_outputs: Outputs
    train_truth: Tensor
    holdout_outputs: Outputs
    holdout_truth: Tensor
    labelled: int = LABELLED
    size: int = 24
    views: int = 1

    def holdout(self) -> Iterator[tuple[Batch, Outputs]]:
        yield from self._batches(self.holdout_outputs, self.holdout_truth, len(self.holdout_truth))

    def train(self) -> Iterator[tuple[Batch, Outputs]]:
        yield from self._batches(self.train_outputs, self.train_truth, self.labelled)

    def _batches(self, outputs: Outputs, truth: Tensor, labelled: int) -> Iterator[tuple[Batch, Outputs]]:
        for start in range(0, len(truth), self.size):
            row = torch.arange(start, start + self.size)
            weight = (row < len(truth)).float()
            row = row * weight.long()  # padding repeats row 0
            found = take(outputs, row, self.views)
            # Garbage where padding is: a method that looks at it is found out.
            found.logits[..., weight == 0, :] = 123.0
            yield batch(row, truth, labelled, weight), found


@dataclass(frozen=True)
class Toy:
    """Everything a method meets: truth, teacher, student and a probe, all of them functions of the seed."""

    needs: Needs
    facts: Facts
    truth: Tensor
    teacher: Outputs
    student: Outputs
    probe: Probe

    def batch(self, row: Tensor, progress: float = 0.5) -> Batch:
        return batch(row, self.truth, progress=progress)


def _teacher(needs: Needs, made: Facts, truth: Tensor, seed: int) -> Outputs:
    """Outputs of a teacher that is mostly right, with margins from near 0 to near 1."""
    found = detached(outputs(needs, dict(made.teacher_shapes), len(truth), seed))
    found.logits.add_(2.0 * torch.nn.functional.one_hot(truth, made.classes))
    return found


def toy(needs: Needs, seed: int = 0, classes: int = CLASSES) -> Toy:
    made = facts(needs, classes)
    truth = torch.randint(classes, (ROWS,), generator=generator(seed + 1))
    held_truth = torch.randint(classes, (HELD_OUT,), generator=generator(seed + 2))
    teacher = _teacher(needs, made, truth, seed + 3)
    probe = Probe(teacher, truth, _teacher(needs, made, held_truth, seed + 4), held_truth, views=needs.views)
    student = outputs(needs, dict(made.student_shapes), ROWS, seed + 5)
    return Toy(needs, made, truth, teacher, student, probe)

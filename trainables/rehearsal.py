"""Rehearsal: a miniature of a training, of which nothing is kept but what tells it from another one.

It has the trial's own data source, networks, method and teacher, but few rows and few steps; progress still runs from 0 to
1, so whatever a schedule does late is done here too. It is deterministic, runs on the CPU and never opens the test split.

For large networks small ones with the same stages stand in, and see small inputs (``trainables.standin``): what a part of a method
makes of logits and maps shows on those of any network. Large networks that differ in whatever field are taken to be different.

What a miniature cannot show is told beside it, from the training in full: the rows, how many steps of how many rows, the
learning rate and the method's levels at every step. What is shortened of whatever the training needs (its teacher, networks
that its method looks at, earlier students of its chain) goes into the order in which that sees its rows: so a teacher that
trains longer is another teacher here as well, and whether that matters to the student is seen in the student.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from search_spaces import Schedule
from trainables.batches import Order, Resident, resident
from trainables.device import Cpu, seed_of
from trainables.loop import Training
from trainables.network import Family
from trainables.operations import Sketch, sketch
from trainables.rows import Rows
from trainables.source import Source, Splits
from trainables.standin import StandIn
from trainables.step import float_table
from trainables.teachers import FrozenTeacher
from trainables.trial import Report, Trial

_STEPS_PER_EPOCH = 8
"""Several epochs, so that what a method does anew in each is done."""
_MOST_STEPS = 4096
"""Of a training in full at whose levels one looks; of a longer one, so many of them, evenly spaced."""
_MOST_PICTURES = 1024
"""Of those that are read when they are needed."""
_LARGE = 8e6
"""Floating-point operations (two for a multiplication and an addition) from which on a network is large: of one row, forward."""
_SIDE, _TOKENS = 32, 32
"""What stand-ins see: so many pixels of each side of a picture at most, evenly spaced, and the first so many tokens of a text."""


@dataclass(frozen=True)
class Conditions:
    """How large the miniature is."""

    name: str
    """In a sentence: "rehearsed ..."."""
    rows: int
    """Most rows of each part: A, U and V."""
    steps: int
    """Steps of the student, about: whole epochs."""
    teacher_steps: int
    """Most steps of whatever it needs: its teacher, and other networks."""
    block: int
    """Index of the tuning block whose seeds it has."""


SHORT = Conditions("with few rows", rows=64, steps=24, teacher_steps=24, block=0)
"""What every arm is rehearsed under."""
BRIEF = Conditions("in a few steps", rows=16, steps=2, teacher_steps=2, block=0)
"""What arms of a smoke run are rehearsed under, which only shows that it can be done."""
SURE = Conditions("with a teacher trained further", rows=64, steps=96, teacher_steps=240, block=1)
"""A part may act only where the teacher is sure, or the student is far."""
WIDE = Conditions("with more rows", rows=1024, steps=96, teacher_steps=1000, block=2)
"""A part may act on few rows alone, and those may not be among the few."""


@dataclass(frozen=True)
class Rehearsal:
    """What tells a training from another."""

    rows: str
    """Digest of A and U in full, labels of A and what is labelled; of pictures that are not in memory, of some that are evenly spaced."""
    steps: int
    """Of the training in full."""
    batch: int
    """Rows of a step of the training in full."""
    rates: str
    """Digest of the learning rates of the training in full."""
    levels: Mapping[str, str]
    """Digest of each traced field of the methods at every step of the training in full."""
    seen: Mapping[str, str]
    """The same at every step of the rehearsal."""
    stood_in: bool = False
    """Whether small networks stood in for its own."""
    rehearsed: int = 0
    """Steps of the rehearsal that were done."""
    parameters: Mapping[str, float] = field(default_factory=dict)
    """student, and method: what it trains beside the student, which is not known where another network stood in."""
    terms: Mapping[str, float] = field(default_factory=dict)
    """Unweighted, of the first step."""
    gradient: float = math.nan
    """Norm of the first step's, over the student and what the method learns."""
    losses: tuple[tuple[float, float], ...] = ()
    """(progress, loss of training up to there), of the first step and then some ten times."""
    outcome: str = ""
    """Digest of what came out: the student, and what it says of held-out rows."""
    problem: str = ""
    """Why it could not be finished, if it could not."""

    @property
    def loss(self) -> float:
        """Of the first step."""
        return self.losses[0][1] if self.losses else math.nan


_UNKNOWN = Rehearsal(rows="", steps=0, batch=0, rates="", levels={}, seen={})
"""Before anything is known."""


@dataclass(frozen=True)
class _Scale:
    """How small a rehearsal is."""

    conditions: Conditions
    stands_in: bool
    """Whether small networks stand in for its own, and see small inputs."""


class Stage:
    """Where trainings are rehearsed. Keeps splits and teachers, which arms share; rehearsals leave nothing behind."""

    def __init__(self) -> None:
        self._device = Cpu()
        self._device.settle()
        self._splits: dict[tuple[Source, int], tuple[Splits, str]] = {}
        self._parts: dict[tuple[Source, int, _Scale], Resident] = {}
        self._networks: dict[tuple[str, _Scale], FrozenTeacher] = {}
        self._unreadable: dict[Source, Exception] = {}

    def rehearse(self, trial: Trial, conditions: Conditions = SHORT) -> Rehearsal:
        """A miniature of the trial, which may be of any block. What goes wrong is told in ``problem``."""
        found = _UNKNOWN
        try:
            splits, rows = self._loaded(trial)
            order = Order(len(splits.inputs), trial.recipe.batch, trial.recipe.epochs, 0)
            found = replace(
                found,
                rows=rows,
                steps=order.steps,
                batch=order.length,
                rates=_digest_of_rates(trial, order.steps),
                levels=_levels(trial, order.steps),
            )
            scale = _Scale(conditions, self._is_large(trial))
            short = self._shortened(trial, scale, conditions.steps)
            seen = Order(len(self._data(trial, scale).inputs), short.recipe.batch, short.recipe.epochs, 0)
            found = replace(found, stood_in=scale.stands_in, seen=_levels(trial, seen.steps))
            training = self._training(short, trial, scale)
            first = training.advance(1 / training.order.steps)
            found = _opened(found, training, first)
            found = _ended(found, training, [*first, *training.advance(1.0)])
            return replace(found, parameters={"student": self._sketch(trial.model, trial).parameters}) if scale.stands_in else found
        except Exception as error:  # noqa: BLE001 # whatever a training can raise: the real one will tell the same, in its row
            return replace(found, problem=f"{type(error).__name__}: {error}")

    def _is_large(self, trial: Trial) -> bool:
        by = trial.first_teacher
        return any(self._sketch(model, trial).operations >= _LARGE for model in (trial.model, *([by.model] if by else [])))

    def _sketch(self, model: Family, trial: Trial) -> Sketch:
        splits, _ = self._loaded(trial)
        shape = splits.inputs.shape[1:] if isinstance(splits.inputs, Tensor) else splits.inputs.shape
        return sketch(model, tuple(shape), splits.classes)

    def _training(self, short: Trial, trial: Trial, scale: _Scale) -> Training:
        by = trial.teacher_trial
        others = {name: self._network(other, scale) for name, other in trial.others.items()}
        teacher = None if by is None else self._network(by, scale)
        return Training(short, self._data(trial, scale), teacher, self._device, others)

    def _network(self, trial: Trial, scale: _Scale) -> FrozenTeacher:
        """The network that a trial which others need ends with, in miniature too."""
        key = trial.id, scale
        if key not in self._networks:
            splits, _ = self._loaded(trial)
            order = Order(splits.labelled if trial.method is None else len(splits.inputs), trial.recipe.batch, trial.recipe.epochs, 0)
            short = self._shortened(trial, scale, min(scale.conditions.teacher_steps, order.steps))
            lost = f"{order.steps}/{order.length}/{_digest_of_rates(trial, order.steps)}"
            seed = seed_of("rehearsal", trial.block.order, lost)
            training = self._training(replace(short, block=replace(short.block, order=seed)), trial, scale)
            training.advance(1.0)
            self._networks[key] = FrozenTeacher(training.student, self._device, trial.recipe.precision)
        return self._networks[key]

    def _shortened(self, trial: Trial, scale: _Scale, steps: int) -> Trial:
        """The trial with whole epochs that come to about so many steps, and to one at least."""
        data = self._data(trial, scale)
        rows = data.labelled if trial.method is None else len(data.inputs)
        # A batch of one row has no statistics, which some networks need.
        batch = max(2, -(-rows // _STEPS_PER_EPOCH))
        epochs = max(1, round(steps / Order(rows, batch, 1, 0).steps_per_epoch))
        short = replace(trial, recipe=replace(trial.recipe, batch=batch, epochs=epochs), opens_test=False)
        if not scale.stands_in:
            return short
        # What the network is made of beside its stages goes into how the stand-in begins.
        seed = seed_of("stand-in", trial.block.init, repr(trial.model))
        return replace(short, model=StandIn.of(self._sketch(trial.model, trial).network), block=replace(trial.block, init=seed))

    def _loaded(self, trial: Trial) -> tuple[Splits, str]:
        """What could not be read once fails again at once: it may have waited for a network."""
        if trial.data in self._unreadable:
            raise self._unreadable[trial.data]
        key = trial.data, trial.block.split
        if key not in self._splits:
            try:
                self._splits[key] = _told_apart_by_rows(trial)
            except Exception as error:
                self._unreadable[trial.data] = error
                raise
        return self._splits[key]

    def _data(self, trial: Trial, scale: _Scale) -> Resident:
        key = trial.data, trial.block.split, scale
        if key not in self._parts:
            splits, most = self._loaded(trial)[0], scale.conditions.rows
            labelled = _spaced(0, splits.labelled, most)
            train = torch.cat([labelled, _spaced(splits.labelled, len(splits.inputs), most)])
            held = _spaced(0, len(splits.holdout_inputs), most)
            few = Splits(
                inputs=_seen(_picked(splits.inputs, train), scale),
                labels=splits.labels[train],
                labelled=len(labelled),
                holdout_inputs=_seen(_picked(splits.holdout_inputs, held), scale),
                holdout_labels=splits.holdout_labels[held],
                test_inputs=None,
                test_labels=None,
                classes=splits.classes,
                scaling=splits.scaling,
                augmentation=splits.augmentation,
            )
            self._parts[key] = resident(few, self._device)
        return self._parts[key]


def _told_apart_by_rows(trial: Trial) -> tuple[Splits, str]:
    """The splits of a trial, and a digest of its training rows."""
    splits = trial.data.load(trial.block.split, opens_test=False)
    inputs = splits.inputs
    told = f"{splits.labelled}/{len(inputs)}/{tuple(inputs.shape)}/{splits.classes}/{splits.scaling}/{splits.augmentation}"
    seen = inputs if isinstance(inputs, Tensor) else inputs.fetch(_spaced(0, len(inputs), _MOST_PICTURES))
    labels = splits.labels[: splits.labelled]  # of the rows behind A nothing is used
    return splits, _digest([told.encode(), _raw(seen), _raw(labels)])


def _opened(found: Rehearsal, training: Training, reports: Sequence[Report]) -> Rehearsal:
    """With what the first step told."""
    learned = [*training.student.parameters(), *training.state.parameters()]
    metrics = reports[0].metrics
    return replace(
        found,
        terms={name.removeprefix("train."): value for name, value in metrics.items() if name.startswith("train.") and name != "train.loss"},
        gradient=math.sqrt(math.fsum(float(p.grad.double().square().sum()) for p in learned if p.grad is not None)),
        losses=_losses(reports),
    )


def _ended(found: Rehearsal, training: Training, reports: Sequence[Report]) -> Rehearsal:
    """With what came out."""
    last = reports[-1].metrics
    said = repr(last["validation.nll"]).encode()  # not by the student alone, where the method has a classifier of its own
    return replace(
        found,
        rehearsed=training.steps,
        parameters={role: last[f"parameters.{role}"] for role in ("student", "method")},
        losses=_losses(reports),
        outcome=_digest([*_bytes(training.student), said]),
    )


def _losses(reports: Sequence[Report]) -> tuple[tuple[float, float], ...]:
    return tuple((report.progress, report.metrics["train.loss"]) for report in reports)


def _picked(inputs: Tensor | Rows, rows: Tensor) -> Tensor:
    return inputs[rows] if isinstance(inputs, Tensor) else inputs.fetch(rows)


def _seen(inputs: Tensor, scale: _Scale) -> Tensor:
    """Inputs as networks see them: for stand-ins pictures (N, C, H, W) become smaller, and of texts (N, L) the beginning is left."""
    if not scale.stands_in:
        return inputs
    if inputs.dtype == torch.int64:
        return inputs[:, :_TOKENS]
    for axis in range(2, inputs.ndim):
        inputs = inputs.index_select(axis, _spaced(0, inputs.shape[axis], _SIDE))
    return inputs


def _spaced(start: int, stop: int, most: int) -> Tensor:
    """Row numbers from start up to stop, all of them or so many evenly spaced ones: another number of rows is other rows."""
    count = stop - start
    return torch.arange(start, stop) if count <= most else start + torch.arange(most) * count // most


def _moments(steps: int) -> list[float]:
    chosen = range(steps) if steps <= _MOST_STEPS else [index * (steps - 1) // (_MOST_STEPS - 1) for index in range(_MOST_STEPS)]
    return [(step + 0.5) / steps for step in chosen]


def _digest_of_rates(trial: Trial, steps: int) -> str:
    rate, schedule = trial.recipe.learning_rate, trial.recipe.schedule
    return _digest_of_numbers(rate * schedule.at(progress) for progress in _moments(steps))


def _levels(trial: Trial, steps: int) -> dict[str, str]:
    """Of every schedule of the trial's methods, those of earlier students of its chain among them."""
    methods = [method for method in (*trial.chain, trial.method) if method is not None]
    moments, found = _moments(steps), {}
    for number, method in enumerate(methods, start=1 - len(methods)):
        moving = [name for name in method.traced_names if isinstance(getattr(method, name), Schedule)]
        table = float_table(method, moments) if moving else torch.zeros(0)
        for name in moving:
            found[f"{number}.{name}"] = _digest([_raw(table[:, method.traced_names.index(name)])])
    return found


def _bytes(module: nn.Module) -> Iterator[bytes]:
    for name, value in sorted(module.state_dict().items()):
        yield name.encode()
        yield _raw(value)


def _raw(value: Tensor) -> bytes:
    return value.detach().cpu().contiguous().numpy().tobytes()


def _digest_of_numbers(numbers: Iterable[float]) -> str:
    return _digest([repr(number).encode() for number in numbers])


def _digest(parts: Iterable[bytes]) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(len(part).to_bytes(8, "big"))
        found.update(part)
    return found.hexdigest()[:16]

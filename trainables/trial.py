"""Trial (what crosses to a worker) and Row (what comes back): frozen values without any network or tensor."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from search_spaces import Value, flat
from trainables.distiller import Distiller
from trainables.folder import name_of
from trainables.network import Family
from trainables.recipe import Recipe
from trainables.source import Source

CONTENT_VERSION = 1
"""Part of every content id. Raised when the same configuration starts to give other numbers."""


@dataclass(frozen=True)
class Block:
    """The sources of variation that all arms share. Each is a seed."""

    split: int
    teacher: int
    init: int
    order: int


@dataclass(frozen=True)
class Teacher:
    """How teachers are made: a network family and the recipe that trains it on the labelled part."""

    model: Family
    recipe: Recipe


@dataclass(frozen=True)
class Trial:
    """One training: a student by a method, or, where ``method`` is None, a teacher by cross-entropy on the labelled part."""

    data: Source
    block: Block
    model: Family
    """The network that is trained."""
    recipe: Recipe
    method: Distiller[Any] | None = None
    teacher: Teacher | None = None
    opens_test: bool = False
    """Whether the finished student is measured on the test split: only cells of a fixed design do."""
    chain: tuple[Distiller[Any], ...] = ()
    """Methods of earlier students, each the teacher of the next; the last of them teaches this one. All have this model and recipe."""

    def __post_init__(self) -> None:
        if (self.method is None) != (self.teacher is None):
            raise ValueError("A Trial needs method and teacher together: neither of them makes a teacher, both a student.")
        if self.method is None and self.chain:
            raise ValueError("A Trial needs a method to have a chain: a teacher is where chains begin.")
        if self.method is not None and self.recipe.smoothing > 0:
            raise ValueError(
                f"A student's recipe needs smoothing=0, but got smoothing={self.recipe.smoothing}: it is a teacher's cross-entropy that "
                "is smoothed. Use teacher.recipe.smoothing."
            )

    @property
    def first_teacher(self) -> Trial | None:
        """The trial that makes the network which teaches the first student: the same for every arm of a block with that teacher."""
        if self.teacher is None:
            return None
        seed = self.block.teacher
        block = Block(split=self.block.split, teacher=seed, init=seed, order=seed)
        return Trial(self.data, block, self.teacher.model, self.teacher.recipe)

    @property
    def teacher_trial(self) -> Trial | None:
        """The trial that makes this student's teacher."""
        if not self.chain:
            return self.first_teacher
        return replace(self, method=self.chain[-1], chain=self.chain[:-1])

    @property
    def others(self) -> Mapping[str, Trial]:
        """Further trials whose networks the method looks at before it starts, by the names it gives them."""
        if self.method is None or self.first_teacher is None:
            return {}
        wanted = self.method.others()
        return {name: self.first_teacher if by is None else replace(self, method=by) for name, by in wanted.items()}

    @property
    def needed(self) -> tuple[Trial, ...]:
        """Whatever must be finished, with its network kept, before this one can start; its teacher first."""
        teacher = self.teacher_trial
        return tuple({trial.id: trial for trial in (*([teacher] if teacher else []), *self.others.values())}.values())

    def config(self) -> dict[str, Value]:
        """Flat dotted names of everything that was chosen, seeds excluded."""
        found: dict[str, Value] = {"data.source": name_of(self.data), **_prefixed("data.", self.data)}
        found |= {"model.family": name_of(self.model), **_prefixed("model.", self.model)}
        found |= _prefixed("recipe.", self.recipe)
        if self.method is not None and self.teacher is not None:
            found |= {"method.name": name_of(self.method), **_prefixed("method.", self.method)}
            found |= {"teacher.model.family": name_of(self.teacher.model), **_prefixed("teacher.model.", self.teacher.model)}
            found |= _prefixed("teacher.recipe.", self.teacher.recipe)
            # Always there, so that the column has a type; spelled out, since the steps of a chain may differ in anything.
            found["chain"] = json.dumps([[name_of(method), flat(method)] for method in self.chain], sort_keys=True)
            found["chain.steps"] = len(self.chain)
        return found

    @cached_property
    def id(self) -> str:
        """Sixteen hex digits of the scientific content: configuration, seeds and whether the test split is opened."""
        block = self.block
        content = {
            "version": CONTENT_VERSION,
            "config": self.config(),
            "seeds": [block.split, block.teacher, block.init, block.order],
            "opens_test": self.opens_test,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _prefixed(prefix: str, value: object) -> dict[str, Value]:
    return flat(value, prefix)


@dataclass(frozen=True)
class Report:
    """Metrics at one point of a training."""

    step: int
    progress: float
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Row:
    """What one leg of a trial reported: the stretch from where it stood to the next rung, or to the end.

    ``status`` is "running" at a rung that is not the end, "ok" at the end, else one of FAILURES. "stopped" is given by
    the driver to a cell that early stopping does not continue. "preempted" is a leg that ended early with a checkpoint: it
    is asked for again, and of its row only the time that it took counts.
    """

    trial: str
    status: str
    progress: float
    steps: int
    metrics: Mapping[str, float]
    """Latest metrics: validation.accuracy, validation.nll, ...; test.* where the trial opens the test split."""
    reports: tuple[Report, ...] = ()
    """Every evaluation of the leg, in order."""
    seconds: float = 0.0
    """Wall-clock seconds of the leg."""
    device_seconds: float = 0.0
    """``seconds`` times the devices that were held."""
    message: str = ""
    trace: str = ""
    where: Mapping[str, str] = field(default_factory=dict)
    """host, pid, device, workers."""


@dataclass(frozen=True)
class Leg:
    """A stretch of a trial that a lane is asked for: from where the trial stands to ``until``. The last one ends at 1."""

    trial: Trial
    until: float
    keeps: bool = False
    """Whether the student is kept for others to learn from. What a teacher's trial makes always is."""
    seconds: float | None = None
    """How long it may take, after which it ends as timed_out; None: as long as it likes."""

    def __post_init__(self) -> None:
        if not 0.0 < self.until <= 1.0:
            raise ValueError(f"A Leg needs until in (0, 1], but got until={self.until}.")

    @property
    def overdue_s(self) -> float:
        """When whoever trains it is taken to hang: an evaluation, or a graph that is compiled, is no step, so a leg that does not
        hang may come late to where it is asked for the time."""
        return math.inf if self.seconds is None else self.seconds + min(60.0, max(1.0, self.seconds))

"""The plan: cells, before anything runs. Pure functions of a study and, for stage two, of what tuning chose."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from orchestrator import rungs
from orchestrator.events import CONFIRM, PATH, SEARCH, TEACHER, Role, role_of
from orchestrator.study import Arm, Confirm, Search, Study
from search_spaces import Point, Schedule, Value, flat, tunables
from trainables.folder import name_of
from trainables.network import Family
from trainables.recipe import Recipe
from trainables.step import cross_entropy
from trainables.trial import Trial

DESIGN = "design"


@dataclass(frozen=True)
class Cell:
    """Arm x block: one training, and how it came into the plan."""

    trial: Trial
    stage: str
    arm: str
    block: int
    proposed_by: str = DESIGN
    generation: int | None = None
    number: int | None = None
    """Number of the proposal within its arm's search."""
    point: Point | None = None
    """The proposal. The configuration may not tell it: a step of a chain can turn a method into another value."""

    @property
    def id(self) -> str:
        """The content id of the training."""
        return self.trial.id

    @property
    def method(self) -> str | None:
        """Name of the method; None for a teacher."""
        return None if self.trial.method is None else name_of(self.trial.method)

    @cached_property
    def signature(self) -> str:
        """What the compiled graphs of the training depend on."""
        return signature(self.trial)

    @cached_property
    def needs(self) -> tuple[Cell, ...]:
        """Cells that must be finished first: of its teacher, then of networks that its method looks at.

        They belong to no arm's comparison, so their stage is that of teachers. A student among them, of a chain, has the name
        of the arm that needs it.
        """
        return tuple(Cell(trial, TEACHER, TEACHER if trial.method is None else self.arm, self.block) for trial in self.trial.needed)

    @property
    def first_teacher(self) -> Cell:
        """The cell that trains the teacher of its chain's first student, which its block has from the start."""
        made_by = self.trial.first_teacher
        return self if made_by is None else Cell(made_by, TEACHER, TEACHER, self.block)

    @property
    def role(self) -> Role:
        """What it is in the plan."""
        return role_of(self.stage, self.arm, self.number)


def signature(trial: Trial) -> str:
    """What the compiled graphs of a training depend on, as text: trainings with equal signatures share their graphs.

    That is the static part of the method (a teacher's is cross-entropy), the networks, the recipe and the shapes of the
    data. Floats of the method and schedules travel as values on the device. Those of networks and of the recipe are scalars
    of the graph, whose values do not count unless they are 0 or 1: torch leaves momentum, decay and dropout out at 0, and
    torch_xla (2.9, measured) writes 0 and 1 into the graph. How long a training is, and its seeds, do not count.
    """
    taught_by = trial.teacher_trial
    teacher = None if taught_by is None else _network(taught_by.model)
    method = (trial.method or cross_entropy()).signature()
    # What a teacher's labels are smoothed by is a float of what stands in for its method.
    recipe = {name: value for name, value in _static(trial.recipe).items() if name not in ("epochs", "smoothing")}
    return json.dumps([method, _network(trial.model), teacher, recipe, name_of(trial.data), flat(trial.data)], sort_keys=True)


def _network(model: Family) -> list[Any]:
    return [name_of(model), _static(model)]


def _static(value: Family | Recipe) -> dict[str, Value]:
    schedules = [f.name for f in tunables(value) if isinstance(f.default, Schedule)]
    return {
        name: "traced" if isinstance(got, float) and got not in (0.0, 1.0) else got
        for name, got in flat(value).items()
        if name.partition(".")[0] not in schedules
    }


def search_cells(
    study: Study, search: Search, arm: Arm, number: int, generation: int, proposed_by: str, point: Point | None = None
) -> tuple[Cell, ...]:
    """One proposal (the arm with its point applied) on every tuning block."""
    trials = [arm.trial(study, study.block(SEARCH, index), opens_test=False) for index in range(search.blocks)]
    return tuple(Cell(trial, SEARCH, arm.name, index, proposed_by, generation, number, point) for index, trial in enumerate(trials))


def trainings(search: Search) -> float:
    """Whole trainings that the search of one arm amounts to on each block, early stopping taken into account."""
    full, rest = divmod(search.trials, search.generation)
    return full * _of_generation(search.generation, search) + _of_generation(rest, search)


def _of_generation(size: int, search: Search) -> float:
    left, stood, spent = size, 0.0, 0.0
    for rung in (*search.rungs, 1.0):
        spent += left * (rung - stood)
        left, stood = rungs.kept(left, search.keep), rung
    return spent


def path_cells(study: Study, confirm: Confirm) -> tuple[Cell, ...]:
    """The base as declared on every block of its ablation path: no cells of the study, but with the teachers of those that are."""
    arm, count = study.arms[confirm.base], confirm.path.blocks if confirm.path else 0
    return tuple(Cell(arm.trial(study, study.block(PATH, index), opens_test=False), PATH, arm.name, index) for index in range(count))


def confirm_cells(study: Study, confirm: Confirm, arms: Mapping[str, Arm]) -> tuple[Cell, ...]:
    """Every arm on every block that tuning never saw, block by block. These alone open the test split."""
    return tuple(
        Cell(arm.trial(study, study.block(CONFIRM, index), opens_test=True), CONFIRM, name, index)
        for index in range(confirm.blocks)
        for name, arm in arms.items()
    )

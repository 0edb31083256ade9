"""The plan: cells, before anything runs. Pure functions of a study and, for stage two, of what tuning chose."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from orchestrator import rungs
from orchestrator.analysis.reach import blocks_needed, smallest_p
from orchestrator.events import CONFIRM, SEARCH, TEACHER
from orchestrator.study import Arm, Confirm, Search, Study
from search_spaces import Schedule, field_at, flat, is_off, without
from trainables.folder import name_of
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

    @property
    def id(self) -> str:
        """The content id of the training."""
        return self.trial.id

    @property
    def method(self) -> str | None:
        """Name of the method; None for a teacher."""
        return None if self.trial.method is None else name_of(self.trial.method)

    @property
    def teacher(self) -> Cell | None:
        """The cell that must be finished first: it trains this student's teacher."""
        made_by = self.trial.teacher_trial
        return None if made_by is None else Cell(made_by, TEACHER, TEACHER, self.block)


def search_cells(study: Study, search: Search, arm: Arm, number: int, generation: int, proposed_by: str) -> tuple[Cell, ...]:
    """One proposal (the arm with its point applied) on every tuning block."""
    return tuple(
        Cell(arm.trial(study, study.block(SEARCH, index), opens_test=False), SEARCH, arm.name, index, proposed_by, generation, number)
        for index in range(search.blocks)
    )


def confirm_cells(study: Study, confirm: Confirm, arms: Mapping[str, Arm]) -> tuple[Cell, ...]:
    """Every arm on every block that tuning never saw, block by block. These alone open the test split."""
    return tuple(
        Cell(arm.trial(study, study.block(CONFIRM, index), opens_test=True), CONFIRM, name, index)
        for index in range(confirm.blocks)
        for name, arm in arms.items()
    )


@dataclass(frozen=True)
class Variants:
    """The arms of stage two, base first, and what was left out with the reason."""

    arms: Mapping[str, Arm]
    skipped: tuple[tuple[str, str], ...]


def variants(confirm: Confirm, tuned: Mapping[str, Arm]) -> Variants:
    """Base, leave-one-out variants and rivals. What would equal the base, or another arm, is skipped and named."""
    base = tuned[confirm.base]
    arms = {confirm.base: base}
    skipped: list[tuple[str, str]] = []
    known = {_content(base): confirm.base}
    candidates: list[tuple[str, Arm]] = []
    for name in confirm.leave_one_out:
        title = variant_label(base, name)
        if is_off(base, name):
            skipped.append((title, f"the tuned {confirm.base} already has {name} off: there is nothing to leave out"))
        else:
            candidates.append((title, replace(without(base, [name]), name=title)))
    candidates += [(rival, tuned[rival]) for rival in confirm.against]
    for title, arm in candidates:
        twin = known.setdefault(_content(arm), title)
        if twin == title:
            arms[title] = arm
        else:
            skipped.append((title, f"it would be the same training as {twin}"))
    return Variants(arms, tuple(skipped))


def variant_label(base: Arm, name: str) -> str:
    """Name of a leave-one-out variant: what was set to what, as in ``slam, mixing=normalised``."""
    off: Any = field_at(base, name).off
    if isinstance(off, Schedule):
        off = off.kind
    elif isinstance(off, float):
        off = f"{off:g}"
    return f"{base.name}, {name.removeprefix('method.')}={off}"


def _content(arm: Arm) -> str:
    return json.dumps([type(arm.method).__name__, type(arm.model).__name__, flat(arm)], sort_keys=True, default=str)


@dataclass(frozen=True)
class Outline:
    """What a study will cost and what it can show, before anything runs."""

    teachers: int
    search_cells: int
    search_trainings: float
    """Whole trainings that the search cells amount to when every rung stops its share."""
    confirm_arms: int
    """At most: variants that tuning turns out to have off are skipped."""
    confirm_cells: int
    comparisons: int
    smallest_p: float | None
    """The smallest two-sided p that the exact sign-flip test can reach with this number of blocks."""
    blocks_needed: int | None
    """Blocks at which one comparison can survive Holm's correction at 5 %."""
    compilations: int
    """Compile signatures of the named arms (a search over static choices adds to them)."""

    @property
    def cells(self) -> int:
        return self.teachers + self.search_cells + self.confirm_cells


def outline(study: Study) -> Outline:
    """Counts of a study."""
    search, confirm = study.search, study.confirm
    arms = len(search.spaces) if search else 0
    comparisons = len(confirm.leave_one_out) + len(confirm.against) if confirm else 0
    teachers = (search.blocks if search else 0) + (confirm.blocks if confirm else 0)
    searched = arms * search.trials * search.blocks if search else 0
    return Outline(
        teachers=teachers,
        search_cells=searched,
        search_trainings=arms * search.blocks * sum(_trainings(size, search) for size in _generations(search)) if search else 0.0,
        confirm_arms=comparisons + 1 if confirm else 0,
        confirm_cells=(comparisons + 1) * confirm.blocks if confirm else 0,
        comparisons=comparisons,
        smallest_p=smallest_p(confirm.blocks) if confirm else None,
        blocks_needed=blocks_needed(comparisons) if confirm and comparisons else None,
        compilations=len(signatures(study.arms.values())),
    )


def signatures(arms: Iterable[Arm]) -> set[str]:
    """What a compiled graph depends on: method and network without their traced numbers, batch size and optimiser."""
    return {
        json.dumps([arm.method.signature(), name_of(arm.model), flat(arm.model), arm.recipe.batch, arm.recipe.optimiser], default=str)
        for arm in arms
    }


def _generations(search: Search) -> list[int]:
    """Sizes of the generations; the last one may be smaller."""
    full, rest = divmod(search.trials, search.generation)
    return [search.generation] * full + [rest] * (rest > 0)


def _trainings(size: int, search: Search) -> float:
    """Whole trainings that a generation of that size amounts to."""
    left, stood, spent = size, 0.0, 0.0
    for rung in (*search.rungs, 1.0):
        spent += left * (rung - stood)
        left, stood = rungs.kept(left, search.keep), rung
    return spent


def outline_lines(study: Study, found: Outline, finished: int) -> list[str]:
    """The outline for the terminal."""
    lines = [f"{study.name}: {found.cells} cells at most, {finished} finished already."]
    lines.append(f"  teachers  {found.teachers}, one a block, shared by all arms")
    if study.search is not None:
        s = study.search
        rungs = ", ".join(f"{rung:g}" for rung in s.rungs) or "none"
        lines.append(
            f"  search    {len(s.spaces)} arms x {s.trials} trials x {s.blocks} blocks = {found.search_cells} cells; rungs {rungs}, "
            f"{s.keep:g} of a generation of {s.generation} goes on: as much as {found.search_trainings:.1f} whole trainings"
        )
    if study.confirm is not None:
        lines.append(f"  confirm   {found.confirm_arms} arms x {study.confirm.blocks} blocks = {found.confirm_cells} cells")
        lines.append(
            f"  the exact paired test cannot give less than p = {found.smallest_p:.2g} with {study.confirm.blocks} blocks; "
            f"{found.comparisons} comparisons under Holm's correction need {found.blocks_needed} blocks"
        )
    lines.append(f"  compile signatures of the named arms: {found.compilations}")
    return lines


def outline_json(study: Study, found: Outline, finished: int) -> dict[str, Any]:
    """The outline as data."""
    return {"study": study.name, "fingerprint": study.fingerprint, "cells": found.cells, "finished": finished, **asdict(found)}

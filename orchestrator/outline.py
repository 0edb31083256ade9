"""The outline: what a study comes to before anything runs. Cells, trainings, compiled graphs, lanes, and what it can show."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from orchestrator import chains, plan, variants
from orchestrator import path as ablation
from orchestrator.analysis.reach import blocks_needed, smallest_p
from orchestrator.corners import corners, point_with
from orchestrator.costs import Costs
from orchestrator.events import SEARCH
from orchestrator.placement import ANY, SLICE
from orchestrator.progress import clock
from orchestrator.record import Record
from orchestrator.study import Arm, Confirm, Run, Study
from orchestrator.variants import Candidate
from search_spaces import Point, Space

COMPARISONS, EFFECTS = "comparisons", "effects"
"""Names of the families of tests."""
_MOST_POINTS = 256
"""Points of a space that are looked at. Where there are more, every trial is taken to have a signature of its own."""
_MOST_VARIED = 1024
"""Points times variants that are looked at. Where there are more, every variant is taken to have signatures of its own."""


@dataclass(frozen=True)
class Family:
    """Tests that are corrected together by Holm, and what they can show at all."""

    name: str
    size: int
    smallest_p: float
    """Two-sided, of the exact sign-flip test with the blocks that there are."""
    smallest_p_holm: float
    """The same after the correction, of the first of them."""
    blocks_needed: int
    """At which one of them can survive it at 5 %."""


@dataclass(frozen=True)
class Outline:
    """What a study will cost and what it can show, before anything runs."""

    teachers: int
    students: int
    """Beside the arms' own cells, at most: those of a chain before its last, and others at whose networks a method looks."""
    search_cells: int
    search_trainings: float
    """Whole trainings that the search cells amount to when every rung stops its share."""
    path_cells: int
    """Of the ablation path, at most: k (k + 1) / 2 flips of its k parts on each of its blocks."""
    confirm_arms: int
    """At most: variants that tuning turns out to have off are skipped."""
    confirm_cells: int
    comparisons: int
    smallest_p: float | None
    """The smallest two-sided p that the exact sign-flip test can reach with this number of blocks."""
    blocks_needed: int | None
    """Blocks at which one comparison can survive Holm's correction at 5 %."""
    compile_signatures: int
    """Of all cells, at most."""
    lanes: int
    chips: int
    """That all lanes hold together; 0 where they are parts of no slice."""
    designs: Mapping[str, tuple[str, ...]]
    """Kind of an arm to the labels of those that are asked for as such. One arm may be of several kinds."""
    pairs: tuple[tuple[str, str], ...]
    """Labels of an arm and of what it is compared with, of every comparison."""
    families: tuple[Family, ...]
    factorial: str
    """As in ``2^(4-1), resolution IV``; empty where there is none."""
    factors: Mapping[str, tuple[str, ...]]
    """Of the factorial, name to labels of the levels, low first."""
    runs: int
    """Of the factorial; some may be one training."""
    generators: tuple[str, ...]
    aliases: tuple[str, ...]
    """The defining relation, and what is aliased with what, in the names of factors."""

    @property
    def cells(self) -> int:
        return self.teachers + self.students + self.search_cells + self.path_cells + self.confirm_cells

    @property
    def compilations(self) -> int:
        """How often a lane meets a signature that is new to it, at most."""
        return self.compile_signatures * self.lanes


def outline(study: Study) -> Outline:
    """Counts of a study."""
    search, confirm = study.search, study.confirm
    factorial = confirm.factorial if confirm else None
    design = factorial.design if factorial else None
    arms = len(search.spaces) if search else 0
    confirm_arms = len(variants.distinct(study, confirm)) if confirm else 0
    pairs = variants.planned(study, confirm) if confirm else ()
    comparisons = len(pairs)
    return Outline(
        teachers=chains.teachers(study),
        students=sum(chains.students_of_search(study).values())
        + (chains.students_of_confirm(study, confirm) * confirm.blocks + chains.students_of_path(study, confirm) if confirm else 0),
        search_cells=arms * search.trials * search.blocks if search else 0,
        search_trainings=arms * search.blocks * plan.trainings(search) if search else 0.0,
        path_cells=ablation.bound(confirm.path) * confirm.path.blocks if confirm and confirm.path else 0,
        confirm_arms=confirm_arms,
        confirm_cells=confirm_arms * confirm.blocks if confirm else 0,
        comparisons=comparisons,
        smallest_p=smallest_p(confirm.blocks) if confirm else None,
        blocks_needed=blocks_needed(comparisons) if comparisons else None,
        compile_signatures=compile_signatures(study),
        lanes=study.run.lanes,
        chips=study.run.lanes * study.run.placement.chips,
        designs=_designs(study, confirm) if confirm else {},
        pairs=pairs,
        families=_families(confirm, comparisons) if confirm else (),
        factorial=design.title if design else "",
        factors={factor.name: tuple(level.label for level in factor.levels) for factor in factorial.factors} if factorial else {},
        runs=design.runs if design else 0,
        generators=tuple(map(str, design.generators)) if design else (),
        aliases=tuple(design.alias_lines()) if design else (),
    )


def _designs(study: Study, confirm: Confirm) -> dict[str, tuple[str, ...]]:
    asked = variants.candidates(study, confirm)
    found = {kind: tuple(each.label for each in asked if each.kind == kind) for kind in variants.KINDS}
    return {kind: labels for kind, labels in found.items() if labels}


def _families(confirm: Confirm, comparisons: int) -> tuple[Family, ...]:
    sizes = {COMPARISONS: comparisons, EFFECTS: len(confirm.factorial.design.effects) if confirm.factorial else 0}
    p = smallest_p(confirm.blocks)
    return tuple(Family(name, size, p, min(1.0, size * p), blocks_needed(size)) for name, size in sizes.items() if size)


# Compile signatures


@dataclass(frozen=True)
class _Reach:
    """Signatures that some cells can have, and how many different ones they have at most."""

    found: frozenset[str]
    most: int


def compile_signatures(study: Study) -> int:
    """How many different compile signatures (``plan.signature``) the cells of a study can have, at most.

    Those of teachers, of every static choice that a search can reach (no more than it has trials), and of the variants of
    stage two that differ from the base in more than a traced value.
    """
    search, confirm = study.search, study.confirm
    spaces = search.spaces if search else {}
    names = _compared(study)
    asked = variants.distinct(study, confirm) if confirm else ()
    taught = [*(study.arms[name] for name in names), *(variants.declared(study, each) for each in asked)]
    of_teachers = frozenset(_signature_of_teacher(study, arm) for arm in taught)
    reaches = [_Reach(of_teachers, len(of_teachers))]
    unlisted = 0
    for name in names:
        arm, space = study.arms[name], spaces.get(name, Space(()))
        trials = search.trials if search and name in spaces else 1
        choices = _choices(study, arm, space)
        if choices is None:
            unlisted += trials * max(len(_signatures(study, [each])) for each in chains.reached(arm, space))
        else:
            each = max(len(_signatures(study, [choice])) for choice in choices)
            reaches.append(_Reach(_signatures(study, choices), trials * each))
        if confirm is not None and confirm.path is not None and name == confirm.base:
            # Static parts of the start and of what tuning chose meet in the order that trainings will tell.
            unlisted += ablation.bound(confirm.path) * max(len(_signatures(study, [each])) for each in chains.reached(arm, space))
        varied = [each for each in asked if each.arm == name and each.values]
        bases = _valid(arm, (point for _, point in corners(arm, space))) if choices is None else choices
        if len(bases) * len(varied) > _MOST_VARIED:
            unlisted += len(varied) * max(len(_signatures(study, [each])) for each in bases)
            continue
        for new in _of_variants(study, bases, varied):
            if choices is None:
                unlisted += new.most
            else:
                reaches.append(new)
    return unlisted + _together(reaches)


def _of_variants(study: Study, bases: Sequence[Arm], varied: Sequence[Candidate]) -> Iterator[_Reach]:
    """Variant by variant, the signatures that it can have where they are not its base's own."""
    before = [_signatures(study, [base]) for base in bases]
    for each in varied:
        new = [frozenset[str]()]
        for base, own in zip(bases, before, strict=True):
            with suppress(ValueError):
                new.append(_signatures(study, [base.varied(study, each.values)]) - own)
        yield _Reach(frozenset().union(*new), max(map(len, new)))


def _signatures(study: Study, arms: Iterable[Arm]) -> frozenset[str]:
    """Of the cells of these arms and of the students that they need."""
    # Seeds do not count, so any block will do.
    trials = [arm.trial(study, study.block(SEARCH, 0), opens_test=False) for arm in arms]
    needed = (other for trial in trials for other in chains.before(trial).values() if other.method is not None)
    return frozenset(plan.signature(trial) for trial in (*trials, *needed))


def _signature_of_teacher(study: Study, arm: Arm) -> str:
    trial = arm.trial(study, study.block(SEARCH, 0), opens_test=False)
    return plan.signature(trial.first_teacher or trial)


def _choices(study: Study, arm: Arm, space: Space) -> list[Arm] | None:
    """The arm at every combination of what signatures depend on; None where there are too many to list."""
    seen: dict[str, set[frozenset[str]]] = {}
    for parameter, point in corners(arm, space):
        seen.setdefault(parameter.name, set()).update(_signatures(study, [each]) for each in _valid(arm, [point]))
    counting = [parameter for parameter in space.parameters if len(seen.get(parameter.name, ())) > 1]
    # Of a continuum there are single values that count, 0 and 1, and they are never drawn from it.
    drawn = {parameter.name: parameter.domain.grid(1)[0] for parameter in counting if parameter.domain.size is None}
    listed = {parameter.name for parameter in counting} - drawn.keys()
    for parameter in reversed(space.parameters):
        if parameter.name in listed:
            listed |= {condition.name for condition in parameter.conditions}
    points = Space(tuple(parameter for parameter in space.parameters if parameter.name in listed)).points()
    found = list(itertools.islice(points, _MOST_POINTS + 1))
    return None if len(found) > _MOST_POINTS else _valid(arm, [point_with(arm, space, drawn | point) for point in found])


def _valid(arm: Arm, points: Iterable[Point]) -> list[Arm]:
    """The arm at each point; those that its class refuses are left out, as no search arrives there."""
    found = []
    for point in points:
        with suppress(ValueError):
            found.append(arm.changed(point))
    return found


def _together(reaches: Iterable[_Reach]) -> int:
    """How many different signatures there are in all, at most: where reaches overlap, what they share counts once."""
    apart: list[_Reach] = []
    for reach in reaches:
        touching = [other for other in apart if other.found & reach.found]
        apart = [other for other in apart if other not in touching]
        parts = [_Reach(reach.found, min(reach.most, len(reach.found))), *touching]
        apart.append(_Reach(frozenset().union(*(part.found for part in parts)), sum(part.most for part in parts)))
    return sum(min(len(reach.found), reach.most) for reach in apart)


# In words and as data


def outline_lines(study: Study, found: Outline, costs: Costs, finished: int) -> list[str]:
    """The outline for the terminal."""
    lines = [f"{study.name}: {found.cells} cells at most, {finished} finished already."]
    shared = all(study.arms[name].teacher is None for name in _compared(study))
    lines.append(f"  teachers  {found.teachers}, one a block, shared by all arms{'' if shared else ' without one of their own'}")
    if found.students:
        lines.append(f"  chains    {found.students} students at most that others learn from, or look at, beside the arms' own cells")
    if study.search is not None:
        s = study.search
        rungs = ", ".join(f"{rung:g}" for rung in s.rungs) or "none"
        lines.append(
            f"  search    {len(s.spaces)} arms x {s.trials} trials x {s.blocks} blocks = {found.search_cells} cells; rungs {rungs}, "
            f"{s.keep:g} of a generation of {s.generation} goes on: as much as {found.search_trainings:.1f} whole trainings"
        )
    if study.confirm is not None and study.confirm.path is not None:
        path = study.confirm.path
        lines.append(
            f"  path      {len(path.parts)} parts flipped one by one, at most {ablation.bound(path)} trainings x {path.blocks} blocks = "
            f"{found.path_cells} cells; the arms along it are among those of confirm"
        )
    if study.confirm is not None:
        lines.append(f"  confirm   {found.confirm_arms} arms x {study.confirm.blocks} blocks = {found.confirm_cells} cells")
        lines += _design_lines(study.confirm, found)
    lines.append(f"  lanes     {_lanes(study.run)}")
    lines.append(
        f"  compile signatures: at most {found.compile_signatures}, so at most {found.compilations} compilations on "
        f"{_counted(found.lanes, 'lane')}: XLA compiles each once a lane (a graph for the first step, one for all others, and those that "
        "evaluate), and nothing for other seeds, floats and schedules"
    )
    lines.append(f"  device-seconds: {_spent(costs)}")
    return lines


def _design_lines(confirm: Confirm, found: Outline) -> list[str]:
    lines = []
    if set(found.designs) - {variants.BASE, variants.LEAVE_ONE_OUT, variants.RIVAL}:
        lines += [f"    {kind.replace('_', ' ')} ({len(labels)}): {'; '.join(labels)}" for kind, labels in found.designs.items()]
        asked = sum(len(labels) for labels in found.designs.values())
        if asked > found.confirm_arms:
            lines.append(f"    {asked} are asked for, {found.confirm_arms} are different trainings")
    if found.factorial:
        factors = ", ".join(f"{name} ({low} / {high})" for name, (low, high) in found.factors.items())
        lines.append(f"  factorial {found.factorial}: {found.runs} runs of {factors}")
        lines += [f"    {line}" for line in (*found.generators, *found.aliases)]
    for family in found.families:
        lines.append(
            f"  the exact paired test cannot give less than p = {family.smallest_p:.2g} with {confirm.blocks} blocks; "
            f"{family.size} {family.name} under Holm's correction need {family.blocks_needed} blocks"
        )
    return lines


def standing_lines(study: Study, record: Record) -> list[str]:
    """What stands fixed of the design, and what a launch would add."""
    design, blocks = record.design, record.blocks
    if design is None or blocks is None or study.confirm is None:
        return []
    lines = [f"  the design is fixed: {design['blocks']} blocks, hash {design['hash'][:16]}"]
    lines += [f"  {event['name']}: blocks {event['before']} to {event['blocks']}" for event in record.extensions]
    lines += [f"    not trained, or not compared: {label}: {reason}" for label, reason in design["skipped"]]
    if study.confirm.blocks > blocks:
        lines.append(f"  a run would make extension {len(record.extensions) + 1} of it: blocks {blocks} to {study.confirm.blocks}")
    return lines


def _compared(study: Study) -> tuple[str, ...]:
    search, confirm = study.search, study.confirm
    return tuple(dict.fromkeys((*(search.spaces if search else ()), *(confirm.arms if confirm else ()))))


def _lanes(run: Run) -> str:
    placement = run.placement
    if placement.kind == ANY:
        return f"{run.lanes}, each {'with ' + _counted(run.workers, 'worker') if run.workers else 'a process of its own'}"
    what = "the whole" if placement.kind == SLICE else f"a {placement.kind}"
    return f"{run.lanes}, each {what} of a {placement.topology} slice: {_counted(run.lanes * placement.chips, 'chip')} in all"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _spent(costs: Costs) -> str:
    if costs.seconds is None or costs.seconds_missing is None:
        return costs.source
    whole, missing = (f"{seconds * costs.devices:,.0f}" for seconds in (costs.seconds, costs.seconds_missing))
    wall, left = (clock(seconds / costs.lanes) for seconds in (costs.seconds, costs.seconds_missing))
    return f"{whole} in all, {missing} to come ({costs.source}); with {_counted(costs.lanes, 'lane')} that never wait {wall} in all, {left} to come"


def outline_json(study: Study, found: Outline, costs: Costs, finished: int) -> dict[str, Any]:
    """The outline as data."""
    return {
        "study": study.name,
        "fingerprint": study.fingerprint,
        "cells": found.cells,
        "finished": finished,
        **asdict(found),
        "lane": study.run.lane,
        "topology": study.run.topology,
        "workers": study.run.workers,
        "compilations": found.compilations,
        "device_seconds": costs.device_seconds,
        "device_seconds_missing": costs.device_seconds_missing,
        "wall_seconds": costs.wall_seconds,
        "wall_seconds_missing": costs.wall_seconds_missing,
        "seconds_source": costs.source,
    }

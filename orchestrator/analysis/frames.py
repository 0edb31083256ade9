"""Frames: all that a report says, as values. Every form of the report is made from these and from nothing else.

Pure functions of the facts of a study (what the journal says beside its rows) and of the table of trials.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from orchestrator.analysis.budget import Tuning, tunings
from orchestrator.analysis.effects import ArmSummary, Comparison, comparisons, last_attempts, summaries
from orchestrator.analysis.exploration import Exploration, exploration
from orchestrator.analysis.factorial import Factorial, of_design
from orchestrator.analysis.facts import StudyFacts
from orchestrator.analysis.learning import Curve, learning
from orchestrator.analysis.occupancy import Occupancy, occupancy
from orchestrator.analysis.path import Along, along
from orchestrator.analysis.profiles import Profiles, profiles
from orchestrator.analysis.ranking import Ranking, ranking
from orchestrator.analysis.threats import threats
from orchestrator.analysis.wording import Unit, sentence, unit_of
from orchestrator.errors import StorageError
from orchestrator.events import CONFIRM, SEARCH, STAGES
from orchestrator.published import Held, beside
from trainables.status import OK, STOPPED

TEACHER_ACCURACY = "metric.test.teacher_accuracy"
SOURCES = ("split", "teacher", "init", "order")
"""Of variation, as the seeds of a block name them."""
SMOKE = "A smoke run: made-up data and a step or two of training. It shows that everything runs, and no number in it means anything."
"""What a report of one says first."""


@dataclass(frozen=True)
class Frames:
    """All that a report says."""

    facts: StudyFacts
    unit: Unit
    is_complete: bool
    counts: pd.DataFrame
    """By stage: planned, ok, stopped, failed, missing, device_seconds."""
    summaries: tuple[ArmSummary, ...]
    comparisons: tuple[Comparison, ...]
    """Of the fixed design."""
    extended: tuple[Comparison, ...]
    """The same over all blocks; empty where nothing was added to the fixed design."""
    factorial: Factorial | None
    """Main effects and interactions; None where the design has none."""
    ranking: Ranking | None
    scores: pd.DataFrame
    """Reported metric, blocks by arms; NaN where there is no score."""
    teachers: pd.DataFrame
    """By block of the confirm stage: accuracy on the test split of the teacher that the base's (first) student has, where it is
    known, and seeds."""
    several_teachers: bool
    """Whether reported arms have different teachers."""
    tunings: tuple[Tuning, ...]
    exploration: Exploration
    failures: pd.DataFrame
    """stage, arm, block, number, cell, attempt, status, message of every attempt that failed."""
    ran: Mapping[str, Any]
    """How it was run."""
    held: Mapping[str, Any]
    """Settings that had one value in every reported cell."""
    claims: tuple[str, ...]
    notices: tuple[str, ...]
    limits: tuple[str, ...]
    """What was not varied."""
    profiles: Profiles | None = None
    """Treatments over data sets and teachers; None where a study crosses no two of each."""
    path: Along | None = None
    """The ablation path; None where the design has none."""
    learning: tuple[Curve, ...] = ()
    """Of the metric that selects, against progress; empty without the table of reports."""
    occupancy: Occupancy | None = None
    """How lanes were used; None where no leg came back."""
    published: tuple[Held, ...] = ()
    """Published numbers beside the study's; empty where it names no table, and for a smoke run."""


def frames_of(facts: StudyFacts, trials: pd.DataFrame, reports: pd.DataFrame | None = None) -> Frames:
    """All that a report says of a study; what rests on the long table of reports needs it.

    Raises:
        StorageError: a cell of another stage than confirm has a test score, or an arm has two cells for one block.
    """
    _check_sealed(facts, trials)
    metric, goal, seed = facts.metric["report"], facts.metric["goal"], int(facts.study["seed"])
    planned = facts.planned_blocks
    confirmed = last_attempts(trials[trials["stage"] == CONFIRM])
    try:
        arms = summaries(trials, metric, planned)
        scores = _scores(confirmed, f"metric.{metric}", planned)
        # What is claimed rests on the fixed design alone: whether to add blocks may have depended on what the first ones showed.
        of_plan, fixed = trials, facts.fixed_plan
        if facts.extensions:
            of_plan = trials[(trials["stage"] != CONFIRM) | (trials["block"] < facts.fixed_blocks)]
        first = summaries(of_plan, metric, fixed) if facts.extensions else arms
        crossed = of_design(facts.design, scores.loc[scores.index.isin(fixed.get(facts.base or "", ()))], first, seed=seed)
        found: tuple[Comparison, ...] = ()
        extended: tuple[Comparison, ...] = ()
        if facts.base in planned:
            found = comparisons(of_plan, metric, facts.base, goal, fixed, seed=seed, pairs=facts.pairs)
            if facts.extensions:
                extended = comparisons(trials, metric, facts.base, goal, planned, seed=seed, pairs=facts.pairs)
    except ValueError as fault:
        raise StorageError(f"A report needs a table of one study, but got {facts.name}: {fault}") from fault
    unit = unit_of(metric, arms)
    searched = tunings(trials, facts.metric["select"], goal, facts.choices, facts.planned_search)
    counts = _counts(facts, trials)
    is_complete = facts.ended == "complete" and int(counts["missing"].sum()) == 0
    held, teachers = _held(confirmed), _teachers(facts, trials)
    return Frames(
        facts=facts,
        unit=unit,
        is_complete=is_complete,
        counts=counts,
        summaries=arms,
        comparisons=found,
        extended=extended,
        factorial=crossed,
        ranking=ranking(trials, scores, arms, goal),
        scores=scores,
        teachers=teachers,
        several_teachers=len({_teacher_of(cell["config"]) for cell in facts.cells if cell["stage"] == CONFIRM}) > 1,
        tunings=searched,
        exploration=exploration(trials, facts.metric, facts.planned_search, int(facts.study["seed"])),
        failures=_failures(trials),
        ran=_ran(facts, trials),
        held=held,
        claims=tuple(sentence(each, unit) for each in found),
        notices=_notices(facts, counts, is_complete),
        limits=(*_limits(facts, counts, searched, held), *threats(facts.cells, facts.pairs, facts.choices, facts.kinds)),
        profiles=profiles(scores, {each["arm"]: each["config"] for each in facts.cells if each["stage"] == CONFIRM}, arms, goal, seed=seed),
        path=along(facts.path, scores),
        learning=() if reports is None else learning(trials, reports, facts.metric["select"], planned),
        occupancy=occupancy(facts),
        published=beside(facts, arms, teachers["accuracy"].dropna().tolist()),
    )


def _reported(facts: StudyFacts) -> frozenset[str]:
    """Cells of the confirm stage, and students that they need: of a fixed design as well, but no arm's own."""
    cells = {cell["cell"]: cell for cell in facts.cells}
    found: set[str] = set()
    waiting = [name for name, cell in cells.items() if cell["stage"] == CONFIRM]
    while waiting:
        name = waiting.pop()
        if name not in found and name in cells:
            found.add(name)
            waiting += [other for other in cells[name].get("needs", ()) if other in cells and cells[other]["method"] is not None]
    return frozenset(found)


def _check_sealed(facts: StudyFacts, trials: pd.DataFrame) -> None:
    """The test split is opened by cells of the confirm stage, and by the students that they need, alone."""
    elsewhere = trials[(trials["stage"] != CONFIRM) & ~trials["cell"].isin(_reported(facts))]
    for column in elsewhere.columns:
        if column.startswith("metric.test."):
            opened = elsewhere[elsewhere[column].notna()]
            if len(opened):
                first = opened.iloc[0]
                raise StorageError(
                    f"A report needs a test split that only the confirm stage opened, but got {column} in {len(opened)} other cells, "
                    f"the first one cell={first['cell']} of stage={first['stage']}. These results cannot be reported as a test."
                )


def _counts(facts: StudyFacts, trials: pd.DataFrame) -> pd.DataFrame:
    status = last_attempts(trials).set_index("cell")["status"].to_dict()
    seconds = trials.groupby("stage")["device_seconds"].sum()
    rows = []
    for stage in STAGES:
        found = [status.get(cell["cell"]) for cell in facts.cells if cell["stage"] == stage]
        if found:
            ok, stopped, missing = found.count(OK), found.count(STOPPED), found.count(None)
            row = {"stage": stage, "planned": len(found), "ok": ok, "stopped": stopped}
            rows.append(
                row | {"failed": len(found) - ok - stopped - missing, "missing": missing, "device_seconds": float(seconds.get(stage, 0.0))}
            )
    columns = ["stage", "planned", "ok", "stopped", "failed", "missing", "device_seconds"]
    return pd.DataFrame(rows, columns=columns)


def _scores(confirmed: pd.DataFrame, column: str, planned: Mapping[str, Sequence[int]]) -> pd.DataFrame:
    blocks = sorted({block for each in planned.values() for block in each})
    frame = pd.DataFrame(float("nan"), index=pd.Index(blocks, name="block"), columns=list(planned), dtype="float64")
    finished = confirmed[confirmed["status"] == OK]
    if column in finished:
        for arm, block, value in zip(finished["arm"], finished["block"], finished[column].astype("float64"), strict=True):
            frame.loc[block, arm] = value
    return frame


def _teacher_of(config: Mapping[str, Any]) -> str:
    """How the teacher of a student's chain was made, as text."""
    return json.dumps({name: value for name, value in config.items() if name.startswith("teacher.")}, sort_keys=True)


def _teachers(facts: StudyFacts, trials: pd.DataFrame) -> pd.DataFrame:
    """One teacher serves all arms of a block that have no other; where devices round differently, their mean stands for it.

    Only the first student of a chain has it for a teacher: what the others learn from is the student before.
    """
    seeds = {cell["block"]: dict(cell["seeds"]) for cell in facts.cells if cell["stage"] == CONFIRM}
    of_base = {_teacher_of(cell["config"]) for cell in facts.cells if cell["stage"] == CONFIRM and cell["arm"] == facts.base}
    first = {
        cell["cell"] for cell in facts.cells if not cell["config"].get("chain.steps") and _teacher_of(cell["config"]) in of_base
    } & _reported(facts)
    accuracy: Mapping[Any, float] = {}
    if TEACHER_ACCURACY in trials:
        taught = last_attempts(trials[trials["cell"].isin(first)])
        accuracy = taught.groupby("block")[TEACHER_ACCURACY].mean().dropna().to_dict()
    rows = [{"block": block, "accuracy": accuracy.get(block), **seeds[block]} for block in sorted(seeds)]
    return pd.DataFrame(rows, columns=["block", "accuracy", *SOURCES]).astype({"accuracy": "float64"})


def _failures(trials: pd.DataFrame) -> pd.DataFrame:
    failed = trials[~trials["status"].isin((OK, STOPPED))]
    columns = ["stage", "arm", "block", "number", "cell", "attempt", "status", "message"]
    return failed[columns].astype({"number": "Int64"}).fillna({"message": ""}).reset_index(drop=True)


def _ran(facts: StudyFacts, trials: pd.DataFrame) -> dict[str, Any]:
    last = facts.launches[-1]
    run = facts.asked.get("run")
    times = trials["finished_at"].dropna()
    return {
        "fingerprint": facts.study["fingerprint"],
        "seed": facts.study["seed"],
        "mode": facts.study.get("mode"),
        "launches": len(facts.launches),
        "versions": dict(last.get("versions", {})),
        "machine": dict(last.get("machine") or {}),
        "code_commit": last.get("code_commit"),
        "lock_hash": last.get("lock_hash"),
        "space_fingerprint": facts.study.get("space_fingerprint"),
        "lanes": run.get("lanes") if isinstance(run, dict) else None,
        "hosts": _distinct(trials["host"]),
        "devices": _distinct(trials["device"]),
        "workers": _distinct(trials["workers"]),
        "first_cell": times.min().isoformat() if len(times) else None,
        "last_cell": times.max().isoformat() if len(times) else None,
        "device_seconds": float(trials["device_seconds"].sum()),
    }


def _distinct(column: pd.Series) -> list[str]:
    return sorted({str(value) for value in column.dropna()})


def _held(confirmed: pd.DataFrame) -> dict[str, Any]:
    """Dotted names that every reported cell has, with the same value."""
    configs = [json.loads(text) for text in confirmed["config_json"]]
    if not configs:
        return {}
    return {name: value for name, value in sorted(configs[0].items()) if all(name in each and each[name] == value for each in configs)}


def _notices(facts: StudyFacts, counts: pd.DataFrame, is_complete: bool) -> tuple[str, ...]:
    said = []
    if not is_complete:
        planned, missing = int(counts["planned"].sum()), int(counts["missing"].sum())
        said.append(
            f"This study is unfinished: {planned - missing} of {planned} cells planned so far are in. `kdsweep run` goes on from here."
        )
        if facts.base is not None and not facts.planned_blocks:
            said.append("The confirm stage has not begun: nothing is compared yet.")
        elif facts.base is not None:
            said.append("Comparisons are interim. The number of blocks was fixed beforehand and must not depend on what they show.")
    absent = _unnamed(facts)
    if absent:
        said.append(
            f"{absent} of the variants and rivals asked for are not in the plan: they would be the same training as the base or another arm."
        )
    said += _unshared(facts)
    versions = {json.dumps(launch.get("versions", {}), sort_keys=True) for launch in facts.launches}
    commits = {launch.get("code_commit") for launch in facts.launches}
    if len(versions) > 1 or len(commits) > 1:
        said.append("Launches differed in versions or in the commit of the code; the last one is shown.")
    return tuple(said)


def _unnamed(facts: StudyFacts) -> int:
    """How many arms of the confirm stage the study file asks for that are neither planned nor named as skipped."""
    confirm = facts.asked.get("confirm")
    if facts.design is not None or not facts.planned_blocks or not isinstance(confirm, dict):
        return 0
    asked = 1 + len(confirm.get("leave_one_out") or ()) + len(confirm.get("against") or ())
    return max(0, asked - len(facts.planned_blocks) - len(facts.skipped))


def _unshared(facts: StudyFacts) -> list[str]:
    """Faults of pairing: arms of one block with different seeds, or seeds of reporting that tuning has seen."""
    by_block: dict[int, set[tuple[int, ...]]] = {}
    for cell in facts.cells:
        if cell["stage"] == CONFIRM:
            by_block.setdefault(cell["block"], set()).add(tuple(cell["seeds"][source] for source in SOURCES))
    torn = [str(block) for block, seeds in sorted(by_block.items()) if len(seeds) > 1]
    said = [f"Comparisons are not paired: arms have different seeds in block {', '.join(torn)}."] if torn else []
    splits = [{cell["seeds"]["split"] for cell in facts.cells if cell["stage"] == stage} for stage in (SEARCH, CONFIRM)]
    if splits[0] & splits[1]:
        said.append("Tuning has seen data splits that are reported: scores of tuned arms are too good.")
    return said


def _limits(facts: StudyFacts, counts: pd.DataFrame, searched: Sequence[Tuning], held: Mapping[str, Any]) -> tuple[str, ...]:
    said = []
    planned = facts.planned_blocks
    if planned:
        for name, what in (
            ("data.source", "One data set"),
            ("teacher.model.family", "One teacher family"),
            ("model.family", "One student family"),
        ):
            if name in held:
                said.append(f"{what}: {held[name]}.")
        if "recipe.epochs" in held:
            said.append(f"One length of training: {held['recipe.epochs']} epochs.")
        seeds = {cell["block"]: cell["seeds"] for cell in facts.cells if cell["stage"] == CONFIRM}
        for source, what in zip(SOURCES, ("data split", "teacher", "initialisation", "order of the data"), strict=True):
            if len(seeds) > 1 and len({each[source] for each in seeds.values()}) == 1:
                said.append(f"The {what} was the same in every block.")
        said.append("The test rows are the same in every block: intervals speak of another training, not of another test set.")
    if searched and planned:
        said.append("Tuning was done once: intervals do not hold the luck of what it chose.")
    tuned = {each.arm for each in searched}
    parts = [arm for arm in planned if facts.base is not None and arm.startswith(f"{facts.base}, ")]
    untuned = [arm for arm in planned if arm not in tuned and arm not in parts]
    if untuned:
        said.append(f"Not tuned, but run as declared: {', '.join(untuned)}.")
    if parts and facts.base in tuned:
        said.append(f"Variants of {facts.base} keep its tuned values: what a variant would reach if it were tuned itself was not asked.")
    stopped = int(counts.loc[counts["stage"] == SEARCH, "stopped"].sum())
    if stopped:
        said.append(f"Early stopping gave up {stopped} search cells before the end of their training.")
    return tuple(said)

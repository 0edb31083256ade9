"""Budget: what tuning cost each arm, what it found, and whether every arm was tuned as hard. Pure functions of the table."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from orchestrator.analysis.effects import last_attempts
from orchestrator.analysis.wording import amount
from orchestrator.events import SEARCH
from trainables.status import OK, STOPPED


@dataclass(frozen=True)
class Tuning:
    """The search of one arm."""

    arm: str
    trials: int
    """Configurations proposed."""
    proposed_by: Mapping[str, int]
    """Sampler to how many of them it proposed."""
    cells: int
    """Trainings: configurations times tuning blocks."""
    ok: int
    stopped: int
    """Not continued after a rung."""
    failed: int
    missing: int
    """Planned cells without a finished row."""
    trainings: float
    """Whole trainings that the progress of all cells adds up to."""
    steps: int
    device_seconds: float
    """Of all attempts, failed ones included."""
    best: float | None
    """Best score, on the metric that selects: of the choice once it is made, else of the finished configurations so far."""
    chosen: int | None
    """Number of the configuration that was chosen; None while nothing is."""
    config: Mapping[str, Any]
    """Search point of the choice: dotted names to values."""


def tunings(
    trials: pd.DataFrame,
    metric: str,
    goal: str = "maximise",
    choices: Sequence[Mapping[str, Any]] = (),
    planned: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
) -> tuple[Tuning, ...]:
    """One record per searched arm.

    Args:
        trials: the table.
        metric: what selected, without "metric.".
        goal: "maximise" or "minimise".
        choices: events of ended searches (arm, number, score, config).
        planned: arm to its search cells (cell, number, proposed_by); without it, the cells in the table are all there are.
    """
    rows = trials[trials["stage"] == SEARCH]
    cells = last_attempts(rows)
    if planned is None:
        columns = ["cell", "number", "proposed_by"]
        planned = {str(arm): part[columns].to_dict("records") for arm, part in cells.groupby("arm", sort=False)}
    ended = {str(choice["arm"]): choice for choice in choices}
    return tuple(
        _tuning(arm, rows[rows["arm"] == arm], cells[cells["arm"] == arm], f"metric.{metric}", goal, ended.get(arm), wanted)
        for arm, wanted in planned.items()
    )


def _tuning(
    arm: str,
    rows: pd.DataFrame,
    cells: pd.DataFrame,
    column: str,
    goal: str,
    choice: Mapping[str, Any] | None,
    planned: Sequence[Mapping[str, Any]],
) -> Tuning:
    proposed = {_number(cell["number"]): str(cell["proposed_by"]) for cell in planned}
    names = sorted(set(proposed.values()))
    identities = {cell["cell"] for cell in planned}
    known = cells[cells["cell"].isin(identities)]
    status = known["status"]
    return Tuning(
        arm=arm,
        trials=len(proposed),
        proposed_by={name: sum(by == name for by in proposed.values()) for name in names},
        cells=len(identities),
        ok=int((status == OK).sum()),
        stopped=int((status == STOPPED).sum()),
        failed=int((~status.isin((OK, STOPPED))).sum()),
        missing=len(identities) - len(known),
        trainings=float(known["progress"].sum()),
        steps=int(known["steps"].sum()),
        device_seconds=float(rows["device_seconds"].sum()),
        best=_best(known, column, goal, proposed, planned) if choice is None else float(choice["score"]),
        chosen=None if choice is None else _number(choice.get("number")),
        config={} if choice is None else dict(choice["config"]),
    )


def _best(
    known: pd.DataFrame, column: str, goal: str, proposed: Mapping[int | None, str], planned: Sequence[Mapping[str, Any]]
) -> float | None:
    """Best mean over blocks among the configurations that finished on all of theirs."""
    if column not in known:
        return None
    finished = known[known["status"] == OK]
    values = dict(zip(finished["cell"], finished[column].astype("float64"), strict=True))
    means = []
    for number in proposed:
        scores = [values.get(cell["cell"], math.nan) for cell in planned if _number(cell["number"]) == number]
        mean = math.fsum(scores) / len(scores)
        if math.isfinite(mean):
            means.append(mean)
    if not means:
        return None
    return max(means) if goal == "maximise" else min(means)


def equality(found: Sequence[Tuning]) -> str:
    """Whether every arm was tuned as hard, in one sentence; empty where nothing was searched."""
    if not found:
        return ""
    if len(found) == 1:
        return f"Only {found[0].arm} was tuned: {_trials(found[0].trials)}, {amount(found[0].device_seconds)} device-seconds."
    least, most = (pick(found, key=lambda each: each.device_seconds) for pick in (min, max))
    counts = {each.trials for each in found}
    if len(counts) == 1:
        said = f"Each of {len(found)} arms was tuned with {_trials(found[0].trials)}"
    else:
        said = "Tuning was not equal: " + ", ".join(f"{each.arm} had {_trials(each.trials)}" for each in found)
    if least.device_seconds <= 0.0:
        return f"{said}; device-seconds are not known for {least.arm}."
    if most is least:
        return f"{said} and {amount(least.device_seconds)} device-seconds."
    ratio = most.device_seconds / least.device_seconds
    cost = f"{amount(least.device_seconds)} ({least.arm}) to {amount(most.device_seconds)} ({most.arm}), a ratio of {ratio:.2f}"
    return f"{said}; device-seconds went from {cost}."


def to_frame(found: Sequence[Tuning]) -> pd.DataFrame:
    """One row per arm, one column per field."""
    names = [field.name for field in dataclasses.fields(Tuning)]
    return pd.DataFrame([{name: getattr(each, name) for name in names} for each in found], columns=names)


def _trials(count: int) -> str:
    return "1 trial" if count == 1 else f"{count} trials"


def _number(value: Any) -> int | None:
    """Proposal numbers come as Python, NumPy or nullable pandas integers, or as a float beside nulls."""
    return None if pd.isna(value) else int(value)

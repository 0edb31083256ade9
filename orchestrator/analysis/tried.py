"""Tried: every configuration that the search of an arm proposed, and what became of it. Pure functions of plan and table.

A configuration is one trial of the search, whatever number of blocks it is trained on. Its score is the mean over them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from orchestrator.analysis.effects import last_attempts
from orchestrator.events import SEARCH
from trainables.status import OK, STOPPED

FAILED, MISSING = "failed", "missing"
RANDOM = "random"
"""Who proposed a trial that no result of another one had a part in; search.py has it too, but loads optuna."""


@dataclass(frozen=True)
class Tried:
    """One configuration."""

    number: int
    """Its place among the proposals of its arm."""
    generation: int
    proposed_by: str
    point: Mapping[str, Any]
    """Searched names that exist in it, with their values."""
    status: str
    """ok: trained to the end on every block. stopped: given up at a rung. failed: on some block it has no score. missing: it
    is still to come on some block."""
    score: float | None
    """On the metric that selects; None unless ok."""
    device_seconds: float
    """Of all attempts at its cells, teachers apart."""


def tried(trials: pd.DataFrame, metric: str, planned: Mapping[str, Sequence[Mapping[str, Any]]]) -> Mapping[str, tuple[Tried, ...]]:
    """Searched arm to its configurations, in order of proposal.

    Args:
        trials: the table.
        metric: what selects, without "metric.".
        planned: arm to the cell events of its search.
    """
    rows = trials[trials["stage"] == SEARCH]
    seconds = rows.groupby("cell")["device_seconds"].sum().to_dict()
    last = last_attempts(rows)
    column = f"metric.{metric}"
    values = last[column].astype("float64") if column in last else [math.nan] * len(last)
    ended = {cell: (status, value) for cell, status, value in zip(last["cell"], last["status"], values, strict=True)}
    return {arm: tuple(_tried(part, ended, seconds) for part in _by_number(cells)) for arm, cells in planned.items()}


def _by_number(cells: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    parts: dict[int, list[Mapping[str, Any]]] = {}
    for cell in cells:
        parts.setdefault(int(cell["number"]), []).append(cell)
    return [parts[number] for number in sorted(parts)]


def _tried(cells: Sequence[Mapping[str, Any]], ended: Mapping[str, tuple[str, float]], seconds: Mapping[str, float]) -> Tried:
    found = [ended.get(cell["cell"], (MISSING, math.nan)) for cell in cells]
    statuses = {status if status in (STOPPED, MISSING) or (status == OK and math.isfinite(value)) else FAILED for status, value in found}
    status = next(each for each in (FAILED, STOPPED, MISSING, OK) if each in statuses)
    first = cells[0]
    return Tried(
        number=int(first["number"]),
        generation=int(first.get("generation") or 0),
        proposed_by=str(first["proposed_by"]),
        point=dict(first.get("point") or {}),
        status=status,
        score=math.fsum(value for _, value in found) / len(found) if status == OK else None,
        device_seconds=math.fsum(seconds.get(cell["cell"], 0.0) for cell in cells),
    )

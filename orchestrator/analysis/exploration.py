"""Exploration: what the searches themselves tell, beyond the configuration that they chose. Pure functions of plan and table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from orchestrator.analysis.curves import Course, TuningCurve, courses, curves
from orchestrator.analysis.importance import ArmImportance, importances
from orchestrator.analysis.tried import tried


@dataclass(frozen=True)
class Exploration:
    """One of each per searched arm, in their order."""

    curves: tuple[TuningCurve, ...]
    courses: tuple[Course, ...]
    importances: tuple[ArmImportance, ...]


def exploration(
    trials: pd.DataFrame, metric: Mapping[str, str], planned: Mapping[str, Sequence[Mapping[str, Any]]], seed: int
) -> Exploration:
    """What the searches tell.

    Args:
        trials: the table.
        metric: select and goal.
        planned: arm to the cell events of its search.
        seed: of shuffles and resamples.
    """
    found = tried(trials, metric["select"], planned)
    goal = metric["goal"]
    return Exploration(curves(found, metric["select"], goal), courses(found, goal), importances(found, goal, seed))

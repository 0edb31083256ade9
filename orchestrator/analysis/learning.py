"""Learning curves: the metric that selects against progress, per arm, over the blocks of the confirm stage. Pure functions.

A point is the mean over blocks with Student's interval of that mean. Intervals are pointwise: each holds its own point with
the stated confidence, and a whole curve may leave its band more often. Cells that did not finish are left out of every point
and named, since a curve over survivors would rise by its failures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from orchestrator.analysis.effects import MISSING, last_attempts, t_interval
from orchestrator.events import CONFIRM
from trainables.status import OK


@dataclass(frozen=True)
class Curve:
    """One arm's curve; the tuples are of one length, in the order of progress."""

    arm: str
    metric: str
    progress: tuple[float, ...]
    """In (0, 1]: share of the training."""
    n: tuple[int, ...]
    """Blocks behind each point."""
    mean: tuple[float, ...]
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]
    """Student's interval of the mean; None with fewer than two blocks, or where all are equal."""
    left_out: tuple[tuple[int, str], ...]
    """(block, status) of planned blocks that are in no point."""

    def at(self, progress: float) -> int | None:
        """Place of the last point that is not after ``progress``; None before the first one."""
        places = [place for place, reached in enumerate(self.progress) if reached <= progress + 1e-9]
        return places[-1] if places else None


def learning(trials: pd.DataFrame, reports: pd.DataFrame, metric: str, planned: Mapping[str, Sequence[int]]) -> tuple[Curve, ...]:
    """A curve for every arm that has a finished cell with reports.

    Args:
        trials: the table of trials.
        reports: the table of reports: cell, attempt, step, progress, metric, value.
        metric: name, as in validation.accuracy.
        planned: arm of the confirm stage to its blocks.
    """
    cells = last_attempts(trials[trials["stage"] == CONFIRM])
    told = reports[(reports["metric"] == metric) & reports["cell"].isin(cells["cell"])]
    # A later attempt goes on from a checkpoint of an earlier one: what that one told of the steps before still counts.
    told = told.sort_values("attempt", kind="stable").drop_duplicates(["cell", "step"], keep="last")
    points = {str(cell): part for cell, part in told.groupby("cell", sort=False)}
    found = [_curve(arm, metric, cells[cells["arm"] == arm], points, blocks) for arm, blocks in planned.items()]
    return tuple(curve for curve in found if curve.progress)


def _curve(arm: str, metric: str, cells: pd.DataFrame, points: Mapping[str, pd.DataFrame], blocks: Sequence[int]) -> Curve:
    status = dict(zip(cells["block"].map(int), zip(cells["cell"], cells["status"], strict=True), strict=True))
    values: dict[float, list[float]] = {}
    left_out = []
    for block in sorted(blocks):
        cell, outcome = status.get(int(block), ("", MISSING))
        if outcome != OK or cell not in points:
            left_out.append((int(block), str(outcome) if outcome != OK else "no reports"))
            continue
        for progress, value in zip(points[cell]["progress"], points[cell]["value"], strict=True):
            if math.isfinite(value):
                values.setdefault(round(float(progress), 9), []).append(float(value))
    grid = sorted(values)
    intervals = [t_interval(values[progress]) or (None, None) for progress in grid]
    return Curve(
        arm=arm,
        metric=metric,
        progress=tuple(grid),
        n=tuple(len(values[progress]) for progress in grid),
        mean=tuple(float(np.mean(values[progress])) for progress in grid),
        low=tuple(low for low, _ in intervals),
        high=tuple(high for _, high in intervals),
        left_out=tuple(left_out),
    )

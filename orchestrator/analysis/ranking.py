"""Ranking: every arm's place among all of them, block by block, beside what it costs. Pure functions of the table of trials.

In each block arms are ranked by the reported score, 1 for the best, ties sharing the mean of their places (Friedman, The use
of ranks, JASA 1937). A cell that failed shares the last place: an arm does not rise by failing. A block in which a cell is
still to come is left out for all. No critical difference is drawn (Demsar, JMLR 2006): it asks for independent data sets, and
blocks share one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from orchestrator.analysis.effects import ArmSummary, last_attempts, t_interval
from orchestrator.events import CONFIRM
from trainables.status import OK

FEWEST = 3
"""Arms: of two, the comparison says it all."""


@dataclass(frozen=True)
class Place:
    """One arm among all."""

    arm: str
    rank: float
    """Mean over blocks."""
    rank_low: float | None
    rank_high: float | None
    """Student's interval of that mean, within the possible ranks."""
    mean: float | None
    mean_low: float | None
    mean_high: float | None
    """Of the score over finished cells, with Student's interval."""
    seconds: float | None
    """Device-seconds of a finished cell, the mean over its blocks."""
    student: int | None
    """Parameters of the student."""
    extra: int | None
    """Parameters that the method trains beside it; the largest count where cells differ."""


@dataclass(frozen=True)
class Ranking:
    """All arms, best mean rank first."""

    places: tuple[Place, ...]
    blocks: tuple[int, ...]
    """Those in which every arm came to an end."""
    p: float | None
    """Friedman's test that all arms have the same distribution of ranks; None with fewer than two blocks."""


def ranking(trials: pd.DataFrame, scores: pd.DataFrame, arms: Sequence[ArmSummary], goal: str) -> Ranking | None:
    """All arms by mean rank; None for fewer than three, or before a first block is complete.

    Args:
        trials: the table.
        scores: blocks by arms, NaN where there is no score.
        arms: their summaries, which tell a score that failed from one still to come.
        goal: "maximise" or "minimise".
    """
    pending = {block for arm in arms for block in arm.missing_blocks}
    complete = scores.loc[[block for block in scores.index if block not in pending], [arm.arm for arm in arms]]
    if len(arms) < FEWEST or complete.empty:
        return None
    # Larger is worse; what failed is worst.
    losses = (complete * (-1.0 if goal == "maximise" else 1.0)).fillna(np.inf)
    ranks = losses.rank(axis=1, method="average")
    finished = last_attempts(trials[trials["stage"] == CONFIRM])
    finished = finished[finished["status"] == OK]
    places = [_place(arm.arm, ranks[arm.arm], scores[arm.arm].dropna(), finished[finished["arm"] == arm.arm], len(arms)) for arm in arms]
    is_tested = len(ranks) > 1 and not bool((ranks.nunique(axis=1) == 1).all())
    p = float(stats.friedmanchisquare(*(ranks[arm.arm] for arm in arms)).pvalue) if is_tested else None
    return Ranking(tuple(sorted(places, key=lambda place: place.rank)), tuple(map(int, ranks.index)), p)


def _place(arm: str, ranks: pd.Series, scores: pd.Series, finished: pd.DataFrame, last: int) -> Place:
    low, high = t_interval(ranks.to_numpy()) or (None, None)
    mean_low, mean_high = t_interval(scores.to_numpy()) or (None, None)
    return Place(
        arm=arm,
        rank=float(ranks.mean()),
        rank_low=None if low is None else max(1.0, low),
        rank_high=None if high is None else min(float(last), high),
        mean=float(scores.mean()) if len(scores) else None,
        mean_low=mean_low,
        mean_high=mean_high,
        seconds=float(finished["device_seconds"].mean()) if len(finished) else None,
        student=_largest(finished, "metric.parameters.student"),
        extra=_largest(finished, "metric.parameters.method"),
    )


def _largest(finished: pd.DataFrame, column: str) -> int | None:
    known = finished[column].dropna() if column in finished else pd.Series(dtype="float64")
    return int(known.max()) if len(known) else None

"""The ablation path: how far from its start every arm along it is, block by block. Pure functions of the table and of the design.

Scores that chose which part is flipped are the best of several, and so too good: they are told as what chose, and nothing rests on
them. What is reported comes from the arms along the path, trained again on the blocks of stage two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from orchestrator.analysis.effects import CONFIDENCE


@dataclass(frozen=True)
class Stop:
    """One arm along the path."""

    arm: str
    part: str
    """That was flipped to come here; empty at the start."""
    chosen_by: float | None
    """Score on the path's own blocks that chose the part."""
    others: tuple[tuple[str, float | None], ...]
    """Parts that could have been flipped instead, with theirs; None where a training failed."""
    n: int
    """Blocks of stage two with a score both here and at the start."""
    mean: float | None
    """Of the reported metric, over the blocks with a score here."""
    gain: float | None
    """Mean difference to the start, block by block."""
    low: float | None
    high: float | None
    """Student's interval of it."""
    differences: tuple[float, ...]
    confidence: float = CONFIDENCE


@dataclass(frozen=True)
class Along:
    """A path from its start to the base."""

    start: str | None
    """Arm that parts start as, as declared; None for the base itself."""
    blocks: int
    """On which flips were compared."""
    trainings: int
    """Flips that were tried."""
    stops: tuple[Stop, ...]
    idle: tuple[str, ...]
    """Parts that tuning left as they start."""
    stuck: tuple[str, ...]
    """Parts that were flipped at once at the end, since no training of a flip came to its end."""


def along(path: Mapping[str, Any] | None, scores: pd.DataFrame) -> Along | None:
    """The path with the scores of its arms (blocks by arms); None where there is none, or nothing of it is planned."""
    if path is None or not path["arms"] or path["arms"][0] not in scores:
        return None
    arms, steps = path["arms"], path["steps"]
    stops = [_stop(arms[0], "", None, (), scores, arms[0])]
    for arm, step in zip(arms[1:], steps, strict=False):
        tried = {each["part"]: each["score"] for each in step["tried"]}
        others = tuple((part, score) for part, score in tried.items() if part != step["part"])
        stops.append(_stop(arm, step["part"], tried[step["part"]], others, scores, arms[0]))
    if path["stuck"]:
        stops.append(_stop(arms[-1], ", ".join(path["stuck"]), None, (), scores, arms[0]))
    trainings = sum(len(step["tried"]) for step in steps)
    return Along(path["start"], int(path["blocks"]), trainings, tuple(stops), tuple(path["idle"]), tuple(path["stuck"]))


def _stop(
    arm: str, part: str, chosen_by: float | None, others: tuple[tuple[str, float | None], ...], scores: pd.DataFrame, start: str
) -> Stop:
    here = scores[arm].dropna() if arm in scores else pd.Series(dtype="float64")
    mean = float(here.mean()) if len(here) else None
    differences = np.asarray((scores[arm] - scores[start]).dropna() if arm in scores else [], dtype=np.float64)
    gain = low = high = None
    if len(differences) and arm != start:
        gain = float(differences.mean())
        if len(differences) > 1:
            half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, len(differences) - 1) * stats.sem(differences))
            low, high = gain - half, gain + half
    told = tuple(float(each) for each in differences) if arm != start else ()
    return Stop(arm, part, chosen_by, others, len(differences), mean, gain, low, high, told)

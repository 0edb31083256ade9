"""What a paired design can show at all, before anything runs. Standard library only: checking a study loads no statistics."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

ALPHA = 0.05
SEED_SD, POINTS = "seed sd", "points"


@dataclass(frozen=True)
class Stated:
    """An effect that a study should be able to show."""

    size: float
    unit: str
    """Seed sd, which is the base's standard deviation over blocks, or points: hundredths of the reported metric."""


def stated(text: str | float) -> Stated:
    """An effect as it is written in a study file or on the command line: ``1``, ``1 sd`` (both seed sd) or ``0.5 points``.

    Raises:
        ValueError: anything else, or no positive finite size.
    """
    written = re.fullmatch(r"\s*([0-9.eE+-]+)\s*(|sd|seed sd|point|points)\s*", str(text))
    try:
        size = float(written[1]) if written else math.nan
    except ValueError:
        size = math.nan
    if written is None or not (math.isfinite(size) and size > 0.0):
        raise ValueError(f"A stated effect needs a size above 0 in seed sd or points, as in 1.0 or 0.5 points, but got effect={text!r}.")
    return Stated(size, POINTS if written[2].startswith("p") else SEED_SD)


def smallest_p(blocks: int) -> float:
    """The smallest two-sided p that the exact sign-flip test can give with so many blocks: 2 / 2^n."""
    return min(1.0, 2.0 / 2.0**blocks)


def blocks_needed(comparisons: int, alpha: float = ALPHA) -> int:
    """The fewest blocks with which one of so many comparisons can survive Holm's correction: 6, 8, 9, 10 for 1, 4, 8, 16.

    Raises:
        ValueError: no comparison, or alpha outside (0, 1).
    """
    if comparisons < 1 or not 0.0 < alpha < 1.0:
        raise ValueError(f"Blocks need comparisons >= 1 and alpha in (0, 1), but got comparisons={comparisons}, alpha={alpha}.")
    blocks = 1
    while comparisons * smallest_p(blocks) >= alpha:
        blocks += 1
    return blocks

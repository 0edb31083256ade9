"""Early stopping as pure functions of scores: who goes on after a rung."""

from __future__ import annotations

import math
from collections.abc import Mapping


def kept(members: int, keep: float) -> int:
    """How many of a group go on after a rung: the share ``keep``, rounded up; a hair above a whole number counts as that number."""
    return math.ceil(keep * members - 1e-9)


def survivors(scores: Mapping[int, float | None], keep: float, sign: float) -> frozenset[int]:
    """Successive halving within a group (Jamieson & Talwalkar 2016): the best ``kept`` of n members.

    Scores by member number; None or a value that is not finite never survives. ``sign`` is 1 where more is better, else
    -1. Equal scores are settled by the lower number.
    """
    ranked = _ranked(scores, sign)
    return frozenset(ranked[: kept(len(scores), keep)])


def promotable(scores: Mapping[int, float | None], promoted: frozenset[int], keep: float, sign: float) -> int | None:
    """ASHA (Li et al. 2020): the best member that has reached a rung, lies in the top ``keep`` of those, and is not promoted yet.

    At least one of those that reached the rung may go on. None if nobody can.
    """
    ranked = _ranked(scores, sign)
    for member in ranked[: max(1, math.floor(keep * len(scores) + 1e-9))]:
        if member not in promoted:
            return member
    return None


def _ranked(scores: Mapping[int, float | None], sign: float) -> list[int]:
    finite = {member: score for member, score in scores.items() if score is not None and math.isfinite(score)}
    return sorted(finite, key=lambda member: (-sign * finite[member], member))

"""Tuning curves: how good the best of k trials is, and what it cost. Pure functions of what was tried.

``curves`` says what another search of k random trials would find: the median of the best of k, for k up to the number of
trials there are, with a band that holds for all k at once (Lourie, Cho and He, Show your work with confidence, NAACL 2024,
https://arxiv.org/abs/2311.09480; opda by the first author). The band comes from one on the distribution of scores: that of
Learned-Miller and DeStefano with equal tails, whose critical value opda simulates (100,000 draws), for up to ``SIMULATED``
trials, and Kolmogorov and Smirnov's above. Both are exact for continuous scores and never too narrow for others.

What may enter:

- trials that were drawn at random before the sampler began to model; later ones depend on what was found, and a random one
  among them stands for a proposal that was a duplicate;
- a trial that failed, as the worst score there is: another search would meet such failures too;
- a trial that early stopping gave up has no final score: it is censored at its rung, by a rule that compared it with its
  generation. Nothing that is known at the rung says where it would have ended, so nothing is filled in. What can be said
  without it: the band that takes it for the worst score below, and for the best above, holds whatever it is. Such a curve
  has a band and no middle, and is refused where its lower limit is the worst score for every k;
- no trial that is still to come: until then there is no curve.

``courses`` describes the search that took place, all proposals in their order: the best score so far, against trials and
device-seconds. It is one path with no band, and says nothing about another search. Where early stopping compared a
generation, its scores were known only when all of it was trained that far, so they count from the end of the generation.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, takewhile

import numpy as np
from opda.nonparametric import EmpiricalDistribution

from orchestrator.analysis.effects import CONFIDENCE
from orchestrator.analysis.tried import FAILED, MISSING, RANDOM, Tried
from trainables.status import OK, STOPPED

SIMULATED = 64
"""Trials up to which opda's simulation is worth its time: 0.2 s for 8, 1 s for 24, 5 s for 64, once per count."""

_BOUNDS = {"accuracy": (0.0, 1.0), "agreement": (0.0, 1.0), "ece": (0.0, 1.0), "nll": (0.0, math.inf)}


@dataclass(frozen=True)
class TuningCurve:
    """Best score of k random trials of one arm, k = 1 to their number. Infinite limits are no limits."""

    arm: str
    trials: int
    """Drawn at random, in the metric that selects."""
    ok: int
    stopped: int
    failed: int
    median: tuple[float, ...] = ()
    """Empty where trials were stopped: it is not known then."""
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    refused: str = ""
    """Why there is no curve; empty where there is one."""
    confidence: float = CONFIDENCE
    """Of the band, for all k at once."""


@dataclass(frozen=True)
class Course:
    """The best score so far in the search of one arm. Each entry is a time at which scores became known."""

    arm: str
    trials: tuple[int, ...]
    device_seconds: tuple[float, ...]
    """Of all trials so far, given up and failed ones included."""
    best: tuple[float | None, ...]

    def at(self, device_seconds: float) -> tuple[int, float | None]:
        """Trials known, and the best of them, once so much was spent."""
        known = sum(spent <= device_seconds for spent in self.device_seconds)
        return (self.trials[known - 1], self.best[known - 1]) if known else (0, None)


def curves(found: Mapping[str, Sequence[Tried]], metric: str, goal: str) -> tuple[TuningCurve, ...]:
    """One curve, or the reason why there is none, per searched arm.

    Args:
        found: arm to what was tried, in order of proposal.
        metric: what selects; its last part says which scores are possible.
        goal: "maximise" or "minimise".
    """
    bounds = _BOUNDS.get(metric.rpartition(".")[2], (-math.inf, math.inf))
    return tuple(_curve(arm, [*takewhile(lambda each: each.proposed_by == RANDOM, each)], bounds, goal) for arm, each in found.items())


def _curve(arm: str, pool: Sequence[Tried], bounds: tuple[float, float], goal: str) -> TuningCurve:
    ok, stopped, failed, missing = (sum(each.status == status for each in pool) for status in (OK, STOPPED, FAILED, MISSING))
    said = TuningCurve(arm, len(pool), ok, stopped, failed)
    if not pool:
        return replace(said, refused="no trial was drawn at random")
    if missing:
        return replace(said, refused=f"{missing} of {len(pool)} random trials are still to come")
    # Seen as gains, more is better: places 0 and n + 1 are the worst and the best score that are possible.
    sign = 1.0 if goal == "maximise" else -1.0
    worst, best = sorted(sign * bound for bound in bounds)
    gains = sorted(sign * each.score for each in pool if each.score is not None)
    lowest, middle, highest = ranks(len(pool))
    below = [worst] * (1 + failed + stopped) + gains + [best]
    above = [worst] * (1 + failed) + gains + [best] * (1 + stopped)
    low, high = [below[rank] for rank in lowest], [above[rank] for rank in highest]
    if all(gain == worst for gain in low):
        unknown = f"{stopped} of {len(pool)} random trials were given up at a rung, and how they would have ended is not known"
        return replace(said, refused=unknown if stopped else f"{ok} scores of {len(pool)} random trials are too few for any limit")
    median = [] if stopped else [below[rank] for rank in middle]
    if sign < 0:
        low, high = high, low
    found = [tuple(sign * gain for gain in part) for part in (median, low, high)]
    return replace(said, median=found[0], low=found[1], high=found[2])


@functools.cache
def ranks(count: int, confidence: float = CONFIDENCE) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Lower limit, estimate and upper limit of the median best of k = 1 to ``count`` of as many random trials, as places.

    Place 1 is the worst of the trials and ``count`` the best; 0 and ``count`` + 1 are the worst and best that can be.
    Places are all that a band needs: scores at them are looked up, ties or not.
    """
    method = "ld_equal_tailed" if count <= SIMULATED else "ks"
    lower, point, upper = EmpiricalDistribution.confidence_bands(
        np.arange(1.0, count + 1.0), confidence, a=0.0, b=count + 1.0, generator=np.random.default_rng(count), method=method, n_jobs=1
    )
    sizes = np.arange(1, count + 1)
    # The upper band of the distribution is the lower one of the curve.
    low, middle, high = (tuple(int(rank) for rank in cdf.quantile_tuning_curve(sizes)) for cdf in (upper, point, lower))
    return low, middle, high


def courses(found: Mapping[str, Sequence[Tried]], goal: str) -> tuple[Course, ...]:
    """The best score so far of every searched arm, up to its first trial that is still to come."""
    return tuple(_course(arm, each, goal) for arm, each in found.items())


def _course(arm: str, found: Sequence[Tried], goal: str) -> Course:
    pick = max if goal == "maximise" else min
    trials, spent, best = 0, 0.0, None
    points: list[tuple[int, float, float | None]] = []
    for _, members in groupby(found, key=lambda each: each.generation):
        generation = tuple(members)
        is_raced = any(each.status == STOPPED for each in generation)
        for step in (generation,) if is_raced else [(each,) for each in generation]:
            if any(each.status == MISSING for each in step):
                return _course_of(arm, points)
            trials += len(step)
            spent += math.fsum(each.device_seconds for each in step)
            scores = [each.score for each in step if each.score is not None]
            best = pick([*scores, *([] if best is None else [best])], default=None)
            points.append((trials, spent, best))
    return _course_of(arm, points)


def _course_of(arm: str, points: Sequence[tuple[int, float, float | None]]) -> Course:
    trials, spent, best = (tuple(each) for each in zip(*points, strict=True)) if points else ((), (), ())
    return Course(arm, trials, spent, best)

"""Importance: which searched parameters the validation score hangs on, and whether that can be told from noise.

An importance is never 0, and Optuna's shares add up to 1 on noise too: with 50 trials and six parameters that do nothing,
the leading one gets nearly half on average (docs/importance.md). So every value stands beside what the same trials give when
their scores are shuffled against their configurations, and a parameter is called important only where it exceeds a quantile of the largest of all in a shuffle (Westfall and Young, Resampling-based multiple testing, 1993: the
single-step maximum; Phipson and Smyth, SAGMB 2010: p counts the trials' own order among the shuffles). PED-ANOVA and fANOVA see
different things, the best trials and all of them, so either may show a parameter; each gets half of the 5 %. So where nothing
matters, at most 5 % of arms claim anything at all. No value is divided by the spread of its own null: that would need the trials'
own value in it to be exact (without, 39 shuffles claimed 8 % on noise), and with it found less.

Only trials trained to the end count. Those that early stopping gave up have no final score; they are mostly bad, so what made
them bad (too large a learning rate, say) looks less important than it is. Parameters that exist only under a condition are
judged by PED-ANOVA among the trials that have them, if these are enough; a shuffle keeps every configuration whole, so the null
knows how few they are. fANOVA needs values in every trial and leaves them out. A parameter that had one value is not judged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.analysis.reach import ALPHA
from orchestrator.analysis.tried import RANDOM, Tried

if TYPE_CHECKING:
    from orchestrator.analysis.evaluators import Evaluator

Floats = NDArray[np.float64]

FEWEST = 20
"""Finished trials of an arm, below which nothing is computed: a third of them is too few to tell one distribution from another."""
BEST = 0.3
"""Share of trials that PED-ANOVA compares with all. Optuna's default is .1, five trials of fifty, and finds far less."""
SHUFFLES, FOREST_SHUFFLES = 119, 39
"""Of PED-ANOVA (10 ms each) and of fANOVA (0.1 s): with 39, what exceeds all of them has p = 1/40, half of 5 %."""
FOREST_TRIALS = 120
"""Finished trials of all judged arms together up to which fANOVA is computed: 10 s."""
TREES = 16
RESAMPLES = 100


@dataclass(frozen=True)
class Null:
    """What shuffled scores give."""

    largest: Floats
    """Of all values, shuffle by shuffle, in ascending order."""

    def limit(self, alpha: float) -> float:
        """What a value has to exceed: on noise any at all does so with a probability of at most ``alpha``.

        Infinite where there are too few shuffles.
        """
        place = math.ceil((1.0 - alpha) * (len(self.largest) + 1) - 1e-9)
        return float(self.largest[place - 1]) if place <= len(self.largest) else math.inf

    def p(self, values: Floats) -> Floats:
        """Corrected for their number: share of shuffles, the trials' own order among them, whose largest is as large."""
        above: Floats = (self.largest[None, :] >= values[:, None]).sum(axis=1, dtype=np.float64)
        return (1.0 + above) / (len(self.largest) + 1.0)


@dataclass(frozen=True)
class Importance:
    """One parameter in the search of one arm."""

    name: str
    trials: int
    """Finished ones that have it."""
    value: float
    """PED-ANOVA's divergence."""
    share: float
    """Of the sum over parameters: what Optuna would show."""
    low: float
    high: float
    """95 % percentile bootstrap interval of the value, over trials. It leans upward: drawn trials repeat each other."""
    limit: float
    """What the largest value of any parameter exceeds on noise, in the share of shuffles that PED-ANOVA is given. It is one for
    all parameters of an arm."""
    ped_p: float
    """Of PED-ANOVA, corrected for all parameters of the arm."""
    p: float
    """Of both, as ``together`` has it."""
    forest: float | None = None
    """fANOVA's share of variance; None where it was not computed, or does not apply."""
    forest_limit: float | None = None
    forest_p: float | None = None

    @property
    def is_important(self) -> bool:
        """Whether it is told from noise."""
        return self.p <= ALPHA


@dataclass(frozen=True)
class ArmImportance:
    """The search of one arm, parameters by how far they are from noise."""

    arm: str
    trials: int
    """Finished ones."""
    random: int
    """Of them, drawn at random."""
    parameters: tuple[Importance, ...]
    held: tuple[str, ...]
    """Searched parameters with one value in all finished trials that have them."""
    few: tuple[str, ...]
    """Searched parameters that too few finished trials have to be judged."""
    refused: str = ""
    """Why nothing was computed; empty where it was."""


def importances(found: Mapping[str, Sequence[Tried]], goal: str, seed: int) -> tuple[ArmImportance, ...]:
    """Every searched arm.

    Args:
        found: arm to what was tried.
        goal: "maximise" or "minimise".
        seed: of shuffles and resamples; equal arguments give equal numbers.
    """
    finished = {arm: [each for each in tried if each.score is not None] for arm, tried in found.items()}
    judged = [trials for trials in finished.values() if not _refusal(trials)]
    has_forest = sum(map(len, judged)) <= FOREST_TRIALS
    return tuple(_of_arm(arm, trials, goal, seed, has_forest) for arm, trials in finished.items())


def _refusal(trials: Sequence[Tried]) -> str:
    if len(trials) < FEWEST:
        return f"{len(trials)} finished trials, and {FEWEST} are needed"
    if len({each.score for each in trials}) == 1:
        return "all finished trials have the same score"
    return "" if _judged(_values(trials)) else f"no parameter was varied in {FEWEST} of them"


def _values(trials: Sequence[Tried]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for each in trials:
        for name, value in each.point.items():
            found.setdefault(name, []).append(repr(value))
    return found


def _judged(values: Mapping[str, Sequence[str]]) -> list[str]:
    """Names of parameters that enough trials have, and that vary among them."""
    return [name for name, seen in values.items() if len(seen) >= FEWEST and len(set(seen)) > 1]


def _of_arm(arm: str, trials: Sequence[Tried], goal: str, seed: int, has_forest: bool) -> ArmImportance:
    random = sum(each.proposed_by == RANDOM for each in trials)
    refused = _refusal(trials)
    if refused:
        return ArmImportance(arm, len(trials), random, (), (), (), refused)
    # Here, and not above: importing it loads optuna, which a report without enough trials does not need.
    from orchestrator.analysis.evaluators import Evaluator

    values = _values(trials)
    names = _judged(values)
    points = [{name: value for name, value in each.point.items() if name in names} for each in trials]
    losses = np.array([each.score for each in trials], dtype=np.float64) * (-1.0 if goal == "maximise" else 1.0)
    rng = np.random.default_rng([seed, *arm.encode()])
    evaluator = Evaluator(points)

    def divergence(scores: Floats) -> Floats:
        return evaluator.ped_anova(scores, BEST)

    measured = divergence(losses)
    evaluators = 2 if has_forest else 1
    null = null_of(divergence, losses, SHUFFLES, rng)
    limit, p = null.limit(ALPHA / evaluators), null.p(measured)
    low, high = _interval(points, losses, evaluator.names, rng)
    forest = _forest(evaluator, losses, rng, seed) if has_forest else {}
    total = float(measured.sum())
    parameters = [
        Importance(
            name=name,
            trials=sum(name in point for point in points),
            value=float(measured[place]),
            share=float(measured[place]) / total if total else 1.0 / len(evaluator.names),
            low=float(low[place]),
            high=float(high[place]),
            limit=limit,
            ped_p=float(p[place]),
            p=together(float(p[place]), forest.get(name, {}).get("forest_p"), evaluators),
            **forest.get(name, {}),
        )
        for place, name in enumerate(evaluator.names)
    ]
    parameters.sort(key=lambda each: (each.p, -each.value / (each.limit or math.inf)))
    few = tuple(name for name, seen in values.items() if len(seen) < FEWEST)
    held = tuple(name for name in values if name not in (*names, *few))
    return ArmImportance(arm, len(trials), random, tuple(parameters), held, few)


def together(ped: float, forest: float | None, evaluators: int) -> float:
    """The smaller p of both, corrected for the number of evaluators that the arm was judged by (Bonferroni)."""
    return min(1.0, evaluators * min(ped, 1.0 if forest is None else forest))


def null_of(measure: Callable[[Floats], Floats], scores: Floats, shuffles: int, rng: np.random.Generator) -> Null:
    """The null of several values that scores give.

    Args:
        measure: scores, one per configuration, to values.
        scores: in any order.
        shuffles: how many; with fewer than 1 / alpha - 1 nothing can reach alpha.
        rng: of the shuffles.
    """
    return Null(np.sort([measure(rng.permutation(scores)).max() for _ in range(shuffles)]))


def _interval(points: Sequence[Mapping[str, Any]], losses: Floats, names: Sequence[str], rng: np.random.Generator) -> tuple[Floats, Floats]:
    from orchestrator.analysis.evaluators import Evaluator

    drawn = np.zeros((RESAMPLES, len(names)))
    for row in drawn:
        chosen = rng.integers(0, len(points), len(points))
        resampled = Evaluator([points[place] for place in chosen])
        found = dict(zip(resampled.names, resampled.ped_anova(losses[chosen], BEST), strict=True))
        row[:] = [found.get(name, 0.0) for name in names]
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    return low, high


def _forest(evaluator: Evaluator, losses: Floats, rng: np.random.Generator, seed: int) -> dict[str, dict[str, float]]:
    """fANOVA of the parameters that every trial has."""
    known = [place for place, name in enumerate(evaluator.names) if name in evaluator.everywhere]
    if not known:
        return {}

    def variance(scores: Floats) -> Floats:
        return evaluator.fanova(scores, TREES, seed)[known]

    measured = variance(losses)
    null = null_of(variance, losses, FOREST_SHUFFLES, rng)
    return {
        evaluator.names[place]: {"forest": float(value), "forest_limit": null.limit(ALPHA / 2), "forest_p": float(p)}
        for place, value, p in zip(known, measured, null.p(measured), strict=True)
    }

"""What is called important where nothing is, and what is found where one parameter matters: Optuna's default, and ours.

    python -m benchmarks.importance

A study has 50 finished trials, drawn at random, of six parameters, four of them numbers and two of them choices of three.
Noise: scores are normal and hang on nothing. Conditionally on points and scores, all orders of the scores are as likely, so
a null serves many noise studies: further shuffles are taken for what was observed. Simulation errors are taken over points.
Effect: one number explains 30 % of the variance of scores, by a slope or by a peak in the middle of its domain.

Optuna's default gives shares and calls nothing important. Counted is how often the leading parameter has more than twice
the fair share of one sixth. Ours calls important what exceeds its limit of noise, at 5 % for all parameters together.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import create_trial

from orchestrator.analysis.evaluators import Evaluator
from orchestrator.analysis.importance import BEST, FOREST_SHUFFLES, SHUFFLES, TREES, null_of
from orchestrator.analysis.reach import ALPHA
from orchestrator.search import RANDOM, TPE, Past, propose
from search_spaces import Choice, Parameter, Space, Uniform

TRIALS, NUMBERS, CHOICES = 50, 4, 2
FAIR = 1 / (NUMBERS + CHOICES)
EXPLAINED = 0.3
AGAIN = 12
"""Noise studies that share their points and their null."""
SPACE = Space(
    tuple(Parameter(f"number{place}", Uniform(0.0, 1.0)) for place in range(NUMBERS))
    + tuple(Parameter(f"choice{place}", Choice(("a", "b", "c"))) for place in range(CHOICES))
)

Floats = NDArray[np.float64]
Point = Mapping[str, object]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--points", type=int, default=20, help="sets of points on noise; more take longer and err less")
    parser.add_argument("--studies", type=int, default=10, help="studies of each effect")
    parser.add_argument("--adaptive", type=int, default=20, help="studies of noise with TPE's proposals")
    asked = parser.parse_args()
    start = time.perf_counter()
    print(f"{TRIALS} trials of {NUMBERS + CHOICES} parameters; Optuna {optuna.__version__}")
    print()
    print(
        "| scores | Optuna's default: mean top share | top share above 1/3 | ours: anything called | by PED-ANOVA | by fANOVA | the right one |"
    )
    print("| :-- | --: | --: | --: | --: | --: | --: |")
    show(f"noise, {asked.points} x {AGAIN} studies", [row for seed in range(asked.points) for row in noise(seed)], AGAIN)
    for shape in ("slope", "peak"):
        rows = [effect(seed, shape) for seed in range(asked.studies)]
        show(f"{shape}, {EXPLAINED:.0%} of variance, {asked.studies} studies", rows, 1)
    show(f"noise, proposed by TPE, {asked.adaptive} studies", [adaptive(seed) for seed in range(asked.adaptive)], 1)
    print()
    print(f"Nominal: {ALPHA:.0%} on noise. ± is one standard error of simulation. {time.perf_counter() - start:.0f} s.")


def noise(seed: int) -> list[Floats]:
    """Studies with the same points, none of whose parameters does anything."""
    rng = np.random.default_rng([1, seed])
    scores = rng.standard_normal(TRIALS)
    judge = Judge(drawn(rng), scores, rng)
    return [judge.row(rng.permutation(scores), None) for _ in range(AGAIN)]


def effect(seed: int, shape: str) -> Floats:
    """A study whose first number matters."""
    rng = np.random.default_rng([2, seed])
    points = drawn(rng)
    place = np.array([float(str(point["number0"])) for point in points])
    # Both have variance 1 over the domain.
    signal = (place - 0.5) * 12**0.5 if shape == "slope" else (0.25 - abs(place - 0.5)) * 48**0.5
    scores = EXPLAINED**0.5 * signal + (1.0 - EXPLAINED) ** 0.5 * rng.standard_normal(TRIALS)
    return Judge(points, scores, rng).row(scores, "number0")


def adaptive(seed: int) -> Floats:
    """A study of noise whose later points TPE proposed, in generations of ten."""
    rng = np.random.default_rng([3, seed])
    past: list[Past] = []
    while len(past) < TRIALS:
        proposed = propose(SPACE, past, 10, seed * TRIALS + len(past), maximise=True, sampler=TPE, startup=10)
        past += [Past(each.point, float(rng.standard_normal())) for each in proposed]
    scores = np.array([each.score for each in past], dtype=np.float64)
    return Judge([each.point for each in past], scores, rng).row(scores, None)


def drawn(rng: np.random.Generator) -> Sequence[Point]:
    return [each.point for each in propose(SPACE, [], TRIALS, int(rng.integers(2**31)), maximise=True, sampler=RANDOM, startup=TRIALS)]


class Judge:
    """Both ways to judge scores for the same points."""

    def __init__(self, points: Sequence[Point], scores: Floats, rng: np.random.Generator) -> None:
        self.points, self.evaluator = points, Evaluator(points)
        self.ped = null_of(self.divergence, -scores, SHUFFLES, rng)
        self.forest = null_of(self.variance, -scores, FOREST_SHUFFLES, rng)

    def divergence(self, losses: Floats) -> Floats:
        return self.evaluator.ped_anova(losses, BEST)

    def variance(self, losses: Floats) -> Floats:
        return self.evaluator.fanova(losses, TREES, 0)

    def row(self, scores: Floats, right: str | None) -> Floats:
        """Top share of Optuna's default, whether it is above twice the fair one, and what ours calls important."""
        top = max(optuna_default(self.points, scores).values())
        ped = self.ped.p(self.divergence(-scores)) <= ALPHA / 2
        forest = self.forest.p(self.variance(-scores)) <= ALPHA / 2
        called = ped | forest
        is_right = called[self.evaluator.names.index(right)] if right else False
        return np.array([top, top > 2 * FAIR, called.any(), ped.any(), forest.any(), is_right], dtype=np.float64)


def optuna_default(points: Sequence[Point], scores: Floats) -> Mapping[str, float]:
    """Shares as Optuna gives them when asked for nothing else."""
    numbers, choices = FloatDistribution(0.0, 1.0), CategoricalDistribution(("a", "b", "c"))
    distributions = {name: numbers if name.startswith("number") else choices for name in SPACE.names}
    study = optuna.create_study(direction="maximize")
    for point, score in zip(points, scores, strict=True):
        study.add_trial(create_trial(params=dict(point), distributions=distributions, value=float(score)))
    return optuna.importance.get_param_importances(study)


def show(name: str, rows: Sequence[Floats], together: int) -> None:
    means = np.array(rows).reshape(-1, together, 6).mean(axis=1)
    error = means.std(axis=0, ddof=1) / len(means) ** 0.5
    cells = [
        f"{mean:.2f} ± {off:.2f}" if place == 0 else f"{mean:.1%} ± {off:.1%}"
        for place, (mean, off) in enumerate(zip(means.mean(axis=0), error, strict=True))
    ]
    if not means[:, 5].any() and name.startswith("noise"):
        cells[5] = "–"
    print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        main()

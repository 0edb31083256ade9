"""Factorial: main effects and two-way interactions of a two-level design, block by block. Pure functions of scores and design.

In every block an effect is a contrast of the runs' scores: the mean where the product of its factors' levels is +1, minus the
mean where it is -1 (Box, Hunter and Hunter, Statistics for experimenters, 2005, chapter 5; Yates 1937). For one factor that is
high minus low; for two it is half of what the second changes in the effect of the first. Over blocks a contrast carries what a
comparison does: Student's and BCa interval, exact sign-flip p, Holm over all contrasts that the design tests.

A fraction of the runs estimates sums: an effect and its aliases share one contrast and are named together. A contrast takes every
run, so a block in which one is missing is left out, with the reason; and cells that failed are counted by the level they had.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from orchestrator.analysis.effects import CONFIDENCE, MISSING, NO_VALUE, RESAMPLES, ArmSummary, bca_interval, holm, sign_flip_p, t_interval
from orchestrator.analysis.reach import ALPHA

Floats = NDArray[np.float64]
LOW, HIGH = LEVELS = (-1, 1)
TIMES = " × "


@dataclass(frozen=True)
class Factor:
    """What the design varies."""

    name: str
    low: str
    """What it is at level -1."""
    high: str
    differs: bool
    """False where both levels came to the same training."""
    failed_low: int
    failed_high: int
    """Cells that failed in runs with that level."""


@dataclass(frozen=True)
class Run:
    """One row of the design. Two rows may have the same arm, where a factor made no difference: one training, one score."""

    arm: str
    levels: Mapping[str, int]


@dataclass(frozen=True)
class Alias:
    """Another effect that a contrast estimates, added or subtracted."""

    factors: tuple[str, ...]
    sign: int


@dataclass(frozen=True)
class Effect:
    """One contrast over blocks, in the metric's own unit."""

    factors: tuple[str, ...]
    aliases: tuple[Alias, ...]
    family: int
    """How many contrasts the design tests: what Holm corrects for."""
    blocks: tuple[int, ...]
    contrasts: tuple[float, ...]
    """One per block."""
    effect: float | None = None
    t_low: float | None = None
    t_high: float | None = None
    bca_low: float | None = None
    bca_high: float | None = None
    p: float | None = None
    p_holm: float | None = None
    draws: int = 0
    """Random sign flips behind p; 0 where all were listed, so that p is exact."""
    alpha: float = ALPHA
    confidence: float = CONFIDENCE

    @property
    def n(self) -> int:
        """Blocks."""
        return len(self.blocks)

    @property
    def is_main(self) -> bool:
        """Whether it is of one factor."""
        return len(self.factors) == 1

    @property
    def is_shown(self) -> bool:
        """Whether it stands after correction."""
        return self.p_holm is not None and self.p_holm < self.alpha

    @property
    def name(self) -> str:
        """As in "bound + mixing × ramp": with the aliases of up to two factors. Those of three are taken to be nought."""
        near = [alias for alias in self.aliases if len(alias.factors) <= 2]
        return TIMES.join(self.factors) + "".join(f" {'+' if alias.sign > 0 else '−'} {TIMES.join(alias.factors)}" for alias in near)


@dataclass(frozen=True)
class Corner:
    """Mean score of the runs that have two factors at given levels, over the blocks that count."""

    factors: tuple[str, str]
    means: tuple[float | None, float | None, float | None, float | None]
    """At (low, low), (low, high), (high, low), (high, high); None where no run stands."""


@dataclass(frozen=True)
class Factorial:
    """A two-level design and what it showed."""

    factors: tuple[Factor, ...]
    runs: tuple[Run, ...]
    resolution: int | None
    """None for a full factorial."""
    planned: int
    """Blocks."""
    blocks: tuple[int, ...]
    """Those in which every run has a score."""
    left_out: tuple[tuple[int, tuple[tuple[str, str], ...]], ...]
    """(block, ((arm, why), ...)) of the others."""
    effects: tuple[Effect, ...]
    corners: tuple[Corner, ...]
    """Of every pair of factors."""

    @property
    def arms(self) -> tuple[str, ...]:
        """Different arms among the runs: trainings in a block."""
        return tuple(dict.fromkeys(run.arm for run in self.runs))


def factorial(
    scores: pd.DataFrame,
    runs: Sequence[Run],
    effects: Sequence[tuple[Sequence[str], Sequence[Alias]]],
    *,
    levels: Mapping[str, tuple[str, str]] | None = None,
    alike: Collection[str] = (),
    arms: Sequence[ArmSummary] = (),
    resolution: int | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Factorial:
    """Main effects and interactions.

    Args:
        scores: blocks by arms, NaN where there is no score.
        runs: the coded design.
        effects: the contrasts to test, each by its factors with what is aliased with it.
        levels: factor to what its low and high level are called.
        alike: factors both of whose levels came to the same training.
        arms: their summaries, which tell why a score is missing.
        resolution: of a fraction.
        seed: of the bootstrap, and of the sign flips where they are drawn.
        resamples: of the bootstrap; 0 for none.

    Raises:
        ValueError: a run without scores or with other levels than -1 and +1; a contrast that is not balanced, not orthogonal to
            another, or not what its alias says: the design is no regular two-level one.
    """
    names = tuple(runs[0].levels) if runs else ()
    _check_runs(runs, names, scores)
    matrix = {factor: np.array([run.levels[factor] for run in runs], dtype=np.float64) for factor in names}
    columns = [_column(matrix, factors) for factors, _ in effects]
    _check_contrasts(matrix, effects, columns)
    values = scores[[run.arm for run in runs]].to_numpy(dtype=np.float64)
    is_whole = np.isfinite(values).all(axis=1)
    blocks = tuple(int(block) for block in scores.index[is_whole])
    whole = values[is_whole]
    found = []
    for (factors, aliases), column in zip(effects, columns, strict=True):
        contrasts = whole @ column / (len(runs) / 2)
        found.append(_effect(tuple(factors), tuple(aliases), blocks, contrasts, len(effects), seed, resamples))
    adjusted = holm([1.0 if each.p is None else each.p for each in found])
    why = _reasons(arms)
    distinct = list(dict.fromkeys(run.arm for run in runs))
    return Factorial(
        factors=tuple(_factor(name, runs, (levels or {}).get(name, ("−1", "+1")), name not in alike, arms) for name in names),
        runs=tuple(runs),
        resolution=resolution,
        planned=len(scores),
        blocks=blocks,
        left_out=tuple(
            (
                int(block),
                tuple((arm, why.get((arm, int(block)), NO_VALUE)) for arm in distinct if not math.isfinite(scores.loc[block, arm])),
            )
            for block in scores.index[~is_whole]
        ),
        effects=tuple(each if each.p is None else dataclasses.replace(each, p_holm=p) for each, p in zip(found, adjusted, strict=True)),
        corners=tuple(_corner(pair, matrix, whole) for pair in itertools.combinations(names, 2)) if blocks else (),
    )


def of_design(design: Mapping[str, Any] | None, scores: pd.DataFrame, arms: Sequence[ArmSummary], *, seed: int = 0) -> Factorial | None:
    """The factorial of a ``design`` event; None where it has none.

    Raises:
        ValueError: as ``factorial``.
    """
    asked = None if design is None else design.get("factorial")
    if not asked:
        return None
    runs = [Run(str(run["arm"]), {str(name): int(level) for name, level in run["levels"].items()}) for run in asked["runs"]]
    planned = {arm.arm for arm in arms}
    if not all(run.arm in planned for run in runs):
        return None  # the design is written before its first cell: nothing of it has entered the plan yet
    effects = [
        (tuple(each["factors"]), [Alias(tuple(alias["factors"]), int(alias["sign"])) for alias in each["aliases"]])
        for each in asked["effects"]
    ]
    levels = {str(factor["name"]): (str(factor["low"]), str(factor["high"])) for factor in asked["factors"]}
    alike = [str(factor["name"]) for factor in asked["factors"] if not factor["differs"]]
    return factorial(scores, runs, effects, levels=levels, alike=alike, arms=arms, resolution=asked["resolution"], seed=seed)


def _check_runs(runs: Sequence[Run], names: Sequence[str], scores: pd.DataFrame) -> None:
    if not runs or not names:
        raise ValueError(f"A factorial needs runs and factors, but got {len(runs)} runs of {len(names)} factors.")
    for run in runs:
        if run.arm not in scores:
            raise ValueError(f"A factorial needs scores of every run, but got none of arm={run.arm!r}.")
        if tuple(run.levels) != tuple(names) or any(level not in LEVELS for level in run.levels.values()):
            raise ValueError(f"A run of a factorial needs level -1 or 1 of {', '.join(names)}, but got levels={dict(run.levels)}.")


def _check_contrasts(
    matrix: Mapping[str, Floats], effects: Sequence[tuple[Sequence[str], Sequence[Alias]]], columns: Sequence[Floats]
) -> None:
    for place, ((factors, aliases), column) in enumerate(zip(effects, columns, strict=True)):
        label = TIMES.join(factors)
        if column.sum():
            raise ValueError(f"A contrast needs as many runs at high as at low, but got {label} with a sum of levels of {column.sum():g}.")
        for (others, _), other in zip(effects[:place], columns[:place], strict=True):
            if column @ other:
                raise ValueError(
                    f"A regular design needs contrasts that are orthogonal or aliases, but got {label} and {TIMES.join(others)}, "
                    f"whose products of levels sum to {column @ other:g}."
                )
        for alias in aliases:
            if not np.array_equal(_column(matrix, alias.factors), alias.sign * column):
                raise ValueError(f"An alias needs the levels of its contrast, but got {TIMES.join(alias.factors)} with {label}.")


def _column(matrix: Mapping[str, Floats], factors: Sequence[str]) -> Floats:
    if not factors or any(factor not in matrix for factor in factors):
        raise ValueError(f"An effect needs factors out of {', '.join(matrix)}, but got factors={tuple(factors)}.")
    column: Floats = np.prod([matrix[factor] for factor in factors], axis=0)
    return column


def _effect(
    factors: tuple[str, ...], aliases: tuple[Alias, ...], blocks: tuple[int, ...], contrasts: Floats, family: int, seed: int, resamples: int
) -> Effect:
    bare = Effect(factors, aliases, family, blocks, tuple(map(float, contrasts)))
    if not blocks:
        return bare
    p, draws = sign_flip_p(contrasts, seed)
    t_low, t_high = t_interval(contrasts) or (None, None)
    bca_low, bca_high = bca_interval(contrasts, seed=seed, resamples=resamples) or (None, None)
    return dataclasses.replace(
        bare, effect=float(contrasts.mean()), t_low=t_low, t_high=t_high, bca_low=bca_low, bca_high=bca_high, p=p, draws=draws
    )


def _reasons(arms: Sequence[ArmSummary]) -> dict[tuple[str, int], str]:
    found = {(arm.arm, block): status for arm in arms for block, status in arm.failed_blocks}
    return found | {(arm.arm, block): MISSING for arm in arms for block in arm.missing_blocks}


def _factor(name: str, runs: Sequence[Run], levels: tuple[str, str], differs: bool, arms: Sequence[ArmSummary]) -> Factor:
    """An arm that stands at both levels counts at both."""
    failed = {arm.arm: arm.failed for arm in arms}
    at = {level: {run.arm for run in runs if run.levels[name] == level} for level in LEVELS}
    low, high = (sum(failed.get(arm, 0) for arm in at[level]) for level in LEVELS)
    return Factor(name, *levels, differs=differs, failed_low=low, failed_high=high)


def _corner(pair: tuple[str, str], matrix: Mapping[str, Floats], whole: Floats) -> Corner:
    first, second = (matrix[name] for name in pair)
    chosen = [(first == a) & (second == b) for a, b in itertools.product(LEVELS, LEVELS)]
    low_low, low_high, high_low, high_high = (float(whole[:, runs].mean()) if runs.any() else None for runs in chosen)
    return Corner(pair, (low_low, low_high, high_low, high_high))

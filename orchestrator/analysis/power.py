"""Power: how likely a planned comparison is to show an effect of a stated size, before anything runs.

Scores of two arms that share their blocks are taken to be normal with the same standard deviation over blocks (the seed sd) and
a correlation r, so that a difference has sd √(2 (1 − r)) seed sd, and a contrast of all N runs of a factorial √(4 (1 − r) / N). The test is the exact sign-flip test at Holm's worst step,
p < .05 / m: what an effect needs that is the only one. Up to ENUMERATED blocks it is carried out on drawn studies; above, the
power of Student's test stands for it (noncentral t; Lehmann and Romano, Testing statistical hypotheses, 2005, chapter 15: the
two agree as blocks grow; at 12 blocks and 8 comparisons it is up to .033 more).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import median

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from orchestrator.analysis.effects import TIE, ArmSummary, Comparison
from orchestrator.analysis.reach import ALPHA, POINTS, SEED_SD, Stated, blocks_needed, smallest_p
from orchestrator.analysis.wording import number

Floats = NDArray[np.float64]

ENUMERATED = 12
"""Blocks up to which sign patterns are listed on drawn studies."""
STUDIES = 4_000
"""Drawn; the standard error of a power is at most .008."""
WANTED = 0.8
MOST_BLOCKS = 200
FEWEST_SEEN = 3
"""Blocks from which a standard deviation and a correlation are taken."""


@dataclass(frozen=True)
class Spread:
    """What scores do over blocks."""

    sd: float | None
    """Seed sd of the base in the metric's own unit; None where it is not known."""
    correlation: float
    """Of two arms over the blocks that they share."""
    source: str
    """Where both are from, in words."""


ASSUMED = Spread(None, 0.0, "assumed, which is careful: nothing has finished that could tell")


@dataclass(frozen=True)
class Power:
    """What a design can be expected to show of a stated effect."""

    stated: Stated
    blocks: int
    comparisons: int
    """Holm's family."""
    what: str
    """Of it: comparisons, or effects of a factorial."""
    spread: Spread
    in_seed_sd: float | None
    """The stated effect in units of the seed sd; None where it is in points and the seed sd is not known."""
    power: float | None
    enough: int | None
    """Blocks with which the effect is shown with probability WANTED; None where more than MOST_BLOCKS are needed."""
    detectable: float | None
    """Effect in seed sd that these blocks show with probability WANTED; None where they can show none."""


def seen(summaries: Sequence[ArmSummary], comparisons: Sequence[Comparison]) -> Spread | None:
    """Spread of finished confirm cells: sd of the first comparison's base, median correlation; None before three blocks are in."""
    known = [each for each in comparisons if each.correlation is not None and each.n >= FEWEST_SEEN]
    if not known:
        return None
    sds = {arm.arm: arm.sd for arm in summaries if arm.ok >= FEWEST_SEEN}
    fewest, most = min(each.n for each in known), max(each.n for each in known)
    over = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    source = f"seen over {over} blocks in {len(known)} comparison{'' if len(known) == 1 else 's'}"
    return Spread(sds.get(known[0].base), median(each.correlation for each in known if each.correlation is not None), source)


def power_of(effect: float, blocks: int, comparisons: int, correlation: float, runs: int = 2, alpha: float = ALPHA) -> float:
    """Probability that one effect is shown among so many comparisons.

    Args:
        effect: in seed sd.
        blocks: shared by all arms.
        comparisons: Holm's family.
        correlation: of two arms over blocks, in (-1, 1).
        runs: that a contrast is made of in a block: the two arms of a comparison, or all runs of a factorial.
        alpha: of the family.

    Raises:
        ValueError: an argument outside of what it can be.
    """
    if blocks < 1 or comparisons < 1 or runs < 2 or not -1.0 < correlation < 1.0 or not math.isfinite(effect):
        raise ValueError(
            f"Power needs blocks >= 1, comparisons >= 1, runs >= 2, a correlation in (-1, 1) and a finite effect, "
            f"but got blocks={blocks}, comparisons={comparisons}, runs={runs}, correlation={correlation}, effect={effect}."
        )
    shift, level = abs(effect) / math.sqrt(4.0 * (1.0 - correlation) / runs), alpha / comparisons
    if smallest_p(blocks) >= level:
        return 0.0
    if blocks > ENUMERATED:
        critical = stats.t.isf(level / 2.0, blocks - 1)
        noncentral = shift * math.sqrt(blocks)
        return float(stats.nct.sf(critical, blocks - 1, noncentral) + stats.nct.cdf(-critical, blocks - 1, noncentral))
    return float(np.mean(_sign_flip_ps(_noise(blocks) + shift) < level))


def powered(
    effect: Stated, blocks: int, comparisons: int, spread: Spread | None = None, *, runs: int = 2, what: str = "comparisons"
) -> Power:
    """What a design can be expected to show.

    Args:
        effect: stated.
        blocks: of the design.
        comparisons: planned ones, or contrasts of a factorial.
        spread: as ``seen``, or declared; ASSUMED where there is none.
        runs: as in ``power_of``.
        what: the family is of.

    Raises:
        ValueError: as ``power_of``.
    """
    known = spread or ASSUMED
    size = effect.size if effect.unit == SEED_SD else None if not known.sd else effect.size / 100.0 / known.sd
    detectable = _detectable(blocks, comparisons, known.correlation, runs)
    if size is None:
        return Power(effect, blocks, comparisons, what, known, None, None, None, detectable)
    reached = power_of(size, blocks, comparisons, known.correlation, runs)
    return Power(effect, blocks, comparisons, what, known, size, reached, _enough(size, comparisons, known.correlation, runs), detectable)


def power_lines(found: Power) -> list[str]:
    """What ``plan`` prints of it: one line, and a warning where the design cannot be expected to show what it asks."""
    effect = f"{found.stated.size:g} {found.stated.unit}"
    if found.stated.unit == POINTS and found.in_seed_sd is not None:
        effect += f" ({number(found.in_seed_sd, 2)} seed sd)"
    several = f"1 {found.what.removesuffix('s')}" if found.comparisons == 1 else f"{found.comparisons} {found.what}"
    correlation = f"a block correlation of {number(found.spread.correlation, 2)} ({found.spread.source})"
    given = f"{found.blocks} blocks, {several} and {correlation}"
    if found.detectable is None:
        return [
            f"power: none, with {found.blocks} blocks and {several}",
            f"warning: {found.blocks} blocks can show nothing, whatever the effect: {several} need {blocks_needed(found.comparisons)}",
        ]
    least = f"{found.detectable:.2g} seed sd"
    if found.power is None:
        unknown = f"power: not known for {effect}, since no seed sd is: give the effect in seed sd"
        return [f"{unknown}; with {given}, one of {least} is shown with probability {WANTED:g}"]
    enough = f"more than {MOST_BLOCKS} blocks" if found.enough is None else f"{found.enough} blocks"
    chance = f"power: an effect of {effect} is shown with probability {number(found.power, 2)}, with {given}"
    lines = [f"{chance}; probability {WANTED:g} takes {enough}, or an effect of {least}"]
    if found.power < 0.5:
        lines.append(f"warning: this design is more likely to miss an effect of {effect} than to show it")
    return lines


@cache
def _noise(blocks: int) -> Floats:
    """The same draws for every effect, so that power grows with it: studies x blocks."""
    return np.random.default_rng(0).standard_normal((STUDIES, blocks))


def _sign_flip_ps(differences: Floats) -> Floats:
    """Exact p of every row; the rule of ``effects.sign_flip_p``."""
    sums = differences[:, :1]
    for column in differences.T[1:]:
        sums = np.concatenate((sums + column[:, None], sums - column[:, None]), axis=1)
    observed = np.abs(differences.sum(axis=1)) - TIE * np.abs(differences).sum(axis=1)
    reached: Floats = (np.abs(sums) >= observed[:, None]).mean(axis=1)
    return reached


def _detectable(blocks: int, comparisons: int, correlation: float, runs: int) -> float | None:
    low, high = 0.0, 1.0
    if smallest_p(blocks) * comparisons >= ALPHA:
        return None
    while power_of(high, blocks, comparisons, correlation, runs) < WANTED:
        low, high = high, 2.0 * high
    while high - low > 0.01 * high:
        middle = (low + high) / 2.0
        low, high = (low, middle) if power_of(middle, blocks, comparisons, correlation, runs) >= WANTED else (middle, high)
    return high


def _enough(effect: float, comparisons: int, correlation: float, runs: int) -> int | None:
    return next(
        (n for n in range(blocks_needed(comparisons), MOST_BLOCKS + 1) if power_of(effect, n, comparisons, correlation, runs) >= WANTED),
        None,
    )

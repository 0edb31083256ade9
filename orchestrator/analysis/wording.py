"""Numbers and comparisons in words: one honest sentence per comparison, in the same figures as tables and plots."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.analysis.effects import MISSING, ArmSummary, Comparison
from orchestrator.analysis.reach import blocks_needed, smallest_p

NOTHING = "–"


@dataclass(frozen=True)
class Unit:
    """How values of a metric are written: accuracies in percent, their differences in points; others as they are."""

    factor: float = 1.0
    decimals: int = 3

    @property
    def points(self) -> bool:
        """Whether differences are in points of a hundred."""
        return self.factor == 100.0

    @property
    def score(self) -> str:
        """What follows the metric's name where scores are listed."""
        return " (%)" if self.points else ""

    @property
    def difference(self) -> str:
        """What follows a difference."""
        return " points" if self.points else ""

    def number(self, value: float | None, signed: bool = False) -> str:
        """A value of the metric, or a difference of two, without its unit."""
        return number(None if value is None else value * self.factor, self.decimals, signed)

    def interval(self, low: float | None, high: float | None) -> str:
        """Two limits without their unit; a dash where there is no interval."""
        return NOTHING if low is None or high is None else f"{self.number(low)} to {self.number(high)}"


def unit_of(metric: str, summaries: Sequence[ArmSummary]) -> Unit:
    """Points for a metric in [0, 1] whose name says accuracy; decimals so that a typical standard deviation is visible."""
    limits = [limit for arm in summaries for limit in (arm.low, arm.high) if limit is not None]
    points = "accuracy" in metric and all(0.0 <= limit <= 1.0 for limit in limits)
    factor = 100.0 if points else 1.0
    spreads = sorted(arm.sd * factor for arm in summaries if arm.sd)
    if not spreads:
        return Unit(factor, 1 if points else 3)
    middle = spreads[len(spreads) // 2]
    return Unit(factor, min(6, max(1, math.ceil(-math.log10(middle / 3.0)))))


def setting(value: Any) -> str:
    """The value of a hyper-parameter."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def number(value: float | None, decimals: int, signed: bool = False) -> str:
    """Fixed decimals with a true minus sign; a dash for nothing; never a negative zero."""
    if value is None or math.isnan(value):
        return NOTHING
    text = f"{abs(value):,.{decimals}f}"
    if float(text.replace(",", "")) == 0.0:
        return text
    return f"−{text}" if value < 0 else f"+{text}" if signed else text


def amount(value: float) -> str:
    """A cost: one decimal below 100, none above."""
    return number(value, 0 if value >= 100.0 else 1)


def p_value(p: float | None) -> str:
    """A p-value without its leading zero: .63, .011, .0005, < .0001. Rounding never carries it across .05."""
    if p is None:
        return NOTHING
    if p < 0.0001:
        return "< .0001"
    decimals = 4 if p < 0.001 else 2 if p >= 0.0995 else 3
    if (p < 0.05) != (round(p, decimals) < 0.05):
        decimals = 4
    text = f"{p + 1e-12:.{decimals}f}"  # halves go up: 2 / 2^5 is .063, not .062
    return "1" if float(text) >= 1.0 else text.removeprefix("0")


def equals(p: float | None) -> str:
    """A p-value as it follows the letter p: "= .011", "< .0001"."""
    text = p_value(p)
    return text if text.startswith("<") else f"= {text}"


def name_of(metric: str) -> str:
    """The metric's name without its split: test.accuracy is accuracy, test.nll is NLL."""
    name = metric.rpartition(".")[2]
    return name.upper() if name in ("nll", "ece") else name.replace("_", " ")


def sentence(comparison: Comparison, unit: Unit) -> str:
    """What a comparison shows, in one sentence, and nothing that it does not show.

    Without significance no difference was shown, which is not equality: the sentence says which effects are unlikely.
    """
    c = comparison
    if c.n == 0:
        said = f"{c.arm}: nothing can be said, since no block has a score for both it and {c.base}"
    elif c.n == 1:
        said = f"{c.arm}: {_shift(c, unit)} in the only block that both finished; one block shows nothing"
    elif c.better == 0.5 and not any(c.differences):
        said = f"{c.arm}: the same {name_of(c.metric)} as {c.base} in each of {c.n} blocks; check that the change reached the training"
    elif c.is_shown:
        said = _shown(c, unit)
    else:
        said = _not_shown(c, unit)
    if c.is_interim:
        said = f"interim, {c.n} of {c.planned} blocks: {said}"
    if not said.startswith((c.arm, c.base)):
        said = said[0].upper() + said[1:]
    return said + "." + _left_out(c)


def _shown(c: Comparison, unit: Unit) -> str:
    change = _change(c)
    if change is not None:
        if c.is_worse:
            part = change.partition("=")[0].replace("_", " ").replace(".", " ")
            return f"{c.arm}: {_shift(c, unit)} ({_evidence(c, unit)}): the {part} matters here"
        return f"{c.arm}: {_shift(c, unit)} ({_evidence(c, unit)}): {c.base} is better with {change} here"
    better, worse = (c.base, c.arm) if c.is_worse else (c.arm, c.base)
    size = f"{unit.number(abs(c.difference or 0.0))}{_of(c, unit)}"
    return f"{better} is better than {worse} by {size} ({_evidence(c, unit, mirrored=(c.difference or 0.0) < 0)})"


def _not_shown(c: Comparison, unit: Unit) -> str:
    difference = f"{unit.number(c.difference, signed=True)}{_of(c, unit)}"
    if _change(c) is not None:
        said = f"{c.arm}: no difference was shown: {difference} ({_evidence(c, unit, mirrored=False)})"
    else:
        said = f"no difference between {c.arm} and {c.base} was shown: {c.arm} minus {c.base} is {difference}"
        said += f" ({_evidence(c, unit, mirrored=False)})"
    notes = []
    if smallest_p(c.n) * c.family >= c.alpha:
        comparisons = f"{c.family} comparisons need" if c.family > 1 else "a comparison needs"
        notes.append(f"with {c.n} blocks none could be: {comparisons} {blocks_needed(c.family, c.alpha)}")
    elif c.p is not None and c.p < c.alpha:
        notes.append(f"seen alone it would have been, but it does not stand after correction for {c.family} comparisons")
    if c.t_low is not None and c.t_high is not None:
        bound = unit.number(max(abs(c.t_low), abs(c.t_high)))
        notes.append(f"effects larger than about {bound}{unit.difference} either way are unlikely on this data")
    return "; ".join([said, *notes])


def _shift(c: Comparison, unit: Unit) -> str:
    difference = c.difference or 0.0
    if difference == 0.0:
        return f"{name_of(c.metric)} stays as it is on average"
    return f"{name_of(c.metric)} {'falls' if difference < 0 else 'rises'} by {unit.number(abs(difference))}{unit.difference}"


def _of(c: Comparison, unit: Unit) -> str:
    return f"{unit.difference} of {name_of(c.metric)}" if unit.points else f" in {name_of(c.metric)}"


def _evidence(c: Comparison, unit: Unit, mirrored: bool | None = None) -> str:
    """Interval, n and p; the interval is turned over where the sentence speaks of a fall."""
    low, high = c.t_low, c.t_high
    if low is None or high is None:
        interval = "all differences equal, so that no interval can be estimated"
    else:
        if (c.difference or 0.0) < 0 if mirrored is None else mirrored:
            low, high = -high, -low
        interval = f"{c.confidence * 100:g} % interval {unit.interval(low, high)}"
    p = f"exact p {equals(c.p)}" if c.draws == 0 else f"p {equals(c.p)} over {c.draws:,} random sign flips"
    corrected = f", Holm p {equals(c.p_holm)}" if c.family > 1 else ""
    return f"{interval}, n = {c.n} blocks, {p}{corrected}"


def _change(c: Comparison) -> str | None:
    """What a variant of the base changes, as in lower_bound=0; None for a rival."""
    prefix = f"{c.base}, "
    return c.arm.removeprefix(prefix) if c.arm.startswith(prefix) else None


def _left_out(c: Comparison) -> str:
    failed = [f"block {block} ({arm}: {why})" for block, arm, why in c.left_out if why != MISSING]
    if not failed:
        return ""
    said = f" Left out: {', '.join(failed)}"
    if c.better is None or c.better_at_least is None or c.is_interim:
        return f"{said}."
    return f"{said}; P(better) is {number(c.better, 2)} without, and {number(c.better_at_least, 2)} where cells that failed lose."

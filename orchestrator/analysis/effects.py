"""Effects: arms against the base, or against whichever arm the design pairs them with, block by block. Pure functions of the table.

A comparison is a set of differences (arm - base), one per block that both finished. It carries Student's interval, the
bias-corrected and accelerated bootstrap interval (Efron, Better bootstrap confidence intervals, JASA 1987), the exact
two-sided sign-flip p-value (Fisher, The design of experiments, 1935, section 21; Pitman 1937), and Holm's adjustment over
all planned comparisons (Holm, Scandinavian Journal of Statistics 1979). Blocks that failed or are missing are named, and P(better) is told a second
time with them counted against the arm, by the rule that ranks arms.

The headline interval is Student's: at 6 to 12 blocks the bootstrap interval is too narrow, so it stands beside it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from orchestrator.analysis.reach import ALPHA
from orchestrator.events import CONFIRM
from trainables.status import OK

CONFIDENCE = 0.95
MISSING, NO_VALUE = "missing", "no value"

ENUMERATED = 20
"""Up to so many blocks all sign flips are listed (2^20 sums take 0.02 s); above, they are drawn."""
DRAWS = 99_999
RESAMPLES = 9_999
TIE = 1e-9
"""Sums of differences this close, relative to the sum of their sizes, are ties: decimals are not exact in binary."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ArmSummary:
    """Scores of one arm over its planned blocks."""

    arm: str
    metric: str
    planned: int
    ok: int
    failed: int
    missing: int
    failed_blocks: tuple[tuple[int, str], ...]
    """(block, status); status "no value" is a finished cell whose score is missing or not finite."""
    missing_blocks: tuple[int, ...]
    mean: float | None
    sd: float | None
    """Over blocks, with n - 1."""
    iqm: float | None
    """Mean of the middle half."""
    low: float | None
    high: float | None
    device_seconds: float
    """Of all attempts at its cells, failed ones included."""


@dataclass(frozen=True)
class Comparison:
    """One arm against another, paired by block. Differences are arm - base in the metric's own unit."""

    arm: str
    base: str
    """The arm that it is compared with: the study's base, unless the design pairs them otherwise."""
    metric: str
    goal: str
    family: int
    """How many comparisons were planned: what Holm corrects for."""
    planned: int
    """Blocks that were planned for both."""
    blocks: tuple[int, ...]
    differences: tuple[float, ...]
    left_out: tuple[tuple[int, str, str], ...]
    """(block, arm, why) of every planned block that could not be paired."""
    difference: float | None = None
    t_low: float | None = None
    t_high: float | None = None
    bca_low: float | None = None
    bca_high: float | None = None
    p: float | None = None
    p_holm: float | None = None
    draws: int = 0
    """Random sign flips behind p; 0 where all were listed, so that p is exact."""
    better: float | None = None
    """P(better): share of paired blocks in which the arm is better than the base, ties counted half."""
    better_at_least: float | None = None
    """The same over all planned blocks: a cell that failed loses, two that failed tie, and a block still to come is lost."""
    in_seed_sd: float | None = None
    """Difference in units of the base's standard deviation over blocks."""
    correlation: float | None = None
    """Pearson's, between arm and base over blocks: what pairing had to work with."""
    alpha: float = ALPHA
    confidence: float = CONFIDENCE

    @property
    def n(self) -> int:
        """Paired blocks."""
        return len(self.blocks)

    @property
    def is_shown(self) -> bool:
        """Whether the difference stands after correction."""
        return self.p_holm is not None and self.p_holm < self.alpha

    @property
    def is_worse(self) -> bool:
        """Whether the mean difference is to the arm's disadvantage."""
        return (self.difference or 0.0) * _sign(self.goal) < 0

    @property
    def is_interim(self) -> bool:
        """Whether planned cells are still to come."""
        return any(why == MISSING for _, _, why in self.left_out)


def last_attempts(trials: pd.DataFrame) -> pd.DataFrame:
    """One row per cell: its latest finished attempt. The order of the table is kept."""
    return trials.sort_values("attempt", kind="stable").drop_duplicates("cell", keep="last").sort_index()


def summaries(trials: pd.DataFrame, metric: str, planned: Mapping[str, Sequence[int]] | None = None) -> tuple[ArmSummary, ...]:
    """Scores of every arm of the confirm stage.

    Args:
        trials: the table, columns as in ``trials.parquet``.
        metric: name without "metric.", as in test.accuracy.
        planned: arm to its blocks; without it, every arm is held to the blocks that any arm has.

    Raises:
        ValueError: two cells for one arm and block.
    """
    confirmed = trials[trials["stage"] == CONFIRM]
    seconds = confirmed.groupby("arm")["device_seconds"].sum()
    found = []
    for arm, outcomes in _outcomes(confirmed, metric, planned).items():
        values = np.array([value for value, _ in outcomes.values() if value is not None])
        missing = tuple(block for block, (_, status) in outcomes.items() if status == MISSING)
        failed = tuple((block, status) for block, (value, status) in outcomes.items() if value is None and status != MISSING)
        found.append(
            ArmSummary(
                arm=arm,
                metric=metric,
                planned=len(outcomes),
                ok=len(values),
                failed=len(failed),
                missing=len(missing),
                failed_blocks=failed,
                missing_blocks=missing,
                mean=float(values.mean()) if len(values) else None,
                sd=float(values.std(ddof=1)) if len(values) > 1 else None,
                iqm=float(stats.trim_mean(values, 0.25)) if len(values) else None,
                low=float(values.min()) if len(values) else None,
                high=float(values.max()) if len(values) else None,
                device_seconds=float(seconds.get(arm, 0.0)),
            )
        )
    return tuple(found)


def comparisons(
    trials: pd.DataFrame,
    metric: str,
    base: str | None,
    goal: str = "maximise",
    planned: Mapping[str, Sequence[int]] | None = None,
    *,
    pairs: Sequence[tuple[str, str]] | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> tuple[Comparison, ...]:
    """The planned comparisons of the confirm stage: every other arm against the base, unless pairs are given.

    Args:
        trials: the table.
        metric: name without "metric.".
        base: the arm that the others are compared to; not looked at where pairs are given.
        goal: "maximise" or "minimise": decides what "better" means, and nothing else.
        planned: as in ``summaries``. A planned arm without a single score still counts in Holm's family, with p = 1.
        pairs: (arm, compared with) of every planned comparison: Holm's family.
        seed: of the bootstrap, and of the sign flips where they are drawn.
        resamples: of the bootstrap; 0 for none, and no interval from it.

    Raises:
        ValueError: unknown base, arm or goal; an arm paired with itself, or a pair given twice; two cells for one arm and block.
    """
    outcomes = _outcomes(trials[trials["stage"] == CONFIRM], metric, planned)
    if pairs is None:
        if base not in outcomes:
            raise ValueError(f"A comparison needs its base among the arms ({', '.join(outcomes) or 'none'}), but got base={base!r}.")
        pairs = [(arm, base) for arm in outcomes if arm != base]
    _check_pairs(pairs, outcomes)
    found = [_compared(arm, other, metric, goal, outcomes, len(pairs), seed, resamples) for arm, other in pairs]
    adjusted = holm([1.0 if each.p is None else each.p for each in found])
    return tuple(each if each.p is None else dataclasses.replace(each, p_holm=p_holm) for each, p_holm in zip(found, adjusted, strict=True))


def _check_pairs(pairs: Sequence[tuple[str, str]], arms: Iterable[str]) -> None:
    known = set(arms)
    for place, (arm, other) in enumerate(pairs):
        if arm not in known or other not in known:
            raise ValueError(f"A comparison needs two arms out of {', '.join(sorted(known)) or 'none'}, but got pair=({arm!r}, {other!r}).")
        if arm == other or {arm, other} in [set(pair) for pair in pairs[:place]]:
            raise ValueError(f"A comparison needs two different arms that no other pair compares, but got pair=({arm!r}, {other!r}).")


def holm(p: Sequence[float]) -> list[float]:
    """p-values adjusted for their number by Holm's step-down, in the order given."""
    adjusted, reached = [0.0] * len(p), 0.0
    for rank, place in enumerate(sorted(range(len(p)), key=lambda place: p[place])):
        reached = max(reached, min(1.0, (len(p) - rank) * p[place]))
        adjusted[place] = reached
    return adjusted


def sign_flip_p(differences: Sequence[float] | Floats, seed: int = 0) -> tuple[float, int]:
    """Two-sided p of the hypothesis that every difference is as likely to have the other sign, and how many flips were drawn.

    The statistic is the size of the sum. Up to ENUMERATED differences all 2^n sign patterns are counted and the second
    value is 0; above, DRAWS random patterns and the observed one are.

    Raises:
        ValueError: no difference.
    """
    values = np.asarray(differences, dtype=np.float64)
    if values.size == 0:
        raise ValueError("A sign-flip test needs at least one difference, but got none.")
    if values.size > ENUMERATED:
        drawn = stats.permutation_test(
            (values,),
            lambda flipped, axis: np.abs(np.sum(flipped, axis=axis)),
            permutation_type="samples",
            n_resamples=DRAWS,
            batch=10_000,
            alternative="greater",
            vectorized=True,
            rng=np.random.default_rng(seed),
        )
        return float(drawn.pvalue), DRAWS
    # The first sign is held: patterns come in mirrored pairs whose sums differ in sign alone.
    sums = values[:1]
    for value in values[1:]:
        sums = np.concatenate((sums + value, sums - value))
    reached = np.abs(sums) >= abs(values.sum()) - TIE * np.abs(values).sum()
    return float(reached.mean()), 0


def t_interval(differences: Sequence[float] | Floats, confidence: float = CONFIDENCE) -> tuple[float, float] | None:
    """Student's interval of the mean; None for fewer than two differences, or where they are all equal."""
    values = np.asarray(differences, dtype=np.float64)
    if values.size < 2 or _are_equal(values):
        return None
    low, high = stats.t.interval(confidence, values.size - 1, loc=values.mean(), scale=stats.sem(values))
    return float(low), float(high)


def bca_interval(
    differences: Sequence[float] | Floats, confidence: float = CONFIDENCE, *, seed: int = 0, resamples: int = RESAMPLES
) -> tuple[float, float] | None:
    """Bias-corrected and accelerated bootstrap interval of the mean.

    None for fewer than two differences, or where they are all equal: then no resample differs and it is undefined. None without
    resamples too.
    """
    values = np.asarray(differences, dtype=np.float64)
    if values.size < 2 or resamples == 0 or _are_equal(values):
        return None
    rng = np.random.default_rng(seed)
    found = stats.bootstrap((values,), np.mean, confidence_level=confidence, n_resamples=resamples, method="BCa", rng=rng)
    low, high = (float(limit) for limit in found.confidence_interval)
    return (low, high) if math.isfinite(low) and math.isfinite(high) else None


def to_frame(records: Sequence[ArmSummary] | Sequence[Comparison]) -> pd.DataFrame:
    """One row per record, one column per field; a comparison's n and is_shown are columns too."""
    rows: list[dict[str, Any]] = []
    for record in records:
        row = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
        if isinstance(record, Comparison):
            row |= {"n": record.n, "is_shown": record.is_shown}
        rows.append(row)
    return pd.DataFrame(rows)


def _compared(
    arm: str, base: str, metric: str, goal: str, outcomes: Mapping[str, _Outcomes], family: int, seed: int, resamples: int
) -> Comparison:
    mine, theirs = outcomes[arm], outcomes[base]
    shared = sorted(set(mine) | set(theirs))
    absent: _Outcome = (None, MISSING)
    left_out = tuple(
        (block, who, outcomes[who].get(block, absent)[1])
        for block in shared
        for who in (arm, base)
        if outcomes[who].get(block, absent)[0] is None
    )
    unpaired = {block for block, _, _ in left_out}
    blocks = tuple(block for block in shared if block not in unpaired)
    x = np.array([mine[block][0] for block in blocks], dtype=np.float64)
    y = np.array([theirs[block][0] for block in blocks], dtype=np.float64)
    differences = x - y
    bare = Comparison(arm, base, metric, goal, family, len(shared), blocks, tuple(map(float, differences)), left_out)
    points = [_point(mine.get(block, absent), theirs.get(block, absent), _sign(goal)) for block in shared]
    bare = dataclasses.replace(bare, better_at_least=math.fsum(points) / len(points) if points else None)
    if not blocks:
        return bare
    p, draws = sign_flip_p(differences, seed)
    t_low, t_high = t_interval(differences) or (None, None)
    bca_low, bca_high = bca_interval(differences, seed=seed, resamples=resamples) or (None, None)
    in_favour = differences * _sign(goal)
    seeds = np.array([value for value, _ in theirs.values() if value is not None])
    return dataclasses.replace(
        bare,
        difference=float(differences.mean()),
        t_low=t_low,
        t_high=t_high,
        bca_low=bca_low,
        bca_high=bca_high,
        p=p,
        draws=draws,
        better=float(np.mean(in_favour > 0) + np.mean(in_favour == 0) / 2),
        in_seed_sd=None if seeds.size < 2 or _are_equal(seeds) else float(differences.mean() / seeds.std(ddof=1)),
        correlation=None if x.size < 3 or _are_equal(x) or _are_equal(y) else float(np.corrcoef(x, y)[0, 1]),
    )


_Outcome = tuple[float | None, str]
"""Score or None, and why it is what it is."""
_Outcomes = dict[int, _Outcome]
"""By block."""


def _point(mine: _Outcome, theirs: _Outcome, sign: float) -> float:
    """1 where the arm wins a block, 0 where it loses, one half for a tie: the rule of the ranking, and what is still to come is lost."""
    if MISSING in (mine[1], theirs[1]):
        return 0.0
    ours, others = (-math.inf if value is None else sign * value for value, _ in (mine, theirs))
    return float(ours > others) + float(ours == others) / 2


def _outcomes(confirmed: pd.DataFrame, metric: str, planned: Mapping[str, Sequence[int]] | None) -> dict[str, _Outcomes]:
    rows = last_attempts(confirmed)
    if planned is None:
        everywhere = sorted({int(block) for block in rows["block"]})
        planned = {str(arm): everywhere for arm in rows["arm"].drop_duplicates()}
    found: dict[str, _Outcomes] = {arm: {int(block): (None, MISSING) for block in sorted(blocks)} for arm, blocks in planned.items()}
    column = f"metric.{metric}"
    values = rows[column] if column in rows else pd.Series(math.nan, index=rows.index)
    for arm, block, status, value in zip(rows["arm"], rows["block"], rows["status"], values.astype("float64"), strict=True):
        cells = found.setdefault(str(arm), {})
        if cells.get(int(block), (None, MISSING))[1] != MISSING:
            raise ValueError(f"An arm needs one cell per block, but got two for arm={arm!r}, block={block}.")
        if status == OK:
            cells[int(block)] = (float(value), OK) if math.isfinite(value) else (None, NO_VALUE)
        else:
            cells[int(block)] = (None, str(status))
    return found


def _sign(goal: str) -> float:
    if goal not in ("maximise", "minimise"):
        raise ValueError(f"A comparison needs goal maximise or minimise, but got goal={goal!r}.")
    return 1.0 if goal == "maximise" else -1.0


def _are_equal(values: Floats) -> bool:
    return bool(np.ptp(values) <= TIE * np.abs(values).max())

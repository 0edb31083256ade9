"""Profiles: treatments over several settings, which are data sets and teachers. Pure functions of scores and configurations.

Only where a study crosses at least two treatments with at least two settings. Per treatment: the interquartile mean of all its
scores with a bootstrap interval stratified by setting, and the performance profile, the share of cells above every score
(Agarwal et al., Deep reinforcement learning at the edge of the statistical precipice, NeurIPS 2021, sections 4.2 and 4.3; Dolan
and Moré 2002). Scores are as measured, not normalised. A cell that failed is below every score; a block in which a treatment is
still to come is left out of its setting for all.

Mean ranks over data sets have a critical difference (Demšar, JMLR 2006, equation for Nemenyi's test) with six data sets or more,
which are different sources of data: other rows, labels or teachers of one source are not independent.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from orchestrator.analysis.effects import CONFIDENCE, ArmSummary
from orchestrator.analysis.reach import ALPHA

Floats = NDArray[np.float64]

SETTINGS = ("data.", "teacher.")
"""What configurations of a setting start with; all else is the treatment."""
FEWEST_SOURCES = 6
RESAMPLES = 2_000


@dataclass(frozen=True)
class Profile:
    """One treatment over all settings."""

    treatment: str
    """Its method, where no other treatment has the same one, else its arm in the first setting."""
    arms: tuple[str, ...]
    """By setting."""
    cells: int
    failed: int
    iqm: float | None
    """Mean of the middle half; None where more than the lowest quarter failed."""
    iqm_low: float | None
    iqm_high: float | None
    at: tuple[float, ...]
    """Every score of any treatment, ascending in merit."""
    above: tuple[float, ...]
    """Share of its cells that are better than each."""
    rank: float | None = None
    """Mean over data sets; None with fewer than FEWEST_SOURCES."""


@dataclass(frozen=True)
class Profiles:
    """Treatments by settings."""

    settings: tuple[str, ...]
    """By what differs between them."""
    sources: tuple[str, ...]
    """Data sets."""
    blocks: tuple[int, ...]
    """By setting: how many count."""
    profiles: tuple[Profile, ...]
    critical: float | None
    """Mean ranks that differ by less cannot be told apart at .05; None with fewer than FEWEST_SOURCES."""
    p: float | None
    """Friedman's test over data sets that all treatments are alike."""


def profiles(
    scores: pd.DataFrame, configs: Mapping[str, Mapping[str, Any]], arms: Sequence[ArmSummary], goal: str, *, seed: int = 0
) -> Profiles | None:
    """Treatments over settings; None where fewer than two of each are crossed, or every cell failed.

    Args:
        scores: blocks by arms, NaN where there is no score.
        configs: arm to the configuration of one of its cells.
        arms: their summaries, which tell a score that failed from one still to come.
        goal: "maximise" or "minimise".
        seed: of the bootstrap.
    """
    crossed = _crossed({arm.arm: configs[arm.arm] for arm in arms if arm.arm in configs})
    if crossed is None:
        return None
    settings, treatments = crossed
    sign = 1.0 if goal == "maximise" else -1.0
    planned = {arm.arm: {*scores.index} - {*arm.missing_blocks} for arm in arms}
    kept = [sorted(set.intersection(*(planned[row[place]] for row in treatments))) for place in range(len(settings))]
    if not all(kept):
        return None
    merits = [[(sign * scores.loc[kept[place], arm]).fillna(-np.inf).to_numpy() for place, arm in enumerate(row)] for row in treatments]
    at = np.unique(np.concatenate([values for row in merits for values in row]))
    at = at[np.isfinite(at)]
    if not at.size:
        return None
    methods = [_method(configs[row[0]]) for row in treatments]
    labels = methods if len({*methods}) == len(methods) else [row[0] for row in treatments]
    found = [_profile(label, row, values, at, sign, seed) for label, row, values in zip(labels, treatments, merits, strict=True)]
    sources = [str(configs[arm].get("data.source")) for arm in treatments[0]]
    distinct = tuple(dict.fromkeys(sources))
    names = _names([_part(configs[arm], True) for arm in treatments[0]])
    counts = tuple(len(blocks) for blocks in kept)
    if len(distinct) < FEWEST_SOURCES:
        return Profiles(names, distinct, counts, tuple(found), None, None)
    means = np.array(
        [[np.mean([row[p].mean() for p, name in enumerate(sources) if name == source]) for row in merits] for source in distinct]
    )
    ranks = stats.rankdata(-means, axis=1)
    count = len(treatments)
    tested = count > 2 and not bool((ranks == ranks[:, :1]).all())
    return Profiles(
        names,
        distinct,
        counts,
        tuple(_ranked(each, float(rank)) for each, rank in zip(found, ranks.mean(axis=0), strict=True)),
        critical_difference(count, len(distinct)),
        float(stats.friedmanchisquare(*ranks.T).pvalue) if tested else None,
    )


def critical_difference(treatments: int, data_sets: int, alpha: float = ALPHA) -> float:
    """Nemenyi's: q √(k (k + 1) / (6 N)), with q the Studentised range over √2 (Demšar 2006, section 3.2.2, table 5)."""
    q = float(stats.studentized_range.ppf(1.0 - alpha, treatments, np.inf)) / math.sqrt(2.0)
    return q * math.sqrt(treatments * (treatments + 1) / (6.0 * data_sets))


def _profile(label: str, row: Sequence[str], values: Sequence[Floats], at: Floats, sign: float, seed: int) -> Profile:
    pooled = np.concatenate(values)
    iqm = _iqm(pooled)
    rng = np.random.default_rng(seed)
    drawn = [_iqm(np.concatenate([rng.choice(each, each.size) for each in values])) for _ in range(RESAMPLES)]
    tail = (1.0 - CONFIDENCE) / 2.0
    # An infinite end is one that failures reach: there is no such score.
    low, high = (float(limit) if math.isfinite(limit) else None for limit in np.quantile(drawn, [tail, 1.0 - tail], method="nearest"))
    ends = [None if end is None else sign * end for end in ((low, high) if sign > 0 else (high, low))]
    return Profile(
        treatment=label,
        arms=tuple(row),
        cells=pooled.size,
        failed=int((~np.isfinite(pooled)).sum()),
        iqm=sign * iqm if math.isfinite(iqm) else None,
        iqm_low=ends[0],
        iqm_high=ends[1],
        at=tuple(float(sign * each) for each in at),
        above=tuple(float((pooled > each).mean()) for each in at),
    )


def _iqm(values: Floats) -> float:
    """SciPy's trim_mean at a quarter; failures are minus infinity and are trimmed first."""
    trimmed = values.size // 4
    return float(np.sort(values)[trimmed : values.size - trimmed].mean())


def _ranked(each: Profile, rank: float) -> Profile:
    return Profile(**{**vars(each), "rank": rank})


def _crossed(configs: Mapping[str, Mapping[str, Any]]) -> tuple[tuple[str, ...], list[list[str]]] | None:
    """Settings, and by treatment the arm in each of them: arms that are alike but for the setting, else those of one method."""
    for treatment_of in (_all_but_setting, _method):
        cells: dict[str, dict[str, list[str]]] = {}
        for arm, config in configs.items():
            cells.setdefault(treatment_of(config), {}).setdefault(_spelled(_part(config, True)), []).append(arm)
        settings = tuple(dict.fromkeys(setting for row in cells.values() for setting in row))
        whole = [row for row in cells.values() if set(row) == set(settings) and all(len(arms) == 1 for arms in row.values())]
        if len(settings) > 1 and len(whole) > 1:
            return settings, [[row[setting][0] for setting in settings] for row in whole]
    return None


def _all_but_setting(config: Mapping[str, Any]) -> str:
    return _spelled(_part(config, False))


def _method(config: Mapping[str, Any]) -> str:
    return str(config.get("method.name"))


def _part(config: Mapping[str, Any], is_setting: bool) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name.startswith(SETTINGS) == is_setting}


def _spelled(part: Mapping[str, Any]) -> str:
    return json.dumps(part, sort_keys=True)


def _names(parts: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    varied = [name for name in parts[0] if len({_spelled({name: part.get(name)}) for part in parts}) > 1]
    return tuple(", ".join(f"{name}={part.get(name)}" for name in varied) for part in parts)

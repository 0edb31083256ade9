"""How often an ablation claims what is not so, and how often it finds what is: rules of decision beside each other.

Ablations with known truth are drawn: a base, and a variant of it without each of eight components, over the same blocks. A score
is normal with standard deviation 1 (the seed sd); two arms of a block have correlation r. Leaving a component out does nothing,
costs 0.5 seed sd (small) or 1.5 (large). Every rule but the first sees the same 90 trainings: nine arms, ten blocks.

    one training        one run per arm; a difference of more than a seed sd is called an effect (9 trainings)
    best of ten         the best run of each arm; any difference is called an effect, or one of more than a seed sd
    mean and sd         blocks are ignored; bars of mean ± sd that do not overlap, or Welch's test at .05 for each variant
    Welch, Holm         Welch's test, corrected: what is left to gain is pairing
    kdsweep             orchestrator.analysis.effects.comparisons: paired by block, exact sign flips, Holm

False claims are family-wise: the share of ablations with at least one claim that is not so, an effect of the wrong sign
included. Power is the share of small and of large effects that are claimed. Cells fail not at all, one in ten at random, or
those of variants whose own luck was in the worst tenth.

Then leaving one out is put beside a fractional factorial at equal compute: seven components, eight arms, ten blocks.

    python -m benchmarks.decisions             # about five minutes on one core; the tables are Markdown

It ends with status 1 if kdsweep's false claims are above 5 % by more than chance where cells fail at random or not at all.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from orchestrator.analysis.effects import comparisons, holm
from orchestrator.analysis.factorial import Run, factorial

Floats = NDArray[np.float64]
Signs = NDArray[np.int64]
"""Studies x components: the sign of the claimed effect of leaving it out, 0 for no claim."""

NULL, SMALL, LARGE = 0.0, -0.5, -1.5
TRUTHS = {"null": (NULL,) * 8, "mixed": (NULL,) * 4 + (SMALL,) * 2 + (LARGE,) * 2}
CORRELATIONS = (0.0, 0.7)
NEVER, RANDOM, WORST = "no cell fails", "one cell in ten fails, at random", "the worst tenth of a variant's cells fails"
SHARE = 0.1
ALPHA = 0.05
METRIC = "test.accuracy"


@dataclass(frozen=True)
class Drawn:
    """Scores of many ablations: studies x arms (base first) x blocks, NaN where a cell failed."""

    scores: Floats
    truth: tuple[float, ...]


def drawn(rng: np.random.Generator, studies: int, blocks: int, correlation: float, truth: Sequence[float], failing: str) -> Drawn:
    """Ablations of one scenario."""
    shared = rng.standard_normal((studies, 1, blocks))
    own = rng.standard_normal((studies, 1 + len(truth), blocks))
    effects = np.array([0.0, *truth])[:, None]
    scores = math.sqrt(correlation) * shared + math.sqrt(1.0 - correlation) * own + effects
    if failing == RANDOM:
        scores[rng.random(scores.shape) < SHARE] = np.nan
    elif failing == WORST:
        lost = own < stats.norm.ppf(SHARE)
        lost[:, 0] = False
        scores[lost] = np.nan
    return Drawn(scores, tuple(truth))


def one_training(scores: Floats) -> Signs:
    """The first run of each arm that did not fail."""
    first = np.argmax(np.isfinite(scores), axis=2)
    return _beyond(np.take_along_axis(scores, first[:, :, None], axis=2)[:, :, 0], 1.0)


def best_any(scores: Floats) -> Signs:
    """Any difference between the best runs."""
    return _beyond(np.nanmax(scores, axis=2), 0.0)


def best_by_sd(scores: Floats) -> Signs:
    """A difference of more than a seed sd between the best runs."""
    return _beyond(np.nanmax(scores, axis=2), 1.0)


def bars_apart(scores: Floats) -> Signs:
    """Bars of mean ± sd that do not overlap."""
    mean, sd = np.nanmean(scores, axis=2), np.nanstd(scores, axis=2, ddof=1)
    difference = mean[:, 1:] - mean[:, :1]
    return np.where(np.abs(difference) > sd[:, 1:] + sd[:, :1], np.sign(difference), 0).astype(np.int64)


def welch(scores: Floats) -> Signs:
    """Welch's test of each variant at .05."""
    difference, p = _welch(scores)
    return np.where(p < ALPHA, np.sign(difference), 0).astype(np.int64)


def welch_holm(scores: Floats) -> Signs:
    """The same with Holm's correction."""
    difference, p = _welch(scores)
    adjusted = np.array([holm(row.tolist()) for row in p])
    return np.where(adjusted < ALPHA, np.sign(difference), 0).astype(np.int64)


def kdsweep(scores: Floats) -> Signs:
    """What a report calls shown."""
    return np.array([_shown(study) for study in scores])


RULES: Mapping[str, Callable[[Floats], Signs]] = {
    "one training an arm, over one sd": one_training,
    "best of ten, any difference": best_any,
    "best of ten, over one sd": best_by_sd,
    "mean ± sd do not overlap": bars_apart,
    "Welch at .05 each": welch,
    "Welch, Holm": welch_holm,
    "**kdsweep**": kdsweep,
}


def _beyond(numbers: Floats, threshold: float) -> Signs:
    difference = numbers[:, 1:] - numbers[:, :1]
    return np.where(np.abs(difference) > threshold, np.sign(difference), 0).astype(np.int64)


def _welch(scores: Floats) -> tuple[Floats, Floats]:
    n = np.isfinite(scores).sum(axis=2)
    mean, share = np.nanmean(scores, axis=2), np.nanvar(scores, axis=2, ddof=1) / n
    difference, square = mean[:, 1:] - mean[:, :1], share[:, 1:] + share[:, :1]
    freedom = square**2 / (share[:, 1:] ** 2 / (n[:, 1:] - 1) + share[:, :1] ** 2 / (n[:, :1] - 1))
    return difference, 2.0 * stats.t.sf(np.abs(difference) / np.sqrt(square), freedom)


def table_of(study: Floats, arms: Sequence[str]) -> pd.DataFrame:
    """The rows that a finished study leaves."""
    count, blocks = study.shape
    values = study.ravel()
    return pd.DataFrame(
        {
            "cell": [f"{arm}/{block}" for arm in arms for block in range(blocks)],
            "attempt": 1,
            "stage": "confirm",
            "arm": np.repeat(np.array(arms, dtype=object), blocks),
            "block": np.tile(np.arange(blocks), count),
            "status": np.where(np.isfinite(values), "ok", "diverged"),
            "device_seconds": 1.0,
            f"metric.{METRIC}": values,
        }
    )


def _shown(study: Floats) -> list[int]:
    arms = ["base", *(f"without {component}" for component in range(len(study) - 1))]
    found = comparisons(table_of(study, arms), METRIC, "base", resamples=0)
    return [int(np.sign(each.difference or 0.0)) if each.is_shown else 0 for each in found]


def false_claims(claims: Signs, truth: Sequence[float]) -> float:
    """Share of studies that claim an effect where there is none, or one of the wrong sign."""
    return float((claims * (claims != np.sign(truth))).any(axis=1).mean())


def power(claims: Signs, truth: Sequence[float], size: float) -> float:
    """Share of the effects of one size that are claimed, with their sign."""
    chosen = np.array(truth) == size
    return float((claims[:, chosen] == np.sign(size)).mean())


def chance(studies: int) -> float:
    """What a false-claim rate of 5 % stays below in all but one of a thousand runs of the benchmark."""
    return float(stats.binom.ppf(0.999, studies, ALPHA) / studies)


def scenarios(studies: int, blocks: int, seed: int) -> bool:
    """Print a table for each way in which cells fail; whether kdsweep kept its word."""
    kept = True
    for failing in (NEVER, RANDOM, WORST):
        lines: dict[str, list[str]] = {name: [] for name in RULES}
        for number, correlation in enumerate(CORRELATIONS):
            rng = np.random.default_rng([seed, number, (NEVER, RANDOM, WORST).index(failing)])
            null, mixed = (drawn(rng, studies, blocks, correlation, truth, failing) for truth in TRUTHS.values())
            for name, rule in RULES.items():
                none, some = rule(null.scores), rule(mixed.scores)
                wrong = [false_claims(none, null.truth), false_claims(some, mixed.truth)]
                found = [power(some, mixed.truth, size) for size in (SMALL, LARGE)]
                lines[name] += [" / ".join(map(_percent, pair)) for pair in (wrong, found)]
                kept &= rule is not kdsweep or failing == WORST or max(wrong) <= chance(studies)
        print(f"\n{failing[0].upper()}{failing[1:]}. {studies} ablations of each kind, {blocks} blocks.\n")
        heads = ("false claims without / with effects", "power for small / large")
        print("| rule | " + " | ".join(f"r = {r:g}: {head}" for r in CORRELATIONS for head in heads) + " |")
        print("|:--" + "|--:" * (len(CORRELATIONS) * len(heads)) + "|")
        for name, cells in lines.items():
            print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
    return kept


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


# Leaving one out beside a fractional factorial

FACTORS = "ABCDEFG"
ADDS = {"A": 1.0, "B": 1.0, "C": 0.5, "D": 0.0, "E": 0.0, "F": 0.5, "G": 0.0}
"""What each component adds to the score, in seed sd."""
GENERATED = {"D": "AB", "E": "AC", "F": "BC", "G": "ABC"}
"""Eight runs of resolution III: a main effect shares its contrast with three interactions of two."""


def fraction() -> list[Run]:
    """The 2^(7-4) design, levels -1 and 1."""
    runs = []
    for number, levels in enumerate(itertools.product((-1, 1), repeat=3)):
        row = dict(zip("ABC", levels, strict=True))
        row |= {factor: math.prod(row[each] for each in word) for factor, word in GENERATED.items()}
        runs.append(Run(f"run {number}", row))
    return runs


def mean_score(levels: Mapping[str, int], together: float) -> float:
    """Without noise: components that are on add up, and A and B add something together."""
    return sum(adds for factor, adds in ADDS.items() if levels[factor] > 0) + together * (levels["A"] > 0 and levels["B"] > 0)


def designs(studies: int, blocks: int, seed: int) -> None:
    """Print what both designs make of the same components."""
    runs = fraction()
    everything = dict.fromkeys(FACTORS, 1)
    left_out = [everything, *({**everything, factor: -1} for factor in FACTORS)]
    effects = [((factor,), ()) for factor in FACTORS]
    names = ["base", *(f"without {factor}" for factor in FACTORS)]
    print(f"\nSeven components, eight arms, {blocks} blocks, r = 0.7; {studies} ablations of each kind.\n")
    print(
        "| components | design | sd of an estimate | false claims | power, 0.5 | power, 1 | mean estimate of A | of D, which does nothing |"
    )
    print("|:--|:--|--:|--:|--:|--:|--:|--:|")
    for number, (label, together) in enumerate((("add up", 0.0), ("A and B add 1 together", 1.0))):
        rng = np.random.default_rng([seed, 7, number])
        arms = {
            "leave one out": [mean_score(each, together) for each in left_out],
            "fraction": [mean_score(run.levels, together) for run in runs],
        }
        for design, means in arms.items():
            scores = drawn(rng, studies, blocks, 0.7, [0.0] * (len(means) - 1), NEVER).scores + np.array(means)[:, None]
            estimates, shown = [], []
            for study in scores:
                if design == "leave one out":
                    found = comparisons(table_of(study, names), METRIC, "base", resamples=0)
                    estimates.append([-(each.difference or 0.0) for each in found])
                    shown.append([each.is_shown for each in found])
                else:
                    contrasts = factorial(pd.DataFrame(study.T, columns=[run.arm for run in runs]), runs, effects, resamples=0).effects
                    estimates.append([each.effect or 0.0 for each in contrasts])
                    shown.append([each.is_shown for each in contrasts])
            found_effects, claimed = np.array(estimates), np.array(shown)
            signs = (np.sign(found_effects) * claimed).astype(np.int64)
            truth = list(ADDS.values())
            numbers = (
                f"{found_effects.std(axis=0, ddof=1).mean():.3f}",
                _percent(false_claims(signs, truth)),
                _percent(power(signs, truth, 0.5)),
                _percent(power(signs, truth, 1.0)),
                f"{found_effects[:, 0].mean():+.2f}",
                f"{found_effects[:, 3].mean():+.2f}",
            )
            print(f"| {label} | {design} | " + " | ".join(numbers) + " |", flush=True)


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=2000)
    parser.add_argument("--blocks", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    start = time.process_time()
    kept = scenarios(given.studies, given.blocks, given.seed)
    designs(given.studies, given.blocks, given.seed)
    limit = _percent(chance(given.studies))
    verdict = "at most 5 %, within chance" if kept else "ABOVE 5 % by more than chance"
    print(
        f"\nkdsweep's false claims are {verdict} (one run in a thousand is above {limit}). {time.process_time() - start:.0f} s of one core."
    )
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())

"""The benchmark of decisions: its rules on scores worked by hand, and what it counts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from benchmarks import decisions
from benchmarks.decisions import CORRELATIONS, LARGE, NEVER, NULL, RANDOM, SMALL, WORST, drawn, false_claims, power

NAN = math.nan
# One study: a base and three variants over three blocks.
SCORES = np.array([[[1.0, 2.0, 3.0], [NAN, 0.5, 0.7], [2.5, 2.6, 3.5], [9.0, 9.1, 9.2]]])


def test_single_and_best_trainings_are_compared_as_they_are() -> None:
    # First runs: 1, 0.5, 2.5, 9; best runs: 3, 0.7, 3.5, 9.2.
    assert decisions.one_training(SCORES).tolist() == [[0, 1, 1]]
    assert decisions.best_any(SCORES).tolist() == [[-1, 1, 1]]
    assert decisions.best_by_sd(SCORES).tolist() == [[-1, 0, 1]]


def test_bars_are_means_and_standard_deviations() -> None:
    # 2 +- 1; 0.6 +- 0.141; 2.867 +- 0.551; 9.1 +- 0.1.
    assert decisions.bars_apart(SCORES).tolist() == [[-1, 0, 1]]


def test_welch_is_scipys_with_failed_cells_left_out() -> None:
    rng = np.random.default_rng(3)
    scores = drawn(rng, 5, 8, 0.7, [NULL, SMALL, LARGE], RANDOM).scores
    expected = stats.ttest_ind(scores[:, 1:], scores[:, :1], axis=2, equal_var=False, nan_policy="omit")
    difference, p = decisions._welch(scores)
    assert p == pytest.approx(expected.pvalue, abs=1e-12)
    assert decisions.welch(scores).tolist() == np.where(expected.pvalue < 0.05, np.sign(difference), 0).tolist()


def test_claims_of_ours_are_what_a_report_calls_shown() -> None:
    base = np.array([0.1, -0.3, 0.4, 0.0, 0.2, -0.1, 0.3, 0.5])
    fall = base - np.array([1.0, 1.1, 0.9, 1.2, 1.3, 0.8, 0.7, 1.4])
    scores = np.array([[base, fall, base + np.array([1, -1, 1, -1, 1, -1, 1, -1]) * 0.1]])
    assert decisions.kdsweep(scores).tolist() == [[-1, 0]]  # 2 / 2^8 times two is below .05; four of eight wins is not


def test_false_claims_are_counted_by_family_and_power_by_effect() -> None:
    truth = (NULL, SMALL, SMALL, LARGE)
    claims = np.array([[0, -1, 0, -1], [1, 0, 0, -1], [0, 1, -1, 0], [0, 0, 0, 0]])
    assert false_claims(claims, truth) == 2 / 4  # something where nothing is; the wrong sign
    assert power(claims, truth, SMALL) == 2 / 8
    assert power(claims, truth, LARGE) == 2 / 4


@pytest.mark.parametrize("correlation", CORRELATIONS)
def test_drawn_scores_have_the_correlation_effects_and_failures_that_they_claim(correlation: float) -> None:
    found = drawn(np.random.default_rng(1), 4000, 3, correlation, [NULL, LARGE], NEVER).scores
    base, null, large = found[:, 0].ravel(), found[:, 1].ravel(), found[:, 2].ravel()
    assert base.std() == pytest.approx(1.0, abs=0.03)
    assert np.corrcoef(base, null)[0, 1] == pytest.approx(correlation, abs=0.04)
    assert large.mean() - base.mean() == pytest.approx(LARGE, abs=0.06)
    lost = np.isnan(drawn(np.random.default_rng(2), 4000, 3, correlation, [NULL], WORST).scores).mean(axis=(0, 2))
    assert lost == pytest.approx([0.0, 0.1], abs=0.01)


def test_the_fraction_is_orthogonal() -> None:
    levels = np.array([[run.levels[factor] for factor in decisions.FACTORS] for run in decisions.fraction()])
    assert (levels.T @ levels).tolist() == (8 * np.eye(7)).tolist()
    assert len({tuple(row) for row in levels.tolist()}) == 8

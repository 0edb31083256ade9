"""Effects: against brute force, scipy and statsmodels called directly, and examples worked by hand."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from orchestrator.analysis import effects
from orchestrator.analysis.effects import bca_interval, comparisons, holm, sign_flip_p, summaries, t_interval
from orchestrator.analysis.ranking import ranking
from orchestrator.analysis.reach import blocks_needed, smallest_p
from orchestrator.analysis.wording import Unit, equals, number, p_value, sentence, unit_of

ACCURACY = "test.accuracy"
PERCENT = Unit(100.0, 1)


def trials(scores: Mapping[str, Sequence[float | str | None]], metric: str = ACCURACY) -> pd.DataFrame:
    """Confirm rows: a number is a score, a word a failing status, None no row at all."""
    rows = []
    for arm, values in scores.items():
        for block, value in enumerate(values):
            if value is None:
                continue
            row = {"cell": f"{arm}/{block}", "attempt": 1, "stage": "confirm", "arm": arm, "block": block, "device_seconds": 2.0}
            rows.append(row | {"status": value if isinstance(value, str) else "ok"})
            rows[-1][f"metric.{metric}"] = math.nan if isinstance(value, str) else value
    return pd.DataFrame(rows)


def brute_force_p(differences: Sequence[float]) -> float:
    """Over all 2^n sign patterns, in whole numbers of thousandths."""
    whole = np.array([round(1000 * difference) for difference in differences])
    sums = [abs(int(np.dot(signs, whole))) for signs in itertools.product((1, -1), repeat=len(whole))]
    return sum(each >= sums[0] for each in sums) / len(sums)


@pytest.mark.parametrize("n", range(1, 11))
def test_sign_flip_p_equals_brute_force_where_ties_abound(n: int) -> None:
    rng = np.random.default_rng(n)
    for _ in range(20):
        differences = rng.integers(-4, 6, n) / 1000  # thousandths are not exact in binary, so ties need their tolerance
        assert sign_flip_p(differences) == (brute_force_p(differences), 0)


def test_sign_flip_p_equals_scipys_exact_test() -> None:
    differences = np.random.default_rng(0).normal(0.3, 1.0, 9)
    exact = stats.permutation_test((differences,), np.sum, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip_p(differences)[0] == pytest.approx(exact.pvalue, abs=1e-12)


def test_sign_flip_p_of_six_wins_is_two_in_sixty_four() -> None:
    assert sign_flip_p([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]) == (2 / 64, 0)


def test_sign_flip_p_of_no_difference_at_all_is_one() -> None:
    assert sign_flip_p([0.0] * 8) == (1.0, 0)


def test_sums_that_are_equal_but_for_rounding_are_ties() -> None:
    # 0.1 + 0.2 - 0.3 is 5.6e-17 in binary: 0.3 - (0.1 + 0.2) and its mirror reach zero and no further.
    assert sign_flip_p([0.3, -0.1, -0.2])[0] == 1.0
    assert sign_flip_p([0.1, 0.2, 0.3, -0.6])[0] == 1.0


def test_above_the_limit_flips_are_drawn_and_their_number_is_told() -> None:
    differences = np.random.default_rng(5).normal(0.35, 1.0, effects.ENUMERATED + 1)
    p, draws = sign_flip_p(differences, seed=3)
    assert draws == effects.DRAWS
    assert (p, draws) == sign_flip_p(differences, seed=3)
    # The exact p by the distribution of the sum: flips of each half listed, and the halves joined by sorting.
    halves = [np.array([0.0]), np.array([0.0])]
    for place, difference in enumerate(differences):
        half = halves[place % 2]
        halves[place % 2] = np.concatenate((half + difference, half - difference))
    ordered = np.sort(halves[0])
    observed = abs(differences.sum()) - 1e-12
    above = len(ordered) - np.searchsorted(ordered, observed - halves[1], side="left")
    exact = 2 * above.sum() / 2 ** len(differences)
    assert p == pytest.approx(exact, abs=4 * math.sqrt(exact / draws))
    assert sign_flip_p(np.full(30, 0.1))[0] == 1 / (effects.DRAWS + 1)


def test_a_sign_flip_test_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one difference"):
        sign_flip_p([])


def test_t_interval_is_scipys() -> None:
    differences = np.random.default_rng(1).normal(size=11)
    expected = stats.ttest_1samp(differences, 0.0).confidence_interval(0.95)
    assert t_interval(differences) == pytest.approx((expected.low, expected.high))


def test_bca_interval_is_scipys() -> None:
    differences = np.random.default_rng(2).exponential(size=10)
    expected = stats.bootstrap((differences,), np.mean, method="BCa", n_resamples=999, rng=np.random.default_rng(7)).confidence_interval
    assert bca_interval(differences, seed=7, resamples=999) == pytest.approx((expected.low, expected.high), abs=0)


def test_without_resamples_there_is_no_bootstrap_interval_and_all_else_stays() -> None:
    table = trials({"slam": [0.9, 0.8, 0.85, 0.7], "kd": [0.8, 0.7, 0.85, 0.75]})
    (bare,), (whole,) = (comparisons(table, ACCURACY, "slam", resamples=resamples) for resamples in (0, 200))
    assert (bare.bca_low, bare.bca_high) == (None, None)
    assert (bare.p, bare.t_low, bare.better) == (whole.p, whole.t_low, whole.better)
    assert whole.bca_low is not None


@pytest.mark.parametrize("differences", [[0.5], [0.2, 0.2, 0.2], [0.3 - 0.2, 0.8 - 0.7, 0.1], [0.0] * 6])
def test_intervals_are_undefined_without_spread(differences: list[float]) -> None:
    assert t_interval(differences) is None
    assert bca_interval(differences) is None


def test_holm_is_statsmodels_and_the_step_down_worked_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    p = [*np.random.default_rng(3).uniform(size=9), 0.01, 0.01]
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1])
    assert holm([]) == []


def test_blocks_that_a_family_needs() -> None:
    assert [blocks_needed(m) for m in (1, 4, 8, 16)] == [6, 8, 9, 10]
    assert blocks_needed(1, alpha=0.01) == 8
    assert smallest_p(5) == 0.0625
    assert smallest_p(6) == 0.03125
    with pytest.raises(ValueError, match="comparisons=0"):
        blocks_needed(0)


def test_five_blocks_never_get_below_a_sixteenth() -> None:
    rng = np.random.default_rng(4)
    drawn = [sign_flip_p(rng.normal(rng.normal(0, 5), 1.0, 5))[0] for _ in range(300)]
    assert min(drawn) == smallest_p(5) == 0.0625


def test_worked_example_of_six_blocks() -> None:
    base = [0.90, 0.91, 0.92, 0.90, 0.93, 0.92]
    arm = [0.88, 0.90, 0.90, 0.91, 0.90, 0.91]
    table = trials({"slam": base, "slam, lower_bound=0": arm, "vanilla": [0.9] * 6})
    first, _ = comparisons(table, ACCURACY, "slam")
    # Differences in hundredths: -2 -1 -2 +1 -3 -1, sum -8. |sum| >= 8 for the patterns that leave at most 1 on the other
    # side of the total of 10: nothing (1), or one of the three ones (3); times two for the mirror: 8 of 64.
    assert first.differences == pytest.approx([-0.02, -0.01, -0.02, 0.01, -0.03, -0.01])
    assert first.p == 8 / 64
    assert first.p_holm == 2 * 8 / 64
    assert first.difference == pytest.approx(-0.08 / 6)
    # Sum of squares 20, mean -4/3: variance (20 - 6 * 16/9) / 5 = 28/15.
    half = 2.5705818366147395 * math.sqrt(28 / 15 / 6) / 100
    assert (first.t_low, first.t_high) == pytest.approx((-0.04 / 3 - half, -0.04 / 3 + half))
    assert first.better == pytest.approx(1 / 6)
    assert first.better_at_least == pytest.approx(1 / 6)
    # Base in hundredths over 90: 0 1 2 0 3 2, mean 4/3, squares 18: variance (18 - 6 * 16/9) / 5 = 22/15.
    assert first.in_seed_sd == pytest.approx(-(4 / 3) / math.sqrt(22 / 15))
    # Arm over 90: -2 0 0 1 0 1, mean 0, squares 6; products with the base: 0 0 0 0 0 2.
    assert first.correlation == pytest.approx(2 / math.sqrt(22 / 3 * 6))
    assert (first.family, first.n, first.planned, first.draws, first.left_out) == (2, 6, 6, 0, ())


def test_summary_by_hand() -> None:
    (found,) = summaries(trials({"slam": [0.1, 0.1, 0.3, 0.4, 0.5, 0.6, 0.7, 9.9]}), ACCURACY)
    assert found.mean == pytest.approx(12.6 / 8)
    assert found.iqm == pytest.approx((0.3 + 0.4 + 0.5 + 0.6) / 4)
    assert found.sd == pytest.approx(np.std([0.1, 0.1, 0.3, 0.4, 0.5, 0.6, 0.7, 9.9], ddof=1))
    assert (found.low, found.high, found.device_seconds) == (0.1, 9.9, 16.0)
    assert (found.planned, found.ok, found.failed, found.missing) == (8, 8, 0, 0)


def test_missing_and_failed_cells_are_counted_and_named() -> None:
    table = trials({"slam": [0.9, "diverged", 0.9, 0.8, None], "kd": [0.8, 0.9, None, 0.85, math.nan]})
    planned = {"slam": range(5), "kd": range(5), "vanilla": range(5)}
    slam, kd, vanilla = summaries(table, ACCURACY, planned)
    assert (slam.ok, slam.failed_blocks, slam.missing_blocks) == (3, ((1, "diverged"),), (4,))
    assert (kd.ok, kd.failed_blocks, kd.missing_blocks) == (3, ((4, "no value"),), (2,))
    assert (vanilla.ok, vanilla.missing, vanilla.mean, vanilla.sd, vanilla.iqm, vanilla.device_seconds) == (0, 5, None, None, None, 0.0)
    first, second = comparisons(table, ACCURACY, "slam", planned=planned)
    assert (first.arm, first.blocks, first.planned) == ("kd", (0, 3), 5)
    assert first.left_out == ((1, "slam", "diverged"), (2, "kd", "missing"), (4, "kd", "no value"), (4, "slam", "missing"))
    assert (second.arm, second.n, second.p, second.p_holm) == ("vanilla", 0, None, None)


def test_a_planned_arm_without_scores_still_counts_in_holms_family() -> None:
    table = trials({"slam": [0.9] * 8, "kd": [0.8] * 8})
    alone, _ = comparisons(table, ACCURACY, "slam", planned={"slam": range(8), "kd": range(8), "vanilla": range(8)})
    assert alone.family == 2
    assert alone.p_holm == pytest.approx(2 * 2 / 2**8)


def test_without_a_plan_every_arm_is_held_to_the_blocks_of_all() -> None:
    found = summaries(trials({"slam": [0.9, 0.8, 0.7], "kd": [0.9]}), ACCURACY)
    assert [(each.arm, each.missing_blocks) for each in found] == [("slam", ()), ("kd", (1, 2))]


def test_the_last_attempt_counts_and_every_attempt_costs() -> None:
    table = trials({"slam": ["failed", 0.8]})
    again = trials({"slam": [0.9]}).assign(attempt=2)
    (found,) = summaries(pd.concat([again, table], ignore_index=True), ACCURACY)
    assert (found.ok, found.failed, found.mean, found.device_seconds) == (2, 0, pytest.approx(0.85), 6.0)


def test_other_stages_are_not_looked_at() -> None:
    table = pd.concat([trials({"slam": [0.9, 0.8]}), trials({"slam": [0.1], "kd": [0.1]}).assign(stage="search", cell="other")])
    assert [(each.arm, each.mean) for each in summaries(table, ACCURACY)] == [("slam", pytest.approx(0.85))]


def test_two_cells_for_one_arm_and_block_are_refused() -> None:
    table = trials({"slam": [0.9, 0.8]})
    with pytest.raises(ValueError, match="arm='slam', block=0"):
        summaries(pd.concat([table, table.head(1).assign(cell="twin")]), ACCURACY)


def test_an_unknown_base_or_goal_is_refused() -> None:
    table = trials({"slam": [0.9], "kd": [0.8]})
    with pytest.raises(ValueError, match="base='slim'"):
        comparisons(table, ACCURACY, "slim")
    with pytest.raises(ValueError, match="goal='min'"):
        comparisons(table, ACCURACY, "slam", goal="min")


def test_ties_count_half() -> None:
    (found,) = comparisons(trials({"slam": [0.9, 0.9, 0.9, 0.9], "kd": [0.9, 0.9, 0.8, 0.95]}), ACCURACY, "slam")
    assert found.better == pytest.approx((1 + 2 / 2) / 4)


def test_less_is_better_turns_better_around_and_nothing_else() -> None:
    table = trials({"slam": [0.2, 0.3, 0.25, 0.3], "kd": [0.3, 0.35, 0.2, 0.5]})
    (more,) = comparisons(table, ACCURACY, "slam", goal="maximise")
    (less,) = comparisons(table, ACCURACY, "slam", goal="minimise")
    assert (more.better, less.better) == (0.75, 0.25)
    assert (more.is_worse, less.is_worse) == (False, True)
    assert (more.difference, more.p, more.t_low, more.bca_low) == (less.difference, less.p, less.t_low, less.bca_low)


def test_a_cell_that_failed_loses_and_one_to_come_is_lost() -> None:
    table = trials({"slam": [0.8, 0.8, "failed", "failed", 0.8, 0.8], "kd": [0.9, 0.9, 0.9, "diverged", "out_of_memory", None]})
    (found,) = comparisons(table, ACCURACY, "slam", planned={"slam": range(6), "kd": range(6)})
    assert (found.n, found.better) == (2, 1.0)
    # Two wins; a win over a cell that failed; a tie of two that failed; lost by failing; lost for now.
    assert found.better_at_least == pytest.approx((1 + 1 + 1 + 0.5 + 0 + 0) / 6)
    (turned,) = comparisons(table, ACCURACY, "kd", planned={"slam": range(6), "kd": range(6)})
    assert turned.better_at_least == pytest.approx((0 + 0 + 0 + 0.5 + 1 + 0) / 6)


@pytest.mark.parametrize("goal", ["maximise", "minimise"])
def test_counting_failures_against_the_arm_is_the_rule_of_the_ranking(goal: str) -> None:
    rng = np.random.default_rng(21)
    arms = ["slam", "kd", "vanilla", "ps_kd"]
    scores: dict[str, list[float | str | None]] = {arm: (rng.integers(0, 6, 9) / 10).tolist() for arm in arms}
    for arm, block in (("slam", 1), ("kd", 1), ("kd", 4), ("vanilla", 7)):
        scores[arm][block] = "diverged"
    table = trials(scores)
    frame = pd.DataFrame({arm: [value if isinstance(value, float) else math.nan for value in scores[arm]] for arm in arms})
    found = ranking(table, frame, summaries(table, ACCURACY), goal)
    assert found is not None
    every = comparisons(table, ACCURACY, None, goal, pairs=list(itertools.combinations(arms, 2)), resamples=50)
    for place in found.places:
        # A place is one more than the rivals that are better, ties half; P(rival better) = 1 - P(better) for each pair.
        rivals = [1 - (each.better_at_least or 0.0) for each in every if each.arm == place.arm]
        rivals += [each.better_at_least or 0.0 for each in every if each.base == place.arm]
        assert place.rank == pytest.approx(1 + sum(rivals), abs=1e-12)


def test_planned_pairs_are_compared_and_corrected_as_one_family() -> None:
    rng = np.random.default_rng(6)
    scores = {arm: rng.normal(0.9, 0.01, 8).tolist() for arm in ("slam", "kd", "vanilla")}
    pairs = [("kd", "vanilla"), ("slam", "kd")]
    found = comparisons(trials(scores), ACCURACY, "slam", pairs=pairs)
    assert [(each.arm, each.base) for each in found] == pairs
    expected = [brute_force_p_of(np.array(scores[arm]) - np.array(scores[other])) for arm, other in pairs]
    assert [each.p for each in found] == pytest.approx(expected, abs=1e-12)
    assert [each.p_holm for each in found] == pytest.approx(multipletests(expected, method="holm")[1], abs=1e-12)
    assert {each.family for each in found} == {2}


def brute_force_p_of(differences: np.ndarray) -> float:
    sums = [abs(float(np.dot(signs, differences))) for signs in itertools.product((1, -1), repeat=len(differences))]
    return sum(each >= sums[0] - 1e-12 for each in sums) / len(sums)


@pytest.mark.parametrize("pairs", [[("kd", "kd")], [("kd", "slam"), ("slam", "kd")], [("kd", "vanilla")]])
def test_pairs_that_compare_nothing_new_are_refused(pairs: list[tuple[str, str]]) -> None:
    with pytest.raises(ValueError, match="but got pair="):
        comparisons(trials({"slam": [0.9], "kd": [0.8]}), ACCURACY, "slam", pairs=pairs)


def test_equal_differences_leave_intervals_and_correlation_undefined() -> None:
    shifted, same = comparisons(trials({"slam": [0.8] * 7, "kd": [0.7] * 7, "twin": [0.8] * 7}), ACCURACY, "slam")
    assert (shifted.t_low, shifted.bca_low, shifted.correlation, shifted.in_seed_sd) == (None, None, None, None)
    assert shifted.p == 2 / 2**7
    assert (same.difference, same.p, same.better) == (0.0, 1.0, 0.5)


def test_two_blocks_have_no_correlation() -> None:
    (found,) = comparisons(trials({"slam": [0.8, 0.9], "kd": [0.7, 0.9]}), ACCURACY, "slam")
    assert found.correlation is None


def test_a_frame_has_a_row_per_record_and_a_column_per_field() -> None:
    table = trials({"slam": [0.8, 0.9, 0.7], "kd": [0.7, 0.9, 0.6], "vanilla": [0.6, "failed", None]})
    found = effects.to_frame(comparisons(table, ACCURACY, "slam"))
    assert found["arm"].tolist() == ["kd", "vanilla"]
    assert found["n"].tolist() == [3, 1]
    assert not found["is_shown"].any()
    assert effects.to_frame(summaries(table, ACCURACY))["failed_blocks"].tolist() == [(), (), ((1, "failed"),)]


def test_claims_of_a_difference_stay_at_five_percent_of_studies_when_there_is_none() -> None:
    studies, rng = 300, np.random.default_rng(11)
    false = 0
    for _ in range(studies):
        block = rng.normal(0.9, 0.02, 10)
        # Heavy tails and a base that all comparisons share: neither may matter.
        scores = {arm: (block + 0.005 * rng.standard_t(3, 10)).tolist() for arm in ("slam", "kd", "vanilla", "ps_kd")}
        false += any(each.is_shown for each in comparisons(trials(scores), ACCURACY, "slam", resamples=50))
    # At most the 99.9th percentile of chance at 5 %; and a test that never fires would show nothing.
    assert 1 <= false <= stats.binom.ppf(0.999, studies, 0.05)


def test_an_effect_that_is_there_is_shown() -> None:
    rng = np.random.default_rng(12)
    block = rng.normal(0.9, 0.02, 10)
    scores = {arm: (block + shift + rng.normal(0, 0.005, 10)).tolist() for arm, shift in (("slam", 0.0), ("kd", -0.02), ("vanilla", -0.03))}
    assert all(each.is_shown and each.is_worse for each in comparisons(trials(scores), ACCURACY, "slam"))


BASE = [0.90, 0.91, 0.92, 0.93, 0.90, 0.91, 0.92, 0.93]


def said(arm: str, values: Sequence[float | str | None], goal: str = "maximise", family: int = 1, metric: str = ACCURACY) -> str:
    scores: dict[str, Sequence[float | str | None]] = {"slam": BASE, arm: values}
    planned = dict.fromkeys(["slam", arm, *(f"other {place}" for place in range(1, family))], range(len(BASE)))
    table = trials(scores, metric)
    found = comparisons(table, metric, "slam", goal, planned)
    return sentence(found[0], unit_of(metric, summaries(table, metric, planned)))


def moved(*hundredths: float) -> list[float]:
    return [score + by / 100 for score, by in zip(BASE, hundredths, strict=True)]


FALLS = moved(-2, -1, -3, -2, -2, -1, -3, -2)
"""Mean -2, variance 4/7, half-width of the interval 2.36462 * sqrt(4 / 56) = 0.632."""
MIXED = moved(1, -1, 2, -2, 1, -1, 0.5, -0.5)
"""Mean 0, so that p is 1; variance 12.5 / 7, half-width 2.36462 * sqrt(12.5 / 56) = 1.117."""


def test_sentence_of_a_part_that_matters() -> None:
    assert said("slam, lower_bound=0", FALLS) == (
        "slam, lower_bound=0: accuracy falls by 2.0 points (95 % interval 1.4 to 2.6, n = 8 blocks, exact p = .008): the lower bound matters here."
    )


def test_sentence_of_a_part_that_does_harm() -> None:
    harm = said("slam, mixing=normalised", [2 * base - fall for base, fall in zip(BASE, FALLS, strict=True)])
    assert harm == (
        "slam, mixing=normalised: accuracy rises by 2.0 points (95 % interval 1.4 to 2.6, n = 8 blocks, exact p = .008): "
        "slam is better with mixing=normalised here."
    )


def test_sentence_says_as_plainly_that_the_base_loses_as_that_it_wins() -> None:
    evidence = "by 2.0 points of accuracy (95 % interval 1.4 to 2.6, n = 8 blocks, exact p = .008)."
    assert said("vanilla", FALLS) == f"slam is better than vanilla {evidence}"
    assert said("vanilla", [2 * base - fall for base, fall in zip(BASE, FALLS, strict=True)]) == f"vanilla is better than slam {evidence}"


def test_sentence_where_less_is_better() -> None:
    assert said("vanilla", FALLS, "minimise", metric="test.nll") == (
        "vanilla is better than slam by 0.020 in NLL (95 % interval 0.014 to 0.026, n = 8 blocks, exact p = .008)."
    )
    assert said("slam, x=0", FALLS, "minimise", metric="test.nll").endswith("slam is better with x=0 here.")


def test_sentence_without_significance_claims_no_equality() -> None:
    variant, rival = said("slam, x=0", MIXED, family=2), said("vanilla", MIXED)
    assert variant == (
        "slam, x=0: no difference was shown: 0.0 points of accuracy (95 % interval −1.1 to 1.1, n = 8 blocks, exact p = 1, Holm p = 1); "
        "effects larger than about 1.1 points either way are unlikely on this data."
    )
    assert rival.startswith("No difference between vanilla and slam was shown: vanilla minus slam is 0.0 points of accuracy (95 % interval")
    for text in (variant, rival):
        assert not any(word in text for word in ("equal", "same", "no effect", "does not matter", "as good"))


def test_sentence_when_correction_takes_the_claim_back() -> None:
    text = said("vanilla", FALLS, family=7)
    assert "exact p = .008, Holm p = .055" in text
    assert "with 8 blocks none could be: 7 comparisons need 9" in text
    single = said("vanilla", moved(-2, -1, -3, -2, -2, -1, -3, 1), family=4)
    # Of 2^8 patterns those with at most 1 of 15 on the other side: none, or one of the three ones; mirrored, 8 of 256.
    assert "exact p = .031, Holm p = .13)" in single
    # Mean -1.625, variance 11.875 / 7: the interval's far end is -1.625 - 2.36462 * sqrt(11.875 / 56) = -2.71.
    assert "effects larger than about 2.7 points either way" in single
    assert "effects larger than about 2.7 points either way" in said("vanilla", moved(2, 1, 3, 2, 2, 1, 3, -1), family=4)
    assert "seen alone it would have been, but it does not stand after correction for 4 comparisons" in single


def test_sentence_of_five_blocks_says_that_they_are_too_few() -> None:
    table = trials({"slam": BASE[:5], "vanilla": FALLS[:5]})
    (found,) = comparisons(table, ACCURACY, "slam")
    assert "exact p = .063); with 5 blocks none could be: a comparison needs 6" in sentence(found, PERCENT)


def test_sentence_names_what_was_left_out_and_what_is_still_to_come() -> None:
    text = said("vanilla", ["diverged", *FALLS[1:7], None])
    assert text.startswith("Interim, 6 of 8 blocks: slam is better than vanilla by 2.0 points")
    assert text.endswith(" Left out: block 0 (vanilla: diverged).")


def test_sentence_counts_cells_that_failed_against_the_arm() -> None:
    better = said("vanilla", ["diverged", "diverged", *moved(0, 0, 1, 2, 1, 2, 1, 1)[2:]])
    assert better.endswith(
        " Left out: block 0 (vanilla: diverged), block 1 (vanilla: diverged); P(better) is 1.00 without, and 0.75 where cells that failed lose."
    )


def test_sentence_of_a_change_that_changed_nothing_asks_to_check_it() -> None:
    assert (
        said("slam, x=0", BASE) == "slam, x=0: the same accuracy as slam in each of 8 blocks; check that the change reached the training."
    )


def test_sentence_of_one_or_no_pair() -> None:
    assert said("vanilla", [0.8, *["failed"] * 7]).startswith(
        "vanilla: accuracy falls by 10.0 points in the only block that both finished;"
    )
    assert said("vanilla", ["failed"] * 8).startswith(
        "vanilla: nothing can be said, since no block has a score for both it and slam. Left out:"
    )


def test_units() -> None:
    def unit(metric: str, low: float, high: float, sd: float | None) -> Unit:
        return unit_of(metric, [effects.ArmSummary("a", metric, 2, 2, 0, 0, (), (), low, sd, low, low, high, 1.0)])

    assert unit("test.accuracy", 0.8, 0.9, 0.012) == Unit(100.0, 1)
    assert unit("test.accuracy", 0.8, 0.9, 0.0005) == Unit(100.0, 2)
    assert unit("test.accuracy", 80.0, 90.0, 1.2) == Unit(1.0, 1)
    assert unit("test.nll", 0.2, 0.3, 0.004) == Unit(1.0, 3)
    assert unit("test.nll", 0.2, 0.2, None) == Unit(1.0, 3)


def test_numbers_and_p_values_in_words() -> None:
    assert [number(-0.04, 1), number(-1.25, 1), number(1234.5, 0), number(0.5, 1, signed=True), number(None, 2)] == [
        "0.0",
        "−1.2",
        "1,234",
        "+0.5",
        "–",
    ]
    assert [p_value(p) for p in (1.0, 0.634, 0.0996, 0.0625, 0.011, 0.002, 0.00049, 0.00001, None)] == [
        "1",
        ".63",
        ".10",
        ".063",
        ".011",
        ".002",
        ".0005",
        "< .0001",
        "–",
    ]
    assert [p_value(0.0496), p_value(0.05)] == [".0496", ".050"]
    assert [equals(0.02), equals(1e-6)] == ["= .020", "< .0001"]

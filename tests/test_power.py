"""Power of a planned comparison: against drawn studies tested one by one, statsmodels, and published figures."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from statsmodels.stats.power import TTestPower
from typer.testing import CliRunner

import search_spaces
from orchestrator.__main__ import app
from orchestrator.analysis import power
from orchestrator.analysis.effects import ArmSummary, Comparison, sign_flip_p
from orchestrator.analysis.power import ASSUMED, Spread, power_lines, power_of, powered, seen
from orchestrator.analysis.reach import POINTS, SEED_SD, Stated, stated
from orchestrator.errors import StudyError
from orchestrator.outline import outline
from orchestrator.prospects import prospects
from orchestrator.reading import read_study
from orchestrator.record import record_of
from tests.test_report import whole


@pytest.mark.parametrize(("blocks", "comparisons"), [(6, 1), (8, 4), (10, 8)])
def test_power_is_the_share_of_drawn_studies_in_which_the_exact_test_stands_at_holms_worst_step(blocks: int, comparisons: int) -> None:
    rng = np.random.default_rng(9)
    studies = 600
    shown = 0
    for _ in range(studies):
        shared = rng.normal(0.0, math.sqrt(0.7), blocks)
        base, arm = (shared + rng.normal(0.0, math.sqrt(0.3), blocks) for _ in range(2))
        shown += sign_flip_p(arm + 1.2 - base)[0] < 0.05 / comparisons
    expected = shown / studies
    error = 4 * math.sqrt(expected * (1 - expected) * (1 / studies + 1 / power.STUDIES))
    assert power_of(1.2, blocks, comparisons, 0.7) == pytest.approx(expected, abs=error)


def test_every_drawn_study_has_the_p_of_the_test_that_reports_use() -> None:
    differences = np.random.default_rng(2).integers(-3, 5, (40, 7)) / 10  # tenths are not exact in binary, and ties abound
    assert power._sign_flip_ps(differences).tolist() == [sign_flip_p(row)[0] for row in differences]


def test_power_of_many_blocks_is_students() -> None:
    expected = TTestPower().power(0.5 / math.sqrt(2 * (1 - 0.4)), nobs=30, alpha=0.05 / 4, alternative="two-sided")
    assert power_of(0.5, 30, 4, 0.4) == pytest.approx(expected, abs=1e-10)


def test_power_where_one_way_of_computing_it_takes_over_from_the_other() -> None:
    # Student's is the larger one, by little.
    before, after = (power_of(0.9, blocks, 4, 0.7) for blocks in (power.ENUMERATED, power.ENUMERATED + 1))
    assert 0.0 < after - before < 0.1


@pytest.mark.parametrize(("blocks", "correlation", "published"), [(8, 0.7, 0.88), (10, 0.7, 0.95)])
def test_power_near_that_of_students_paired_test_for_one_seed_sd(blocks: int, correlation: float, published: float) -> None:
    # The exact test gives up a little for needing no normal distribution.
    assert published - 0.03 < power_of(1.0, blocks, 1, correlation) < published + 0.01


def test_without_enough_blocks_there_is_no_power_at_all() -> None:
    assert power_of(50.0, 5, 1, 0.9) == 0.0
    assert power_of(50.0, 6, 1, 0.9) == 1.0
    assert power_of(50.0, 8, 8, 0.9) == 0.0
    assert power_of(0.0, 6, 1, 0.0) == pytest.approx(2 / 64, abs=4 * math.sqrt(2 / 64 / power.STUDIES))


@pytest.mark.parametrize("wrong", [(1.0, 0, 1, 0.0), (1.0, 5, 0, 0.0), (1.0, 5, 1, 1.0), (math.nan, 5, 1, 0.0)])
def test_arguments_that_cannot_be_are_refused(wrong: tuple[float, int, int, float]) -> None:
    with pytest.raises(ValueError, match="Power needs blocks >= 1"):
        power_of(*wrong)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1", Stated(1.0, SEED_SD)), (1.5, Stated(1.5, SEED_SD)), ("0.8 sd", Stated(0.8, SEED_SD)), (" 0.5 points ", Stated(0.5, POINTS))],
)
def test_effects_as_they_are_written(text: str | float, expected: Stated) -> None:
    assert stated(text) == expected


@pytest.mark.parametrize("text", ["", "big", "-1", "0", "1 percent", "inf", "e points", "nan"])
def test_effects_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="in seed sd or points, as in"):
        stated(text)


def compared(correlation: float | None, n: int, base: str = "slam") -> Comparison:
    return Comparison("kd", base, "test.accuracy", "maximise", 3, n, tuple(range(n)), (0.0,) * n, (), correlation=correlation)


def summary(sd: float | None, ok: int) -> ArmSummary:
    return ArmSummary("slam", "test.accuracy", 8, ok, 0, 8 - ok, (), (), None, sd, None, None, None, 1.0)


def test_the_spread_is_what_finished_cells_show() -> None:
    found = seen([summary(0.008, 6)], [compared(0.5, 6), compared(0.9, 5), compared(0.6, 6), compared(None, 6), compared(0.1, 2)])
    assert found == Spread(0.008, 0.6, "seen over 5 to 6 blocks in 3 comparisons")
    assert seen([summary(0.008, 6)], [compared(None, 6), compared(0.4, 2)]) is None
    assert seen([], []) is None


def test_points_are_turned_into_seed_sd_where_it_is_known() -> None:
    spread = Spread(0.008, 0.7, "seen over 6 blocks in 3 comparisons")
    found = powered(Stated(1.2, POINTS), 10, 4, spread)
    assert found.in_seed_sd == pytest.approx(1.5)
    assert found.power == power_of(1.5, 10, 4, 0.7)
    (line,) = power_lines(found)
    assert line.startswith(
        f"power: an effect of 1.2 points (1.50 seed sd) is shown with probability {found.power:.2f}, with 10 blocks, 4 comparisons"
    )
    unknown = powered(Stated(1.2, POINTS), 10, 4)
    assert (unknown.in_seed_sd, unknown.power, unknown.enough) == (None, None, None)
    assert power_lines(unknown)[0].startswith(
        "power: not known for 1.2 points, since no seed sd is: give the effect in seed sd; with 10 blocks, 4 comparisons"
    )


def test_enough_blocks_and_the_least_effect_reach_the_power_that_is_wanted() -> None:
    found = powered(Stated(1.0, SEED_SD), 10, 4, Spread(None, 0.7, "declared"))
    assert found.enough is not None
    assert found.detectable is not None
    assert power_of(1.0, found.enough, 4, 0.7) >= power.WANTED > power_of(1.0, found.enough - 1, 4, 0.7)
    assert power_of(found.detectable, 10, 4, 0.7) >= power.WANTED > power_of(found.detectable * 0.98, 10, 4, 0.7)
    assert powered(Stated(0.01, SEED_SD), 10, 4).enough is None


def test_the_plan_warns_of_designs_that_cannot_show_what_they_ask() -> None:
    none = power_lines(powered(Stated(1.0, SEED_SD), 5, 8))
    assert none[1] == "warning: 5 blocks can show nothing, whatever the effect: 8 comparisons need 9"
    weak = power_lines(powered(Stated(0.5, SEED_SD), 10, 4))
    assert ASSUMED.source in weak[0]
    assert weak[1] == "warning: this design is more likely to miss an effect of 0.5 seed sd than to show it"


def test_power_of_a_contrast_of_a_factorial_is_that_of_all_its_runs() -> None:
    # Sixteen runs: the contrast's variance is 4 (1 - r) / 16, an eighth of a difference's.
    assert power_of(0.5, 10, 15, 0.4, runs=16) == power_of(0.5 * math.sqrt(8), 10, 15, 0.4)
    expected = TTestPower().power(0.3 / math.sqrt(4 * 0.6 / 16), nobs=25, alpha=0.05 / 15, alternative="two-sided")
    assert power_of(0.3, 25, 15, 0.4, runs=16) == pytest.approx(expected, abs=1e-10)


DIGITS = Path(search_spaces.__file__).parent / "studies" / "slam_factorial_digits.yaml"


def test_a_study_states_the_effect_that_its_plan_tells_the_power_for() -> None:
    silent = read_study(DIGITS, ["confirm.blocks=10"])
    study = read_study(DIGITS, ["confirm.blocks=10", "confirm.effect=1.5 sd", "confirm.correlation=0.5"])
    assert study.fingerprint == silent.fingerprint
    assert study.confirm is not None
    assert prospects(silent, outline(silent), record_of([])) == ()
    compared, crossed = prospects(study, outline(study), record_of([]))
    assert (compared.what, compared.comparisons, compared.spread.source) == ("comparisons", 7, "declared")
    assert (crossed.what, crossed.comparisons) == ("effects", 15)
    assert compared.power == power_of(1.5, 10, 7, 0.5)
    assert crossed.power == power_of(1.5, 10, 15, 0.5, runs=16)


@pytest.mark.parametrize(
    ("key", "value"), [("effect", "lots"), ("effect", "true"), ("effect", "-1"), ("correlation", "1"), ("correlation", "true")]
)
def test_effects_and_correlations_that_are_none_are_faults_of_the_study(key: str, value: str) -> None:
    with pytest.raises(StudyError, match=f"confirm.{key}: needs"):
        read_study(DIGITS, [f"confirm.{key}={value}"])


def test_what_finished_cells_show_is_used_before_what_is_declared() -> None:
    study = read_study(DIGITS, ["confirm.effect=1 points", "confirm.correlation=0.5"])
    scores = {"slam": [0.90, 0.91, 0.93, 0.92], "vanilla": [0.80, 0.82, 0.83, 0.82]}
    (first, _) = prospects(study, outline(study), record_of(whole(scores)))
    # In hundredths over 90: 0 1 3 2 with mean 1.5 and squares 5, and over 80: 0 2 3 2 with mean 1.75 and squares 4.75; products 4.5.
    assert first.spread.correlation == pytest.approx(4.5 / math.sqrt(5 * 4.75))
    assert first.spread.sd == pytest.approx(math.sqrt(5 / 3) / 100)
    assert first.in_seed_sd == pytest.approx(1 / math.sqrt(5 / 3))
    assert first.spread.source == "seen over 4 blocks in 1 comparison"


def test_the_plan_prints_power_where_an_effect_is_stated(tmp_path: Path) -> None:
    runner = CliRunner()
    given = ["plan", str(DIGITS), "--storage", str(tmp_path)]
    said = runner.invoke(app, [*given, "--effect", "1.5"]).stdout
    assert said.count("power: an effect of 1.5 seed sd is shown with probability") == 2
    assert "power" not in runner.invoke(app, given).stdout
    found = json.loads(runner.invoke(app, [*given, "--effect", "1.5", "--json"]).stdout)["power"]
    assert [each["what"] for each in found] == ["comparisons", "effects"]

"""Factorial designs: contrasts against arithmetic by hand and ordinary least squares, tests against every sign pattern listed."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from matplotlib.figure import Figure
from scipy import stats
from statsmodels.stats.multitest import multipletests

from orchestrator import report
from orchestrator.analysis.effects import ArmSummary
from orchestrator.analysis.factorial import Alias, Factorial, Run, factorial, of_design
from orchestrator.analysis.wording import Unit
from orchestrator.figures import drawing
from orchestrator.figures.interactions import contrasts, interactions
from orchestrator.journal import Journal
from orchestrator.sections.factorial import claims, main_effects
from tests.test_report import TIME, confirmed, launched

PERCENT = Unit(100.0, 1)


def full(*names: str) -> list[Run]:
    """Every combination, labelled by its levels."""
    return [Run(_label(levels), dict(zip(names, levels, strict=True))) for levels in itertools.product((-1, 1), repeat=len(names))]


def _label(levels: Sequence[int]) -> str:
    return "".join("+" if level > 0 else "-" for level in levels)


def half(names: Sequence[str]) -> list[Run]:
    """2^(k-1): the last factor is the product of the others."""
    rows = [(*levels, math.prod(levels)) for levels in itertools.product((-1, 1), repeat=len(names) - 1)]
    return [Run(_label(levels), dict(zip(names, levels, strict=True))) for levels in rows]


def every(names: Sequence[str]) -> list[tuple[tuple[str, ...], tuple[Alias, ...]]]:
    """Main effects and two-way interactions of a full factorial."""
    return [((name,), ()) for name in names] + [(pair, ()) for pair in itertools.combinations(names, 2)]


def drawn(runs: Sequence[Run], blocks: int, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    names = list(dict.fromkeys(run.arm for run in runs))
    level = rng.normal(0.9, 0.02, (blocks, 1))
    return pd.DataFrame(level + rng.normal(0, 0.005, (blocks, len(names))), columns=names)


def summary(arm: str, failed: Mapping[int, str], missing: Sequence[int] = ()) -> ArmSummary:
    failing = tuple(failed.items())
    return ArmSummary(arm, "test.accuracy", 8, 8 - len(failing), len(failing), len(missing), failing, tuple(missing), *[None] * 5, 1.0)


def test_two_factors_by_hand() -> None:
    # One block: off-off 70, off-on 72, on-off 75, on-on 81.
    scores = pd.DataFrame([[0.70, 0.72, 0.75, 0.81]], columns=["--", "-+", "+-", "++"])
    found = factorial(scores, full("bound", "ramp"), every(["bound", "ramp"]))
    bound, ramp, both = found.effects
    assert bound.effect == pytest.approx((0.75 + 0.81) / 2 - (0.70 + 0.72) / 2, abs=1e-15)
    assert ramp.effect == pytest.approx((0.72 + 0.81) / 2 - (0.70 + 0.75) / 2, abs=1e-15)
    # Half of what ramp changes in the effect of bound: (0.09 - 0.05) / 2.
    assert both.effect == pytest.approx(0.02, abs=1e-15)
    assert (bound.n, bound.p, bound.t_low, both.name) == (1, 1.0, None, "bound × ramp")
    assert found.corners[0].means == pytest.approx((0.70, 0.72, 0.75, 0.81))


@pytest.mark.parametrize(("runs", "names"), [(full("a", "b", "c"), "abc"), (half("abcde"), "abcde")])
def test_effects_equal_ordinary_least_squares_with_block_intercepts(runs: list[Run], names: str) -> None:
    scores = drawn(runs, 7)
    # A half fraction of five factors has resolution V: every main effect and two-way interaction stands for itself.
    found = factorial(scores, runs, every(list(names)), resamples=200)
    block, place = (each.ravel() for each in np.meshgrid(np.arange(7), np.arange(len(runs)), indexing="ij"))
    columns = [np.prod([[runs[row].levels[factor] for factor in each.factors] for row in place], axis=1) for each in found.effects]
    regressors = np.column_stack([*(block == each for each in range(7)), *columns]).astype(float)
    fitted = sm.OLS(scores[[run.arm for run in runs]].to_numpy().ravel(), regressors).fit()
    # The levels are two apart, so that an effect is twice a coefficient.
    assert [each.effect for each in found.effects] == pytest.approx(2 * fitted.params[7:], abs=1e-10)


def test_tests_equal_every_sign_pattern_and_holm_over_all_contrasts() -> None:
    runs = full("a", "b")
    scores = drawn(runs, 8, seed=3)
    scores[["+-", "++"]] += 0.02
    found = factorial(scores, runs, every(["a", "b"]))
    expected = []
    for each in found.effects:
        values = np.array(each.contrasts)
        sums = [abs(float(np.dot(signs, values))) for signs in itertools.product((1, -1), repeat=8)]
        expected.append(sum(reached >= sums[0] - 1e-12 for reached in sums) / len(sums))
        interval = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
        assert [each.t_low, each.t_high] == pytest.approx([interval.low, interval.high], abs=1e-12)
    assert [each.p for each in found.effects] == pytest.approx(expected, abs=1e-12)
    assert [each.p_holm for each in found.effects] == pytest.approx(multipletests(expected, method="holm")[1], abs=1e-12)
    assert [each.is_shown for each in found.effects] == [True, False, False]
    assert {each.family for each in found.effects} == {3}


def test_an_aliased_contrast_estimates_the_sum_and_is_named_so() -> None:
    runs = half(["bound", "mixing", "ramp"])
    # A full factorial in which only bound (2) and mixing x ramp (3) do anything.
    scores = pd.DataFrame([[run.levels["bound"] + 1.5 * run.levels["mixing"] * run.levels["ramp"] for run in runs]] * 2)
    scores.columns = pd.Index([run.arm for run in runs])
    found = factorial(scores, runs, [(("bound",), [Alias(("mixing", "ramp"), 1)])])
    (only,) = found.effects
    assert only.effect == pytest.approx(2 + 3)
    assert only.name == "bound + mixing × ramp"
    far = factorial(scores, runs, [(("bound",), [])]).effects[0]
    assert far.name == "bound"


def test_a_subtracted_alias_has_its_sign() -> None:
    runs = [Run(_label(levels), dict(zip("abc", levels, strict=True))) for levels in ((-1, -1, -1), (-1, 1, 1), (1, -1, 1), (1, 1, -1))]
    (only,) = factorial(drawn(runs, 2), runs, [(("a",), [Alias(("b", "c"), -1)])]).effects
    assert only.name == "a − b × c"
    with pytest.raises(ValueError, match="An alias needs the levels of its contrast, but got b × c with a"):
        factorial(drawn(runs, 2), runs, [(("a",), [Alias(("b", "c"), 1)])])


def test_blocks_with_a_hole_are_left_out_with_the_reason_and_failures_counted_by_level() -> None:
    runs = full("a", "b")
    scores = drawn(runs, 8)
    scores.loc[2, "++"] = math.nan
    scores.loc[5, ["++", "+-"]] = math.nan
    scores.loc[7, "--"] = math.nan
    arms = [summary("++", {2: "diverged", 5: "failed"}), summary("+-", {5: "out_of_memory"}), summary("--", {}, [7]), summary("-+", {})]
    found = factorial(scores, runs, every(["a", "b"]), arms=arms)
    assert found.blocks == (0, 1, 3, 4, 6)
    assert found.left_out == ((2, (("++", "diverged"),)), (5, (("+-", "out_of_memory"), ("++", "failed"))), (7, (("--", "missing"),)))
    whole = factorial(scores.loc[[0, 1, 3, 4, 6]], runs, every(["a", "b"]))
    assert [each.effect for each in found.effects] == [each.effect for each in whole.effects]
    assert [(each.name, each.failed_low, each.failed_high) for each in found.factors] == [("a", 0, 3), ("b", 1, 2)]
    words = " ".join(main_effects(found, PERCENT, "test.accuracy", "maximise").notes)
    assert "block 5 (+-: out_of_memory, ++: failed)" in words
    assert "3 failed with a=+1 and 0 with a=−1" in words


def test_runs_of_one_training_have_one_score_and_no_effect() -> None:
    # c made no difference: its levels share their arms.
    runs = [Run(run.arm[:2], run.levels) for run in full("a", "b", "c")]
    found = factorial(drawn(runs, 6), runs, every(["a", "b", "c"]), alike=["c"])
    assert found.arms == ("--", "-+", "+-", "++")
    by_name = {each.name: each for each in found.effects}
    assert by_name["c"].contrasts == (0.0,) * 6
    assert by_name["c"].p == 1.0
    assert by_name["a × b"].p is not None
    assert [factor.differs for factor in found.factors] == [True, True, False]


def test_a_design_without_a_whole_block_says_so() -> None:
    runs = full("a", "b")
    scores = drawn(runs, 2)
    scores.loc[:, "+-"] = math.nan
    found = factorial(scores, runs, every(["a", "b"]))
    assert [(each.n, each.effect, each.p, each.p_holm) for each in found.effects] == [(0, None, None, None)] * 3
    assert claims(found, PERCENT, "test.accuracy") == ("Nothing can be said of a, b, a × b: no block has a score for each of 4 runs.",)


@pytest.mark.parametrize(
    ("runs", "effects", "message"),
    [
        ([], [(("a",), ())], "got 0 runs"),
        ([Run("x", {"a": 0}), Run("y", {"a": 1})], [(("a",), ())], "level -1 or 1"),
        ([Run("x", {"a": -1}), Run("elsewhere", {"a": 1})], [(("a",), ())], "arm='elsewhere'"),
        ([Run("x", {"a": 1}), Run("y", {"a": 1})], [(("a",), ())], "sum of levels of 2"),
        ([Run("x", {"a": -1}), Run("y", {"a": 1})], [(("z",), ())], "factors out of a"),
        ([Run("x", {"a": -1, "b": -1}), Run("y", {"a": 1, "b": 1})], [(("a",), ()), (("b",), ())], "orthogonal"),
    ],
)
def test_designs_that_are_not_regular_are_refused(runs: list[Run], effects: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        factorial(pd.DataFrame({"x": [0.1], "y": [0.2]}), runs, effects)


DESIGN: dict[str, Any] = {
    "factorial": {
        "factors": [
            {"name": "bound", "letter": "A", "low": "off", "high": "on", "differs": True},
            {"name": "ramp", "letter": "B", "low": "constant", "high": "linear", "differs": True},
        ],
        "runs": [{"arm": run.arm, "levels": dict(run.levels)} for run in full("bound", "ramp")],
        "resolution": None,
        "generators": [],
        "defining": [],
        "effects": [{"factors": [*each], "aliases": []} for each, _ in every(["bound", "ramp"])],
    }
}


def shown() -> Factorial:
    """Bound does 2 points, and ramp doubles it: contrasts of 3, 1 and 1 points."""
    scores = drawn(full("bound", "ramp"), 12, seed=5)
    scores["+-"] += 0.02
    scores["++"] += 0.04
    found = of_design(DESIGN, scores, [summary(arm, {}) for arm in scores.columns])
    assert found is not None
    return found


def test_the_design_event_is_read() -> None:
    found = shown()
    assert [(each.name, each.low, each.high) for each in found.factors] == [("bound", "off", "on"), ("ramp", "constant", "linear")]
    assert of_design(None, drawn(full("a"), 2), []) is None
    assert of_design({"factorial": None}, drawn(full("a"), 2), []) is None
    assert of_design(DESIGN, pd.DataFrame(), []) is None


def test_claims_say_what_was_shown_and_what_was_not() -> None:
    found = shown()
    said = claims(found, PERCENT, "test.accuracy")
    bound = found.effects[0]
    assert bound.is_shown
    assert bound.effect is not None
    assert said[0].startswith(
        f"bound: accuracy rises by {100 * bound.effect:.1f} points from off to on, averaged over the other factor (95 % interval"
    )
    quiet = drawn(full("bound", "ramp"), 8)
    silent = of_design(DESIGN, quiet, [summary(arm, {}) for arm in quiet.columns])
    assert silent is not None
    (none,) = claims(silent, PERCENT, "test.accuracy")
    assert none.startswith("Not shown to differ from nought: bound, ramp, bound × ramp")
    few = of_design(DESIGN, quiet.head(5), [summary(arm, {}) for arm in quiet.columns])
    assert few is not None
    assert "with 5 blocks none could be: 3 contrasts need 7" in claims(few, PERCENT, "test.accuracy")[0]


def test_a_shown_interaction_says_what_one_factor_changes_in_the_other() -> None:
    scores = drawn(full("bound", "ramp"), 12, seed=5)
    scores["++"] += 0.1
    found = of_design(DESIGN, scores, [summary(arm, {}) for arm in scores.columns])
    assert found is not None
    both = found.effects[2]
    assert both.effect is not None
    said = claims(found, PERCENT, "test.accuracy")[2]
    assert said.startswith(f"bound × ramp: +{100 * both.effect:.1f} points of accuracy")
    assert f"going from bound=off to bound=on does {200 * both.effect:.1f} points more with ramp=linear than with ramp=constant" in said


def test_the_section_has_a_row_per_contrast_and_pictures() -> None:
    found = main_effects(shown(), PERCENT, "test.accuracy", "maximise")
    assert [row[0] for row in found.tables[0].rows] == ["bound", "ramp", "bound × ramp"]
    assert [picture.name for picture in found.pictures] == ["main_effects", "interactions"]
    for picture in found.pictures:
        assert _words(picture.draw())


def test_figures_name_their_effects_and_are_readable() -> None:
    drawing_of_effects = contrasts(shown(), PERCENT, "test.accuracy", "maximise")
    assert {"bound × ramp", "bound"} <= _words(drawing_of_effects)
    drawing_of_pairs = interactions(shown(), PERCENT, "test.accuracy")
    assert {"bound × ramp", "ramp=linear", "ramp=constant", "off", "on"} <= _words(drawing_of_pairs)
    for figure in (drawing_of_effects, drawing_of_pairs):
        assert min(text.get_fontsize() for text in figure.findobj(lambda artist: hasattr(artist, "get_fontsize"))) >= 9
        assert figure.get_figwidth() == drawing.WIDTH
        assert drawing.svg(figure).startswith("<svg")


def _words(figure: Figure) -> set[str]:
    return {text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))}


def journal() -> list[dict[str, Any]]:
    """A study whose design is a factorial of two factors and nothing else."""
    scores = drawn(full("bound", "ramp"), 8, seed=5)
    scores["++"] += 0.1
    arms = {
        "--": "slam, bound=off, ramp=constant",
        "-+": "slam, bound=off, ramp=linear",
        "+-": "slam, bound=on, ramp=constant",
        "++": "slam",
    }
    asked = {**DESIGN["factorial"], "runs": [{**run, "arm": arms[run["arm"]]} for run in DESIGN["factorial"]["runs"]]}
    design = {
        "event": "design",
        "time": TIME,
        "hash": "0" * 64,
        "blocks": 8,
        "base": "slam",
        "comparisons": [],
        "skipped": [],
        "late": False,
    }
    design |= {"factorial": asked, "arms": [{"arm": arm, "kinds": ["factorial"], "cell": f"{arm}/0"} for arm in arms.values()]}
    cells = confirmed({arms[name]: scores[name].tolist() for name in ("++", "--", "-+", "+-")})
    return [launched(), design, *cells, {"event": "end", "time": TIME, "status": "complete", "counts": {}}]


def test_a_study_of_factors_alone_is_reported(tmp_path: Path) -> None:
    Journal(tmp_path).append(journal())
    paths = report.write(tmp_path)
    text = Path(paths["md"]).read_text(encoding="utf-8")
    short = text.partition("## In short")[2].partition("##")[0]
    assert "- bound: accuracy rises by " in short
    assert "- bound × ramp: +" in short
    assert "## Main effects and interactions" in text
    assert "Differences to" not in text
    assert {"main_effects.svg", "interactions.svg"} <= set(paths)
    found = json.loads(Path(paths["json"]).read_text(encoding="utf-8"))["factorial"]
    values = found["effects"][0]["contrasts"]
    assert found["effects"][0]["effect"] == pytest.approx(np.mean(values))
    assert found["factors"][1] == {"name": "ramp", "low": "constant", "high": "linear", "differs": True, "failed_low": 0, "failed_high": 0}

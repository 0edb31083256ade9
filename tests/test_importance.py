"""Importance: nulls against order statistics by hand, Optuna's own numbers, noise that stays noise, and effects that are found."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.trial import create_trial
from scipy import stats

from orchestrator import report
from orchestrator.analysis import importance
from orchestrator.analysis.evaluators import Evaluator
from orchestrator.analysis.importance import FEWEST, importances, null_of, together
from orchestrator.analysis.tried import Tried
from orchestrator.journal import Journal
from tests.test_report import came, launched, planned


def points(count: int, seed: int) -> list[dict[str, Any]]:
    """Four parameters; ``factor`` exists only where the kind is step, ``held`` has one value."""
    rng = np.random.default_rng(seed)
    found: list[dict[str, Any]] = []
    for _ in range(count):
        kind = str(rng.choice(["constant", "cosine", "step"]))
        point = {"rate": float(10 ** rng.uniform(-3, 0)), "kind": kind, "order": int(rng.integers(1, 4)), "held": 1.0}
        found.append(point | ({"factor": float(rng.random())} if kind == "step" else {}))
    return found


def finished(configurations: Sequence[Mapping[str, Any]], scores: Sequence[float]) -> list[Tried]:
    return [
        Tried(number, 0, "random", point, "ok", float(score), 1.0)
        for number, (point, score) in enumerate(zip(configurations, scores, strict=True))
    ]


def test_limit_and_p_are_those_of_the_largest_by_hand() -> None:
    # Two values: the first score, and the last one. The larger is what counts.
    scores = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])
    drawn: list[float] = []

    def measure(shuffled: np.ndarray) -> np.ndarray:
        drawn.append(max(shuffled[0], shuffled[-1]))
        return shuffled[[0, -1]]

    null = null_of(measure, scores, 19, np.random.default_rng(0))
    largest = sorted(drawn)
    assert largest[0] < largest[-1]
    assert [null.limit(alpha) for alpha in (0.05, 0.1, 0.5)] == [largest[18], largest[17], largest[9]]
    assert null.limit(0.04) == math.inf
    own = np.array([4.0, 7.0, 7.5])
    assert null.p(own) == pytest.approx([(1 + sum(each >= value for each in largest)) / 20 for value in own])
    assert null.p(own)[2] == 0.05


def test_being_beyond_the_limit_is_having_a_small_p() -> None:
    null = null_of(lambda shuffled: shuffled[:3], np.random.default_rng(1).random(30), 39, np.random.default_rng(2))
    for own in np.random.default_rng(3).random((50, 3)) + 0.3:
        for alpha in (0.025, 0.05, 0.1):
            assert list(null.p(own) <= alpha + 1e-12) == list(own > null.limit(alpha))


def test_values_are_those_of_optuna() -> None:
    """Told the same ranks by hand, Optuna gives the same divergences; a condition is absence there too."""
    configurations = points(40, 1)
    losses = np.random.default_rng(2).standard_normal(40)
    study = optuna.create_study()
    ranked = {
        name: dict(
            zip(
                [place for place, point in enumerate(configurations) if name in point],
                (stats.rankdata([point[name] for point in configurations if name in point]) - 0.5)
                / sum(name in point for point in configurations),
                strict=True,
            )
        )
        for name in ("rate", "factor")
    }
    for place, (point, loss) in enumerate(zip(configurations, losses, strict=True)):
        told: dict[str, Any] = {name: float(values[place]) for name, values in ranked.items() if place in values}
        distributions: dict[str, Any] = {name: FloatDistribution(0.0, 1.0) for name in told}
        study.add_trial(
            create_trial(
                params=told | {"kind": point["kind"], "order": point["order"]},
                distributions=distributions
                | {"kind": CategoricalDistribution(["constant", "cosine", "step"]), "order": IntDistribution(1, 3)},
                value=float(loss),
            )
        )
    expected = PedAnovaImportanceEvaluator(target_quantile=0.3).evaluate(study)
    evaluator = Evaluator([{name: value for name, value in point.items() if name != "held"} for point in configurations])
    assert dict(zip(evaluator.names, evaluator.ped_anova(losses, 0.3), strict=True)) == pytest.approx(expected)


def test_importance_does_not_hang_on_the_scale_of_a_number() -> None:
    configurations = points(30, 3)
    losses = np.random.default_rng(4).standard_normal(30)
    logarithms = [point | {"rate": math.log(point["rate"])} for point in configurations]
    for measure in (lambda of: of.ped_anova(losses, 0.3), lambda of: of.fanova(losses, 4, 0)):
        assert measure(Evaluator(configurations)) == pytest.approx(measure(Evaluator(logarithms)))


def test_a_choice_tells_one_from_true() -> None:
    configurations = [{"mixed": value} for value in (1, True, "1", 1.0) * 6]
    losses = np.array([0.0 if point["mixed"] is True else 1.0 for point in configurations])
    same = [{"mixed": value} for value in ("a", "b", "c", "d") * 6]
    assert Evaluator(configurations).ped_anova(losses, 0.25) == pytest.approx(Evaluator(same).ped_anova(losses, 0.25))


def test_fanova_leaves_out_what_some_trials_do_not_have() -> None:
    evaluator = Evaluator(points(30, 5))
    assert set(evaluator.everywhere) == {"rate", "kind", "order", "held"}
    shares = dict(zip(evaluator.names, evaluator.fanova(np.arange(30.0), 4, 0), strict=True))
    assert shares["factor"] == shares["held"] == 0.0
    assert shares["rate"] > 0.0


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer trees and resamples, and no fANOVA for several arms; the rules stay."""
    for name, value in (("TREES", 4), ("RESAMPLES", 10), ("FOREST_TRIALS", 60)):
        monkeypatch.setattr(importance, name, value)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("goal", ["maximise", "minimise"])
def test_a_parameter_that_matters_is_found_and_no_other(goal: str) -> None:
    configurations = points(44, 6)
    noise = np.random.default_rng(7).standard_normal(44)
    scores = np.array([math.log10(point["rate"]) for point in configurations]) + 0.3 * noise
    (found,) = importances({"slam": finished(configurations, scores)}, goal, 0)
    assert (found.arm, found.trials, found.random, found.held, found.refused) == ("slam", 44, 44, ("held",), "")
    assert [each.name for each in found.parameters if each.is_important] == ["rate"]
    first = found.parameters[0]
    assert first.value > first.limit
    assert first.forest is not None
    assert first.forest_limit is not None
    assert first.forest > first.forest_limit
    assert first.p == pytest.approx(2 * min(1 / 120, 1 / 40))
    assert first.limit < first.low < first.high
    assert sum(each.share for each in found.parameters) == pytest.approx(1.0)
    # Fewer than twenty trials have it.
    assert sum("factor" in point for point in configurations) < FEWEST
    assert found.few == ("factor",)


@pytest.mark.usefixtures("quick")
def test_a_parameter_under_a_condition_is_found() -> None:
    configurations = points(90, 8)
    scores = [3.0 * point["factor"] if "factor" in point else 1.5 for point in configurations]
    noise = 0.2 * np.random.default_rng(9).standard_normal(90)
    (found,) = importances({"slam": finished(configurations, scores + noise)}, "maximise", 0)
    important = {each.name for each in found.parameters if each.is_important}
    assert "factor" in important
    by_name = {each.name: each for each in found.parameters}
    assert by_name["factor"].trials == sum("factor" in point for point in configurations) >= FEWEST
    assert not important & {"rate", "order"}
    assert all(each.forest is None and each.p == each.ped_p for each in found.parameters)


def test_noise_is_called_important_no_oftener_than_it_should() -> None:
    """Shuffled scores are noise, and all of their orders as likely: 180 of them against nulls of six sets of points."""
    claims = []
    for seed in range(6):
        rng = np.random.default_rng([10, seed])
        evaluator = Evaluator(points(24, seed))
        scores = rng.standard_normal(24)

        def divergence(losses: np.ndarray, evaluator: Evaluator = evaluator) -> np.ndarray:
            return evaluator.ped_anova(losses, 0.3)

        null = null_of(divergence, scores, 39, rng)
        claims += [bool((null.p(divergence(rng.permutation(scores))) <= 0.05).any()) for _ in range(30)]
    # A null of 39 shuffles has a level of Beta(2, 38), .05 ± .035; six of them and 180 draws: .05 ± .022.
    assert sum(claims) / len(claims) <= 0.05 + 3 * 0.022


@pytest.mark.usefixtures("quick")
def test_equal_arguments_give_equal_numbers_whatever_the_other_arms() -> None:
    configurations = points(22, 11)
    scores = np.random.default_rng(12).standard_normal(22)
    slam, few = finished(configurations, scores), finished(configurations[:3], scores[:3])
    alone, beside = (importances(found, "maximise", 3) for found in ({"slam": slam}, {"few": few, "slam": slam}))
    assert alone == beside[1:]
    assert alone[0].parameters[0].low != importances({"slam": slam}, "maximise", 4)[0].parameters[0].low


def test_nothing_is_computed_where_it_could_say_nothing() -> None:
    configurations, scores = points(FEWEST, 13), np.random.default_rng(14).standard_normal(FEWEST)
    few = finished(configurations, scores)[:-1]
    # Given up and failed trials have no final score, whatever their number.
    more = [Tried(99, 0, "tpe", configurations[0], status, None, 1.0) for status in ("stopped", "failed", "missing")]
    same = finished(configurations, [0.5] * FEWEST)
    still = finished([{"rate": 0.1}] * FEWEST, scores)
    found = importances({"few": [*few, *more], "same": same, "still": still}, "maximise", 0)
    assert [each.refused for each in found] == [
        "19 finished trials, and 20 are needed",
        "all finished trials have the same score",
        "no parameter was varied in 20 of them",
    ]
    assert all(each.parameters == () for each in found)


def test_two_evaluators_share_the_error() -> None:
    assert together(0.04, None, 1) == 0.04
    assert together(0.04, None, 2) == together(0.04, 0.3, 2) == together(0.3, 0.04, 2) == 0.08
    assert together(0.5, 0.8, 2) == 1.0


def journal(folder: Path, scores: Mapping[str, Sequence[float]]) -> None:
    events = [launched(base=None)]
    for place, (arm, values) in enumerate(scores.items()):
        for number, (point, score) in enumerate(zip(points(len(values), 20 + place), values, strict=True)):
            cell, by = f"{arm}/{number}", "random" if number < 30 else "tpe"
            events.append(planned(cell, "search", arm, 0, number=number, generation=number // 8, proposed_by=by, point=point))
            events.append(came(cell, "ok", {"validation.accuracy": float(score)}))
    Journal(folder).append(events)


@pytest.mark.usefixtures("quick")
def test_the_report_says_no_more_than_the_nulls_do(tmp_path: Path) -> None:
    rates = [math.log10(point["rate"]) for point in points(32, 20)]
    noise = np.random.default_rng(21).random(22)
    journal(tmp_path, {"slam": [0.9 + rate / 10 for rate in rates], "kd": noise.tolist(), "few": [0.5, 0.6]})
    paths = report.write(tmp_path)
    text = Path(paths["md"]).read_text()
    arms = {each["arm"]: each for each in json.loads(Path(paths["json"]).read_text())["exploration"]["importances"]}
    slam, kd = arms["slam"]["parameters"], arms["kd"]["parameters"]
    assert re.search(
        r"^- slam: validation\.accuracy hangs on rate \(corrected p = \.017\), over 32 finished trials; of 2 others", text, re.M
    )
    assert re.search(r"^- kd: with 22 finished trials, no parameter's importance can be told from noise \(the leading one, ", text, re.M)
    assert "- few: nothing was computed: 2 finished trials, and 20 are needed." in text
    row = f"| slam | rate | 32 | {slam[0]['share']:.2f} | {slam[0]['value'] / slam[0]['limit']:.2f} |"
    assert row in text
    assert len(slam) == len(kd) == 3
    assert slam[0]["p"] == pytest.approx(2 / 120)
    assert "One value in all finished trials, so not judged: slam: held; kd: held." in text
    assert "In fewer than 20 finished trials, so not judged: slam: factor; kd: factor." in text
    assert "Trials that the sampler modelled crowd where scores were good" in text
    picture = (tmp_path / "figures" / "importance.svg").read_text()
    assert all(name in picture for name in ("slam", "kd", "rate", "kind"))
    assert "few" not in picture

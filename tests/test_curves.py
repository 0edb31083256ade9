"""Tuning curves against brute force and opda itself; courses counted by hand."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from opda.nonparametric import EmpiricalDistribution

from orchestrator import report
from orchestrator.analysis.curves import SIMULATED, Course, TuningCurve, courses, curves, ranks
from orchestrator.analysis.tried import Tried, tried
from orchestrator.analysis.wording import Unit
from orchestrator.events import Event
from orchestrator.figures import drawing
from orchestrator.figures.curves import courses as draw_courses
from orchestrator.figures.curves import tuning_curves
from orchestrator.journal import Journal
from tests.test_report import came, launched, planned

ACCURACY, NLL = "validation.accuracy", "validation.nll"


def trial(number: int, score: float | None, status: str = "ok", by: str = "random", seconds: float = 1.0, generation: int = 0) -> Tried:
    return Tried(number, generation, by, {}, status, score, seconds)


def scored(scores: Sequence[float]) -> list[Tried]:
    return [trial(number, score) for number, score in enumerate(scores)]


def curve(pool: Sequence[Tried], metric: str = ACCURACY, goal: str = "maximise") -> TuningCurve:
    (found,) = curves({"slam": pool}, metric, goal)
    return found


def test_the_median_is_that_of_all_draws_of_k_from_the_trials() -> None:
    scores = [0.71, 0.55, 0.83, 0.62, 0.79]
    found = curve(scored(scores))
    for k in range(1, len(scores) + 1):
        best = sorted(max(draw) for draw in itertools.product(scores, repeat=k))
        # Half of all draws are at most this good.
        assert found.median[k - 1] == best[math.ceil(len(best) / 2) - 1]


@pytest.mark.parametrize("count", [3, 8, 24, SIMULATED + 1])
@pytest.mark.parametrize("goal", ["maximise", "minimise"])
def test_the_band_is_that_of_opda(count: int, goal: str) -> None:
    scores = np.random.default_rng(count).random(count)
    method = "ks" if count > SIMULATED else "ld_equal_tailed"
    lower, point, upper = EmpiricalDistribution.confidence_bands(
        scores, 0.95, a=0.0, b=1.0, generator=np.random.default_rng(count), method=method, n_jobs=1
    )
    found = curve(scored(scores.tolist()), goal=goal)
    sizes, less = np.arange(1, count + 1), goal == "minimise"
    # The more of a distribution lies below, the lower its curve.
    assert found.low == pytest.approx(upper.quantile_tuning_curve(sizes, minimize=less))
    assert found.high == pytest.approx(lower.quantile_tuning_curve(sizes, minimize=less))
    if not less:
        assert found.median == pytest.approx(point.quantile_tuning_curve(sizes))


def test_the_band_holds_for_all_k_at_once() -> None:
    """Of uniform scores the best of k has the median 0.5 ** (1 / k); ties, as of accuracies, may not make it narrower."""
    rng = np.random.default_rng(7)
    low, _, high = ranks(8)
    sizes = np.arange(1, 9)
    truth = 0.5 ** (1.0 / sizes)
    for grid in (None, 10):
        held = 0
        for _ in range(2_000):
            scores = rng.random(8) if grid is None else np.ceil(rng.random(8) * grid) / grid
            places = np.concatenate([[0.0], np.sort(scores), [1.0]])
            wanted = truth if grid is None else np.ceil(truth * grid) / grid
            held += bool(np.all(places[list(low)] <= wanted) and np.all(wanted <= places[list(high)]))
        # At least .95, within three standard errors of 2,000 studies: eight k are not the whole distribution.
        assert held / 2_000 >= 0.935


def test_less_is_better_is_the_mirror_image() -> None:
    scores = [0.9, 0.4, 0.7, 0.2, 0.6, 0.8, 0.3]
    less = curve(scored(scores), goal="minimise")
    more = curve(scored([1.0 - score for score in scores]))
    assert less.median == pytest.approx([1.0 - value for value in more.median])
    assert less.low == pytest.approx([1.0 - value for value in more.high])
    assert less.high == pytest.approx([1.0 - value for value in more.low])


def test_limits_end_where_scores_do() -> None:
    scores = [0.9, 0.4, 0.7, 0.2, 0.6, 0.8]
    assert curve(scored(scores)).high[-1] == 1.0
    nll = curve(scored(scores), NLL, "minimise")
    assert (nll.low[-1], nll.high[0]) == (0.0, math.inf)
    unknown = curve(scored(scores), "validation.margin")
    assert (unknown.low[0], unknown.high[-1]) == (-math.inf, math.inf)


def test_trials_that_failed_are_the_worst() -> None:
    failed = curve([*scored([0.6, 0.7, 0.8, 0.9, 0.95, 0.99]), trial(6, None, "failed"), trial(7, None, "failed")])
    zero = curve(scored([0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.0, 0.0]))
    assert (failed.median, failed.low, failed.high) == (zero.median, zero.low, zero.high)
    assert (failed.trials, failed.ok, failed.failed) == (8, 6, 2)


def test_given_up_trials_widen_the_band_to_whatever_they_would_have_been() -> None:
    """The band with unknown scores holds every band that some scores in their place would give, and no more than that."""
    known = [0.5 + place / 50 for place in range(14)]
    found = curve([*scored(known), trial(14, None, "stopped"), trial(15, None, "stopped")])
    assert found.median == ()
    lows, highs = [], []
    for ends in itertools.product((0.0, 0.3, 0.66, 0.9, 1.0), repeat=2):
        whole = curve(scored([*known, *ends]))
        assert all(mine <= theirs for mine, theirs in zip(found.low, whole.low, strict=True))
        assert all(mine >= theirs for mine, theirs in zip(found.high, whole.high, strict=True))
        lows.append(whole.low)
        highs.append(whole.high)
    assert found.low == tuple(map(min, zip(*lows, strict=True)))
    assert found.high == tuple(map(max, zip(*highs, strict=True)))


def test_a_curve_is_refused_where_it_would_not_be_honest() -> None:
    stopped = [trial(number, None, "stopped") for number in range(6)]
    few = curve([*stopped, trial(6, 0.8), trial(7, 0.9)])
    assert few.refused == "6 of 8 random trials were given up at a rung, and how they would have ended is not known"
    assert (few.median, few.low, few.high) == ((), (), ())
    assert curve([*scored([0.5] * 9), trial(9, None, "missing")]).refused == "1 of 10 random trials are still to come"
    assert curve([trial(0, 0.5, by="tpe")]).refused == "no trial was drawn at random"
    assert curve(scored([0.5])).refused == "1 scores of 1 random trials are too few for any limit"
    assert curve(scored([0.5] * 8)).refused == ""


def test_only_trials_before_the_sampler_began_to_model_count() -> None:
    pool = scored([0.6, 0.7, 0.8, 0.9, 0.95, 0.99])
    later = [trial(6, 1.0, by="tpe"), trial(7, 1.0), trial(8, None, "missing", by="tpe")]
    assert curve([*pool, *later]) == curve(pool)


def test_a_course_follows_the_order_of_proposal() -> None:
    pool = [trial(0, 0.5, seconds=2.0), trial(1, None, "failed", seconds=1.0), trial(2, 0.4), trial(3, 0.7, by="tpe", generation=1)]
    assert courses({"slam": pool}, "maximise") == (Course("slam", (1, 2, 3, 4), (2.0, 3.0, 4.0, 5.0), (0.5, 0.5, 0.5, 0.7)),)
    assert courses({"slam": pool}, "minimise")[0].best == (0.5, 0.5, 0.4, 0.4)
    assert courses({"slam": pool[1:2]}, "maximise")[0].best == (None,)


def test_scores_of_a_generation_that_raced_count_at_its_end() -> None:
    first = [trial(0, 0.9, seconds=4.0), trial(1, None, "stopped", seconds=1.0)]
    second = [trial(2, 0.8, generation=1, seconds=4.0), trial(3, 0.95, generation=1, seconds=4.0)]
    (found,) = courses({"slam": [*first, *second]}, "maximise")
    assert found == Course("slam", (2, 3, 4), (5.0, 9.0, 13.0), (0.9, 0.9, 0.95))
    assert [found.at(spent) for spent in (4.9, 5.0, 12.9, 13.0)] == [(0, None), (2, 0.9), (3, 0.9), (4, 0.95)]


def test_a_course_ends_before_the_first_trial_that_is_still_to_come() -> None:
    pool = [trial(0, 0.5), trial(1, None, "missing"), trial(2, 0.9)]
    assert courses({"slam": pool}, "maximise")[0].trials == (1,)
    raced = [trial(0, None, "stopped"), trial(1, None, "missing"), trial(2, 0.9)]
    assert courses({"slam": raced}, "maximise")[0] == Course("slam", (), (), ())


def searched(arm: str, scores: Sequence[float | None], by: str = "random") -> Iterator[Event]:
    for number, score in enumerate(scores):
        name = f"{arm}/{number}"
        yield planned(name, "search", arm, 0, number=number, generation=number // 4, proposed_by=by, point={"rate": 0.1 * number})
        seconds = (number + 1) * (2.0 if arm == "slam" else 1.0)
        if score is None:
            yield came(name, "stopped", progress=0.25, device_seconds=seconds)
        else:
            yield came(name, "ok", {"validation.accuracy": score}, device_seconds=seconds)


def report_of(folder: Path, events: Iterable[Event]) -> tuple[str, dict[str, Any]]:
    Journal(folder).append([launched(base=None), *events])
    paths = report.write(folder)
    return Path(paths["md"]).read_text(), json.loads(Path(paths["json"]).read_text())


def test_the_report_shows_curves_their_refusals_and_what_was_found_at_equal_cost(tmp_path: Path) -> None:
    scores = [0.5, 0.6, 0.55, 0.7, 0.65, 0.8]
    raced = [0.75, None, None, 0.5, 0.9, 0.4]
    text, content = report_of(tmp_path, [*searched("slam", scores), *searched("vanilla", raced)])
    # 6 trials: sum of 1 to 6 is 21 units of time; by 21 s slam, at two seconds a unit, knew its first four trials.
    assert "vanilla spent the least, 21.0 device-seconds." in text
    assert "| slam | 4 | 70.0 | 6 | 42.0 | 80.0 | 42.0 |" in text
    assert "| vanilla | 6 | 90.0 | 6 | 21.0 | 90.0 | 15.0 |" in text
    places = [0.0, *sorted(scores), 1.0]
    low, middle, high = ranks(6)
    limits = [(100 * places[each[5]]) for each in (middle, low, high)]
    assert "| slam | 6 | 0 | 0 | 6 | {:.1f} | {:.1f} to {:.1f} |".format(*limits) in text
    assert "- vanilla: 2 of 6 random trials were given up" not in text
    assert "figures/tuning-curves.svg" in text
    assert content["exploration"]["curves"][0]["low"] == pytest.approx([places[each] for each in low])
    assert content["exploration"]["courses"][1]["trials"] == [4, 5, 6]
    assert (tmp_path / "figures" / "tuning-curves.png").exists()


def test_the_report_says_why_there_is_no_curve(tmp_path: Path) -> None:
    text, _ = report_of(tmp_path, [*searched("slam", [0.5, None, None, None]), *searched("kd", [0.5, 0.6], by="tpe")])
    assert "- slam: 3 of 4 random trials were given up at a rung, and how they would have ended is not known." in text
    assert "- kd: no trial was drawn at random." in text
    assert "tuning-curves" not in text
    assert "Nothing was computed: each of 2 arms has 1 to 2 finished trials" in text
    both, _ = report_of(tmp_path / "both", [*searched("slam", [0.5] * 2, by="tpe"), *searched("kd", [0.5], by="tpe")])
    assert "- Both arms: no trial was drawn at random." in both


def test_a_search_without_any_score_yet_is_reported(tmp_path: Path) -> None:
    text, content = report_of(tmp_path, [planned("slam/0", "search", "slam", 0, number=0, generation=0, proposed_by="random")])
    assert "Tuning at equal cost" not in text
    assert "- slam: 1 of 1 random trials are still to come." in text
    assert content["exploration"]["importances"][0]["refused"] == "0 finished trials, and 20 are needed"


def test_the_figures_name_arms_and_keep_dollars(tmp_path: Path) -> None:
    pool = scored([0.6, 0.7, 0.8, 0.9, 0.95, 0.99])
    found = curves({"$a$_b": pool, "kd": pool}, NLL, "minimise")
    drawn = drawing.svg(tuning_curves(found, NLL, Unit()))
    assert "$a$_b" in drawn
    assert "best nll" in drawn.lower()
    many = courses({f"arm{place}": [trial(0, 0.5 + place / 100, seconds=3.0**place)] for place in range(8)}, "maximise")
    drawn = drawing.svg(draw_courses(many, ["arm1", "arm7"], ACCURACY, Unit(100.0, 1)))
    assert "arm7" in drawn
    assert "arm3" not in drawn
    assert "others" in drawn


def cell(number: int, block: int) -> dict[str, object]:
    point = {"recipe.learning_rate": 0.1 * number}
    return {"cell": f"{number}/{block}", "number": number, "generation": number // 2, "proposed_by": "random", "point": point}


def test_what_was_tried_is_read_from_plan_and_table() -> None:
    planned = {"slam": [cell(number, block) for number in range(5) for block in range(2)]}
    rows = [
        ("0/0", 1, "ok", 0.8, 1.0),
        ("0/1", 1, "failed", math.nan, 1.5),
        ("0/1", 2, "ok", 0.9, 2.0),
        ("1/0", 1, "ok", 0.7, 1.0),
        ("1/1", 1, "diverged", math.nan, 1.0),
        ("2/0", 1, "stopped", 0.99, 0.5),
        ("2/1", 1, "stopped", 0.99, 0.5),
        ("3/0", 1, "ok", 0.7, 1.0),
        ("4/0", 1, "ok", math.inf, 1.0),
        ("4/1", 1, "ok", 0.5, 1.0),
    ]
    names = ["cell", "attempt", "status", f"metric.{ACCURACY}", "device_seconds"]
    table = pd.DataFrame(rows, columns=names).assign(stage="search", arm="slam")
    found = tried(table, ACCURACY, planned)["slam"]
    assert [each.status for each in found] == ["ok", "failed", "stopped", "missing", "failed"]
    assert [each.score for each in found] == [pytest.approx(0.85), None, None, None, None]
    assert [each.device_seconds for each in found] == [4.5, 2.0, 1.0, 1.0, 2.0]
    assert [each.generation for each in found] == [0, 0, 1, 1, 2]
    assert found[3].point == {"recipe.learning_rate": pytest.approx(0.3)}

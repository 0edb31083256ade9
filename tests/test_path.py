"""The ablation path: which flips are trained, which are kept, and what is reported of them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path as Folder
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from scipy import stats

from orchestrator import report
from orchestrator.analysis.path import along
from orchestrator.analysis.wording import Unit
from orchestrator.costs import costs, shares
from orchestrator.driver import Launch, drive
from orchestrator.errors import StudyError
from orchestrator.events import Event
from orchestrator.figures import path as figure
from orchestrator.journal import Journal
from orchestrator.levels import Part
from orchestrator.outline import outline, outline_json, outline_lines
from orchestrator.path import bound
from orchestrator.reading import study_of
from orchestrator.record import Record, record_of
from orchestrator.study import Study
from orchestrator.sweep import Sweep
from orchestrator.table import same, trials_frame
from tests.test_sweep import launch
from trainables.loop import never
from trainables.status import FAILED, OK
from trainables.trial import Leg, Row, Trial

ARMS = "arms={slam: {method: slam}, plain: {method: slam, mixing: normalised, k_rule: fixed, lower_bound: 0.2}}"
PARTS = "[method.mixing, method.k_rule, {bound: [method.lower_bound]}]"
"""In the base they are unnormalised, threshold and 0.5."""


@pytest.fixture
def text(tiny_study_text: str) -> str:
    return tiny_study_text.replace("  leave_one_out: [method.lower_bound]\n  against: [vanilla]\n", "")


def study_with(text: str, *overrides: str, path: str = f"{{from: plain, parts: {PARTS}, blocks: 2}}") -> Study:
    return study_of(text, ["search=null", ARMS, f"confirm.path={path}", *overrides])


Score = Callable[[Mapping[str, Any]], float]


def by_hand(config: Mapping[str, Any]) -> float:
    """k_rule is worth most at first; with it mixing is worth nothing until the bound is there."""
    mixing, rule, bounded = (
        config["method.mixing"] == "unnormalised",
        config["method.k_rule"] == "threshold",
        config["method.lower_bound"] == 0.5,
    )
    return 0.5 + 0.03 * rule + 0.02 * (mixing and not rule) + 0.01 * bounded + 0.05 * (mixing and rule and bounded)


@dataclass
class Formula:
    """Trains nothing: a score of the configuration, and a little of the seeds, which differ from block to block."""

    score: Score = by_hand
    fails: Callable[[Trial], bool] = lambda trial: False

    def run(self, leg: Leg, halt: Callable[[], bool] = never) -> Row:
        trial = leg.trial
        where = {"host": "here", "pid": "1", "device": "cpu", "workers": "1"}
        if self.fails(trial):
            return Row(trial.id, FAILED, 0.0, 0, {}, seconds=0.1, message="as asked", where=where)
        value = 0.5 if trial.method is None else self.score(trial.config()) + 1e-4 * (trial.block.init % 7)
        metrics = {"validation.accuracy": value} | ({"test.accuracy": value} if trial.opens_test else {})
        return Row(trial.id, OK, leg.until, 100, metrics, seconds=0.1, where=where)


def finished(
    study: Study, host: Formula | None = None, lanes: int = 1, seed: int = 0, record: Record | None = None, most: int = 10**6
) -> tuple[Sweep, list[Event]]:
    rng, host = random.Random(seed), host or Formula()
    events: list[Event] = [launch(study)]
    sweep = Sweep(study, record or record_of([]))
    events += sweep.drain()
    flying: list[Leg] = []
    for _ in range(most):
        while len(flying) < lanes and (leg := sweep.take()) is not None:
            flying.append(leg)
        events += sweep.drain()
        if not flying:
            break
        events += sweep.give(host.run(flying.pop(rng.randrange(len(flying)))))
    return sweep, events


def walked(events: Sequence[Event]) -> dict[str, Any]:
    (design,) = (event for event in events if event["event"] == "design")
    found: dict[str, Any] = design["path"]
    return found


def order(events: Sequence[Event]) -> list[str]:
    return [step["part"] for step in walked(events)["steps"]]


# -- which flips


def test_the_best_flip_is_kept_at_each_step(text: str) -> None:
    sweep, events = finished(study_with(text))
    assert sweep.is_done
    # First 0.52, 0.53 and 0.51; from k_rule on 0.53 and 0.54; then all of it.
    assert order(events) == ["k_rule", "bound", "mixing"]
    tried = [{each["part"]: round(each["score"], 2) for each in step["tried"]} for step in walked(events)["steps"]]
    assert tried == [{"mixing": 0.52, "k_rule": 0.53, "bound": 0.51}, {"mixing": 0.53, "bound": 0.54}, {"mixing": 0.59}]


def test_the_score_of_a_flip_is_its_mean_over_the_blocks_of_the_path(text: str) -> None:
    study = study_with(text)
    _, events = finished(study)
    extra = float(np.mean([1e-4 * (study.block("path", index).init % 7) for index in range(2)]))
    last = walked(events)["steps"][-1]["tried"]
    assert last[0]["score"] == pytest.approx(0.59 + extra, abs=1e-12)


def test_where_less_is_better_the_least_is_kept(text: str) -> None:
    study = study_with(text)
    study = replace(study, metric=replace(study.metric, goal="minimise"))
    _, events = finished(study, Formula(lambda config: -by_hand(config)))
    assert order(events) == ["k_rule", "bound", "mixing"]


def test_equal_flips_go_to_the_part_that_is_named_first(text: str) -> None:
    _, events = finished(study_with(text), Formula(lambda config: 0.5))
    assert order(events) == ["mixing", "k_rule", "bound"]


def test_cells_of_a_step_exist_when_the_step_before_is_in(text: str) -> None:
    study = study_with(text)
    _, events = finished(study, lanes=3)
    asked = [(place, e["generation"], e["cell"]) for place, e in enumerate(events) if e["event"] == "cell" and e["stage"] == "path"]
    came = {e["cell"]: place for place, e in enumerate(events) if e["event"] == "row"}
    assert [generation for _, generation, _ in asked] == [0] * 6 + [1] * 4 + [2] * 2
    for place, generation, _ in asked:
        earlier = [came[cell] for _, other, cell in asked if other < generation]
        assert max(earlier, default=-1) < place
    kinds = [e["event"] for e in events]
    assert kinds.index("design") > max(came[cell] for _, _, cell in asked)


def test_seeds_of_the_path_are_its_own_and_the_test_split_stays_sealed(text: str) -> None:
    study = study_with(text)
    sweep, _ = finished(study)
    on_path = [s.cell.trial for s in sweep.cells.values() if s.cell.stage == "path"]
    assert len(on_path) == bound(study.confirm.path) * 2 == 12  # type: ignore[union-attr, arg-type] # it has both
    assert not any(trial.opens_test for trial in on_path)
    others = {s.cell.trial.block.split for s in sweep.cells.values() if s.cell.stage == "confirm"}
    assert {trial.block.split for trial in on_path} & others == set()


@pytest.mark.parametrize(("lanes", "seed"), [(2, 1), (5, 2)])
def test_lanes_and_order_of_arrival_change_nothing(lanes: int, seed: int, text: str) -> None:
    study = study_with(text)
    one, many = finished(study)[1], finished(study, lanes=lanes, seed=seed)[1]
    assert same(trials_frame(record_of(one)), trials_frame(record_of(many))) == []
    assert walked(one) == walked(many)


@pytest.mark.parametrize("stop", [0, 1, 5, 8, 13, 17, 22])
def test_stopped_anywhere_it_goes_on_to_the_same_path(stop: int, text: str) -> None:
    study = study_with(text)
    _, whole = finished(study)
    _, before = finished(study, lanes=2, seed=stop, most=stop)
    sweep, after = finished(study, lanes=2, seed=stop + 1, record=record_of(before))
    assert sweep.is_done
    assert same(trials_frame(record_of(whole)), trials_frame(record_of(before + after))) == []
    assert walked(before + after) == walked(whole)


def test_a_finished_path_has_nothing_to_do(text: str) -> None:
    study = study_with(text)
    _, events = finished(study)
    again = Sweep(study, record_of(events))
    assert again.is_done
    assert again.take() is None
    assert again.drain() == []


def test_a_flip_that_fails_is_not_kept_and_comes_later(text: str) -> None:
    def fails(trial: Trial) -> bool:
        config = trial.config()
        return not trial.opens_test and config.get("method.k_rule") == "threshold" and config["method.lower_bound"] == 0.2

    _, events = finished(study_with(text), Formula(fails=fails))
    steps = walked(events)["steps"]
    assert order(events) == ["mixing", "bound", "k_rule"]
    assert {each["part"]: each["score"] for each in steps[0]["tried"]}["k_rule"] is None


def test_where_no_flip_can_be_trained_the_rest_is_flipped_at_once_and_named(text: str) -> None:
    def fails(trial: Trial) -> bool:
        return trial.method is not None and not trial.opens_test and trial.config()["method.k_rule"] == "threshold"

    sweep, events = finished(study_with(text), Formula(fails=fails))
    assert sweep.is_done
    found = walked(events)
    assert (order(events), found["stuck"]) == (["mixing", "bound"], ["k_rule"])
    assert found["arms"] == ["slam, path start", "slam, path +1 mixing", "slam, path +2 bound", "slam"]
    (design,) = (event for event in events if event["event"] == "design")
    assert any(label == "path: k_rule" for label, _ in design["skipped"])


def test_where_nothing_can_be_trained_every_part_is_tried_once(text: str) -> None:
    def fails(trial: Trial) -> bool:
        return trial.method is not None and not trial.opens_test

    sweep, events = finished(study_with(text), Formula(fails=fails))
    assert sweep.is_done
    found = walked(events)
    assert (found["steps"], found["stuck"]) == ([], ["mixing", "k_rule", "bound"])
    assert len([e for e in events if e["event"] == "cell" and e["stage"] == "path"]) == 6
    assert found["arms"] == ["slam, path start", "slam"]


def test_a_flip_that_is_no_valid_arm_waits_for_another(text: str) -> None:
    arms = "arms={slam: {method: slam, lower_bound: 0.9}, plain: {method: slam, lower_bound: 0.2, upper_bound: 0.5}}"
    path = "{from: plain, parts: [method.lower_bound, method.upper_bound], blocks: 1}"
    sweep, events = finished(study_with(text, arms, path=path), Formula(lambda config: config["method.lower_bound"]))
    assert sweep.is_done
    assert order(events) == ["upper_bound", "lower_bound"]
    assert [len([e for e in step["tried"] if e["score"] is not None]) for step in walked(events)["steps"]] == [1, 1]


def test_parts_that_start_as_they_end_are_not_flipped(text: str) -> None:
    path = f"{{from: plain, parts: [method.upper_bound, {PARTS[1:]}, blocks: 1}}"
    _, events = finished(study_with(text, path=path))
    assert walked(events)["idle"] == ["upper_bound"]
    assert len([e for e in events if e["event"] == "cell" and e["stage"] == "path"]) == 6


def test_from_defaults_it_starts_with_the_base_as_declared(tiny_study_text: str) -> None:
    path = "{parts: [method.lower_bound, recipe.learning_rate], blocks: 1}"
    study = study_of(tiny_study_text, [f"confirm.path={path}"])
    from tests.synthetic import Synthetic

    sweep, events = finished(study, Synthetic())  # type: ignore[arg-type] # it runs legs as well
    assert sweep.is_done
    assert sweep.variants is not None
    arms = sweep.variants.arms
    declared, tuned = study.arms["slam"], sweep.tuned("slam")
    start = arms["slam, path start"]
    assert (start.method.lower_bound, start.recipe.learning_rate) == (declared.method.lower_bound, declared.recipe.learning_rate)  # type: ignore[attr-defined] # SLaM
    assert start.recipe != tuned.recipe
    first = arms[walked(events)["arms"][1]]
    assert (first.method == tuned.method) != (first.recipe == tuned.recipe)


# -- in stage two


def test_arms_along_the_path_are_confirmed_each_against_the_one_before(text: str) -> None:
    sweep, events = finished(study_with(text, "confirm.leave_one_out=[method.mixing]"))
    assert sweep.variants is not None
    along = walked(events)["arms"]
    assert along == ["slam, path start", "slam, path +1 k_rule", "slam, mixing=normalised", "slam"]
    pairs = [(arm, against) for arm, against, _ in sweep.variants.comparisons]
    # The arm before the base is the one without mixing, which is compared with the base already.
    assert pairs == [("slam, mixing=normalised", "slam"), (along[1], along[0]), (along[2], along[1])]
    assert sweep.variants.kinds["slam, mixing=normalised"] == ("leave_one_out", "path")
    confirmed = {e["arm"] for e in events if e["event"] == "cell" and e["stage"] == "confirm"}
    assert confirmed == set(along)


def test_the_plan_tells_the_bound(text: str) -> None:
    study = study_with(text)
    found = outline(study)
    # 3 x 4 / 2 flips on 2 blocks; the start and two arms along it beside the base; a teacher for each block of each.
    assert (found.path_cells, found.confirm_arms, found.teachers) == (12, 4, 2 + 2)
    assert found.cells == 4 + 12 + 4 * 2
    assert found.comparisons == 3
    spent = costs(study, record_of([]))
    assert any("at most 6 trainings x 2 blocks = 12 cells" in line for line in outline_lines(study, found, spent, 0))
    assert outline_json(study, found, spent, 0)["path_cells"] == 12
    assert found.designs["path"] == ("slam, path start", "slam, path +1", "slam, path +2", "slam")
    sweep, _ = finished(study)
    assert len(sweep.cells) == found.cells
    assert Sweep(study, record_of([])).counts()["waiting"] == found.cells


@pytest.mark.parametrize("stop", [0, 6, 11, 30])
def test_what_is_left_is_told_at_any_time(stop: int, text: str) -> None:
    study = study_with(text)
    sweep, events = finished(study, most=stop)
    counts = sweep.counts()
    assert sum(counts.values()) == 24
    record = record_of(events)
    missing = sum(share.missing for share in shares(study, record))
    assert missing == pytest.approx(24 - counts["ok"])


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("{parts: []}", "confirm.path.parts: needs a list, each item a dotted name"),
        ("{blocks: 2}", "confirm.path.parts: needs a list"),
        ("{parts: [method.mixings]}", "Did you mean method.mixing?"),
        ("{parts: [method.mixing, {both: [method.mixing, method.k_rule]}]}", "needs parts that share no field"),
        ("{parts: [method.mixing], from: vanilla}", "confirm.path.from: needs one of defaults, plain"),
        ("{parts: [method.mixing], blocks: 0}", "confirm.path.blocks: needs a whole number"),
        ("{parts: [recipe]}", "needs a field of slam under method, recipe or model"),
        ("{parts: [method.mixing], steps: 3}", "needs to be one of from, parts, blocks"),
    ],
)
def test_faults(path: str, fault: str, text: str) -> None:
    arms = ARMS.replace("}}", "}, vanilla: {method: vanilla}}")
    with pytest.raises(StudyError) as caught:
        study_with(text, arms, path=path)
    assert any(fault in line for line in caught.value.faults), caught.value.faults


def test_another_path_is_another_study(text: str) -> None:
    first, second, third = (study_with(text, path=f"{{from: plain, parts: {PARTS}, blocks: {n}}}") for n in (2, 2, 3))
    assert first.fingerprint == second.fingerprint != third.fingerprint
    assert first.confirm is not None
    assert first.confirm.path is not None
    assert first.confirm.path.parts[2] == Part("bound", ("method.lower_bound",))


# -- in the report


PATH = {
    "start": "plain", "blocks": 2, "idle": ["upper"], "stuck": [], "arms": ["s", "a", "b"],
    "steps": [
        {"part": "x", "tried": [{"part": "x", "score": 0.8}, {"part": "y", "score": None}]},
        {"part": "y", "tried": [{"part": "y", "score": 0.9}]},
    ],
}  # fmt: skip


def test_stops_by_hand() -> None:
    scores = pd.DataFrame({"s": [0.5, 0.6, 0.7, np.nan], "a": [0.6, 0.8, 0.75, 0.7], "b": [0.9, np.nan, 0.8, 0.7]})
    found = along(PATH, scores)
    assert found is not None
    start, first, last = found.stops
    assert (start.gain, start.n, start.mean) == (None, 3, pytest.approx(0.6))
    differences = np.array([0.1, 0.2, 0.05])
    assert first.gain == pytest.approx(differences.mean(), abs=1e-12)
    low, high = stats.t.interval(0.95, 2, loc=differences.mean(), scale=stats.sem(differences))
    assert (first.low, first.high) == (pytest.approx(low, abs=1e-12), pytest.approx(high, abs=1e-12))
    assert (first.chosen_by, first.others) == (0.8, (("y", None),))
    assert (last.n, last.gain) == (2, pytest.approx(0.25))
    assert (found.trainings, found.idle) == (3, ("upper",))
    assert along(None, scores) is None


def test_the_figure_has_a_row_for_every_stop() -> None:
    scores = pd.DataFrame({"s": [0.5, 0.6, 0.7], "a": [0.6, 0.8, 0.75], "b": [0.9, 0.7, 0.8]})
    found = along(PATH, scores)
    assert found is not None
    drawn = figure.path(found, Unit(100.0, 1), "test.accuracy")
    words = [each.get_text() for each in drawn.axes[0].texts]
    assert [each for each in words if each in ("start", "+ x", "+ y")] == ["start", "+ x", "+ y"]
    assert min(each.get_fontsize() for each in drawn.axes[0].texts) >= 9


def test_the_report_tells_the_path_and_that_its_scores_have_chosen(text: str, tmp_path: Folder) -> None:
    study = study_of(
        text,
        ["search=null", ARMS, f"confirm.path={{from: plain, parts: {PARTS}, blocks: 2}}", "confirm.blocks=7"],
        options={"storage": str(tmp_path)},
    )
    outcome = drive(study, Launch(in_process=True, make_runner=lambda _: Formula()), Console(quiet=True))  # type: ignore[arg-type, return-value] # it runs legs
    assert outcome.exit_code == 0
    written = report.write(tmp_path / "tiny")
    page = Folder(written["md"]).read_text(encoding="utf-8")
    assert "## Ablation path" in page
    assert "Those scores have chosen, so they are too good" in page
    told = json.loads(Folder(written["json"]).read_text(encoding="utf-8"))["path"]
    assert [stop["part"] for stop in told["stops"]] == ["", "k_rule", "bound", "mixing"]
    assert told["stops"][-1]["gain"] == pytest.approx(0.09, abs=1e-9)
    assert (tmp_path / "tiny/figures/path.svg").exists()
    kinds = {e["stage"] for e in Journal(tmp_path / "tiny").read() if e["event"] == "cell"}
    assert kinds == {"teacher", "path", "confirm"}

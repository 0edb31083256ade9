"""Arms that are refused as no-ops: from the study to the journal, and when a study is run again."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from rich.console import Console

from orchestrator import outline, report, table
from orchestrator.driver import Launch, drive
from orchestrator.errors import Interrupted
from orchestrator.events import Event
from orchestrator.journal import Journal
from orchestrator.proof import Prover, Recorded, prover
from orchestrator.reading import study_of
from orchestrator.record import record_of
from orchestrator.study import Study
from orchestrator.variants import Variants, variants
from tests.synthetic import Synthetic
from trainables.loop import never
from trainables.trial import Leg, Row

QUIET = Console(quiet=True)
KD = ["arms.vanilla.method=kd", "arms.vanilla.soft_weight=0.0", "arms.vanilla.truth_weight=1.0"]
"""The teacher has no say, so what it is asked at has none either."""


def plain(text: str) -> str:
    """Without a search: arms as declared."""
    return text[: text.index("search:")] + text[text.index("confirm:") :]


@pytest.fixture
def study(tiny_study_text: str) -> Study:
    parts = "confirm.leave_one_out=[method.temperature, method.truth_weight]"
    return study_of(plain(tiny_study_text), [*KD, "confirm.base=vanilla", parts, "confirm.against=[slam]"])


def crossed(text: str, *factors: str, fraction: str = "") -> Study:
    confirm = f"confirm={{base: vanilla, blocks: 2, factorial: {{factors: {{{', '.join(factors)}}}{fraction}}}}}"
    return study_of(plain(text), [*KD, confirm])


def found(study: Study, proves: bool = True) -> Variants:
    assert study.confirm is not None
    return variants(study, study.confirm, study.arms, Prover(study).prove if proves else None)


def test_a_variant_that_is_a_no_op_is_refused_with_the_reason(study: Study) -> None:
    assert set(found(study, proves=False).arms) == {"vanilla", "vanilla, temperature=1", "vanilla, truth_weight=0", "slam"}
    proven = found(study)
    assert list(proven.arms) == ["vanilla", "vanilla, truth_weight=0", "slam"]
    ((label, reason),) = proven.skipped
    assert label == "vanilla, temperature=1"
    assert reason.startswith("the same training as vanilla: a no-op: the two trainings are bit for bit the same over 24 rehearsed steps")
    assert reason.endswith("Without effect here: method.temperature 1 for 4")
    assert [(arm, against) for arm, against, _ in proven.comparisons] == [("vanilla, truth_weight=0", "vanilla"), ("slam", "vanilla")]


def test_the_design_event_tells_what_was_found_outside_of_its_hash(study: Study) -> None:
    assert study.confirm is not None
    proven = found(study)
    event = proven.event(study, study.confirm)
    told = {each["arm"]: (each["against"], each["differs"]) for each in event["proofs"]}
    assert told == {"vanilla, truth_weight=0": ("vanilla", True), "slam": ("vanilla", True), "vanilla, temperature=1": ("vanilla", False)}
    assert event["hash"] == replace(proven, proofs=()).event(study, study.confirm)["hash"]


def test_what_was_found_once_is_found_again_from_the_event(study: Study) -> None:
    assert study.confirm is not None
    event = found(study).event(study, study.confirm)
    again = variants(study, study.confirm, study.arms, Recorded(event).prove).event(study, study.confirm)
    assert {**again, "time": ""} == {**event, "time": ""}


def test_runs_of_a_factorial_that_are_one_training_are_trained_once(tiny_study_text: str) -> None:
    study = crossed(tiny_study_text, "t: {method.temperature: [2.0, 4.0]}", "w: {recipe.momentum: [0.0, 0.9]}")
    assert study.confirm is not None
    proven = found(study)
    arm_of = {(levels["t"], levels["w"]): arm for arm, levels in proven.runs}
    # Temperature 4 and momentum 0.9 are what the base has.
    assert arm_of[-1, 1] == arm_of[1, 1] == "vanilla"
    assert arm_of[-1, -1] == arm_of[1, -1] != "vanilla"
    assert set(proven.arms) == {"vanilla", arm_of[1, -1]}
    assert proven.idle == {"t"}
    assert "factor t" in dict(proven.skipped)
    again = variants(study, study.confirm, study.arms, Recorded(proven.event(study, study.confirm)).prove)
    assert (again.idle, again.runs) == (proven.idle, proven.runs)


def test_a_factor_of_a_fraction_is_held_against_runs_that_are_not_trained(tiny_study_text: str) -> None:
    study = crossed(
        tiny_study_text,
        "t: {method.temperature: [2.0, 4.0]}",
        "w: {recipe.momentum: [0.0, 0.9]}",
        "d: {recipe.weight_decay: [0.0, 0.01]}",
        fraction=", fraction: {generators: [d = t*w]}",
    )
    assert study.confirm is not None
    proven = found(study)
    # No two of the four runs differ in the temperature alone, so all of them are trained, and the base.
    assert len(proven.arms) == 5
    assert proven.idle == {"t"}
    assert found(study, proves=False).idle == set()
    again = variants(study, study.confirm, study.arms, Recorded(proven.event(study, study.confirm)).prove)
    assert again.idle == proven.idle
    event, once_more = (each.event(study, study.confirm) for each in (proven, again))
    assert event["hash"] == once_more["hash"]


def test_a_factor_that_has_an_effect_in_one_setting_of_the_others_is_not_idle(tiny_study_text: str) -> None:
    study = crossed(tiny_study_text, "t: {method.temperature: [2.0, 4.0]}", "s: {method.soft_weight: [0.0, 1.0]}")
    proven = found(study)
    assert proven.idle == frozenset()
    assert len(proven.arms) == 3


# -- through the driver


@dataclass
class Interrupting:
    """Is interrupted, as by Ctrl-C, after so many legs."""

    left: int

    def run(self, leg: Leg, halt: Callable[[], bool] = never) -> Row:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        return Synthetic().run(leg)


def driven(text: str, folder: Path, most: int | None = None) -> tuple[Study, list[Event]]:
    overrides = [*KD, "confirm.base=vanilla", "confirm.leave_one_out=[method.temperature, method.truth_weight]", "confirm.against=[slam]"]
    study = study_of(text, overrides, options={"storage": str(folder)})
    runner = Synthetic() if most is None else Interrupting(most)
    try:
        drive(study, Launch(in_process=True, make_runner=lambda _: runner), QUIET)
    except Interrupted:
        assert most is not None
    return study, Journal(folder / "tiny").read()


def test_a_refused_arm_is_never_trained_and_is_named_in_journal_and_report(tiny_study_text: str, tmp_path: Path) -> None:
    study, events = driven(tiny_study_text, tmp_path)
    label = "vanilla, temperature=1"
    assert label not in {event["arm"] for event in events if event["event"] == "cell"}
    (chosen,) = (event for event in events if event["event"] == "choice" and event["arm"] == "vanilla")
    (design,) = (event for event in events if event["event"] == "design")
    for skipped in (dict(chosen["skipped"]), dict(design["skipped"])):
        assert "bit for bit the same over 24 rehearsed steps" in skipped[label]
    kinds = [event["event"] for event in events]
    confirmed = [place for place, event in enumerate(events) if event["event"] == "cell" and event["stage"] == "confirm"]
    assert kinds.index("design") < min(confirmed)
    written = report.write(tmp_path / "tiny")
    text = Path(written["md"]).read_text(encoding="utf-8")
    assert "## Proof of difference" in text
    assert label in text
    assert "step-0 loss" in text
    told = json.loads(Path(written["json"]).read_text(encoding="utf-8"))["proofs"]
    assert [(each["arm"], each["differs"]) for each in told if not each["differs"]] == [(label, False)]
    (line,) = (line for line in outline.standing_lines(study, record_of(events)) if label in line)
    assert "not trained, or not compared" in line


@pytest.mark.parametrize("most", [3, 17, 20])
def test_a_study_that_is_run_again_decides_the_same(most: int, tiny_study_text: str, tmp_path: Path) -> None:
    _, whole = driven(tiny_study_text, tmp_path / "whole")
    driven(tiny_study_text, tmp_path / "parts", most)
    _, parts = driven(tiny_study_text, tmp_path / "parts")
    design, again = ([event for event in events if event["event"] == "design"] for events in (whole, parts))
    assert len(again) == 1
    assert {**again[0], "time": ""} == {**design[0], "time": ""}
    tables = [table.read_trials(tmp_path / name / "tiny") for name in ("whole", "parts")]
    assert table.same(*tables) == []


def test_what_stands_in_the_journal_is_not_rehearsed_again(tiny_study_text: str, tmp_path: Path) -> None:
    study, events = driven(tiny_study_text, tmp_path)
    prove = prover(study, record_of(events))
    variant = replace(study.arms["vanilla"], name="vanilla, temperature=1")
    assert not prove(variant, study.arms["vanilla"]).differs
    # It is the name that counts: nothing is looked at.
    assert not prove(replace(study.arms["slam"], name=variant.name), study.arms["vanilla"]).differs


def test_arms_of_a_stage_that_was_opened_before_there_were_proofs_are_not_refused(tiny_study_text: str, tmp_path: Path) -> None:
    study, events = driven(tiny_study_text, tmp_path)
    older = record_of([event for event in events if event["event"] != "design"])
    variant = study.arms["vanilla"].changed({"method.temperature": 1.0})
    assert prover(study, older)(replace(variant, name="x"), study.arms["vanilla"]).differs
    early = record_of([event for event in events if event.get("stage") != "confirm" and event["event"] != "design"])
    assert not prover(study, early)(replace(variant, name="x"), study.arms["vanilla"]).differs

"""Retrying: which failed cells are taken again, what comes along, and that a new sweep trains exactly those."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import pytest

from orchestrator.events import Event, choice_event, design_event
from orchestrator.reading import study_of
from orchestrator.record import Attempt, Record, record_of
from orchestrator.retrying import retrying
from orchestrator.study import Study
from orchestrator.sweep import Sweep
from orchestrator.table import trials_frame
from tests.synthetic import Synthetic
from tests.test_sweep import launch
from trainables.loop import never
from trainables.status import FAILED, FAILURES
from trainables.trial import Leg, Row, Trial

NOTHING: dict[str, float] = {}


def cell(name: str, stage: str = "confirm", arm: str = "slam", needs: Sequence[str] = (), **more: object) -> Event:
    return {
        "event": "cell", "time": "2026-01-01T00:00:00.000000+00:00", "cell": name, "attempt": 1, "stage": stage, "arm": arm, "method": None,
        "block": 0, "seeds": dict.fromkeys(("split", "teacher", "init", "order"), 1), "generation": None, "number": None, "proposed_by": "design", "needs": list(needs), "config": {}, **more,
    }  # fmt: skip


def row(name: str, status: str, progress: float = 1.0, attempt: int = 1) -> Event:
    return {
        "event": "row", "time": "2026-01-01T00:00:01.000000+00:00", "cell": name, "attempt": attempt, "status": status, "progress": progress,
        "steps": 1, "metrics": {}, "reports": [], "seconds": 1.0, "device_seconds": 1.0, "message": "", "trace": "", "where": {},
    }  # fmt: skip


def of(*events: Event, mode: str = "generations") -> Record:
    return record_of([{"event": "study", "mode": mode}, *events])


@pytest.mark.parametrize("status", FAILURES)
def test_a_failed_cell_gets_its_next_attempt_and_stays_what_it_was(status: str) -> None:
    plan = cell("aa", needs=["tt"], block=3, config={"x": 1.5})
    record = of(cell("tt", "teacher"), plan, row("tt", "ok"), row("aa", "running", 0.5), row("aa", status, 0.7))
    found = retrying(record, clock=lambda: datetime(2026, 2, 3, 4, 5, 6, 7, tzinfo=UTC))
    assert found.events == ({**plan, "attempt": 2, "time": "2026-02-03T04:05:06.000007+00:00"},)
    assert found.cells == ("aa",)
    assert (found.along, found.refused) == ({}, {})


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([], "not finished"),
        ([row("aa", "running", 0.5)], "not finished"),
        ([row("aa", "ok")], "its status is ok"),
        ([row("aa", "stopped", 0.5)], "its status is stopped"),
    ],
)
def test_what_did_not_fail_is_not_taken_again(rows: list[Event], says: str) -> None:
    record = of(cell("aa"), *rows)
    assert retrying(record).events == ()
    assert retrying(record).refused == {}
    found = retrying(record, ["aa"])
    assert found.events == ()
    assert says in found.refused["aa"]


def test_an_unknown_cell_is_told_the_nearest_one() -> None:
    record = of(cell("0123456789abcdef"), row("0123456789abcdef", FAILED))
    found = retrying(record, ["0123456789abcdee"])
    assert found.events == ()
    assert found.refused["0123456789abcdee"] == "there is no such cell in this study. Did you mean 0123456789abcdef?"


def test_after_a_retry_that_failed_the_next_attempt_is_the_third() -> None:
    record = of(cell("aa"), row("aa", FAILED), cell("aa", attempt=2), row("aa", FAILED, attempt=2))
    [event] = retrying(record).events
    assert event["attempt"] == 3


def test_what_waits_for_its_second_attempt_is_not_taken_again_twice() -> None:
    record = of(cell("aa"), row("aa", FAILED), cell("aa", attempt=2))
    assert retrying(record).events == ()
    assert "attempt 2" in retrying(record, ["aa"]).refused["aa"]


def test_the_orphans_of_a_teacher_come_along_and_the_teacher_with_an_orphan() -> None:
    # tt failed, and so aa and bb were never trained, nor cc, which needs bb; dd failed by itself, and its teacher did not.
    record = of(
        cell("tt", "teacher"), cell("uu", "teacher"), cell("aa", needs=["tt"]), cell("bb", needs=["tt"]), cell("cc", needs=["bb"]),
        cell("dd", needs=["uu"]), row("tt", FAILED), row("uu", "ok"),
        *(row(name, FAILED, 0.0) for name in ("aa", "bb", "cc")), row("dd", FAILED),
    )  # fmt: skip
    for asked in ("tt", "aa", "cc"):
        found = retrying(record, [asked])
        assert set(found.cells) == {"tt", "aa", "bb", "cc"}
        assert set(found.along) == {"tt", "aa", "bb", "cc"} - {asked}
        place = {name: index for index, name in enumerate(found.cells)}
        assert place["tt"] < place["aa"]
        assert place["tt"] < place["bb"] < place["cc"]
    assert retrying(record, ["dd"]).cells == ("dd",)
    assert set(retrying(record).cells) == {"tt", "aa", "bb", "cc", "dd"}
    assert retrying(record).along == {}


def searched(number: int, generation: int, arm: str = "slam", needs: Sequence[str] = ()) -> Event:
    return cell(f"{arm}{number}", "search", arm, needs, number=number, generation=generation)


CHOICE = choice_event(arm="slam", number=1, score=0.5, config={})


def test_a_failed_proposal_is_taken_again_while_nothing_was_built_on_it() -> None:
    record = of(searched(0, 0), searched(1, 0), row("slam0", FAILED), row("slam1", "ok"))
    assert retrying(record).cells == ("slam0",)


@pytest.mark.parametrize(("status", "progress"), [("ok", 1.0), ("running", 0.5), ("stopped", 0.5)])
def test_a_failed_proposal_stays_failed_once_a_later_generation_was_trained(status: str, progress: float) -> None:
    events = [searched(0, 0), searched(1, 1), row("slam0", FAILED)]
    assert retrying(of(*events)).cells == ("slam0",), "proposed, and not trained"
    assert retrying(of(*events, row("slam1", FAILED))).cells == ("slam0", "slam1"), "what failed told the sampler nothing"
    found = retrying(of(*events, row("slam1", status, progress)))
    assert found.events == ()
    assert found.refused == {"slam0": "generation 1 of slam was proposed with this failure, and trained."}


def test_later_generations_of_other_arms_are_no_matter() -> None:
    record = of(searched(0, 0), searched(9, 1, "vanilla"), row("slam0", FAILED), row("vanilla9", "ok"))
    assert retrying(record).cells == ("slam0",)


def test_a_failed_proposal_stays_failed_once_its_search_chose() -> None:
    events = [searched(0, 0), searched(1, 0), searched(2, 0, "vanilla"), row("slam0", FAILED), row("slam1", "ok"), row("vanilla2", FAILED)]
    found = retrying(of(*events, CHOICE))
    assert found.cells == ("vanilla2",)
    assert found.refused == {"slam0": "the search of slam has ended, and what it chose was chosen with this failure."}


def test_on_arrival_a_later_number_counts() -> None:
    events = [searched(0, 0), searched(1, 0), row("slam0", FAILED), row("slam1", "ok")]
    assert retrying(of(*events)).cells == ("slam0",)
    found = retrying(of(*events, mode="async"))
    assert found.refused == {"slam0": "proposal 1 of slam was proposed with this failure, and trained."}
    assert retrying(of(*events[:2], row("slam1", FAILED), row("slam0", "ok"), mode="async")).cells == ("slam1",)


def test_a_teacher_is_taken_again_without_the_orphans_that_must_stay() -> None:
    record = of(
        cell("tt", "teacher"), searched(0, 0, needs=["tt"]), cell("aa", needs=["tt"]), CHOICE,
        *(row(name, FAILED, 0.0) for name in ("tt", "slam0", "aa")),
    )  # fmt: skip
    found = retrying(record, ["tt"])
    assert found.cells == ("tt", "aa")
    assert set(found.refused) == {"slam0"}


def test_what_needs_a_cell_that_stays_failed_stays_failed() -> None:
    # slam0 is a proposal, and a step of the chain that aa ends.
    record = of(searched(0, 0), cell("aa", needs=["slam0"]), CHOICE, row("slam0", FAILED), row("aa", FAILED, 0.0))
    found = retrying(record, ["aa"])
    assert found.events == ()
    assert set(found.refused) == {"slam0", "aa"}


def test_the_path_is_open_until_its_next_step_and_the_design() -> None:
    def step(name: str, generation: int) -> Event:
        return cell(name, "path", f"slam, path +{generation + 1} x", generation=generation)

    events = [step("p0", 0), row("p0", FAILED), step("p1", 1)]
    assert retrying(of(*events)).cells == ("p0",)
    assert "next step" in retrying(of(*events, row("p1", "ok"))).refused["p0"]
    design = design_event(blocks=1, base="slam", arms=[], comparisons=[])
    assert "design" in retrying(of(*events, design)).refused["p0"]


def test_an_old_journal_without_needs_is_read() -> None:
    plan = cell("aa")
    del plan["needs"]
    assert retrying(of(plan, row("aa", FAILED))).cells == ("aa",)


# With the real sweep


class Watching(Synthetic):
    """Remembers what it trained."""

    def __init__(self, fails: Callable[[Trial], bool] | None = None) -> None:
        super().__init__(fails=fails)
        self.trained: list[tuple[str, float]] = []

    def run(self, leg: Leg, halt: Callable[[], bool] = never) -> Row:
        self.trained.append((leg.trial.id, leg.until))
        return super().run(leg, halt)


def gone_on(study: Study, before: Sequence[Event], host: Synthetic, most: int = 10**6) -> tuple[Sweep, list[Event]]:
    """A launch that goes on from events; with those, what the journal holds then."""
    events = [*before, launch(study)]
    sweep = Sweep(study, record_of(before))
    events += sweep.drain()
    for _ in range(most):
        leg = sweep.take()
        events += sweep.drain()
        if leg is None:
            break
        events += sweep.give(host.run(leg))
    return sweep, events


@pytest.fixture
def study(tiny_study_text: str) -> Study:
    return study_of(tiny_study_text, ["search.trials=4", "search.generation=2", "search.rungs=[0.5]", "confirm.blocks=2", "run.retries=0"])


def test_a_retry_trains_exactly_the_cells_that_failed_and_hides_nothing(study: Study) -> None:
    def fails(trial: Trial) -> bool:
        return trial.opens_test and trial.method is not None and trial.config()["method.name"] == "vanilla"

    _, before = gone_on(study, [], Watching(fails))
    record = record_of(before)
    failed = {attempt.cell for attempt in record.finished if attempt.status == FAILED}
    assert len(failed) == 2, "vanilla on two blocks"
    found = retrying(record)
    assert set(found.cells) == failed
    host = Watching()
    sweep, after = gone_on(study, [*before, *found.events], host)
    assert sweep.is_done
    assert sorted(host.trained) == sorted((name, 1.0) for name in failed)
    frame = trials_frame(record_of(after)).to_pandas()
    again = frame[frame.cell.isin(failed)].sort_values(["cell", "attempt"])
    assert list(again.attempt) == [1, 2, 1, 2]
    assert list(again.status) == ["failed", "ok", "failed", "ok"]
    # Everything else is as it was, and the rows of first attempts are, too.
    first = trials_frame(record).to_pandas()
    kept = frame[frame.attempt == 1].reset_index(drop=True)
    assert kept.drop(columns="lock_hash").equals(first.drop(columns="lock_hash"))
    assert retrying(record_of(after)).events == ()


def test_a_failed_teacher_and_all_that_fell_with_it_are_trained_as_if_nothing_had_been(study: Study) -> None:
    block = study.block("confirm", 1).teacher

    def fails(trial: Trial) -> bool:
        return trial.method is None and trial.block.teacher == block

    _, before = gone_on(study, [], Watching(fails))
    record = record_of(before)
    failed = {attempt.cell for attempt in record.finished if attempt.status == FAILED}
    assert len(failed) == 1 + 3, "a teacher, three arms on its block"
    for asked in failed:
        found = retrying(record, [asked])
        assert set(found.cells) == failed
        assert record.cells[found.cells[0]].plan["stage"] == "teacher"
    host = Watching()
    sweep, after = gone_on(study, [*before, *found.events], host)
    assert sweep.is_done
    assert {name for name, _ in host.trained} == failed
    whole = trials_frame(record_of(gone_on(study, [], Watching())[1])).to_pandas()
    frame = trials_frame(record_of(after)).to_pandas()
    last = frame.sort_values("attempt").groupby("cell").tail(1).set_index("cell")
    assert dict(last["metric.validation.accuracy"]) == dict(whole.set_index("cell")["metric.validation.accuracy"])
    assert dict(last.status) == dict(whole.set_index("cell").status)


def test_a_search_that_failed_as_a_whole_is_done_again_and_comes_out_as_if_it_had_not(study: Study) -> None:
    searching = study.block("search", 0).teacher

    def fails(trial: Trial) -> bool:
        return trial.method is None and trial.block.teacher == searching

    sweep, before = gone_on(study, [], Watching(fails))
    assert sweep.problems
    found = retrying(record_of(before))
    assert len(found.cells) == 1 + 8, "the teacher, two arms, four proposals"
    sweep, after = gone_on(study, [*before, *found.events], Watching())
    assert sweep.is_done
    assert sweep.problems == ()
    _, whole = gone_on(study, [], Watching())
    assert record_of(after).choices[0]["config"] == record_of(whole).choices[0]["config"]
    assert [c["score"] for c in record_of(after).choices] == [c["score"] for c in record_of(whole).choices]


def test_a_cell_that_is_taken_again_goes_on_from_its_rung(study: Study) -> None:
    """It stood at the rung when it failed: the next attempt begins there, as far as the journal knows."""

    class Late(Watching):
        def run(self, leg: Leg, halt: Callable[[], bool] = never) -> Row:
            if leg.until == 1.0 and leg.trial.method is not None and not leg.trial.opens_test:
                return Row(leg.trial.id, FAILED, 0.8, 80, NOTHING, seconds=0.1, message="as asked")
            return super().run(leg, halt)

    host = Late()
    before: list[Event] = []
    failed: list[Attempt] = []
    while not failed:  # a leg a launch, until the first that stood at a rung has failed
        _, before = gone_on(study, before, host, 1)
        record = record_of(before)
        failed = [attempt for attempt in record.finished if attempt.status == FAILED]
    [attempt] = failed
    events = [*before, *retrying(record, [attempt.cell]).events]
    rows = record_of(events).rows_of(attempt.cell)
    assert [(found["status"], found["progress"]) for found in rows] == [("running", 0.5)], "its end counts no more"
    watching = Watching()
    sweep, after = gone_on(study, events, watching)
    assert (attempt.cell, 1.0) in watching.trained
    assert (attempt.cell, 0.5) not in watching.trained
    assert sweep.is_done
    assert record_of(after).cells[attempt.cell].attempt == 2

"""The journal, its lock and the record: nothing that was said is lost, and nothing that was not said is read."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from uuid import uuid4

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import StorageError, StudyLocked
from orchestrator.journal import (
    Attempt,
    Event,
    Journal,
    Record,
    StudyLock,
    cell_event,
    choice_event,
    end_event,
    record_of,
    row_event,
    study_event,
)
from trainables.status import FAILURES, OK, PREEMPTED, RUNNING, STOPPED
from trainables.trial import Report, Row

ROOT = Path(__file__).parents[1]


def noon() -> datetime:
    return datetime(2026, 1, 2, 14, 0, 0, 5, tzinfo=timezone(timedelta(hours=2)))


def said(number: int, **more: object) -> Event:
    return {"event": "said", "time": "2026-01-02T12:00:00.000000+00:00", "number": number, **more}


def numbers(events: tuple[Event, ...]) -> list[int]:
    return [event["number"] for event in events]


def child(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.fixture
def memory() -> Iterator[str]:
    url = f"memory://{uuid4().hex}/study"
    yield url
    files, path = fsspec.core.url_to_fs(url.removesuffix("/study"))
    if files.exists(path):
        files.rm(path, recursive=True)


@pytest.fixture(params=["path", "text", "file url", "memory url"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, memory: str) -> str | Path:
    local = tmp_path / "results" / "study"
    return {"path": local, "text": str(local), "file url": f"file://{local}", "memory url": memory}[request.param]


# What is written


def test_the_events_are_what_the_format_says() -> None:
    time = "2026-01-02T12:00:00.000005+00:00"
    assert study_event(
        study="quick",
        fingerprint="f0",
        text="name: quick\n",
        seed=3,
        question="Does it?",
        metric={"select": "validation.accuracy", "report": "test.accuracy", "goal": "maximise"},
        base=None,
        versions={"kdsweep": "0.1.0"},
        code_commit=None,
        lock_hash="ab",
        space_fingerprint="5f",
        parameters=[{"name": "method.lower_bound", "column": "float64"}],
        metrics=["validation.accuracy"],
        clock=noon,
    ) == {
        "event": "study",
        "time": time,
        "study": "quick",
        "fingerprint": "f0",
        "text": "name: quick\n",
        "seed": 3,
        "question": "Does it?",
        "metric": {"select": "validation.accuracy", "report": "test.accuracy", "goal": "maximise"},
        "base": None,
        "versions": {"kdsweep": "0.1.0"},
        "code_commit": None,
        "lock_hash": "ab",
        "schema_version": 1,
        "space_fingerprint": "5f",
        "parameters": [{"name": "method.lower_bound", "column": "float64"}],
        "metrics": ["validation.accuracy"],
        "mode": "generations",
        "blocks": None,
        "lanes": 1,
        "machine": None,
    }
    assert cell_event(
        cell="c1",
        attempt=1,
        stage="search",
        arm="slam",
        method="slam",
        block=0,
        seeds={"split": 1, "teacher": 2, "init": 3, "order": 4},
        generation=0,
        number=7,
        proposed_by="tpe",
        needs=("t1",),
        config={"method.name": "slam"},
        clock=noon,
    ) == {
        "event": "cell",
        "time": time,
        "cell": "c1",
        "attempt": 1,
        "stage": "search",
        "arm": "slam",
        "method": "slam",
        "block": 0,
        "seeds": {"split": 1, "teacher": 2, "init": 3, "order": 4},
        "generation": 0,
        "number": 7,
        "proposed_by": "tpe",
        "needs": ["t1"],
        "config": {"method.name": "slam"},
    }
    report = Report(6, 0.1, {"validation.nll": 2})
    row = Row("c1", "running", 0.25, 15, {"validation.nll": 1}, (report,), 1.5, 3, "fine", "", {"pid": 12})  # type: ignore[dict-item]
    assert row_event("c1", 2, row, clock=noon) == {
        "event": "row",
        "time": time,
        "cell": "c1",
        "attempt": 2,
        "status": "running",
        "progress": 0.25,
        "steps": 15,
        "metrics": {"validation.nll": 1.0},
        "reports": [{"step": 6, "progress": 0.1, "metrics": {"validation.nll": 2.0}}],
        "seconds": 1.5,
        "device_seconds": 3.0,
        "message": "fine",
        "trace": "",
        "where": {"pid": "12"},
    }
    assert choice_event(arm="slam", number=7, score=0.5, config={"method.k": 2}, skipped=[("slam, k=1", "equal")], clock=noon) == {
        "event": "choice",
        "time": time,
        "arm": "slam",
        "number": 7,
        "score": 0.5,
        "config": {"method.k": 2},
        "skipped": [["slam, k=1", "equal"]],
    }
    assert end_event(status="complete", counts={"ok": 2}, clock=noon) == {
        "event": "end",
        "time": time,
        "status": "complete",
        "counts": {"ok": 2},
    }


def test_what_is_appended_is_read(folder: str | Path) -> None:
    journal = Journal(folder)
    assert journal.read() == ()
    journal.append([])
    assert journal.read() == ()
    journal.append([said(0), said(1)])
    journal.append([said(2)])
    assert Journal(folder).read() == (said(0), said(1), said(2))
    Journal(folder).append([said(3)])
    assert numbers(journal.read()) == [0, 1, 2, 3]


@settings(max_examples=40)
@given(value=st.floats(allow_nan=True, allow_infinity=True), text=st.text())
def test_any_number_and_any_text_comes_back(value: float, text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("journal")
    metrics = {"validation.nll": value}
    event = row_event("c", 1, Row("c", "ok", 1.0, 9, metrics, (Report(9, 1.0, metrics),), message=text))
    Journal(folder).append([event, said(1)])
    found, last = Journal(folder).read()
    for got in (found["metrics"]["validation.nll"], found["reports"][0]["metrics"]["validation.nll"]):
        assert type(got) is float
        assert got == value or (math.isnan(got) and math.isnan(value))
    assert found["message"] == text
    assert last == said(1)
    lines = (folder / "journal.jsonl").read_bytes().split(b"\n")
    assert len(lines) == 3
    json.loads(lines[0].decode("ascii"), parse_constant=lambda constant: pytest.fail(f"{constant} is no JSON"))


def test_text_that_no_encoding_holds_is_made_harmless(tmp_path: Path) -> None:
    Journal(tmp_path).append([row_event("c", 1, Row("c", "failed", 0.0, 0, {}, message="bad \udcff", trace="\ud800"))])
    (event,) = Journal(tmp_path).read()
    assert (event["message"], event["trace"]) == ("bad ?", "?")


def test_a_batch_is_one_write_and_one_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Journal(tmp_path).append([said(0)])
    calls: list[str] = []

    def counted(name: str, function: Callable[..., object]) -> Callable[..., object]:
        return lambda *arguments: (calls.append(name), function(*arguments))[1]

    monkeypatch.setattr("orchestrator.storage.os.write", counted("write", os.write))
    monkeypatch.setattr("orchestrator.storage.os.fsync", counted("sync", os.fsync))
    Journal(tmp_path).append([said(number) for number in range(1, 100)])
    assert calls == ["write", "sync"]
    assert numbers(Journal(tmp_path).read()) == list(range(100))


def test_the_folder_is_asked_for_not_the_file(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="needs the folder of a study"):
        Journal(tmp_path / "journal.jsonl")


# What is broken


def test_a_torn_tail_of_any_length_is_no_event_and_is_cut_off(tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    journal = Journal(tmp_path)
    journal.append([said(0), said(1)])
    whole = file.read_bytes()
    journal.append([said(2)])
    last = file.read_bytes()[len(whole) :]
    for length in range(len(last)):
        file.write_bytes(whole + last[:length])
        assert numbers(Journal(tmp_path).read()) == [0, 1], length
        assert file.read_bytes() == whole + last[:length], "reading changes nothing"
        Journal(tmp_path).append([said(3)])
        assert numbers(Journal(tmp_path).read()) == [0, 1, 3], length
        assert file.read_bytes().startswith(whole + b'{"event"')


@pytest.mark.parametrize("tail", [b"\0" * 10_000, b'{"event":"row"' + b"x" * 9_000, b"\xff\xfe"])
def test_a_tail_longer_than_a_block_is_cut_off_whole(tmp_path: Path, tail: bytes) -> None:
    for before in ([], [said(0)]):
        (tmp_path / "journal.jsonl").unlink(missing_ok=True)
        Journal(tmp_path).append(before)
        with (tmp_path / "journal.jsonl").open("ab") as file:
            file.write(tail)
        assert numbers(Journal(tmp_path).read()) == numbers(tuple(before))
        Journal(tmp_path).append([said(5)])
        assert numbers(Journal(tmp_path).read()) == [*numbers(tuple(before)), 5]


@pytest.mark.parametrize(
    "broken",
    [b'{"event":"sai', b"\0\0\0\0", b'{"event":"said","number":NaN}', b"[1]", b'{"number":1}', b'{"event":1}', b"\xff", b"[" * 99_999],
)
def test_a_broken_line_before_others_is_said_with_its_place(tmp_path: Path, broken: bytes) -> None:
    Journal(tmp_path).append([said(0), said(1)])
    file = tmp_path / "journal.jsonl"
    with file.open("ab") as handle:
        handle.write(broken + b'\n{"event":"said","number":3}\n')
    with pytest.raises(StorageError, match=r"journal\.jsonl needs one event a line, but got line 3=.*delete that line") as caught:
        Journal(tmp_path).read()
    assert str(file) in str(caught.value)


def test_blank_lines_and_other_line_ends_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "journal.jsonl").write_bytes(b'{"event":"said","number":1}\r\n\n{"event":"said","number":2}\n')
    assert numbers(Journal(tmp_path).read()) == [1, 2]


def test_a_writer_killed_at_work_loses_nothing_it_was_told_is_safe(tmp_path: Path) -> None:
    code = """
import sys
from orchestrator.journal import Journal
journal, number = Journal(sys.argv[1]), 0
while True:
    journal.append([{"event": "said", "number": number + i, "padding": "x" * 100_000} for i in range(20)])
    number += 20
    print(number, flush=True)
"""
    writer = child(code, str(tmp_path))
    assert writer.stdout is not None
    for _ in range(random.randint(2, 6)):
        writer.stdout.readline()
    writer.send_signal(signal.SIGKILL)
    told = writer.communicate()[0].split()
    safe = int(told[-1]) if told else 40
    found = numbers(Journal(tmp_path).read())
    assert len(found) >= safe
    assert found == list(range(len(found)))
    Journal(tmp_path).append([said(-1)])
    assert numbers(Journal(tmp_path).read()) == [*found, -1]


def test_a_full_disk_is_said_and_costs_nothing_that_was_there(tmp_path: Path) -> None:
    code = """
import resource, sys
from orchestrator.errors import StorageError
from orchestrator.journal import Journal
journal, file = Journal(sys.argv[1]), sys.argv[1] + "/journal.jsonl"
journal.append([{"event": "said", "number": 0}])
before = open(file, "rb").read()
limits = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 90, limits[1]))
try:
    journal.append([{"event": "said", "number": number} for number in (1, 2, 3, 4)])
except StorageError as fault:
    print(fault)
assert open(file, "rb").read() == before, "a whole line of what failed is left behind"
resource.setrlimit(resource.RLIMIT_FSIZE, limits)
journal.append([{"event": "said", "number": 5}])
"""
    writer = child(code, str(tmp_path))
    out, error = writer.communicate()
    assert writer.returncode == 0, error
    assert "Writing needs permission and space for" in out
    assert "journal.jsonl" in out
    assert numbers(Journal(tmp_path).read()) == [0, 5]


def test_places_that_cannot_be_written_or_read_are_said(tmp_path: Path) -> None:
    (tmp_path / "journal.jsonl").mkdir()
    (tmp_path / "file").write_text("")
    for place in (tmp_path, tmp_path / "file" / "study"):
        with pytest.raises(StorageError, match="Reading needs access"):
            Journal(place).append([said(0)])
        with pytest.raises(StorageError, match="Reading needs access"):
            Journal(place).read()
    with pytest.raises(StorageError, match="needs a local path or a URL"):
        Journal("nowhere://bucket/study").read()


# Object stores


def test_segments_are_immutable_and_numbered(memory: str) -> None:
    journal = Journal(memory)
    for number in range(11):
        journal.append([said(number), said(100 + number)])
    files, path = fsspec.core.url_to_fs(memory)
    assert sorted(name.rpartition("/")[2] for name in files.ls(f"{path}/journal", detail=False)) == [
        f"{number:08d}.jsonl" for number in range(1, 12)
    ]
    assert files.cat_file(f"{path}/journal/00000011.jsonl").count(b"\n") == 2
    assert numbers(Journal(memory).read()) == [value for number in range(11) for value in (number, 100 + number)]


def test_the_second_of_two_writers_fails(memory: str) -> None:
    first, second = Journal(memory), Journal(memory)
    first.append([said(0)])
    second.append([said(1)])
    with pytest.raises(StorageError, match="needs to be the only writer"):
        first.append([said(2)])
    assert numbers(Journal(memory).read()) == [0, 1]


def test_a_put_that_was_repeated_after_a_lost_answer_is_no_rival(memory: str) -> None:
    files, path = fsspec.core.url_to_fs(memory)
    line = b'{"event":"said","time":"2026-01-02T12:00:00.000000+00:00","number":1}\n'
    journal = Journal(memory)
    journal.append([said(0)])
    files.pipe_file(f"{path}/journal/00000002.jsonl", line)
    journal.append([said(1)])
    journal.append([said(2)])
    assert numbers(Journal(memory).read()) == [0, 1, 2]


def test_a_lost_segment_is_said(memory: str) -> None:
    journal = Journal(memory)
    for number in range(3):
        journal.append([said(number)])
    files, path = fsspec.core.url_to_fs(memory)
    files.rm(f"{path}/journal/00000002.jsonl")
    with pytest.raises(StorageError, match=r"without 00000002\.jsonl"):
        Journal(memory).read()
    files.pipe_file(f"{path}/journal/00000002.jsonl", b"")
    assert numbers(Journal(memory).read()) == [0, 2]
    files.pipe_file(f"{path}/journal/00000002.jsonl", b'{"event":"sa')
    with pytest.raises(StorageError, match=r"00000002\.jsonl needs one event a line, but got line 1"):
        Journal(memory).read()


# The lock


def test_a_held_lock_names_its_holder_and_a_dead_holder_frees_it(tmp_path: Path) -> None:
    code = """
import sys
from orchestrator.journal import StudyLock
with StudyLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""
    holder = child(code, str(tmp_path))
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(StudyLocked, match=f"process {holder.pid} on {socket.gethostname()} since 20") as caught, StudyLock(tmp_path):
        pass
    assert str(tmp_path) in str(caught.value)
    holder.kill()
    holder.communicate()
    with StudyLock(tmp_path, clock=noon):
        told = json.loads((tmp_path / ".lock").read_text())
        assert told == {"host": socket.gethostname(), "pid": os.getpid(), "since": "2026-01-02T12:00:00.000005+00:00"}


def test_a_lock_excludes_this_process_too_and_ends_with_its_block(tmp_path: Path) -> None:
    lock = StudyLock(f"file://{tmp_path}/new")
    with lock:
        with pytest.raises(StudyLocked, match=f"process {os.getpid()} "), StudyLock(tmp_path / "new"):
            pass
        with pytest.raises(StudyLocked), lock:
            pass
    with pytest.raises(KeyError), lock:
        raise KeyError
    with lock, StudyLock(tmp_path / "other"):
        pass


def test_a_lock_without_a_name_in_it_still_excludes(tmp_path: Path) -> None:
    with StudyLock(tmp_path):
        (tmp_path / ".lock").write_text("")
        with pytest.raises(StudyLocked, match="a process that has just started"), StudyLock(tmp_path):
            pass


def test_in_an_object_store_a_lock_is_an_object_that_is_renewed(memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.lease._RENEW_S", 0.1)
    with StudyLock(memory):
        with pytest.raises(StudyLocked, match=f"process {os.getpid()} "), StudyLock(memory):
            pass
        assert fsspec.core.url_to_fs(f"{memory}/.lock")[0].exists(f"{memory}/.lock")
    with StudyLock(memory):
        pass


def test_a_lock_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="Writing needs permission"), StudyLock(tmp_path / "file"):
        pass


# The record


def planned(cell: str, attempt: int = 1, arm: str = "slam", **more: object) -> Event:
    return {"event": "cell", "time": "t", "cell": cell, "attempt": attempt, "arm": arm, **more}


def came(cell: str, status: str, progress: float, attempt: int = 1, **more: object) -> Event:
    steps = round(progress * 100)
    event = {"event": "row", "time": "t", "cell": cell, "attempt": attempt, "status": status, "progress": progress, "steps": steps}
    return {**event, "metrics": {"m": progress}, "reports": [], "seconds": 1.0, "device_seconds": 2.0, "where": {"host": "a"}} | more


def only(*events: Event) -> Attempt:
    record = record_of(events)
    assert len(record.cells) == 1
    return next(iter(record.cells.values()))


def test_an_attempt_is_finished_once_it_ended() -> None:
    assert only(planned("c")).status is None
    assert not only(planned("c")).is_finished
    assert only(planned("c"), came("c", "running", 0.25)).status == "running"
    assert not only(planned("c"), came("c", "running", 0.25)).is_finished
    for status in ("ok", "stopped", "failed", "diverged", "out_of_memory"):
        assert only(planned("c"), came("c", "running", 0.25), came("c", status, 1.0)).status == status
        assert only(planned("c"), came("c", "running", 0.25), came("c", status, 1.0)).is_finished


def test_a_leg_that_is_repeated_counts_once_and_the_later_one_wins() -> None:
    first = came("c", "running", 0.25, seconds=10.0, reports=[{"step": 5, "metrics": {"m": 1}}, {"step": 9, "metrics": {"m": 2}}])
    again = came("c", "running", 0.25, seconds=3.0, reports=[{"step": 9, "metrics": {"m": 3}}])
    attempt = only(planned("c"), first, came("c", "running", 0.5), again, came("c", "ok", 1.0))
    assert [row["progress"] for row in attempt.rows] == [0.25, 0.5, 1.0]
    assert attempt.rows[0] is again
    assert attempt.reports == ({"step": 5, "metrics": {"m": 1}}, {"step": 9, "metrics": {"m": 3}})
    assert (attempt.total("seconds"), attempt.total("device_seconds")) == (5.0, 6.0)
    assert only(planned("c"), came("c", "failed", 0.5), came("c", "ok", 1.0)).status == "ok"


def test_a_leg_that_was_preempted_costs_time_and_says_nothing_else() -> None:
    early = came("c", "preempted", 0.4, metrics={"m": 9.0}, reports=[{"step": 40, "metrics": {"m": 9}}], where={"host": "gone"})
    assert only(planned("c"), early).status is None
    assert not only(planned("c"), early).is_finished
    attempt = only(planned("c"), came("c", "running", 0.25), early, early)
    assert (attempt.status, attempt.is_finished, attempt.progress, attempt.steps) == ("running", False, 0.25, 25)
    assert (attempt.metrics, attempt.reports, attempt.where) == ({"m": 0.25}, (), {"host": "a"})
    # Two legs that ended at the same point are two legs.
    assert (attempt.total("seconds"), attempt.total("device_seconds")) == (3.0, 6.0)
    ended = only(planned("c"), came("c", "running", 0.25), early, came("c", "ok", 1.0), early)
    assert (ended.status, ended.progress, ended.metrics, ended.total("seconds")) == ("ok", 1.0, {"m": 1.0}, 4.0)
    assert [row["status"] for row in ended.rows] == ["running", "ok"]


def test_a_cell_does_not_go_on_from_where_it_was_preempted() -> None:
    record = record_of([planned("c"), came("c", "running", 0.25), came("c", "preempted", 0.4)])
    assert [row["progress"] for row in record.rows_of("c")] == [0.25]
    assert record.finished == ()
    assert record_of([planned("d"), came("d", "preempted", 0.4)]).rows_of("d") == ()


def test_stopping_at_a_rung_keeps_what_the_rung_measured() -> None:
    rung = came("c", "running", 0.25, seconds=7.0, metrics={"m": 0.5}, reports=[{"step": 25, "metrics": {"m": 0.5}}])
    stop = came("c", "stopped", 0.25, steps=0, seconds=0.0, metrics={}, where={})
    attempt = only(planned("c"), rung, stop)
    assert attempt.status == "stopped"
    assert (attempt.progress, attempt.steps, attempt.metrics, attempt.where) == (0.25, 25, {"m": 0.5}, {"host": "a"})
    assert attempt.total("seconds") == 7.0
    assert len(attempt.reports) == 1
    assert only(planned("c"), stop).metrics == {}


def test_a_failed_leg_has_no_metrics_but_its_own_and_tells_how_far_it_got() -> None:
    attempt = only(planned("c"), came("c", "running", 0.25), came("c", "failed", 0.0, metrics={}, message="lane lost"))
    assert (attempt.status, attempt.metrics, attempt.progress, attempt.steps) == ("failed", {}, 0.25, 25)


def test_the_latest_attempt_is_the_cell_s_and_goes_on_from_the_rungs_of_earlier_ones() -> None:
    record = record_of([planned("c"), came("c", "running", 0.25), came("c", "running", 0.5), planned("c", 2)])
    assert record.attempt_of("c") == 2
    assert record.cells["c"].status is None
    assert [row["progress"] for row in record.rows_of("c")] == [0.25, 0.5]
    record.add(came("c", "running", 0.5, attempt=2))
    assert [(row["progress"], row["attempt"]) for row in record.rows_of("c")] == [(0.25, 1), (0.5, 2)]
    record.add(came("c", "ok", 1.0, attempt=2))
    assert [(row["progress"], row["attempt"]) for row in record.rows_of("c")] == [(0.25, 1), (0.5, 2), (1.0, 2)]
    failed = record_of([planned("c"), came("c", "running", 0.25), came("c", "failed", 0.3), planned("c", 2)])
    assert [row["status"] for row in failed.rows_of("c")] == ["running"], "a new attempt has not failed"
    assert len(failed.finished) == 1
    assert (record.has("c"), record.has("d"), record.attempt_of("d"), record.rows_of("d")) == (True, False, 0, ())


def test_what_an_attempt_went_on_from_is_in_its_row_of_the_table() -> None:
    def report(step: int) -> dict[str, object]:
        return {"step": step, "progress": step / 100, "metrics": {"validation.accuracy": step / 100}}

    def legs(*steps: int, **other: object) -> dict[str, object]:
        return {"reports": [report(step) for step in steps], "seconds": 1.5, "device_seconds": 1.5, **other}

    begun = [planned("c"), came("c", "running", 0.25, **legs(10, 25))]
    ended = [planned("c", 2), came("c", "ok", 1.0, attempt=2, **legs(50, 100))]
    (lost,) = record_of([*begun, *ended]).finished
    assert [each["step"] for each in lost.reports] == [10, 25, 50, 100]
    assert lost.total("seconds") == 3.0, "no other row of the table tells what the lost lane took"
    failed, again = record_of([*begun, came("c", "timed_out", 0.4, **legs(40)), *ended]).finished
    assert ([each["step"] for each in failed.reports], failed.total("seconds")) == ([10, 25, 40], 3.0)
    assert ([each["step"] for each in again.reports], again.total("seconds")) == ([10, 25, 40, 50, 100], 1.5)
    (anew,) = record_of([*begun, planned("c", 2), came("c", "ok", 1.0, attempt=2, **legs(10, 25, 50, 100))]).finished
    assert [each["step"] for each in anew.reports] == [10, 25, 50, 100], "its checkpoint was lost"


def test_cells_keep_the_order_of_the_plan_and_the_first_word_about_them() -> None:
    record = record_of([planned("b", arm="y", number=1), planned("a", arm="x"), planned("b", arm="y", number=9), planned("c", arm="y")])
    assert list(record.cells) == ["b", "a", "c"]
    assert record.arms == ("y", "x")
    assert record.cells["b"].plan["number"] == 1


def test_rows_may_come_before_their_cell_or_for_an_attempt_that_was_not_announced() -> None:
    record = record_of([came("c", "ok", 1.0), came("d", "ok", 1.0), came("c", "failed", 0.5, attempt=2), planned("c")])
    assert [(attempt.cell, attempt.attempt, attempt.status) for attempt in record.finished] == [("c", 1, "ok"), ("c", 2, "failed")]
    assert record.cells["c"].plan["arm"] == "slam"
    assert not record.has("d")


def test_launches_choices_and_ends_are_kept_and_strangers_passed_over() -> None:
    record = Record()
    assert (record.study, record.choices, record.arms, record.attempts) == (None, (), (), ())
    for event in ({"event": "study", "study": "one"}, {"event": "study", "study": "one", "new": 1}, {"event": "invented", "x": 1}):
        record.add(event)
    for number in (1, 2):
        record.add(choice_event(arm="slam", number=number, score=0.1, config={}))
    record.add(choice_event(arm="kd", number=5, score=0.1, config={}))
    record.add(end_event(status="interrupted", counts={}))
    assert record.study == {"event": "study", "study": "one"}
    assert len(record.launches) == 2
    assert [(choice["arm"], choice["number"]) for choice in record.choices] == [("slam", 2), ("kd", 5)]
    assert [end["status"] for end in record.ends] == ["interrupted"]


@pytest.mark.parametrize("event", [{"event": "row", "cell": "c"}, {"event": "cell", "cell": "c", "attempt": 1}, {"event": "choice"}])
def test_an_event_that_lacks_what_its_kind_needs_is_said(event: Event) -> None:
    with pytest.raises(StorageError, match=f"A {event['event']} event needs more than it has"):
        record_of([planned("c"), event])


def test_the_words_for_a_status_are_those_that_journals_hold() -> None:
    assert (RUNNING, OK, STOPPED) == ("running", "ok", "stopped")
    assert FAILURES == ("failed", "diverged", "out_of_memory", "timed_out")
    assert PREEMPTED == "preempted"


def test_facts_are_read_without_torch() -> None:
    code = "import sys, orchestrator.journal, orchestrator.table; sys.exit('torch' in sys.modules)"
    reader = child(code)
    assert reader.communicate()[1] == ""
    assert reader.returncode == 0


def test_times_are_utc() -> None:
    before = datetime.now(UTC)
    time = datetime.fromisoformat(end_event(status="complete", counts={})["time"])
    assert time.utcoffset() == timedelta(0)
    assert before <= time <= datetime.now(UTC)

"""Verbs for a study that was launched, as a user has them: what they print, what they leave in the journal, and exit codes.

A driver at work is played by this process: it holds the lock and, where it is to obey, writes each order into the journal.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.console import Console

from orchestrator import table, telling
from orchestrator.driver import Launch, drive
from orchestrator.errors import Interrupted, StorageError
from orchestrator.events import Event, order_event
from orchestrator.journal import Journal
from orchestrator.orders import Inbox, Order, waiting
from orchestrator.reading import study_of
from orchestrator.record import record_of
from orchestrator.storage import StudyLock
from orchestrator.study import Study
from tests.synthetic import Synthetic
from tests.test_cleaning import begun
from tests.test_cli import kdsweep
from tests.test_retrying import cell, row, searched
from trainables.loop import never
from trainables.runner import Runner
from trainables.status import FAILED
from trainables.trial import Leg, Row, Trial

Kdsweep = Callable[..., tuple[int, str, str]]
AA, BB, SEARCHED = "a" * 16, "b" * 16, "slam0"


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Kdsweep:
    return lambda *arguments: kdsweep(capsys, monkeypatch, *arguments)


@pytest.fixture
def small_text(tiny_study_text: str) -> str:
    """Stage two alone: two arms on two blocks, and two teachers."""
    text = tiny_study_text[: tiny_study_text.index("search:")] + tiny_study_text[tiny_study_text.index("confirm:") :]
    return text.replace("  leave_one_out: [method.lower_bound]\n", "")


@contextlib.contextmanager
def at_work(folder: str | Path, *, obeys: bool = True, ends: bool = False) -> Iterator[list[Order]]:
    """A driver; the orders that it has taken in."""
    taken: list[Order] = []
    over = threading.Event()
    lock = StudyLock(folder)
    lock.__enter__()

    def listen() -> None:
        inbox, journal = Inbox(folder), Journal(folder)
        while not over.wait(0.05):
            for order in inbox.poll():
                if ends:
                    lock.__exit__(None, None, None)
                    return
                journal.append([order_event(order=order.kind, token=order.token, by=order.by, cells=order.cells)])
                inbox.remove(order)
                taken.append(order)

    thread = threading.Thread(target=listen)
    if obeys:
        thread.start()
    try:
        yield taken
    finally:
        over.set()
        if obeys:
            thread.join()
        lock.__exit__(None, None, None)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """A study that was launched, with a cell that failed, one that did not, and a proposal that failed."""
    place = str(tmp_path / "tiny")
    Journal(place).append([begun(), cell(AA), cell(BB), searched(0, 0), row(AA, FAILED), row(BB, "ok"), row(SEARCHED, FAILED)])
    return place


def kinds(folder: str | Path) -> list[str]:
    return [event["order"] for event in Journal(folder).read() if event["event"] == "order"]


# Orders


@pytest.mark.parametrize("verb", ["pause", "stop", "cancel"])
def test_without_a_driver_there_is_nobody_to_tell(verb: str, folder: str, call: Kdsweep) -> None:
    code, out, err = call(verb, folder)
    assert (code, out) == (2, "")
    assert f"`kdsweep {verb}` needs a driver that is at work on {folder}" in err
    assert "kdsweep resume" in err
    assert waiting(folder) == ()


@pytest.mark.parametrize(
    "arguments",
    [["pause"], ["stop"], ["cancel"], ["resume"], ["retry", "--failed"], ["extend", "--blocks", "3"], ["clean"], ["clean", "--yes"]],
)
@pytest.mark.parametrize("place", ["here", "memory"])
def test_a_folder_without_a_study_is_said_and_left_alone(arguments: list[str], place: str, tmp_path: Path, call: Kdsweep) -> None:
    folder = str(tmp_path / "none") if place == "here" else f"memory://{uuid.uuid4().hex}/none"
    code, out, err = call(arguments[0], folder, *arguments[1:])
    assert (code, out) == (2, "")
    assert f"{folder} holds no results of a study" in err
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("verb", ["pause", "stop", "cancel"])
def test_an_order_is_given_and_acknowledged(verb: str, folder: str, call: Kdsweep) -> None:
    with at_work(folder) as taken:
        code, out, err = call(verb, folder)
    assert code == 0
    assert out.startswith("process ")
    assert f"has taken the order in ({verb})." in out
    assert out.count("\n") == 1
    assert "Waiting, for at most 30 s" in err
    assert [order.kind for order in taken] == [verb]
    assert kinds(folder) == [verb]
    assert waiting(folder) == ()


def test_an_order_as_json(folder: str, call: Kdsweep) -> None:
    with at_work(folder) as taken:
        code, out, _ = call("stop", folder, "--json")
    told = json.loads(out)
    assert code == 0
    assert told == {"folder": folder, "order": "stop", "token": taken[0].token, "driver": told["driver"], "acknowledged": True}


def test_in_a_bucket_as_well(call: Kdsweep) -> None:
    folder = f"memory://{uuid.uuid4().hex}/tiny"
    Journal(folder).append([begun()])
    with at_work(folder):
        code, _, err = call("pause", folder)
    assert (code, kinds(folder)) == (0, ["pause"])
    assert "at most 90 s" in err


def test_by_the_study_file(tiny_study_text: str, tmp_path: Path, call: Kdsweep) -> None:
    file = tmp_path / "any.yaml"
    file.write_text(tiny_study_text)
    Journal(tmp_path / "tiny").append([begun()])
    with at_work(tmp_path / "tiny"):
        code, _, _ = call("stop", str(file), "--storage", str(tmp_path))
    assert (code, kinds(tmp_path / "tiny")) == (0, ["stop"])


def test_an_order_that_nobody_takes_stays_and_is_said(folder: str, call: Kdsweep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telling, "_PATIENCE_S", 0.3)
    # One that was taken in before is no word about this one.
    Journal(folder).append([order_event(order="stop", token="0" * 32, by="me@here")])
    with at_work(folder, obeys=False):
        code, out, _ = call("stop", folder)
        assert code == 3
        assert "has not taken the order in (stop) yet. It stays" in out
        assert len(waiting(folder)) == 1
        code, out, _ = call("stop", folder, "--json")
        assert (code, json.loads(out)["acknowledged"]) == (3, False)


def test_a_store_that_is_away_for_a_moment_takes_no_order_back(folder: str, call: Kdsweep, monkeypatch: pytest.MonkeyPatch) -> None:
    real, asked = telling.holder_of, 0

    def away(folder: str) -> str | None:
        nonlocal asked
        asked += 1
        if asked == 2:
            raise StorageError("no answer")
        return real(folder)

    monkeypatch.setattr(telling, "holder_of", away)
    with at_work(folder):
        code, _, _ = call("stop", folder)
    assert (code, kinds(folder)) == (0, ["stop"])
    assert asked > 2


def test_a_driver_that_ends_first_leaves_no_order_behind(folder: str, call: Kdsweep) -> None:
    with at_work(folder, ends=True):
        code, out, _ = call("cancel", folder)
    assert code == 3
    assert "ended before it took the order in" in out
    assert waiting(folder) == ()


def test_pause_and_resume_one_after_another(folder: str, call: Kdsweep) -> None:
    with at_work(folder) as taken:
        code, out, _ = call("resume", folder)
        assert (code, "not paused" in out) == (0, True)
        assert call("pause", folder)[0] == 0
        code, out, _ = call("pause", folder)
        assert (code, "paused already" in out) == (0, True)
        assert json.loads(call("pause", folder, "--json")[1])["order"] is None
        code, out, _ = call("resume", folder)
        assert (code, "It goes on." in out) == (0, True)
        assert "not paused" in call("resume", folder)[1]
    assert [order.kind for order in taken] == ["pause", "resume"]


def test_a_new_launch_is_not_paused() -> None:
    paused = order_event(order="pause", token="0" * 32, by="me@here")
    assert telling.is_paused([begun(), paused])
    assert telling.is_paused([begun(), paused, order_event(order="retry", token="1" * 32, by="me@here", cells=[AA])])
    assert not telling.is_paused([begun(), paused, begun()])
    assert not telling.is_paused([])


# Retry


def test_retry_needs_to_know_what(folder: str, call: Kdsweep) -> None:
    for arguments, got in (((), "neither"), (("--failed", "--cell", AA), "both")):
        code, _, err = call("retry", folder, *arguments)
        assert (code, f"but got {got}" in err) == (2, True)


@pytest.mark.parametrize(
    ("name", "says"),
    [("a" * 15 + "b", f"Did you mean {AA}?"), (BB, "its status is ok"), ("never", "there is no such cell in this study.\n")],
)
def test_a_cell_that_cannot_be_taken_again_is_said_and_nothing_is_done(name: str, says: str, folder: str, call: Kdsweep) -> None:
    before = Path(folder, "journal.jsonl").read_bytes()
    code, out, err = call("retry", folder, "--cell", AA, "--cell", name)
    assert (code, out) == (2, "")
    assert f"Cell {name} cannot be taken again: " in err
    assert says in err
    assert Path(folder, "journal.jsonl").read_bytes() == before


def test_failed_cells_go_into_the_journal_of_a_study_at_rest(folder: str, call: Kdsweep) -> None:
    code, out, _ = call("retry", folder, "--failed")
    assert code == 0
    assert "2 cells will be trained again:" in out
    assert f"  {AA}  confirm  slam, block 0\n" in out
    assert f"  {SEARCHED}  search   slam #0, block 0\n" in out
    assert out.endswith(f"`kdsweep resume {folder}` trains them.\n")
    record = record_of(Journal(folder).read())
    assert [record.attempt_of(name) for name in (AA, BB, SEARCHED)] == [2, 1, 2]
    # The failures stay rows of the table.
    frame = table.read_trials(folder).to_pandas()
    assert frame.groupby("status").size().to_dict() == {"failed": 2, "ok": 1}
    assert call("retry", folder, "--failed")[:2] == (0, "No cell of this study failed.\n"), "they wait for their second attempt"


def test_one_cell_as_json(folder: str, call: Kdsweep) -> None:
    code, out, _ = call("retry", folder, "--cell", AA, "--json")
    assert (code, json.loads(out)) == (0, {"folder": folder, "cells": [AA], "along": {}, "refused": {}, "driver": None})


def test_a_driver_at_work_is_told_which_cells(folder: str, call: Kdsweep) -> None:
    with at_work(folder) as taken:
        code, out, err = call("retry", folder, "--failed")
        assert code == 0
        assert "has taken the order in (retry)." in out
        assert f"note: cell {SEARCHED} stays failed: the driver at work has gone on from this failure" in err
        code, _, err = call("retry", folder, "--cell", SEARCHED)
        assert (code, "`kdsweep stop` it, then retry" in err) == (2, True)
    assert [(order.kind, order.cells) for order in taken] == [("retry", (AA,))]
    assert record_of(Journal(folder).read()).attempt_of(AA) == 1, "the driver writes its next attempt, nobody else"


def test_where_all_failures_have_to_stay_nothing_is_done(tmp_path: Path, call: Kdsweep) -> None:
    Journal(tmp_path / "tiny").append([begun(), searched(0, 0), searched(1, 1), row("slam0", FAILED), row("slam1", "ok")])
    code, out, err = call("retry", str(tmp_path / "tiny"), "--failed")
    assert (code, out) == (2, "No cell that failed can be taken again.\n")
    assert "generation 1 of slam was proposed with this failure" in err


# Resume and extend


class Ending:
    """The runner of a study, which is interrupted in its n-th leg."""

    def __init__(self, root: Path, left: int) -> None:
        self.inner, self.left = Runner(str(root), "cpu"), left

    def run(self, leg: Leg, halt: Callable[[], bool] = never) -> Row:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        return self.inner.run(leg)


def interrupted(study: Study, folder: Path, after: int) -> None:
    ending = Ending(folder / "artifacts", after)
    with pytest.raises(Interrupted):
        drive(study, Launch(in_process=True, make_runner=lambda _: ending), Console(quiet=True))


def launches(folder: Path) -> list[Event]:
    return record_of(Journal(folder).read()).launches


def test_resume_needs_the_folder_alone_and_ends_in_the_same_table(small_text: str, tmp_path: Path, call: Kdsweep) -> None:
    overrides = ["student.recipe.epochs=3"]
    whole = study_of(small_text, overrides, options={"storage": str(tmp_path / "whole")})
    drive(whole, Launch(in_process=True), Console(quiet=True))
    study = study_of(small_text, overrides, options={"storage": str(tmp_path / "before"), "retries": 4})
    interrupted(study, tmp_path / "before/tiny", 3)
    (tmp_path / "before").rename(tmp_path / "after")  # results may be moved
    code, out, _ = call("resume", str(tmp_path / "after/tiny"), "--in-process", "--lanes", "3")
    assert code == 0
    assert "trials.parquet" in out
    assert not (tmp_path / "before").exists()
    assert table.same(table.read_trials(tmp_path / "whole/tiny"), table.read_trials(tmp_path / "after/tiny")) == []
    first, second = launches(tmp_path / "after/tiny")
    assert (first["fingerprint"], second["fingerprint"]) == (study.fingerprint, study.fingerprint)
    again = study_of(second["text"])
    assert (again.run.retries, again.run.lanes, again.run.storage) == (4, 3, str(tmp_path / "after"))
    code, out, _ = call("resume", str(tmp_path / "after/tiny"), "--in-process", "--json")
    told = json.loads(out)
    assert (code, told["trained"], told["exit_code"], told["counts"]["ok"]) == (0, 0, 0, 6)


def test_resume_goes_on_as_it_was_begun(tiny_study_text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Kdsweep) -> None:
    """With --async, which the text does not tell."""
    study = study_of(tiny_study_text, options={"storage": str(tmp_path)})
    ending = Ending(tmp_path / "tiny/artifacts", 2)
    with pytest.raises(Interrupted):
        drive(study, Launch(in_process=True, asynchronous=True, make_runner=lambda _: ending), Console(quiet=True))
    seen: list[Launch] = []
    monkeypatch.setattr("orchestrator.terminal.launched", lambda study, launch, as_json: seen.append(launch))
    with contextlib.suppress(SystemExit):
        call("resume", str(tmp_path / "tiny"), "--address", "1.2.3.4:5")
    assert seen == [Launch(in_process=False, address="1.2.3.4:5", asynchronous=True)]


def test_resume_in_a_bucket(small_text: str, call: Kdsweep) -> None:
    storage = f"memory://{uuid.uuid4().hex}"
    study = study_of(small_text, options={"storage": storage})
    ending = Synthetic()
    outcome = drive(study, Launch(in_process=True, make_runner=lambda _: ending), Console(quiet=True))
    assert outcome.trained == 6
    code, out, _ = call("resume", f"{storage}/tiny", "--in-process", "--json")
    assert (code, json.loads(out)["trained"], json.loads(out)["folder"]) == (0, 0, f"{storage}/tiny")


def test_a_folder_of_another_name_is_not_gone_on_with(folder: str, tmp_path: Path, call: Kdsweep) -> None:
    Path(folder).rename(tmp_path / "copy")
    code, _, err = call("resume", str(tmp_path / "copy"))
    assert code == 2
    assert f"A study needs a folder of its own name, tiny, but got {tmp_path / 'copy'}." in err


def test_a_journal_without_the_text_is_not_gone_on_with(tmp_path: Path, call: Kdsweep) -> None:
    Journal(tmp_path / "tiny").append([begun() | {"text": ""}])
    code, _, err = call("resume", str(tmp_path / "tiny"))
    assert (code, "Use `kdsweep run` with the file." in err) == (2, True)


def test_a_text_that_is_no_study_any_more_is_said_fault_by_fault(folder: str, call: Kdsweep) -> None:
    code, _, err = call("resume", folder)
    assert code == 2
    assert f"{folder} as it was launched:1: data" in err


def test_extend_adds_blocks_and_the_journal_has_it_by_name(small_text: str, tmp_path: Path, call: Kdsweep) -> None:
    study, home = study_of(small_text, options={"storage": str(tmp_path)}), tmp_path / "tiny"
    drive(study, Launch(in_process=True), Console(quiet=True))
    before = table.read_trials(home).to_pandas()
    for blocks in ("2", "1"):
        code, _, err = call("extend", str(home), "--blocks", blocks)
        assert (code, f"more blocks than the 2 that are planned, but got --blocks {blocks}" in err) == (2, True)
    with at_work(home):
        code, _, err = call("extend", str(home), "--blocks", "3")
        assert (code, "`kdsweep stop` it first" in err) == (2, True)
    code, out, _ = call("extend", str(home), "--blocks", "3", "--in-process", "--json")
    assert (code, json.loads(out)["trained"]) == (0, 3), "a teacher and two arms"
    record = record_of(Journal(home).read())
    assert [(event["name"], event["before"], event["blocks"]) for event in record.extensions] == [("extension 1", 2, 3)]
    after = table.read_trials(home).to_pandas()
    assert len(after) == len(before) + 3
    assert set(before.cell) < set(after.cell)
    code, out, _ = call("resume", str(home), "--in-process", "--json")
    assert (code, json.loads(out)["trained"]) == (0, 0), "the last launch had three blocks"
    code, _, err = call("extend", str(home), "--blocks", "3")
    assert (code, "more blocks than the 3" in err) == (2, True)


def test_what_has_no_stage_two_or_is_too_old_is_not_extended(tiny_study_text: str, tmp_path: Path, call: Kdsweep) -> None:
    searching = tiny_study_text[: tiny_study_text.index("confirm:")]
    for text, more, says in (
        (searching, {"base": None, "blocks": None}, "needs a study with a section confirm"),
        (tiny_study_text, {"blocks": None}, "needs a journal that tells how many blocks"),
    ):
        shutil.rmtree(tmp_path / "tiny", ignore_errors=True)
        Journal(tmp_path / "tiny").append([begun() | {"text": text, **more}])
        code, _, err = call("extend", str(tmp_path / "tiny"), "--blocks", "9")
        assert (code, says in err) == (2, True)


# Clean


def test_clean_lists_and_with_yes_removes(folder: str, call: Kdsweep) -> None:
    checkpoint = Path(folder, f"artifacts/checkpoints/{BB}.pt")
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(b"123")
    code, out, _ = call("clean", folder)
    assert code == 0
    assert f"3 B  checkpoint    artifacts/checkpoints/{BB}.pt: its cell has ended (ok)" in out
    assert "--yes removes it" in out
    assert checkpoint.exists()
    with at_work(folder):
        code, _, err = call("clean", folder, "--yes")
        assert (code, "at work" in err) == (2, True)
    assert checkpoint.exists()
    code, out, _ = call("clean", folder, "--yes", "--json")
    told = json.loads(out)
    assert (code, told["removed"]) == (0, True)
    ours = [item for item in told["items"] if item["kind"] == "checkpoint"]
    assert ours == [{"kind": "checkpoint", "name": f"artifacts/checkpoints/{BB}.pt", "bytes": 3, "why": "its cell has ended (ok)"}]
    assert not checkpoint.exists()


# With a driver in a process of its own

_DRIVER = """
import sys
from rich.console import Console
from orchestrator.driver import Launch, drive
from orchestrator.errors import KdsweepError
from orchestrator.reading import study_of
from tests.synthetic import Synthetic
study = study_of(sys.stdin.read(), [], options={"storage": sys.argv[1]})
try:
    drive(study, Launch(in_process=True, make_runner=lambda _: Synthetic(nap_s=0.5)), Console(quiet=True))
except KdsweepError as error:
    sys.exit(error.exit_code)
"""


def test_a_real_driver_pauses_goes_on_and_stops(tiny_study_text: str, tmp_path: Path, call: Kdsweep) -> None:
    home = tmp_path / "tiny"
    with subprocess.Popen([sys.executable, "-c", _DRIVER, str(tmp_path)], stdin=subprocess.PIPE, text=True) as driver:
        assert driver.stdin is not None
        driver.stdin.write(tiny_study_text)
        driver.stdin.close()
        try:
            until = time.monotonic() + 60
            while not (home / "journal.jsonl").exists() or not record_of(Journal(home).read()).launches:
                assert time.monotonic() < until
                time.sleep(0.1)
            assert call("pause", str(home))[0] == 0
            time.sleep(1.0)  # the leg in flight
            rows = len([event for event in Journal(home).read() if event["event"] == "row"])
            time.sleep(1.5)
            assert len([event for event in Journal(home).read() if event["event"] == "row"]) == rows
            assert call("resume", str(home))[0] == 0
            assert call("stop", str(home))[0] == 0
            assert driver.wait(60) == 4
        finally:
            driver.kill()
    assert kinds(home) == ["pause", "resume", "stop"]
    assert Journal(home).read()[-1]["status"] == "interrupted"


def test_all_that_was_launched_and_failed_is_mended_by_retry_and_resume(small_text: str, tmp_path: Path, call: Kdsweep) -> None:
    study, home = study_of(small_text, options={"storage": str(tmp_path), "give_up_after": 0}), tmp_path / "tiny"

    def fails(trial: Trial) -> bool:
        return trial.method is None

    failing = Synthetic(fails=fails)
    drive(study, Launch(in_process=True, make_runner=lambda _: failing), Console(quiet=True))
    code, out, _ = call("retry", str(home), "--failed", "--json")
    assert (code, len(json.loads(out)["cells"])) == (0, 6)
    code, out, _ = call("resume", str(home), "--in-process", "--json")
    assert (code, json.loads(out)["counts"]["ok"], json.loads(out)["counts"]["failed"]) == (0, 6, 0)
    assert table.read_trials(home).to_pandas().groupby(["status", "attempt"]).size().to_dict() == {("failed", 1): 6, ("ok", 2): 6}

"""Faults that are injected for real, and what is left afterwards: nothing finished is lost, and the table is that of an unbroken run.

Lanes, machines and methods that fail have their tests elsewhere; docs/faults.md names them all.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta, tzinfo
from itertools import pairwise
from pathlib import Path
from uuid import uuid4

import pytest
from rich.console import Console

from orchestrator import driver, events, lease, report, table
from orchestrator.driver import Launch, Outcome, drive
from orchestrator.errors import Interrupted, StorageError, StudyLocked
from orchestrator.events import Event
from orchestrator.journal import Journal, StudyLock
from orchestrator.mirror import mirror_all
from orchestrator.reading import study_of
from orchestrator.record import Record, record_of
from orchestrator.standing import standing_of
from orchestrator.study import Study
from orchestrator.sweep import Sweep
from tests.conftest import _TINY
from tests.faults import drivers
from tests.faults.drivers import Command, hook
from tests.synthetic import Synthetic
from tests.test_cli import kdsweep
from tests.test_remote_storage import BUCKET, Google
from tests.test_sweep import launch
from tests.wandb_server import HANG, FakeServer
from trainables import remote
from trainables.loop import never
from trainables.store import Store, StoreError
from trainables.trial import Leg, Report, Row

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
_SEARCH, _CONFIRM, _RUN = (_TINY.index(f"\n{part}:") for part in ("search", "confirm", "run"))
SEARCH = _TINY[:_CONFIRM] + _TINY[_RUN:]
"""The tiny study without its second stage: 13 legs."""
CONFIRM = _TINY[:_SEARCH] + _TINY[_CONFIRM:]
"""And without its first one: 8 cells."""
SILENT = hook(drivers.trains_nothing)


class Doing(Synthetic):
    """Does something right before its n-th leg, and brings reports."""

    def __init__(self, does: Mapping[int, Callable[[], object]] | None = None, nap_s: float = 0.0) -> None:
        super().__init__(nap_s=nap_s)
        self.count, self.does = 0, does or {}

    def run(self, leg: Leg, halt: Callable[[], bool] = never) -> Row:
        self.count += 1
        self.does.get(self.count, lambda: None)()
        row = super().run(leg, halt)
        steps = range(row.steps - 40, row.steps + 10, 10)
        return replace(row, reports=tuple(Report(step, step / 100, {"validation.accuracy": step / 1000}) for step in steps))


def run(text: str, storage: Path | str, runner: Synthetic | None = None, *overrides: str) -> Outcome:
    """Like the command, in this process."""
    made = Launch(in_process=True, make_runner=lambda _: runner or Synthetic())
    return drive(study_of(text, overrides, options={"storage": str(storage)}), made, Console(quiet=True))


def differences(one: Path | str, other: Path | str) -> list[str]:
    # Somebody may commit while the tests run.
    trials = table.same(*(table.read_trials(f"{folder}/tiny").drop_columns(["code_commit"]) for folder in (one, other)))
    return trials + table.same(table.read_reports(f"{one}/tiny"), table.read_reports(f"{other}/tiny"))


def trained_twice(found: tuple[Event, ...]) -> list[str]:
    """Cells of which a second training came to its end."""
    ends = [event["cell"] for event in found if event["event"] == "row" and event["status"] == "ok"]
    return sorted(cell for cell in set(ends) if ends.count(cell) > 1)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the study with its search alone ran without a fault."""
    folder = tmp_path_factory.mktemp("whole")
    run(SEARCH, folder)
    return folder


@pytest.fixture
def half(whole: Path, tmp_path: Path) -> Path:
    """Where it came two thirds of the way and was killed; its table was written a moment before."""
    run(SEARCH, tmp_path)
    file = tmp_path / "tiny/journal.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[: 2 * len(lines) // 3]))
    table.write(record_of(Journal(tmp_path / "tiny").read()), tmp_path / "tiny")
    assert 3 < table.read_trials(tmp_path / "tiny").num_rows < table.read_trials(whole / "tiny").num_rows
    return tmp_path


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Callable[..., Command]]:
    """Starts `kdsweep run` of a study in another process; all of them end with the test."""
    started: list[Command] = []

    def start(text: str = SEARCH, storage: Path | str = tmp_path, **options: object) -> Command:
        file = tmp_path / "tiny.yaml"
        file.write_text(text)
        arguments = ("run", str(file), "--storage", str(storage), "--in-process")
        started.append(Command(tmp_path / f"said-{len(started)}", *arguments, **options))  # type: ignore[arg-type]
        return started[-1]

    yield start
    for each in started:
        each.stop()


# The driver is killed


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        (drivers.dies_behind_leg, 5),
        (drivers.dies_in_append, 1),
        (drivers.dies_in_append, 9),
        (drivers.dies_before_commit, 1),
        (drivers.dies_before_commit, 5),
        (drivers.dies_within_commit, 6),
    ],
    ids=lambda part: part.__name__ if callable(part) else str(part),
)
def test_a_driver_killed_at_an_exact_moment_loses_nothing_finished(
    moment: Callable[..., None], number: int, whole: Path, tmp_path: Path, command: Callable[..., Command]
) -> None:
    assert command(hook=hook(moment, number)).end()[0] == -9
    before = Journal(tmp_path / "tiny").read()
    finished = {attempt.cell for attempt in record_of(before).finished}
    if moment is drivers.dies_before_commit:
        assert table.read_trials(tmp_path / "tiny").num_rows < len(finished), "the journal is not ahead of the table"
    assert run(SEARCH, tmp_path).exit_code == 0
    after = Journal(tmp_path / "tiny").read()
    assert after[: len(before)] == before
    assert {event["cell"] for event in after[len(before) :] if event["event"] == "row"}.isdisjoint(finished)
    assert differences(whole, tmp_path) == []


def test_a_driver_killed_at_random_moments_ends_in_the_table_of_an_unbroken_run(
    whole: Path, tmp_path: Path, command: Callable[..., Command]
) -> None:
    rng = random.Random(20)
    file, kills = tmp_path / "tiny/journal.jsonl", 0

    def rows() -> int:
        return file.read_bytes().count(b'"event":"row"') if file.exists() else 0

    while True:
        enough, later_s = rows() + rng.randrange(2, 7), rng.uniform(0.0, 0.06)
        launched = command(hook=hook(drivers.trains_nothing, 0.02))
        while not launched.is_over and rows() < enough:
            time.sleep(0.005)
        time.sleep(later_s)
        launched.stop()
        code, said = launched.end()
        if code != -9:
            break
        kills += 1
        assert kills < 20, "it does not get on"
    assert (code, kills >= 2) == (0, True), said
    assert differences(whole, tmp_path) == []
    assert trained_twice(Journal(tmp_path / "tiny").read()) == []


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_once_saves_what_is_in_flight_and_twice_does_not_wait_for_it(
    times: int, whole: Path, tmp_path: Path, command: Callable[..., Command]
) -> None:
    begun = tmp_path / "go.begun"
    # A leg that is deaf to the first is not to keep the second waiting.
    moment = hook(drivers.takes_long, 4, begun) if times == 1 else hook(drivers.waits, 4, tmp_path / "go")
    launched = command(hook=moment)
    wait_for(begun.exists)
    launched.send(signal.SIGINT)
    if times == 2:
        time.sleep(0.3)
        assert not launched.is_over
        launched.send(signal.SIGINT)
    code, said = launched.end(30.0)
    assert (code, "Traceback" in said) == (4, False), said
    assert "the same command goes on from there" in said
    found = Journal(tmp_path / "tiny").read()
    assert (found[-1]["event"], found[-1]["status"]) == ("end", "interrupted")
    assert [event["status"] for event in found if event["event"] == "row"].count("preempted") == (1 if times == 1 else 0)
    run(SEARCH, tmp_path)
    assert differences(whole, tmp_path) == []
    assert trained_twice(Journal(tmp_path / "tiny").read()) == []


# The journal


TAILS = {
    "torn": b'{"event":"row","cell":"ab',
    "torn in a word of two bytes": '{"event":"row","message":"é'.encode()[:-1],
    "NUL bytes": bytes(5000),
    "a corrupt line": b'{"event":"row","cell":"\xfe\n',
    "NUL bytes and a newline": bytes(4096) + b"\n",
    "several lines": b'\xff\xfe\n{]\n\n"event"\n' + bytes(9),
}


@pytest.mark.parametrize("tail", TAILS)
def test_a_corrupt_end_of_the_journal_costs_what_was_not_durable(
    tail: str, whole: Path, half: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, file = half / "tiny", half / "tiny/journal.jsonl"
    sound, data = Journal(folder).read(), file.read_bytes()
    file.write_bytes(data + TAILS[tail])
    lines = data.count(b"\n")
    bad = 0 if "\n" not in TAILS[tail].decode(errors="replace") else {"several lines": 3}.get(tail, 1)

    standing = standing_of(str(folder))
    assert (standing.end, standing.driver) == (None, None)
    said = [record.message for record in caplog.records if record.name == "orchestrator.journal"]
    assert len(said) == (1 if bad else 0)
    assert all(
        each.startswith(f"{file} has no events behind line {lines} (lines that are none: {bad})") and f"moves them to {folder}" in each
        for each in said
    )
    assert file.read_bytes() == data + TAILS[tail], "reading changes nothing"

    run(SEARCH, half)
    assert file.read_bytes().startswith(data + b'{"event":')
    after = Journal(folder).read()
    assert after[: len(sound)] == sound
    told = [event for event in after if event["event"] == "damage"]
    if bad:
        assert (folder / "journal.damaged").read_bytes() == TAILS[tail]
        assert [(event["line"], event["lines"], event["kept"]) for event in told] == [(lines + 1, bad, "journal.damaged")]
    else:
        assert (told, (folder / "journal.damaged").exists()) == ([], False)
    assert differences(whole, half) == []
    assert trained_twice(after) == []


def test_a_second_corrupt_end_is_kept_beside_the_first(tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    for number in range(2):
        Journal(tmp_path).append([{"event": "said", "number": number}])
        with file.open("ab") as handle:
            handle.write(b"{%d\n" % number)
    Journal(tmp_path).append([{"event": "said", "number": 2}])
    found = Journal(tmp_path).read()
    assert [event["number"] for event in found if event["event"] == "said"] == [0, 1, 2]
    assert (tmp_path / "journal.damaged").read_bytes() == b"{0\n{1\n"


@pytest.mark.parametrize("broken", [b'{"event":"row",', bytes(64), b""], ids=["cut", "NUL bytes", "first line alone"])
def test_a_corrupt_line_in_the_middle_is_refused_with_its_number_and_the_remedy_works(
    broken: bytes, whole: Path, half: Path, command: Callable[..., Command]
) -> None:
    file = half / "tiny/journal.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    # The last row of a cell: what it said is to be done again.
    place = next(number for number in reversed(range(len(lines))) if b'"event":"row"' in lines[number]) if broken else 0
    lines[place] = (broken or b"?") + b"\n"
    lines = lines if broken else lines[:1]
    file.write_bytes(b"".join([*lines, b'{"event":"said"}\n'] if broken else lines))
    before = {path: path.read_bytes() for path in half.rglob("*") if path.is_file() and path.name != ".lock"}
    code, said = command(hook=SILENT).end()
    assert (code, said.count("\n")) == (2, 1), said
    assert f"{file} needs one event a line, but got line {place + 1}=" in said
    assert "Restore the journal from a copy, or delete that line" in said
    assert {path: path.read_bytes() for path in before} == before
    if broken:
        del lines[place]
        file.write_bytes(b"".join(lines))
        run(SEARCH, half)
        assert differences(whole, half) == []


@pytest.mark.parametrize("how", ["emptied", "deleted", "torn in its first line"])
def test_a_lost_journal_is_not_begun_anew_while_its_table_stands(how: str, whole: Path, half: Path) -> None:
    file, parquet = half / "tiny/journal.jsonl", half / "tiny/trials.parquet"
    before = parquet.read_bytes()
    copy = file.read_bytes()
    file.unlink() if how == "deleted" else file.write_bytes(b"" if how == "emptied" else copy[:50])
    for verb in (lambda: run(SEARCH, half), lambda: standing_of(str(half / "tiny")), lambda: report.write(half / "tiny")):
        with pytest.raises(StorageError, match=f"needs its journal, but got {parquet} beside no event.*Restore it from a copy"):
            verb()
    assert parquet.read_bytes() == before
    file.write_bytes(copy)
    run(SEARCH, half)
    assert differences(whole, half) == []
    # And the other remedy.
    file.unlink()
    parquet.unlink()
    run(SEARCH, half)
    assert differences(whole, half) == []


# The table


DAMAGES: dict[str, Callable[[Path], object]] = {
    "corrupt": lambda path: path.write_bytes(b"PAR1" + bytes(500) + b"PAR1"),
    "half written": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "of no bytes": lambda path: path.write_bytes(b""),
    "missing": Path.unlink,
    "a page of NUL bytes": lambda path: path.write_bytes(path.read_bytes()[:100] + bytes(200) + path.read_bytes()[300:]),
}


@pytest.mark.parametrize(("damage", "verb"), [*((damage, "export") for damage in DAMAGES), ("corrupt", "report"), ("of no bytes", "run")])
def test_a_damaged_table_is_made_again_from_the_journal(
    damage: str, verb: str, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    folder = tmp_path / "tiny"
    shutil.copytree(whole / "tiny", folder)
    (tmp_path / "tiny.yaml").write_text(SEARCH)
    files = {name: folder / f"{name}.parquet" for name in table.TABLES}
    good = {name: path.read_bytes() for name, path in files.items()}
    for path in files.values():
        DAMAGES[damage](path)
    if verb == "report":
        assert kdsweep(capsys, monkeypatch, "status", str(folder), "--json")[0] == 0
        assert kdsweep(capsys, monkeypatch, "compare", str(folder), str(whole / "tiny"))[0] == 0
        caplog.clear()
    more = {"export": ("--to", str(tmp_path / "exported")), "report": (), "run": ("--storage", str(tmp_path), "--in-process")}[verb]
    code, out, _ = kdsweep(capsys, monkeypatch, verb, str(tmp_path / "tiny.yaml" if verb == "run" else folder), *more)
    assert code == 0
    assert {name: path.read_bytes() for name, path in files.items()} == good
    if verb == "run":
        assert "Nothing to train" in out
    else:
        was = "missing" if damage == "missing" else "damaged"
        assert {each.message for each in caplog.records} == {
            f"{path} was {was}: it was made again from the journal." for path in files.values()
        }
    if verb == "export":
        assert {name: (tmp_path / f"exported/{name}.parquet").read_bytes() for name in files} == good


def test_a_table_that_is_behind_the_journal_is_brought_up_to_date_but_not_under_a_driver(whole: Path, half: Path) -> None:
    folder = half / "tiny"
    shutil.copy(whole / "tiny/journal.jsonl", folder / "journal.jsonl")
    behind = (folder / "trials.parquet").read_bytes()
    with StudyLock(folder):
        assert table.mend(folder) == ()
        assert (folder / "trials.parquet").read_bytes() == behind
        table.export(folder, "parquet", half / "exported")
    assert (half / "exported/trials.parquet").read_bytes() == (whole / "tiny/trials.parquet").read_bytes()
    assert "trials" in table.mend(folder)
    assert table.mend(folder) == ()
    assert differences(whole, half) == []


def test_without_a_journal_that_can_be_read_the_last_table_is_exported(
    whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(whole / "tiny", tmp_path / "tiny")
    (tmp_path / "tiny/journal.jsonl").unlink()
    table.export(tmp_path / "tiny", "parquet", tmp_path)
    assert (tmp_path / "trials.parquet").read_bytes() == (whole / "tiny/trials.parquet").read_bytes()
    assert "What is exported is the table as it was last written" in caplog.text


# The disk


def moved_away(storage: Path) -> None:
    (storage / "tiny").rename(storage / "elsewhere")


def shortened(storage: Path) -> None:
    file = storage / "tiny/journal.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[: max(place for place, line in enumerate(lines) if b'"event":"row"' in line)]))


@pytest.mark.parametrize(("change", "found"), [(moved_away, "no such file"), (shortened, r"\d+ bytes instead of \d+")])
def test_a_driver_whose_folder_is_changed_under_it_stops_and_writes_nothing(
    change: Callable[[Path], None], found: str, tmp_path: Path
) -> None:
    needs = f"Writing {tmp_path}/tiny/journal.jsonl needs the file as this driver left it, but got {found}"
    with pytest.raises(StorageError, match=needs) as caught:
        run(SEARCH, tmp_path, Doing({6: lambda: change(tmp_path)}))
    assert "Put it back as it was" in str(caught.value)
    if change is moved_away:
        assert not (tmp_path / "tiny").exists(), "a journal without its beginning"
        (tmp_path / "elsewhere").rename(tmp_path / "tiny")
    kept = Journal(tmp_path / "tiny").read()
    legs = [event for event in kept if event["event"] == "row" and event["seconds"] > 0]
    assert len(legs) == (5 if change is moved_away else 4)
    run(SEARCH, tmp_path, Doing())
    run(SEARCH, tmp_path / "whole", Doing())
    assert differences(tmp_path / "whole", tmp_path) == []


SMALL_DISK = ("journal", "checkpoint", "table", "report", "read-only")


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, object]]:
    """What happened on a disk of a few hundred kilobytes, in a mount namespace that goes with its process."""
    unshare = shutil.which("unshare")
    # Root needs no namespace of users, and others may not be allowed one.
    spaces = [[unshare, "-m"], [unshare, "-Urm"]] if unshare else []
    trial = ["mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    space = next((each for each in spaces if not subprocess.run([*each, *trial], check=False, capture_output=True).returncode), None)
    if space is None:
        pytest.skip("a small disk needs Linux, unshare and mount, and leave to make a mount namespace")
    folder = tmp_path_factory.mktemp("disk")
    (folder / "tiny.yaml").write_text(SEARCH)
    code = [*space, sys.executable, "-m", "tests.faults.small_disk", str(folder), *SMALL_DISK]
    done = subprocess.run(code, cwd=ROOT, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return {name: json.loads((folder / f"{name}.json").read_text()) for name in SMALL_DISK}


@pytest.mark.parametrize(
    ("where", "needs"),
    [
        (
            "journal",
            r"Writing needs permission and space for {disk}/tiny/journal\.jsonl, but got OSError: \[Errno 28\].* make room, then run",
        ),
        (
            "checkpoint",
            r"Writing checkpoints/\w+\.pt below {disk}/tiny/artifacts needs permission and space, but got OSError: \[Errno 28\].*",
        ),
        (
            "table",
            r"Writing needs permission and space for {disk}/tiny/studies\.parquet, but got OSError: \[Errno 28\].* make room, then run",
        ),
        ("report", r"Writing needs permission and space for {disk}/tiny/.*, but got OSError: \[Errno 28\].* make room, then run"),
        ("read-only", r"Writing needs permission and space for {disk}/tiny/journal\.jsonl, but got OSError: \[Errno 30\].*"),
    ],
)
def test_a_disk_that_is_full_or_read_only_ends_the_launch_with_the_remedy_and_the_same_command_goes_on(
    where: str, needs: str, small_disk: dict[str, dict[str, object]]
) -> None:
    found = small_disk[where]
    assert found["code"] == 2
    assert re.fullmatch(needs.replace("{disk}", str(found["disk"])) + r"[^\n]*\n", str(found["said"])), found["said"]
    assert found["finished"] == found["kept"], "rows that stood in the journal are gone"
    assert (found["later"], found["differences"], found["repeated"]) == (0, [], [])


def test_a_checkpoint_that_does_not_fit_leaves_the_one_before(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.write("checkpoints/a.pt", b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
        with pytest.raises(StoreError, match=f"Writing checkpoints/a.pt below {tmp_path} needs permission and space, but got OSError"):
            store.write("checkpoints/a.pt", bytes(60_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert store.read("checkpoints/a.pt") == b"old"
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1


def test_a_bucket_that_is_away_for_longer_than_a_call_waits_is_waited_for(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    google = Google(tmp_path)
    try:
        for name, value in google.environment().items():
            monkeypatch.setenv(name, value)
        # A minute and a half where a call may take a minute, at sixty times the speed.
        monkeypatch.setattr(remote, "ANSWER_S", 1.0)
        storage, root = f"gs://{BUCKET}/{uuid4().hex}", f"gs://{BUCKET}/{uuid4().hex}"
        store = Store(root)

        def away() -> None:
            google.stop()
            threading.Timer(1.5, google.start).start()

        run(SEARCH, storage, Doing({5: away, 9: lambda: (away(), store.write("checkpoints/a.pt", b"kept"))}))
        assert store.read("checkpoints/a.pt") == b"kept"
        run(SEARCH, tmp_path, Doing())
        assert differences(tmp_path, storage) == []
    finally:
        google.stop()


# Two drivers


@pytest.mark.parametrize("place", ["local", "bucket"])
def test_the_second_of_two_drivers_is_told_who_is_at_work(
    place: str, whole: Path, tmp_path: Path, command: Callable[..., Command], monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, environment = str(tmp_path), {}
    with contextlib.ExitStack() as stack:
        if place == "bucket":
            google = Google(tmp_path)
            stack.callback(google.stop)
            storage, environment = f"gs://{BUCKET}/{uuid4().hex}", google.environment()
            for name, value in environment.items():
                monkeypatch.setenv(name, value)
        first = command(storage=storage, hook=hook(drivers.waits, 4, tmp_path / "go"), environment=environment)
        wait_for((tmp_path / "go.begun").exists)
        code, said = command(storage=storage, hook=SILENT, environment=environment).end()
        assert (code, said.count("\n")) == (2, 1), said
        assert f"needs one driver at a time, but got {storage}/tiny in use by process {first.pid} on " in said
        assert "Wait for it, or stop it" in said
        assert f"process {first.pid} on" in str(standing_of(f"{storage}/tiny").driver)
        (tmp_path / "go").touch()
        code, said = first.end()
        assert code == 0, said
        assert differences(whole, storage) == []
        assert trained_twice(Journal(f"{storage}/tiny").read()) == []


def wait_for(condition: Callable[[], object], limit_s: float = 30.0) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


# Clocks


class Wrong(datetime):
    """A clock that is wrong by what is in ``by``."""

    by = [timedelta(0)]  # noqa: RUF012  # what a test turns, through the class that it made for itself

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
        return datetime.now(tz) + cls.by[0]


def test_a_clock_that_goes_backwards_changes_no_number(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock(Wrong):
        by = [timedelta(0)]  # noqa: RUF012

    def goes(**back: float) -> Callable[[], None]:
        return lambda: Clock.by.__setitem__(0, Clock.by[0] - timedelta(**back))

    def stops() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(events, "datetime", Clock)
    with pytest.raises(Interrupted):
        run(SEARCH, tmp_path, Doing({4: goes(hours=1), 7: goes(days=3653), 9: stops}))
    goes(hours=1)()
    standing = standing_of(str(tmp_path / "tiny"))
    assert (standing.end, standing.driver) == ("interrupted", None)
    run(SEARCH, tmp_path, Doing({2: goes(hours=1)}))
    times = [event["time"] for event in Journal(tmp_path / "tiny").read()]
    assert sum(later < earlier for earlier, later in pairwise(times)) >= 3, "the clock did not go back"
    run(SEARCH, tmp_path / "whole", Doing())
    assert differences(tmp_path / "whole", tmp_path) == []
    found = table.read_trials(tmp_path / "tiny").to_pandas()
    assert (found.seconds > 0).all()
    assert standing_of(str(tmp_path / "tiny")).end == "complete"
    assert report.write(tmp_path / "tiny")
    told = json.loads((tmp_path / "tiny/report.json").read_text())["ran"]
    assert [value for value in told.values() if isinstance(value, int | float) and value < 0] == []


@pytest.mark.parametrize("wrong", [timedelta(hours=-1), timedelta(days=-3653), timedelta(hours=1)], ids=str)
def test_the_lock_of_a_driver_with_a_wrong_clock_is_respected(wrong: timedelta, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "_RENEW_S", 0.1)
    place = f"memory://{uuid4().hex}/tiny"
    with StudyLock(place, clock=lambda: events.utc_now() + wrong), pytest.raises(StudyLocked, match=f"in use by process {os.getpid()}"):
        StudyLock(place).__enter__()


def test_a_lock_of_the_future_whose_holder_died_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "_RENEW_S", 0.1)
    monkeypatch.setattr(lease, "_STALE_S", 0.5)
    place = f"memory://{uuid4().hex}/tiny"
    told = {"host": "away", "pid": 7, "since": "then", "token": "other", "renewed": "2099-01-01T00:00:00+00:00"}
    lease.RemoteFolder(place).replace(lease.NAME, json.dumps(told).encode())
    assert lease.living_holder(lease.RemoteFolder(place), events.utc_now) is None
    with StudyLock(place):
        assert f"process {os.getpid()}" in str(lease.living_holder(lease.RemoteFolder(place), events.utc_now))


# W&B


@pytest.mark.parametrize(("when", "fault"), [("start", 401), ("middle", HANG), ("end", 429)])
def test_w_and_b_that_fails_costs_no_training_and_a_bounded_end(
    when: str, fault: str | int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "_DRAIN_S", 2.0)
    monkeypatch.setenv("WANDB_API_KEY", "feedfacecafebeef" * 3)
    overrides = ("confirm.leave_one_out=[]", "confirm.blocks=1")
    run(CONFIRM, tmp_path / "whole", Doing(), *overrides)
    with FakeServer() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        began: list[float] = []

        def breaks() -> None:
            if when != "start":
                wait_for(lambda: any(each.exit_code == 0 for each in server.runs.values()))
            # In the middle, the server has heard of a run, and never of what it measured.
            setattr(server, "stream_mode" if when == "middle" else "mode", fault)
            began.append(time.monotonic())

        at = {"start": 1, "middle": 2, "end": 3}[when]
        outcome = run(CONFIRM, tmp_path, Doing({at: breaks}, nap_s=0.05), *overrides, "run.wandb=online", "run.wandb_project=kd")
        # Two seconds for W&B, one to end its process; the rest is slack for a machine that is busy. A try alone waits for ten.
        assert time.monotonic() - began[0] < 2.0 + 1.0 + 8.0
        assert (outcome.exit_code, outcome.counts["ok"]) == (0, 3)
        assert outcome.mirrored.startswith("W&B")
        assert f"of 3 cells mirrored; `kdsweep mirror {tmp_path}/tiny` goes on from there" in outcome.mirrored
        assert differences(tmp_path / "whole", tmp_path) == []

        server.mode = server.stream_mode = "ok"
        said = mirror_all(tmp_path / "tiny", "online", "kd")
        assert said.startswith("W&B: 3 of 3 cells mirrored to "), said
        assert len(server.runs) == len({each.name for each in server.runs.values()}) == 3
        for each in server.runs.values():
            assert each.steps == list(range(60, 110, 10))
            assert (each.exit_code, each.summary["status"]) == (0, "ok")


# The sampler


def searched(study: Study, lanes: int, record: Record | None = None, until: int | None = None) -> list[Event]:
    """Events of a search with so many legs in flight, up to so many finished proposals; legs in flight are lost then."""
    found: list[Event] = [launch(study)]
    sweep = Sweep(study, record or record_of([]))
    found += sweep.drain()
    host, flying, rng = Synthetic(), [], random.Random(lanes)
    finished = -1  # the teacher is no proposal
    while True:
        while len(flying) < lanes and (leg := sweep.take()) is not None:
            flying.append(leg)
        found += sweep.drain()
        if not flying or (until is not None and finished >= until):
            return found
        brought = sweep.give(host.run(flying.pop(rng.randrange(len(flying)))))
        finished += sum(event["event"] == "row" and event["status"] in ("ok", "stopped") for event in brought)
        found += brought


def proposals(found: list[Event]) -> dict[int, object]:
    return {event["number"]: event["point"] for event in found if event["event"] == "cell" and event["stage"] == "search"}


def of_one_arm(*overrides: str) -> Study:
    return study_of(SEARCH.replace("  vanilla: {method: vanilla}\n", ""), ["search.startup=10", *overrides])


@functools.cache
def in_one_go(rungs: str) -> dict[int, object]:
    return proposals(searched(fifty(rungs), 1))


def fifty(rungs: str) -> Study:
    return of_one_arm("search.trials=50", "search.generation=5", f"search.rungs={rungs}")


@pytest.mark.parametrize("rungs", ["[]", "[0.5]"])
@pytest.mark.parametrize("lanes", [1, 2, 5])
def test_twenty_five_and_twenty_five_proposals_after_a_restart_are_fifty_in_one_go(lanes: int, rungs: str) -> None:
    study, one_go = fifty(rungs), in_one_go(rungs)
    before = searched(study, lanes, until=25)
    assert len([each for each in record_of(before).finished if each.plan["stage"] == "search"]) in range(25, 30)
    assert len(proposals(before)) < 50
    after = searched(study, lanes, record_of(before))
    assert list(one_go) == list(range(50))
    assert proposals([*before, *after]) == one_go
    kinds = [event["proposed_by"] for event in [*before, *after] if event["event"] == "cell" and event["stage"] == "search"]
    assert set(kinds) == {"random", "tpe"}


def test_seventy_two_trials_over_seventy_two_cells_are_seventy_two_cells() -> None:
    space = "search.space={all: {recipe.batch: {choice: [16, 32, 64, 128, 256, 512]}, recipe.epochs: {int_uniform: [1, 12]}}}"
    study = of_one_arm("search.trials=72", "search.generation=6", "search.rungs=[]", "search.sampler=random", space)
    found = searched(study, 3)
    assert len({event["cell"] for event in found if event["event"] == "cell" and event["stage"] == "search"}) == 72
    assert len({tuple(sorted(point.items())) for point in proposals(found).values()}) == 72  # type: ignore[attr-defined]


# The list


def test_every_test_that_the_list_of_faults_names_is_there() -> None:
    rows = [line.split("|")[1:-1] for line in (ROOT / "docs/faults.md").read_text().splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 20
    for fault, *_, tests in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", tests)
        assert named, f"no test for {fault}"
        for file, name in named:
            tree = ast.parse((ROOT / file).read_text())
            assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, f"{file} has no {name}"

"""The mirror against files that wandb really writes, and against a server on loopback that fails in every way it can."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import StorageError
from orchestrator.journal import Event, Journal, StudyLock, cell_event
from orchestrator.mirror import Mirror, mirror_all, online_problem
from tests.wandb_offline import OfflineRun, read_run
from tests.wandb_server import HANG, FakeServer, ServerRun

PROJECT = "kd"
SECRETS = {"WANDB_API_KEY": "feedfacecafebeef" * 3, "AWS_SECRET_ACCESS_KEY": "planted-in-the-environment"}
METRIC = "validation.accuracy"


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as server:
        yield server


@pytest.fixture
def environ(tmp_path: Path) -> Iterator[dict[str, str]]:
    """An environment with secrets, and a check that none of them got into any file."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    home = tmp_path / "home"
    home.mkdir()
    # The address is of no server: whoever forgets to give one talks to nobody.
    yield {**kept, "HOME": str(home), "WANDB_BASE_URL": "http://127.0.0.1:9", **SECRETS}
    for path in tmp_path.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert not [name for name, secret in SECRETS.items() if secret.encode() in data], path


@pytest.fixture
def start(tmp_path: Path, environ: dict[str, str]) -> Iterator[Callable[..., Mirror]]:
    """Starts mirrors of the study under test, which all end with the test."""
    mirrors: list[Mirror] = []

    def start(mode: str = "offline", server: FakeServer | None = None, answer_s: float = 10.0) -> Mirror:
        address = {} if server is None else {"WANDB_BASE_URL": server.url}
        mirrors.append(Mirror(tmp_path / "study", mode, PROJECT, answer_s=answer_s, environ={**environ, **address}))
        return mirrors[-1]

    yield start
    for mirror in mirrors:
        mirror.finish(0.0)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """Of a study that was launched, and has no cells yet."""
    journal = Journal(tmp_path / "study")
    facts: dict[str, Any] = {"event": "study", "time": "2026-01-01T00:00:00.000000+00:00", "study": "digits", "fingerprint": "f00d"}
    facts |= {"metric": {"select": METRIC, "report": METRIC, "goal": "maximise"}, "versions": {}, "mode": "generations"}
    facts |= {"code_commit": None, "lock_hash": None, "space_fingerprint": "", "parameters": [], "metrics": [METRIC]}
    journal.append([facts])
    return journal


def cell(name: str, **changes: Any) -> Event:
    facts: dict[str, Any] = {
        "attempt": 1,
        "stage": "search",
        "arm": "slam",
        "method": "slam",
        "block": 0,
        "seeds": {"split": 1, "teacher": 2, "init": 3, "order": 4},
        "generation": 0,
        "number": 7,
        "proposed_by": "random",
        "needs": [],
        "config": {"method.lower_bound": 0.25, "recipe.schedule.kind": "cosine", "recipe.epochs": 20},
    }
    return cell_event(cell=name, **{**facts, **changes})


def row(name: str, status: str = "ok", steps: range = range(10, 90, 10), **changes: Any) -> Event:
    """A leg whose reports are at ``steps`` of 80, with an accuracy of a thousandth of the step."""
    reports = [{"step": step, "progress": step / 80, "metrics": {METRIC: step / 1000}} for step in steps]
    facts = {"attempt": 1, "metrics": reports[-1]["metrics"] if reports else {}, "message": "", "trace": "", "where": {}}
    facts |= {"progress": steps[-1] / 80 if steps else 0.5, "steps": steps[-1] if steps else 40, "seconds": 1.5, "device_seconds": 3.0}
    return {
        "event": "row",
        "time": "2026-01-01T00:00:01.000000+00:00",
        "cell": name,
        "status": status,
        "reports": reports,
        **facts,
        **changes,
    }


def finished_cells(count: int) -> list[Event]:
    return [event for index in range(count) for event in (cell(f"cell-{index}", block=index), row(f"cell-{index}"))]


def offline_runs(study: Path) -> dict[str, OfflineRun]:
    """By name; that no name and no id comes twice is checked on the way."""
    runs = [read_run(path) for path in sorted(study.glob("wandb/offline-run-*/*.wandb"))]
    assert len({run.id for run in runs}) == len({run.name for run in runs}) == len(runs)
    return {run.name: run for run in runs}


def mirrored(study: Path) -> dict[str, Any]:
    """Cells that mirror.json knows as mirrored, whatever the target."""
    with contextlib.suppress(FileNotFoundError):
        targets = json.loads((study / "wandb" / "mirror.json").read_text())["targets"]
        return {name: entry for target in targets.values() for name, entry in target["cells"].items()}
    return {}


def problem(study: Path) -> str:
    with contextlib.suppress(FileNotFoundError):
        return next(iter(json.loads((study / "wandb" / "mirror.json").read_text())["targets"].values()))["problem"]
    return ""


def wait_until(condition: Callable[[], object], limit_s: float = 30.0) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def services(pid: int) -> list[int]:
    """Processes that the mirroring process started: wandb's own service."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def whole(chunks: list[tuple[int, int]]) -> int:
    """Lines in all of the chunks (offset, lines), each of which must begin where the one before ended.

    In how many requests a history arrives is up to wandb and to how busy the machine is.
    """
    lines = 0
    for offset, count in chunks:
        assert offset == lines
        lines += count
    return lines


def test_offline_runs_say_what_the_journal_says(tmp_path: Path, journal: Journal, start: Callable[..., Mirror]) -> None:
    mirror = start()
    journal.append(
        [
            cell("t", stage="teacher", arm="teacher", method=None, number=None, generation=None, proposed_by="default"),
            row("t", message="fine"),
            cell("s"),
            row("s", "running", range(10, 50, 10)),
        ]
    )
    wait_until(lambda: "t/1" in mirrored(tmp_path / "study"))
    # What comes later, while the mirror runs: a second leg, an early stop, a failure, and a second attempt at it.
    journal.append([row("s", "stopped", range(0), seconds=0.0, device_seconds=0.0)])
    journal.append([cell("c", stage="confirm", arm="slam, mixing=normalised", block=3, proposed_by="design")])
    journal.append([row("c", "running", range(10, 50, 10)), row("c", "ok", range(50, 90, 10), metrics={METRIC: 0.9, "test.accuracy": 0.8})])
    journal.append([cell("f", block=1), row("f", "failed", range(10, 30, 10), metrics={}, message="loss is not a number")])
    journal.append(
        [cell("f", block=1, attempt=2), row("f", attempt=2), cell("u", block=2), row("u", "running", range(10, 50, 10)), cell("n")]
    )
    journal.append([row("c", "preempted", range(10, 30, 10), seconds=0.5, device_seconds=1.0), row("n", "preempted", range(10, 30, 10))])

    said = mirror.finish(30.0)

    directory = tmp_path / "study" / "wandb"
    assert said == f"W&B: 5 of 5 cells mirrored offline in {directory}; upload with `wandb sync {directory}/offline-run-*`"
    runs = offline_runs(tmp_path / "study")
    confirmed = runs["slam, mixing=normalised / block 3"]
    assert confirmed.project == PROJECT
    assert (confirmed.group, confirmed.job_type) == ("slam, mixing=normalised", "confirm")
    assert confirmed.tags == ("digits", "slam", "confirm", "ok", "block-3")
    config = {name: value for name, value in confirmed.config.items() if name != "_wandb"}
    assert config == {
        "method.lower_bound": 0.25,
        "recipe.schedule.kind": "cosine",
        "recipe.epochs": 20,
        "arm": "slam, mixing=normalised",
        "method": "slam",
        "block": 3,
        "stage": "confirm",
        "generation": 0,
        "number": 7,
        "proposed_by": "design",
        "cell": "c",
        "attempt": 1,
        "study": "digits",
        "seeds": {"split": 1, "teacher": 2, "init": 3, "order": 4},
    }
    points = [(item["_step"], item["progress"], item[METRIC]) for item in confirmed.history]
    assert points == [
        (10, 0.125, 0.01),
        (20, 0.25, 0.02),
        (30, 0.375, 0.03),
        (40, 0.5, 0.04),
        (50, 0.625, 0.05),
        (60, 0.75, 0.06),
        (70, 0.875, 0.07),
        (80, 1.0, 0.08),
    ]
    expected = {METRIC: 0.9, "test.accuracy": 0.8, "status": "ok", "progress": 1.0, "steps": 80, "seconds": 3.5, "device_seconds": 7.0}
    assert {name: confirmed.summary[name] for name in expected} == expected
    assert runs["teacher / block 0"].tags == ("digits", "teacher", "ok", "block-0")
    assert runs["teacher / block 0"].summary["message"] == "fine"
    outcomes = {name: (run.exit_code, run.summary["status"], len(run.history)) for name, run in runs.items()}
    assert outcomes == {
        "teacher / block 0": (0, "ok", 8),
        "slam #7 / block 0": (0, "stopped", 4),
        "slam, mixing=normalised / block 3": (0, "ok", 8),
        "slam #7 / block 1": (1, "failed", 2),
        "slam #7 / block 1 / attempt 2": (0, "ok", 8),
    }
    assert (directory / "mirror.log").read_text() == ""


def test_a_second_mirror_adds_nothing_and_a_longer_journal_only_what_is_new(
    tmp_path: Path, journal: Journal, start: Callable[..., Mirror]
) -> None:
    journal.append(finished_cells(3))
    start().finish(30.0)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "study").glob("wandb/offline-run-*/*.wandb")}
    journal.append([cell("cell-3", block=3), row("cell-3")])

    said = start().finish(30.0)

    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "study").glob("wandb/offline-run-*/*.wandb")}
    assert said.startswith("W&B: 4 of 4 cells mirrored offline")
    assert before.items() < after.items()
    assert len(after) == 4


def test_what_was_mirrored_offline_can_be_uploaded_as_the_sentence_says(
    tmp_path: Path, journal: Journal, start: Callable[..., Mirror], server: FakeServer, environ: dict[str, str]
) -> None:
    journal.append(finished_cells(2))
    command = start().finish(30.0).partition("`")[2].rstrip("`").replace("wandb ", f"{sys.executable} -m wandb ")

    done = subprocess.run(
        command,
        shell=True,
        env={**environ, "WANDB_BASE_URL": server.url},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert [run.steps for run in server.runs.values()] == [list(range(10, 90, 10))] * 2
    assert {run.name for run in server.runs.values()} == {"slam #7 / block 0", "slam #7 / block 1"}


def test_online_a_cell_at_a_rung_is_shown_and_gone_on_with(
    tmp_path: Path, journal: Journal, start: Callable[..., Mirror], server: FakeServer
) -> None:
    journal.append([cell("s"), row("s", "running", range(10, 50, 10)), row("s", "preempted", range(50, 60, 10))])
    journal.append([cell("p", block=1), row("p", "preempted", range(10, 30, 10))])
    mirror = start("online", server)
    wait_until(lambda: "s/1" in mirrored(tmp_path / "study"))
    (run,) = server.runs.values()
    assert (run.steps, run.tags, run.summary["status"]) == ([10, 20, 30, 40], ("digits", "slam", "search", "running", "block-0"), "running")
    journal.append([row("s", "diverged", range(50, 70, 10), metrics={METRIC: float("nan")}, message="loss is not a number")])

    said = mirror.finish(30.0)

    assert said == f"W&B: 1 of 1 cells mirrored to {server.url}/tester/{PROJECT}"
    (run,) = server.runs.values()
    assert [(item["_step"], item[METRIC], item["progress"]) for item in run.history] == [
        (10, 0.01, 0.125),
        (20, 0.02, 0.25),
        (30, 0.03, 0.375),
        (40, 0.04, 0.5),
        (50, 0.05, 0.625),
        (60, 0.06, 0.75),
    ]
    assert whole(run.chunks) == 6
    assert 4 in [offset for offset, _ in run.chunks], "the second visit goes on where the first one ended"
    assert (run.name, run.group, run.job_type, run.project) == ("slam #7 / block 0", "slam", "search", PROJECT)
    assert run.tags == ("digits", "slam", "search", "diverged", "block-0")
    assert (run.exit_code, run.summary["status"], run.summary["message"]) == (1, "diverged", "loss is not a number")
    assert run.config["method.lower_bound"]["value"] == 0.25
    assert not [secret for secret in SECRETS.values() for body in server.bodies if secret.encode() in body]
    assert not list((tmp_path / "study").glob("wandb/run-*"))


def assert_complete(runs: dict[str, ServerRun], count: int) -> None:
    assert sorted(run.name for run in runs.values()) == sorted(f"slam #7 / block {index}" for index in range(count))
    assert [run.steps for run in runs.values()] == [list(range(10, 90, 10))] * count
    assert {(run.exit_code, run.summary["status"]) for run in runs.values()} == {(0, "ok")}


def test_an_outage_in_the_middle_loses_and_repeats_nothing(
    tmp_path: Path, journal: Journal, start: Callable[..., Mirror], server: FakeServer
) -> None:
    journal.append(finished_cells(5))
    server.die_after = 3 * 8
    first = start("online", server, answer_s=1.0)
    wait_until(lambda: problem(tmp_path / "study"))
    said = first.finish(1.0)
    assert said.startswith("W&B: the server answered with HTTP 503: ")
    assert "of 5 cells mirrored; `kdsweep mirror" in said
    ids, lines = set(server.runs), server.lines
    assert lines == 24

    server.die_after = None
    said = start("online", server).finish(30.0)

    assert said.startswith("W&B: 5 of 5 cells mirrored to ")
    assert ids < set(server.runs)
    assert_complete(server.runs, 5)
    assert [whole(run.chunks) for run in server.runs.values()] == [8] * 5


def test_a_server_that_comes_back_is_taken_up_again(
    tmp_path: Path, journal: Journal, start: Callable[..., Mirror], server: FakeServer
) -> None:
    server.mode = 503
    journal.append(finished_cells(1))
    mirror = start("online", server, answer_s=0.5)
    wait_until(lambda: "HTTP 503" in problem(tmp_path / "study"))

    server.mode = "ok"

    wait_until(lambda: mirrored(tmp_path / "study"))
    assert mirror.finish(10.0).startswith("W&B: 1 of 1 cells mirrored to ")
    assert_complete(server.runs, 1)


def test_one_run_that_w_and_b_refuses_does_not_hold_up_the_others(
    tmp_path: Path, journal: Journal, start: Callable[..., Mirror], server: FakeServer
) -> None:
    server.refused = "slam #7 / block 0"
    journal.append(finished_cells(3))
    mirror = start("online", server)

    wait_until(lambda: len(mirrored(tmp_path / "study")) == 2)

    said = mirror.finish(10.0)
    assert said.startswith("W&B: the server refused the history of a run: 2 of 3 cells mirrored; ")
    assert {run.name: len(run.lines) for run in server.runs.values()} == {f"slam #7 / block {index}": 8 * (index > 0) for index in range(3)}


FAULTS = {
    "hang": "the server did not answer in time",
    "status 500": "the server answered with HTTP 500",
    "status 429": "the server answered with HTTP 429",
    "status 401": "the server answered with HTTP 401 (may this API key write to this project?)",
    "status 403": "the server answered with HTTP 403 (may this API key write to this project?)",
    "nobody there": "the server did not answer in time",
    "stream hang": "the server did not answer in time",
    "stream 403": "the server refused the history of a run",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_the_server_does_finish_returns_in_time_and_nothing_is_left_behind(
    tmp_path: Path, journal: Journal, start: Callable[..., Mirror], server: FakeServer, fault: str
) -> None:
    where, _, how = fault.rpartition(" ")
    mode = HANG if how == "hang" else int(how) if how.isdecimal() else "ok"
    server.mode, server.stream_mode = ("ok", mode) if where == "stream" else (mode, "ok")
    if fault == "nobody there":
        server.stop()
    journal.append(finished_cells(3))
    mirror = start("online", server, answer_s=0.4)
    wait_until(lambda: problem(tmp_path / "study"))
    # By now its next try may be under way; the study ends in the middle of it.
    assert mirror.pid is not None
    others = services(mirror.pid)

    began = time.monotonic()
    said = mirror.finish(0.5)
    took = time.monotonic() - began

    assert said == f"W&B: {FAULTS[fault]}: 0 of 3 cells mirrored; `kdsweep mirror {tmp_path / 'study'}` goes on from there"
    assert took < 0.5 + 1.0 + 1.0
    assert not is_alive(mirror.pid)
    wait_until(lambda: not any(is_alive(pid) for pid in others), 5.0)


def test_a_server_that_never_answered_is_said_to_be_silent(
    tmp_path: Path, journal: Journal, start: Callable[..., Mirror], server: FakeServer
) -> None:
    server.mode = HANG
    journal.append(finished_cells(2))
    mirror = start("online", server)
    wait_until(lambda: server.requests)

    said = mirror.finish(0.5)

    assert said == f"W&B did not answer within 0.5 s: 0 of 2 cells mirrored; `kdsweep mirror {tmp_path / 'study'}` goes on from there"


@pytest.mark.parametrize("mode", ["offline", "online"])
def test_a_mirror_that_is_killed_in_the_middle_is_made_whole_by_the_next(
    tmp_path: Path, journal: Journal, start: Callable[..., Mirror], server: FakeServer, mode: str
) -> None:
    journal.append(finished_cells(12))
    study = tmp_path / "study"
    mirror = start(mode, server)
    assert mirror.pid is not None
    # Within the third run, wherever that may be.
    wait_until(lambda: server.lines > 16 if mode == "online" else len(list(study.glob("wandb/offline-run-*"))) > 2)
    os.kill(mirror.pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(mirror.pid or 0))
    said = mirror.finish(1.0)
    assert said.startswith("W&B: the mirror ended early with exit code -9, see ")
    assert len(mirrored(study)) < 12

    said = start(mode, server).finish(30.0)

    assert said.startswith("W&B: 12 of 12 cells mirrored")
    if mode == "online":
        assert_complete(server.runs, 12)
    else:
        runs = offline_runs(study)
        assert sorted(runs) == sorted(f"slam #7 / block {index}" for index in range(12))
        assert [[item["_step"] for item in run.history] for run in runs.values()] == [list(range(10, 90, 10))] * 12


def test_without_its_driver_a_mirror_finishes_and_ends(tmp_path: Path, journal: Journal, environ: dict[str, str]) -> None:
    journal.append(finished_cells(2))
    driver = "import os, sys; from orchestrator.mirror import Mirror; Mirror(sys.argv[1], 'offline', 'kd'); os._exit(1)"
    subprocess.run([sys.executable, "-c", driver, str(tmp_path / "study")], env=environ, timeout=30, check=False)

    wait_until(lambda: len(mirrored(tmp_path / "study")) == 2)
    wait_until(lambda: _is_free(tmp_path / "study" / "wandb"))
    assert len(offline_runs(tmp_path / "study")) == 2


def _is_free(directory: Path) -> bool:
    try:
        with StudyLock(directory):
            return True
    except StorageError:
        return False


def test_two_mirrors_of_a_study_do_not_write_at_the_same_time(tmp_path: Path, journal: Journal, start: Callable[..., Mirror]) -> None:
    journal.append(finished_cells(1))
    with StudyLock(tmp_path / "study" / "wandb"):
        mirror = start()
        # It listens for its driver, in a second thread, right before it asks for the lock.
        wait_until(lambda: len(list(Path(f"/proc/{mirror.pid}/task").iterdir())) > 1)
        said = mirror.finish(4.0)
    assert (
        said
        == f"W&B: another mirror of this study is at work: 0 of 1 cells mirrored; `kdsweep mirror {tmp_path / 'study'}` goes on from there"
    )


def test_mirroring_later_finishes_by_itself_and_knows_its_target(
    tmp_path: Path, journal: Journal, server: FakeServer, environ: dict[str, str]
) -> None:
    journal.append(finished_cells(1))
    online = {**environ, "WANDB_BASE_URL": server.url}

    assert mirror_all(f"file://{tmp_path}/study", "offline", PROJECT, environ=online).startswith("W&B: 1 of 1 cells mirrored offline in ")
    # What was mirrored offline is not yet online.
    assert (
        mirror_all(tmp_path / "study", "online", PROJECT, environ=online) == f"W&B: 1 of 1 cells mirrored to {server.url}/tester/{PROJECT}"
    )
    assert_complete(server.runs, 1)


def test_a_mirror_that_is_off_starts_nothing(tmp_path: Path, start: Callable[..., Mirror]) -> None:
    mirror = start("off")
    assert (mirror.finish(), mirror.pid) == ("W&B: off.", None)
    assert not (tmp_path / "study").exists()


def test_a_disk_that_cannot_be_written_does_not_fail_the_study(tmp_path: Path, environ: dict[str, str]) -> None:
    (tmp_path / "study").write_text("a file where the folder would be")
    assert Mirror(tmp_path / "study", "offline", PROJECT, environ=environ).finish().startswith("W&B: nothing is mirrored, for ")


def test_wrong_calls_say_what_is_wrong(tmp_path: Path, environ: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"mode to be online, offline or off, but got mode='cloud'"):
        Mirror(tmp_path, "cloud", PROJECT, environ=environ)
    with pytest.raises(StorageError, match=r"a study that was launched, but got folder=.* without a journal"):
        mirror_all(tmp_path / "nothing", "offline", PROJECT, environ=environ)


def test_the_drivers_end_imports_nothing_heavy() -> None:
    heavy = "'wandb', 'torch', 'ray', 'optuna', 'fsspec', 'numpy', 'orchestrator.journal'"
    code = f"import sys; import orchestrator.mirror; print([name for name in ({heavy}) if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


class TestOnlineProblem:
    """Whether there is a login, told without asking anyone."""

    @pytest.fixture
    def home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.chdir(tmp_path)
        return tmp_path

    def test_no_login(self, home: Path) -> None:
        expected = "W&B needs a login at api.wandb.ai, but got none: run `wandb login`, set WANDB_API_KEY, or use --wandb offline."
        assert online_problem({"HOME": str(home)}) == expected

    def test_key_in_the_environment(self, home: Path) -> None:
        assert online_problem({"HOME": str(home), "WANDB_API_KEY": "0" * 40}) is None
        assert online_problem({"HOME": str(home), "WANDB_API_KEY": "local-" + "0" * 40}) is None
        said = online_problem({"HOME": str(home), "WANDB_API_KEY": "secret"})
        assert said == "W&B needs an API key of 40 characters or more, but got 6 in WANDB_API_KEY: copy it again, or use --wandb offline."

    def test_netrc_counts_for_its_own_host(self, home: Path) -> None:
        (home / ".netrc").write_text("machine api.wandb.ai\n  login user\n  password " + "0" * 40 + "\n")
        (home / ".netrc").chmod(0o600)
        assert online_problem({"HOME": str(home)}) is None
        said = online_problem({"HOME": str(home), "WANDB_BASE_URL": "https://someone:password@wandb.example.org:8080/"})
        assert said is not None
        assert "login at wandb.example.org:8080, but" in said

    def test_netrc_by_another_name(self, home: Path) -> None:
        (home / "elsewhere").write_text("machine api.wandb.ai login user password " + "0" * 40)
        (home / "elsewhere").chmod(0o600)
        assert online_problem({"HOME": str(home), "NETRC": str(home / "elsewhere")}) is None

    def test_a_netrc_that_cannot_be_read_is_no_login(self, home: Path) -> None:
        (home / ".netrc").write_text("machine\nnonsense")
        assert "but got none" in (online_problem({"HOME": str(home)}) or "")

    def test_settings_file(self, home: Path) -> None:
        (home / "settings").write_text("[default]\nbase_url = https://wandb.example.org\n")
        assert "login at wandb.example.org, but" in (online_problem({"HOME": str(home), "WANDB_CONFIG_DIR": str(home)}) or "")
        (home / "settings").write_text("[default]\napi_key = " + "0" * 40)
        assert online_problem({"HOME": str(home), "WANDB_CONFIG_DIR": str(home)}) is None

    @pytest.mark.parametrize("url", ["wandb.example.org", "http://["])
    def test_no_address(self, home: Path, url: str) -> None:
        assert "address of a server" in (online_problem({"HOME": str(home), "WANDB_BASE_URL": url}) or "")

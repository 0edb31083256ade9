"""Lanes on a real Ray: the same table as in one process, warm processes, and lanes that die."""

from __future__ import annotations

import functools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray
from rich.console import Console

from orchestrator import table
from orchestrator.cluster import connected
from orchestrator.command import Command
from orchestrator.driver import Launch, Outcome, drive
from orchestrator.errors import Hopeless, LaneError
from orchestrator.events import Event
from orchestrator.journal import Journal
from orchestrator.reading import study_of
from orchestrator.record import Record, record_of
from orchestrator.sweep import Sweep
from orchestrator.tune import Lanes, execute, process_resources
from tests.fake_tpus import Noting
from tests.synthetic import Synthetic, napping
from trainables.loop import never
from trainables.runner import Runner
from trainables.status import PREEMPTED, TIMED_OUT
from trainables.trial import Leg, Row

LOCAL = Launch(in_process=True, make_runner=lambda _: Synthetic())


@pytest.fixture(scope="module", autouse=True)
def one_ray() -> Iterator[None]:
    with connected(4):
        yield


def run(text: str, folder: Path, launch: Launch, *overrides: str) -> Outcome:
    return drive(study_of(text, overrides, options={"storage": str(folder)}), launch, Console(quiet=True))


def trials(folder: Path) -> table.pa.Table:
    return table.read_trials(folder / "tiny")


def pids(folder: Path) -> set[str]:
    return {e["where"]["pid"] for e in Journal(folder / "tiny").read() if e["event"] == "row" and e["where"]}


def test_two_lanes_give_the_table_of_one_process(tiny_study_text: str, tmp_path: Path) -> None:
    wanted = ["search.trials=12", "search.generation=4", "confirm.blocks=3"]
    run(tiny_study_text, tmp_path / "one", LOCAL, *wanted)
    napper = functools.partial(napping, 0.05)
    outcome = run(tiny_study_text, tmp_path / "two", Launch(make_runner=napper), *wanted, "run.lanes=2", "run.workers=0")
    assert outcome.exit_code == 0
    assert table.same(trials(tmp_path / "one"), trials(tmp_path / "two")) == []


def both(folder: Path, nap_s: float) -> Noting:
    """Runners that begin when there are two of them: otherwise the lane that is up first may do all the work."""
    folder.mkdir()
    return Noting(folder, nap_s, together=2)


def test_lanes_stay_alive_while_they_wait_for_a_generation(tiny_study_text: str, tmp_path: Path) -> None:
    # One arm and nothing to confirm: at the end of every generation of three, one lane has nothing to do while the other works.
    alone = ["arms={slam: {method: slam}}", "confirm=null", "search.trials=12", "search.generation=3", "search.rungs=[]"]
    launch = Launch(make_runner=both(tmp_path / "notes", 0.2))
    outcome = run(tiny_study_text, tmp_path, launch, *alone, "run.lanes=2", "run.workers=0")
    assert outcome.counts["ok"] == 1 + 12
    rows = [e["where"]["pid"] for e in Journal(tmp_path / "tiny").read() if e["event"] == "row"]
    assert len(set(rows)) == 2
    # One of three in each of four generations; a slow moment may cost it one. Left alone, the other lane does all but one.
    assert min(rows.count(pid) for pid in set(rows)) >= 3


def test_async_uses_both_lanes_and_finishes(tiny_study_text: str, tmp_path: Path) -> None:
    launch = Launch(asynchronous=True, make_runner=both(tmp_path / "notes", 0.05))
    outcome = run(tiny_study_text, tmp_path, launch, "run.lanes=2", "run.workers=0")
    assert outcome.exit_code == 0
    assert len(pids(tmp_path)) == 2
    frame = trials(tmp_path).to_pandas()
    assert frame[frame.stage == "search"].groupby("arm").size().to_dict() == {"slam": 4, "vanilla": 4}


def test_a_train_worker_trains_bit_for_bit_what_this_process_trains(
    tiny_study_text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tiny_study_text, tmp_path / "here", Launch(in_process=True))
    # Lanes have a working directory of their own, and a storage that is told relative to ours must be found all the same.
    monkeypatch.chdir(tmp_path)
    run(tiny_study_text, Path("there"), Launch(), "run.workers=1")
    assert len(list((tmp_path / "there/tiny/artifacts/teachers").glob("*.pt"))) == 3
    assert table.same(trials(tmp_path / "here"), trials(tmp_path / "there")) == []
    assert table.read_reports(tmp_path / "here/tiny").equals(table.read_reports(tmp_path / "there/tiny"))
    assert len(pids(tmp_path / "there")) == 1


@pytest.mark.cluster
def test_two_train_workers_share_every_training(tiny_study_text: str, tmp_path: Path) -> None:
    wanted = ["search.trials=2", "search.rungs=[]"]
    run(tiny_study_text, tmp_path / "one", Launch(in_process=True), *wanted)
    run(tiny_study_text, tmp_path / "two", Launch(), *wanted, "run.workers=2")
    one, two = (trials(tmp_path / name).to_pandas() for name in ("one", "two"))
    assert list(two.workers) == ["2"] * len(two)
    assert list(one.cell) == list(two.cell)
    assert two["metric.validation.nll"].to_numpy() == pytest.approx(one["metric.validation.nll"].to_numpy(), rel=1e-3)


def kill_soon(folder: Path, after_rows: int, killed: list[int]) -> threading.Thread:
    """Kill whoever wrote the latest of so many rows, once."""

    def watch() -> None:
        for _ in range(3000):
            time.sleep(0.1)
            rows = [e for e in Journal(folder / "tiny").read() if e["event"] == "row" and e["where"]]
            if len(rows) >= after_rows:
                killed.append(int(rows[-1]["where"]["pid"]))
                os.kill(killed[0], signal.SIGKILL)
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.cluster)])
def test_a_killed_process_costs_time_and_no_cell(workers: int, tiny_study_text: str, tmp_path: Path) -> None:
    run(tiny_study_text, tmp_path / "whole", LOCAL)
    killed: list[int] = []
    thread = kill_soon(tmp_path / "hit", 6, killed)
    launch = Launch(make_runner=functools.partial(napping, 0.4))
    outcome = run(tiny_study_text, tmp_path / "hit", launch, f"run.workers={workers}")
    thread.join()
    assert outcome.exit_code == 0
    assert len(pids(tmp_path / "hit")) == 2, "the killed process and the one in its place"
    whole, hit = trials(tmp_path / "whole"), trials(tmp_path / "hit")
    assert hit.drop_columns(["attempt"]).select(["cell", "status", "progress"]) == whole.select(["cell", "status", "progress"])
    attempts = {a.attempt for a in record_of(Journal(tmp_path / "hit/tiny").read()).finished}
    # A lane of its own dies with the process; Ray Train restarts the worker of a lane that lives.
    assert attempts == ({1, 2} if workers == 0 else {1})


@pytest.mark.slow
def test_a_lane_that_ray_calls_preempted_is_dead_like_any_other(
    tiny_study_text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it calls those whose node was drained. Tune by itself would start it anew, which would bring its first row once more."""
    monkeypatch.setattr(ray.exceptions.RayActorError, "preempted", True)
    killed: list[int] = []
    thread = kill_soon(tmp_path, 6, killed)
    outcome = run(tiny_study_text, tmp_path, Launch(make_runner=functools.partial(napping, 0.4)), "run.lanes=1", "run.workers=0")
    thread.join()
    assert outcome.exit_code == 0
    events = Journal(tmp_path / "tiny").read()
    lanes = list(dict.fromkeys(e["lane"] for e in events if e["event"] == "leg"))
    assert len(lanes) == 2, "the killed lane and the one in its place"


class Hanging(Synthetic):
    """Hangs in the first leg of one method, once, and hears nothing; leaves its pid."""

    def __init__(self, folder: Path, is_stopped: bool, workers: int) -> None:
        super().__init__(nap_s=0.02)
        del workers
        self._note, self._is_stopped = folder / "hung", is_stopped

    def run(self, leg: Leg, halt: Callable[[], bool] = never) -> Row:
        if leg.trial.config().get("method.name") == "slam" and not self._note.exists():
            self._note.write_text(str(os.getpid()))
            if self._is_stopped:
                os.kill(os.getpid(), signal.SIGSTOP)
            threading.Event().wait()
        return super().run(leg, halt)


@pytest.mark.parametrize("workers", [pytest.param(0, marks=pytest.mark.slow), pytest.param(1, marks=pytest.mark.cluster)])
def test_a_cell_that_hangs_is_ended_with_its_process_and_taken_again(workers: int, tiny_study_text: str, tmp_path: Path) -> None:
    run(tiny_study_text, tmp_path / "whole", LOCAL)
    (tmp_path / "note").mkdir()
    launch = Launch(make_runner=functools.partial(Hanging, tmp_path / "note", False))
    outcome = run(tiny_study_text, tmp_path / "hung", launch, f"run.workers={workers}", "run.cell_seconds=1")
    assert outcome.exit_code == 0
    found = record_of(Journal(tmp_path / "hung/tiny").read())
    (hung,) = (attempt for attempt in found.finished if attempt.status == TIMED_OUT)
    assert (hung.attempt, found.cells[hung.cell].status in ("ok", "stopped")) == (1, True)
    row = hung.rows[-1]
    assert row["where"]["pid"] == (tmp_path / "note/hung").read_text()
    assert row["message"] == "No step of it ended for 2 seconds, so its process was ended (run.cell_seconds)."
    assert "in run\n    threading.Event().wait()" in row["trace"], "where it hung"
    whole, parts = trials(tmp_path / "whole"), trials(tmp_path / "hung")
    assert table.same(whole.drop_columns(["attempt"]), latest(parts)) == []


def latest(found: table.pa.Table) -> table.pa.Table:
    """Without attempts that another one followed, and without their numbers."""
    frame = found.to_pandas()
    last = frame.groupby("cell")["attempt"].transform("max") == frame["attempt"]
    return found.filter(last.to_numpy()).drop_columns(["attempt"])


@pytest.mark.cluster
def test_a_lane_whose_process_does_not_even_end_itself_is_ended_by_the_driver(tiny_study_text: str, tmp_path: Path) -> None:
    study = study_of(tiny_study_text, ["run.cell_seconds=1"])
    sweep, events = Sweep(study, Record()), list[Event]()
    lanes = Lanes(1, 0, functools.partial(Hanging, tmp_path, True), slack_s=10.0)
    execute(sweep, lanes, events.extend, Command(), print)
    hung = [e for e in events if e["event"] == "row" and e["status"] == TIMED_OUT]
    assert [(e["attempt"], e["message"][:50]) for e in hung] == [(1, "Neither it nor its process answered for long after")]
    assert sweep.is_done
    assert sweep.counts()["failed"] == 0
    assert not Path(f"/proc/{(tmp_path / 'hung').read_text()}").exists(), "a stopped process is gone, too"


SECRET = "hf_" + "Kd7Qm2Zx9Lw4"


class Leaking:
    """Fails with a secret in its message that only the lane's own process knows."""

    def __init__(self, store: str, workers: int) -> None:
        os.environ["HF_TOKEN"] = SECRET
        self._runner = Runner(store, "cpu", workers)
        setattr(self._runner, "_fresh", self._fails)  # noqa: B010 # a method of its class to mypy

    def _fails(self, trial: object) -> None:
        raise RuntimeError(f"401 for https://user:{SECRET}@hub.example/{SECRET}")

    def run(self, leg: Leg, halt: Callable[[], bool] = never) -> Row:
        return self._runner.run(leg, halt)


def test_what_only_a_lane_knows_for_a_secret_does_not_leave_it(tiny_study_text: str, tmp_path: Path) -> None:
    launch = Launch(make_runner=functools.partial(Leaking, str(tmp_path / "store")))
    with pytest.raises(Hopeless, match=r"^2 trainings failed, and no student got anywhere.*: 2 x RuntimeError: 401 for https://"):
        run(tiny_study_text, tmp_path, launch, "run.lanes=1", "run.workers=0", "run.give_up_after=2")
    assert "HF_TOKEN" not in os.environ, "the driver does not know it"
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"401 for https://" in written
    assert SECRET.encode() not in written


def stillborn(workers: int) -> Synthetic:
    """A runner that cannot be made."""
    raise RuntimeError(f"no device for {workers} workers")


@pytest.mark.slow
def test_lanes_that_cannot_start_are_given_up_with_the_reason(tiny_study_text: str, tmp_path: Path) -> None:
    with pytest.raises(LaneError, match=r"3 lanes in a row died .*: RuntimeError: no device for 1 workers$") as caught:
        run(tiny_study_text, tmp_path, Launch(make_runner=stillborn), "run.lanes=1", "run.workers=0")
    assert caught.value.exit_code == 3
    assert Journal(tmp_path / "tiny").read()[-1]["status"] == "interrupted"


class Endless:
    """Trains until it is told to stop, and leaves a file when it begins and when it stops."""

    def __init__(self, folder: Path, workers: int) -> None:
        del workers
        self._folder = folder

    def run(self, leg: Leg, halt: Callable[[], bool]) -> Row:
        (self._folder / "begun").touch()
        while not halt():
            time.sleep(0.05)
        (self._folder / "halted").touch()
        return Row(leg.trial.id, PREEMPTED, 0.0, 0, {})


def wait_for(file: Path) -> None:
    while not file.exists():
        time.sleep(0.05)


def test_a_study_that_is_stopped_stops_its_legs_half_way(tiny_study_text: str, tmp_path: Path) -> None:
    sweep = Sweep(study_of(tiny_study_text), Record())
    lanes = Lanes(1, 0, functools.partial(Endless, tmp_path))
    command = Command()
    threading.Thread(target=lambda: (wait_for(tmp_path / "begun"), command.obey("cancel")), daemon=True).start()
    execute(sweep, lanes, lambda _: None, command, print)
    assert (tmp_path / "halted").exists()


def test_more_lanes_than_the_cluster_holds_are_refused(tiny_study_text: str, tmp_path: Path) -> None:
    with pytest.raises(LaneError, match="5 lanes of 1 workers need 5 CPUs, but the cluster has 4"):
        run(tiny_study_text, tmp_path, Launch(make_runner=functools.partial(napping, 0.0)), "run.lanes=5", "run.workers=1")


@pytest.mark.parametrize(
    ("gpus", "count", "workers", "share"), [(0.0, 2, 1, None), (1.0, 2, 1, 0.5), (1.0, 2, 0, 0.5), (4.0, 2, 2, 1.0), (8.0, 1, 2, 1.0)]
)
def test_lanes_share_out_the_gpus(gpus: float, count: int, workers: int, share: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 8.0, **({"GPU": gpus} if gpus else {})})
    wanted = {"CPU": 1.0} if share is None else {"CPU": 1.0, "GPU": share}
    runner = functools.partial(napping, 0.0)
    assert process_resources(Lanes(count, workers, runner, device="auto")) == wanted
    assert process_resources(Lanes(count, workers, runner)) == {"CPU": 1.0}

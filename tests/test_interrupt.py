"""The command with lanes, stopped from outside as a user or a machine would, and run again."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from orchestrator import table
from orchestrator.driver import Launch, drive
from orchestrator.journal import Journal, StudyLock
from orchestrator.reading import study_of
from orchestrator.record import record_of
from tests.synthetic import Synthetic

LONGER = ["student.recipe.epochs=12", "search.trials=6", "search.generation=3", "confirm.blocks=3"]


@contextlib.contextmanager
def at_work(command: list[str], folder: Path, event: str, count: int) -> Iterator[subprocess.Popen[bytes]]:
    """A driver whose journal has so many events of a kind, or which ended before; what it says is in the file "out"."""
    with (folder / "out").open("wb") as out:
        running = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)
    try:
        for _ in range(1200):
            found = [e for e in Journal(folder / "parts/tiny").read() if e["event"] == event]
            if len(found) >= count or running.poll() is not None:
                break
            time.sleep(0.1)
        yield running
    finally:
        running.kill()


@pytest.mark.cluster
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_command_goes_on_where_it_was(how: signal.Signals, tiny_study_text: str, tmp_path: Path) -> None:
    whole = study_of(tiny_study_text, LONGER, options={"storage": str(tmp_path / "whole")})
    drive(whole, Launch(in_process=True), Console(quiet=True))
    (tmp_path / "tiny.yaml").write_text(tiny_study_text)
    overrides = [part for setting in LONGER for part in ("--set", setting)]
    command = [sys.executable, "-m", "orchestrator", "run", str(tmp_path / "tiny.yaml"), *overrides]
    command += ["--storage", str(tmp_path / "parts"), "--lanes", "2", "--workers", "0"]
    with at_work(command, tmp_path, "row", 4) as running:
        running.send_signal(how)
        code = running.wait(60)
    said = (tmp_path / "out").read_text()
    journal = Journal(tmp_path / "parts/tiny").read()
    if how == signal.SIGINT:
        assert code == 4, said
        assert "the same command goes on from there" in said
        assert (journal[-1]["event"], journal[-1]["status"]) == ("end", "interrupted")
    else:
        assert code == -signal.SIGKILL, said
    assert "Traceback" not in said
    finished = {e["cell"] for e in journal if e["event"] == "row" and e["status"] == "ok"}
    with StudyLock(tmp_path / "parts/tiny"):
        pass
    rest = study_of(tiny_study_text, LONGER, options={"storage": str(tmp_path / "parts")})
    drive(rest, Launch(in_process=True), Console(quiet=True))
    later = Journal(tmp_path / "parts/tiny").read()[len(journal) :]
    assert finished
    assert finished.isdisjoint({e["cell"] for e in later if e["event"] == "row" and e["seconds"] > 0})
    assert table.same(table.read_trials(tmp_path / "whole/tiny"), table.read_trials(tmp_path / "parts/tiny")) == []
    assert table.read_reports(tmp_path / "whole/tiny").equals(table.read_reports(tmp_path / "parts/tiny"))


@pytest.mark.cluster
def test_ctrl_c_twice_ends_lanes_that_hear_nothing(tiny_study_text: str, tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(tiny_study_text)
    command = [sys.executable, "-c", DEAF, str(tmp_path / "tiny.yaml"), str(tmp_path / "parts")]
    with at_work(command, tmp_path, "leg", 1) as running:
        time.sleep(2.0)
        running.send_signal(signal.SIGINT)
        time.sleep(3.0)
        assert running.poll() is None, "it waits for what is in flight"
        running.send_signal(signal.SIGINT)
        code = running.wait(40)
    said = (tmp_path / "out").read_text()
    assert code == 4, said
    journal = Journal(tmp_path / "parts/tiny").read()
    assert (journal[-1]["event"], journal[-1]["status"]) == ("end", "interrupted")


DEAF = """
import pathlib, sys, time
from rich.console import Console
from orchestrator.driver import Launch, drive
from orchestrator.errors import Interrupted
from orchestrator.reading import study_of
class Deaf:
    def __init__(self, workers): pass
    def run(self, leg, halt): time.sleep(1000)
study = study_of(pathlib.Path(sys.argv[1]).read_text(), [], options={"storage": sys.argv[2], "lanes": 1, "workers": 0})
try:
    drive(study, Launch(make_runner=Deaf), Console(quiet=True))
except Interrupted as end:
    sys.exit(end.exit_code)
"""

HUNGRY = """
import functools, pathlib, sys, time
from rich.console import Console
from orchestrator.driver import Launch, drive
from orchestrator.reading import study_of
from tests.synthetic import Synthetic
class Hungry(Synthetic):
    def __init__(self, note, workers):
        super().__init__(nap_s=0.02)
        self.note = note
    def run(self, leg, halt):
        if leg.trial.method is not None and not self.note.exists():
            self.note.touch()
            held = [bytearray(b"x") * 10**8 for _ in range(80)]
            time.sleep(60)
        return super().run(leg, halt)
study = study_of(pathlib.Path(sys.argv[1]).read_text(), [], options={"storage": sys.argv[2], "lanes": 1, "workers": 0})
outcome = drive(study, Launch(make_runner=functools.partial(Hungry, pathlib.Path(sys.argv[3]))), Console(quiet=True))
sys.exit(outcome.exit_code)
"""


def memory(name: str) -> int:
    """Bytes, as the system tells them."""
    line = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


@pytest.mark.cluster
@pytest.mark.skipif(memory("MemAvailable") < 12e9, reason="takes 6 GB of memory for a moment")
def test_a_cell_that_eats_up_the_memory_of_its_machine_is_taken_again(tiny_study_text: str, tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(tiny_study_text)
    command = [sys.executable, "-c", HUNGRY, str(tmp_path / "tiny.yaml"), str(tmp_path / "results"), str(tmp_path / "note")]
    limit = (memory("MemTotal") - memory("MemAvailable") + 5e9) / memory("MemTotal")
    environ = {**os.environ, "RAY_memory_usage_threshold": f"{limit:.3f}", "RAY_memory_monitor_refresh_ms": "100"}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    rows = [
        e for e in Journal(tmp_path / "results/tiny").read() if e["event"] == "row" and e["attempt"] == 1 and e["status"] == "out_of_memory"
    ]
    assert rows, done.stderr
    assert rows[0]["message"].startswith(
        "The lane that held this cell died: 1 worker(s) were killed due to the node running low on memory."
    )
    record = record_of(Journal(tmp_path / "results/tiny").read())
    assert record.cells[rows[0]["cell"]].status in ("ok", "stopped")


HEADLESS = """
import functools, pathlib, sys
from rich.console import Console
from orchestrator.driver import Launch, drive
from orchestrator.reading import study_of
from tests.synthetic import napping
study = study_of(pathlib.Path(sys.argv[1]).read_text(), [], options={"storage": sys.argv[2], "lanes": 1, "workers": 0})
drive(study, Launch(make_runner=functools.partial(napping, 0.5), headless_s=2.0), Console(quiet=True))
"""


def head_of(driver: int) -> int:
    """The process that is the head of the Ray that a driver has started."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            name, _, rest = stat.read_text().partition("(")[2].rpartition(")")
            if name == "gcs_server" and int(rest.split()[1]) == driver:
                return int(stat.parent.name)
    raise AssertionError(f"process {driver} has started no Ray")


@pytest.mark.cluster
def test_a_driver_whose_ray_loses_its_head_ends_with_the_reason_and_everything_kept(tiny_study_text: str, tmp_path: Path) -> None:
    study = study_of(tiny_study_text, [], options={"storage": str(tmp_path / "parts"), "lanes": 1, "workers": 0})
    (tmp_path / "tiny.yaml").write_text(tiny_study_text)
    command = [sys.executable, "-c", HEADLESS, str(tmp_path / "tiny.yaml"), str(tmp_path / "parts")]
    with at_work(command, tmp_path, "row", 4) as running:
        assert running.poll() is None, (tmp_path / "out").read_text()
        os.kill(head_of(running.pid), signal.SIGKILL)
        code = running.wait(50)
    said = (tmp_path / "out").read_text()
    assert code == 3, said
    assert "has not answered for 2 seconds" in said
    assert "Traceback" not in said
    journal = Journal(tmp_path / "parts/tiny").read()
    assert (journal[-1]["event"], journal[-1]["status"]) == ("end", "interrupted")
    assert table.read_trials(tmp_path / "parts/tiny").num_rows >= 2, "of four rows, two may be of a rung"
    synthetic = Launch(in_process=True, make_runner=lambda _: Synthetic())
    drive(study, synthetic, Console(quiet=True))
    drive(study_of(tiny_study_text, [], options={"storage": str(tmp_path / "whole")}), synthetic, Console(quiet=True))
    assert table.same(table.read_trials(tmp_path / "whole/tiny"), table.read_trials(tmp_path / "parts/tiny")) == []

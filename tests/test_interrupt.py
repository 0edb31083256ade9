"""The command with lanes, stopped from outside as a user or a machine would, and run again."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from orchestrator import table
from orchestrator.driver import Launch, drive
from orchestrator.journal import Journal, StudyLock
from orchestrator.reading import study_of
from tests.synthetic import Synthetic

LONGER = ["student.recipe.epochs=12", "search.trials=6", "search.generation=3", "confirm.blocks=3"]


@pytest.mark.parametrize("how", [pytest.param(signal.SIGINT, marks=pytest.mark.cluster), signal.SIGKILL])
def test_a_stopped_command_goes_on_where_it_was(how: signal.Signals, tiny_study_text: str, tmp_path: Path) -> None:
    whole = study_of(tiny_study_text, LONGER, options={"storage": str(tmp_path / "whole")})
    drive(whole, Launch(in_process=True), Console(quiet=True))
    (tmp_path / "tiny.yaml").write_text(tiny_study_text)
    overrides = [part for setting in LONGER for part in ("--set", setting)]
    command = [sys.executable, "-m", "orchestrator", "run", str(tmp_path / "tiny.yaml"), *overrides]
    command += ["--storage", str(tmp_path / "parts"), "--lanes", "2", "--workers", "0"]
    with (tmp_path / "out").open("wb") as out:
        running = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)
    try:
        for _ in range(1200):
            rows = [e for e in Journal(tmp_path / "parts/tiny").read() if e["event"] == "row"]
            if len(rows) >= 4 or running.poll() is not None:
                break
            time.sleep(0.1)
        running.send_signal(how)
        code = running.wait(60)
    finally:
        running.kill()
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
    with (tmp_path / "out").open("wb") as out:
        running = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)
    try:
        for _ in range(1200):
            rows = [e for e in Journal(tmp_path / "parts/tiny").read() if e["event"] == "row"]
            if len(rows) >= 4 or running.poll() is not None:
                break
            time.sleep(0.1)
        assert running.poll() is None, (tmp_path / "out").read_text()
        os.kill(head_of(running.pid), signal.SIGKILL)
        code = running.wait(50)
    finally:
        running.kill()
    said = (tmp_path / "out").read_text()
    assert code == 3, said
    assert "has not answered for 2 seconds" in said
    assert "Traceback" not in said
    journal = Journal(tmp_path / "parts/tiny").read()
    assert (journal[-1]["event"], journal[-1]["status"]) == ("end", "interrupted")
    assert table.read_trials(tmp_path / "parts/tiny").num_rows >= 3
    synthetic = Launch(in_process=True, make_runner=lambda _: Synthetic())
    drive(study, synthetic, Console(quiet=True))
    drive(study_of(tiny_study_text, [], options={"storage": str(tmp_path / "whole")}), synthetic, Console(quiet=True))
    assert table.same(table.read_trials(tmp_path / "whole/tiny"), table.read_trials(tmp_path / "parts/tiny")) == []

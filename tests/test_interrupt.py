"""The command with lanes, stopped from outside as a user or a machine would, and run again."""

from __future__ import annotations

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

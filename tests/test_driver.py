"""The driver without Ray: one process, real trainings of milliseconds, interruptions and restarts."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from orchestrator import table
from orchestrator.driver import Launch, Outcome, drive
from orchestrator.errors import Interrupted, StorageError, StudyError
from orchestrator.journal import Journal
from orchestrator.reading import study_of
from orchestrator.record import record_of
from orchestrator.study import Study
from tests.synthetic import Synthetic
from trainables.loop import never
from trainables.trial import Leg, Row


@pytest.fixture
def quiet() -> Console:
    return Console(quiet=True)


def at(text: str, folder: Path, *overrides: str) -> Study:
    return study_of(text, overrides, options={"storage": str(folder)})


def run(study: Study, console: Console, launch: Launch | None = None) -> Outcome:
    return drive(study, launch or Launch(in_process=True), console)


class Interrupting(Synthetic):
    """Is interrupted, as by Ctrl-C, in its n-th leg."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.left = after

    def run(self, leg: Leg, halt: Callable[[], bool] = never) -> Row:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        return super().run(leg)


def test_a_study_trained_for_real_leaves_journal_and_tables(tiny_study_text: str, tmp_path: Path, quiet: Console) -> None:
    study = at(tiny_study_text, tmp_path)
    outcome = run(study, quiet)
    assert outcome.exit_code == 0
    # 3 teachers, 2 arms x 4 trials, 3 arms x 2 blocks
    assert outcome.counts == {"ok": 3 + 4 + 6, "stopped": 4, "failed": 0, "running": 0, "waiting": 0}
    frame = table.read_trials(tmp_path / "tiny").to_pandas()
    assert len(frame) == 17
    confirm = frame[frame.stage == "confirm"]
    assert confirm["metric.test.accuracy"].between(0.0, 1.0).all()
    assert frame[frame.stage != "confirm"]["metric.test.accuracy"].isna().all()
    # Every arm of a block was taught by the same teacher.
    assert (confirm.groupby("block")["metric.test.teacher_accuracy"].nunique() == 1).all()
    assert not list((tmp_path / "tiny/artifacts/checkpoints").glob("*")), "checkpoints of finished cells are removed"


def test_the_second_run_trains_nothing(tiny_study_text: str, tmp_path: Path, quiet: Console) -> None:
    study = at(tiny_study_text, tmp_path)
    run(study, quiet)
    before = table.read_trials(tmp_path / "tiny")
    events = len(Journal(tmp_path / "tiny").read())
    outcome = run(study, quiet)
    assert outcome.trained == 0
    assert len(Journal(tmp_path / "tiny").read()) == events
    assert table.read_trials(tmp_path / "tiny").equals(before)


@pytest.mark.parametrize("after", [0, 5, 13, 20])
def test_interrupted_and_run_again_it_ends_in_the_same_table(after: int, tiny_study_text: str, tmp_path: Path, quiet: Console) -> None:
    whole = run(at(tiny_study_text, tmp_path / "whole"), quiet, Launch(in_process=True, make_runner=lambda _: Synthetic()))
    study = at(tiny_study_text, tmp_path / "parts")
    with pytest.raises(Interrupted, match="goes on from there"):
        run(study, quiet, Launch(in_process=True, make_runner=lambda _: Interrupting(after)))
    last = Journal(tmp_path / "parts/tiny").read()[-1]
    assert (last["event"], last["status"]) == ("end", "interrupted")
    rest = run(study, quiet, Launch(in_process=True, make_runner=lambda _: Synthetic()))
    assert rest.trained == whole.trained - after
    assert table.same(table.read_trials(tmp_path / "whole/tiny"), table.read_trials(tmp_path / "parts/tiny")) == []


@pytest.mark.parametrize("is_swallowed", [False, True])
def test_ctrl_c_before_the_first_cell_ends_the_launch(
    is_swallowed: bool, tiny_study_text: str, tmp_path: Path, quiet: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is at work then may swallow it, as imports and finalisers do: that it was wanted stays known."""
    trained: list[str] = []

    class Telling(Synthetic):
        def run(self, leg: Leg, halt: Callable[[], bool] = never) -> Row:
            trained.append(leg.trial.id)
            return super().run(leg)

    def pressed(*_: object) -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            if not is_swallowed:
                raise

    monkeypatch.setattr("orchestrator.driver.orders.sweep_away", pressed)
    launch = Launch(in_process=True, make_runner=lambda _: Telling())
    with pytest.raises(Interrupted if is_swallowed else KeyboardInterrupt):
        run(at(tiny_study_text, tmp_path), quiet, launch)
    assert trained == []
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    monkeypatch.undo()
    assert run(at(tiny_study_text, tmp_path), quiet, launch).exit_code == 0


def test_real_trainings_resume_at_rungs_with_the_same_numbers(tiny_study_text: str, tmp_path: Path, quiet: Console) -> None:
    run(at(tiny_study_text, tmp_path / "whole"), quiet)
    code = f"""
import os, sys
from rich.console import Console
from orchestrator.driver import Launch, drive
from orchestrator.reading import study_of
from trainables.runner import Runner
class Dying:
    def __init__(self): self.inner, self.left = Runner({str(tmp_path / "parts/tiny/artifacts")!r}, "cpu"), 2
    def run(self, leg, halt):
        if self.left == 0: os.kill(os.getpid(), 9)
        self.left -= 1
        return self.inner.run(leg)
drive(study_of(sys.stdin.read(), [], options={{"storage": {str(tmp_path / "parts")!r}}}), Launch(in_process=True, make_runner=lambda _: Dying()), Console(quiet=True))
"""
    died = subprocess.run([sys.executable, "-c", code], input=tiny_study_text, text=True, capture_output=True, check=False)
    assert died.returncode == -9, died.stderr
    done = record_of(Journal(tmp_path / "parts/tiny").read())
    standing_at_a_rung = [a for a in done.attempts if a.status == "running"]
    assert standing_at_a_rung
    run(at(tiny_study_text, tmp_path / "parts"), quiet)
    assert table.same(table.read_trials(tmp_path / "whole/tiny"), table.read_trials(tmp_path / "parts/tiny")) == []
    assert table.read_reports(tmp_path / "whole/tiny").equals(table.read_reports(tmp_path / "parts/tiny"))


def test_results_of_another_study_are_not_touched(tiny_study_text: str, tmp_path: Path, quiet: Console) -> None:
    synthetic = Launch(in_process=True, make_runner=lambda _: Synthetic())
    run(at(tiny_study_text, tmp_path), quiet, synthetic)
    before = (tmp_path / "tiny/journal.jsonl").read_bytes()
    with pytest.raises(StorageError, match="another study of this name"):
        run(at(tiny_study_text, tmp_path, "seed=1"), quiet, synthetic)
    with pytest.raises(StorageError, match="without --async"):
        run(at(tiny_study_text, tmp_path), quiet, Launch(in_process=True, asynchronous=True, make_runner=lambda _: Synthetic()))
    assert (tmp_path / "tiny/journal.jsonl").read_bytes() == before


def test_failed_cells_give_exit_code_three(tiny_study_text: str, tmp_path: Path, quiet: Console) -> None:
    def fails(trial: object) -> bool:
        return getattr(trial, "opens_test", False)

    outcome = run(at(tiny_study_text, tmp_path), quiet, Launch(in_process=True, make_runner=lambda _: Synthetic(fails=fails)))
    assert outcome.exit_code == 3
    assert outcome.counts["failed"] == 6
    frame = table.read_trials(tmp_path / "tiny").to_pandas()
    assert (frame[frame.stage == "confirm"].message == "ValueError: as asked").all()


def test_a_study_without_a_search_confirms_its_arms_as_declared(tiny_study_text: str, tmp_path: Path, quiet: Console) -> None:
    text = tiny_study_text[: tiny_study_text.index("search:")] + tiny_study_text[tiny_study_text.index("confirm:") :]
    outcome = run(at(text, tmp_path), quiet, Launch(in_process=True, make_runner=lambda _: Synthetic()))
    assert outcome.counts["ok"] == 2 + 6


def test_a_study_without_a_confirm_stage_ends_with_its_choices(tiny_study_text: str, tmp_path: Path, quiet: Console) -> None:
    text = tiny_study_text[: tiny_study_text.index("confirm:")] + tiny_study_text[tiny_study_text.index("run:") :]
    run(at(text, tmp_path), quiet, Launch(in_process=True, make_runner=lambda _: Synthetic()))
    assert [c["arm"] for c in record_of(Journal(tmp_path / "tiny").read()).choices] == ["slam", "vanilla"]


def test_a_device_that_is_not_there_is_said_before_anything_starts(tiny_study_text: str, tmp_path: Path, quiet: Console) -> None:
    with pytest.raises(StudyError, match=r"run\.device: Device needs .*device='xla'"):
        run(at(tiny_study_text, tmp_path, "run.device=xla"), quiet)
    assert not (tmp_path / "tiny").exists()


def test_a_missing_login_is_said_before_anything_starts(
    tiny_study_text: str, tmp_path: Path, quiet: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "home"))
    with pytest.raises(StudyError, match="wandb login"):
        run(at(tiny_study_text, tmp_path, "run.wandb=online"), quiet)
    assert not (tmp_path / "tiny").exists()

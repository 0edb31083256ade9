"""Cleaning: what is offered and what is not, what is removed, and that everything else still works afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path

import fsspec
import pytest
from rich.console import Console

from orchestrator import cleaning, table
from orchestrator.cleaning import Item, clean
from orchestrator.driver import Launch, drive
from orchestrator.errors import Refused, StorageError
from orchestrator.events import Event, design_event, end_event
from orchestrator.journal import Journal
from orchestrator.orders import give
from orchestrator.reading import study_of
from orchestrator.retrying import write_down
from orchestrator.storage import StudyLock
from tests.test_retrying import cell, row, searched
from trainables.runner import Runner
from trainables.status import FAILED
from trainables.store import Store, StoreError
from trainables.trial import Leg, Row

TEACHER, OTHER, AA, BB, CC = ("1" * 16, "2" * 16, "a" * 16, "b" * 16, "c" * 16)
DESIGN = design_event(blocks=1, base="slam", arms=[], comparisons=[])
END = end_event(status="complete", counts={})


def begun(mode: str = "generations", base: str | None = "slam") -> Event:
    metric = {"select": "validation.accuracy", "report": "test.accuracy", "goal": "maximise"}
    return {
        "event": "study", "time": "2026-01-01T00:00:00.000000+00:00", "study": "tiny", "fingerprint": "f" * 16, "text": "study: tiny", "seed": 0,
        "question": "", "metric": metric, "base": base, "versions": {}, "code_commit": None, "lock_hash": None, "schema_version": 1,
        "space_fingerprint": "", "parameters": [], "metrics": ["validation.accuracy"], "mode": mode, "blocks": 1, "lanes": 1, "machine": None,
    }  # fmt: skip


@pytest.fixture(params=["local", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "tiny") if request.param == "local" else f"memory://{uuid.uuid4().hex}/tiny"


def put(folder: str, name: str, data: bytes = b"12345") -> None:
    files, path = fsspec.core.url_to_fs(f"{folder}/{name}")
    files.makedirs(path.rpartition("/")[0], exist_ok=True)
    files.pipe_file(path, data)


def has(folder: str, name: str) -> bool:
    files, path = fsspec.core.url_to_fs(f"{folder}/{name}")
    return bool(files.exists(path))


def found(folder: str | Path, tmp_path: Path, *, is_real: bool = False) -> list[Item]:
    """Without the scratch folders of this machine."""
    return clean(str(folder), is_real=is_real, temporary=tmp_path / "none", processes=tmp_path / "none")


def names(items: Sequence[Item]) -> list[str]:
    return sorted(item.name for item in items)


FINISHED = [
    begun(), cell(TEACHER, "teacher", "teacher"), cell(OTHER, "teacher", "teacher"), DESIGN,
    cell(AA, needs=[TEACHER]), cell(BB, needs=[OTHER]),
    row(TEACHER, "ok"), row(OTHER, "ok"), row(AA, "ok"),
]  # fmt: skip


def test_checkpoints_of_ended_cells_are_offered_and_others_are_not(folder: str, tmp_path: Path) -> None:
    events = [begun(), *(cell(name) for name in (AA, BB, CC, TEACHER)), row(AA, "ok"), row(BB, "running", 0.5), row(CC, FAILED)]
    Journal(folder).append([*events, row(TEACHER, "stopped", 0.5)])
    foreign = ["artifacts/checkpoints/notes.txt", f"artifacts/checkpoints/{'9' * 16}.pt", "artifacts/checkpoints/inner/x.pt"]
    for name in (*(f"artifacts/checkpoints/{each}.pt" for each in (AA, BB, CC, TEACHER)), *foreign):
        put(folder, name)
    offered = found(folder, tmp_path)
    assert names(offered) == [f"artifacts/checkpoints/{each}.pt" for each in (TEACHER, AA)]
    assert [item.size for item in offered] == [5, 5]
    assert {item.why for item in offered} == {"its cell has ended (ok)", "its cell has ended (stopped)"}
    assert has(folder, f"artifacts/checkpoints/{AA}.pt"), "nothing is touched"
    assert names(found(folder, tmp_path, is_real=True)) == names(offered)
    assert not has(folder, f"artifacts/checkpoints/{AA}.pt")
    assert all(has(folder, f"artifacts/checkpoints/{each}.pt") for each in (BB, CC))
    assert all(has(folder, name) for name in foreign)
    assert found(folder, tmp_path) == []


def weights(folder: str, tmp_path: Path, events: Sequence[Event]) -> list[str]:
    """Weights that are offered, of the two teachers."""
    Journal(folder).append(events)
    for name in (TEACHER, OTHER):
        put(folder, f"artifacts/teachers/{name}.pt")
    return [name.removeprefix("artifacts/teachers/").removesuffix(".pt") for name in names(found(folder, tmp_path))]


def test_weights_of_a_complete_study_are_offered(folder: str, tmp_path: Path) -> None:
    assert weights(folder, tmp_path, [*FINISHED, row(BB, "ok"), END]) == [TEACHER, OTHER]


def test_outputs_of_teachers_go_with_their_weights(folder: str, tmp_path: Path) -> None:
    Journal(folder).append([*FINISHED, row(BB, FAILED), END])
    kept = [
        f"artifacts/outputs/{name}.pt" for name in (f"{OTHER}-train-plain-float32", f"{TEACHER}-plain", f"{'9' * 16}-train-plain-float32")
    ]
    gone = [f"artifacts/outputs/{TEACHER}-{part}.pt" for part in ("holdout-plain-bfloat16", "train-rot90-float32")]
    for name in (*kept, *gone):
        put(folder, name)
    offered = found(folder, tmp_path, is_real=True)
    assert names(offered) == gone
    assert {item.kind for item in offered} == {"outputs"}
    assert [has(folder, name) for name in (*kept, *gone)] == [True] * 3 + [False] * 2


def test_weights_that_a_failed_cell_would_need_are_kept(folder: str, tmp_path: Path) -> None:
    assert weights(folder, tmp_path, [*FINISHED, row(BB, FAILED), END]) == [TEACHER]


@pytest.mark.parametrize(
    "events",
    [
        [*FINISHED, row(BB, "ok")],
        [*FINISHED, row(BB, "ok"), end_event(status="interrupted", counts={})],
        [*FINISHED, row(BB, "ok"), END, begun()],
        [*FINISHED, row(BB, "ok"), END, cell(BB, needs=[OTHER], attempt=2)],
        [*(event for event in FINISHED if event is not DESIGN), row(BB, "ok"), END],
        [*FINISHED[:3], searched(0, 0, needs=[TEACHER]), row("slam0", FAILED), row(TEACHER, "ok"), row(OTHER, "ok"), DESIGN, END],
    ],
    ids=["under way", "interrupted", "launched again", "a cell is taken again", "stage two is to come", "a proposal can be taken again"],
)
def test_weights_are_kept_while_a_cell_may_come_that_needs_them(events: list[Event], tmp_path: Path) -> None:
    assert weights(str(tmp_path / "tiny"), tmp_path, events) == []


def test_without_a_stage_two_the_search_alone_counts(tmp_path: Path) -> None:
    events = [begun(base=None), cell(TEACHER, "teacher"), cell(OTHER, "teacher"), searched(0, 0, needs=[TEACHER])]
    assert weights(str(tmp_path / "tiny"), tmp_path, [*events, *(row(name, "ok") for name in (TEACHER, OTHER, "slam0")), END]) == [
        TEACHER,
        OTHER,
    ]


def test_orders_that_nobody_took_are_offered(folder: str, tmp_path: Path) -> None:
    Journal(folder).append([begun()])
    order = give(folder, "pause")
    [item] = found(folder, tmp_path, is_real=True)
    assert order.token in item.name
    assert item.size > 0
    assert found(folder, tmp_path) == []


def old(path: Path, hours: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    since = path.stat().st_mtime - 3600 * hours
    os.utime(path, (since, since))
    return path


def gone() -> int:
    """The id of a process that has ended."""
    done = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_what_dead_writers_left_half_done_is_offered(tmp_path: Path) -> None:
    study, dead = tmp_path / "tiny", gone()
    Journal(study).append([begun()])
    left = [
        old(study / f".report.md.{dead}.tmp", 2), old(study / f"figures/.x.png.{dead}.tmp", 2), old(study / "wandb/.mirror.json.tmp", 2),
        old(study / f"artifacts/teachers/.{AA}.pt.{'0' * 32}", 2),
        old(study / f"artifacts/outputs/.{AA}-train-plain-float32.pt.{'0' * 32}", 2),
    ]  # fmt: skip
    kept = [
        old(study / f".report.json.{dead}.tmp", 0.5), old(study / f".report.md.{os.getpid()}.tmp", 2), old(study / "report.md", 2),
        old(study / f"artifacts/teachers/.{BB}.pt.{'0' * 32}", 0.5), old(study / ".mine", 2),
    ]  # fmt: skip
    (study / f".link.{dead}.tmp").symlink_to(study / "report.md")
    assert names(found(study, tmp_path, is_real=True)) == sorted(str(path.relative_to(study)) for path in left)
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in kept)


def test_offline_runs_that_a_server_has_are_offered(tmp_path: Path) -> None:
    study = tmp_path / "tiny"
    Journal(study).append([begun(), cell(AA), cell(BB), cell(CC), row(AA, "ok"), row(BB, "ok"), row(CC, "ok")])
    runs = {name: name * 5 for name in ("aaaa", "bbbb", "cccc")}
    whole = {"status": "ok", "progress": 1.0, "reports": 0, "step": 0}
    online = {f"{AA}/1": {**whole, "run": runs["aaaa"]}, f"{BB}/1": {**whole, "run": runs["bbbb"], "progress": 0.5}}
    offline = {f"{each}/1": {**whole, "run": run} for each, run in zip((AA, BB, CC), runs.values(), strict=True)}
    targets = {"online/api.wandb.ai//kdsweep": {"cells": online}, "offline/kdsweep": {"cells": offline}, "online/odd": 7}
    for run in runs.values():
        old(study / f"wandb/offline-run-20260101_000000-{run}/run-{run}.wandb", 1)
    (study / "wandb/mirror.json").write_text(json.dumps({"version": 1, "targets": targets}))
    [item] = found(study, tmp_path, is_real=True)
    assert item.name == f"wandb/offline-run-20260101_000000-{runs['aaaa']}"
    assert item.why == "api.wandb.ai//kdsweep has it all"
    assert sorted(path.name[-20:] for path in (study / "wandb").glob("offline-run-*")) == [runs["bbbb"], runs["cccc"]]


def test_a_mirror_at_work_keeps_its_runs(tmp_path: Path) -> None:
    study, run = tmp_path / "tiny", "a" * 20
    Journal(study).append([begun(), cell(AA), row(AA, "ok")])
    old(study / f"wandb/offline-run-20260101_000000-{run}/x", 1)
    cells = {f"{AA}/1": {"status": "ok", "progress": 1.0, "reports": 0, "run": run}}
    (study / "wandb/mirror.json").write_text(json.dumps({"targets": {"online/x//y": {"cells": cells}}}))
    with StudyLock(study / "wandb"):
        assert found(study, tmp_path) == []
    assert len(found(study, tmp_path)) == 1


def test_scratch_folders_are_offered_where_no_ray_of_this_user_runs(tmp_path: Path) -> None:
    study, scratch, processes = tmp_path / "tiny", tmp_path / "tmp", tmp_path / "proc"
    Journal(study).append([begun()])
    for name, hours in (("kdsweep-tune-abc", 30), ("kdsweep-lane-def", 2), ("kdsweep-other-x", 30), ("their-tune-x", 30)):
        path = scratch / name
        old(path / "sweep/state.json", hours)
        for each in (path / "sweep", path):
            os.utime(each, (path.stat().st_mtime - 3600 * hours,) * 2)
    # Its folder is old, and something in it is not.
    old(scratch / "kdsweep-lane-used/file", 1)
    os.utime(scratch / "kdsweep-lane-used", (0, 0))
    (scratch / "kdsweep-lane-link").symlink_to(scratch / "kdsweep-tune-abc")
    (processes / "self").mkdir(parents=True)
    (processes / "17").mkdir()
    comm = processes / "17/comm"
    comm.write_text("raylet\n")
    where = {"temporary": scratch, "processes": processes}
    assert clean(str(study), is_real=False, **where) == []
    assert clean(str(study), is_real=False, temporary=scratch, processes=tmp_path / "none") == [], "it cannot be told here"
    comm.write_text("python\n")
    [item] = clean(str(study), is_real=True, **where)
    assert item.name == str(scratch / "kdsweep-tune-abc")
    assert not (scratch / "kdsweep-tune-abc").exists()
    assert (scratch / "kdsweep-other-x").exists()


def test_a_driver_at_work_keeps_everything(folder: str, tmp_path: Path) -> None:
    Journal(folder).append([*FINISHED, row(BB, "ok"), END])
    put(folder, f"artifacts/checkpoints/{AA}.pt")
    with StudyLock(folder):
        for is_real in (False, True):
            with pytest.raises(Refused, match="at work"):
                found(folder, tmp_path, is_real=is_real)
    assert has(folder, f"artifacts/checkpoints/{AA}.pt")


def test_a_folder_that_is_no_studys_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with pytest.raises(StorageError, match="no results of a study"):
        found(tmp_path / "other", tmp_path, is_real=True)
    assert list((tmp_path / "other").iterdir()) == []


def test_what_cannot_be_removed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = str(tmp_path / "tiny")
    Journal(study).append([begun(), cell(AA), row(AA, "ok")])
    put(study, f"artifacts/checkpoints/{AA}.pt")

    def refuses(self: Store, name: str) -> None:
        raise StoreError(f"Removing {name} needs permission.")

    monkeypatch.setattr(Store, "remove", refuses)
    with pytest.raises(StorageError, match=f"Removing checkpoints/{AA}.pt needs permission. What was listed before"):
        found(study, tmp_path, is_real=True)
    with StudyLock(study):
        pass  # it was given back


class Failing:
    """The runner of the study, but one arm of stage two fails on one block."""

    def __init__(self, root: str) -> None:
        self.inner, self.failed = Runner(root, "cpu"), 0

    def run(self, leg: Leg, halt: object = None) -> Row:
        if leg.trial.opens_test and leg.trial.method is not None and not self.failed:
            self.failed = 1
            return Row(leg.trial.id, FAILED, 0.0, 0, {}, message="as asked")
        return self.inner.run(leg)


def test_after_cleaning_a_study_runs_reports_and_takes_failed_cells_again(tiny_study_text: str, tmp_path: Path) -> None:
    study = study_of(tiny_study_text, ["run.retries=0"], options={"storage": str(tmp_path)})
    home, quiet = tmp_path / "tiny", Console(quiet=True)
    failing = Failing(str(home / "artifacts"))
    outcome = drive(study, Launch(in_process=True, make_runner=lambda _: failing), quiet)
    assert outcome.counts["failed"] == 1
    before = {path: path.read_bytes() for path in home.iterdir() if path.is_file() and path.name != ".lock"}
    removed = names(found(home, tmp_path, is_real=True))
    # Of three teachers, that of the failed cell stays.
    assert len(removed) == 2
    assert all(name.startswith("artifacts/teachers/") for name in removed)
    assert {path: path.read_bytes() for path in before} == before, "journal and tables are as they were"
    assert drive(study, Launch(in_process=True), quiet).trained == 0
    assert len(write_down(str(home)).events) == 1
    assert found(home, tmp_path) == [], "a cell is open"
    outcome = drive(study, Launch(in_process=True), quiet)
    assert (outcome.trained, outcome.counts["failed"]) == (1, 0)
    frame = table.read_trials(home).to_pandas()
    assert frame.groupby("status").size().to_dict() == {"failed": 1, "ok": 13, "stopped": 4}
    assert len(found(home, tmp_path, is_real=True)) == 1, "now the last teacher can go"


def test_lines_tell_sizes_and_what_was_done() -> None:
    item = Item("weights", "artifacts/teachers/x.pt", 1_234_567, "nobody needs it", lambda: None)
    small = Item("order", "orders/x", 12, "stale", lambda: None)
    first, second, last = cleaning.lines([item, small], is_real=False)
    assert first.split() == ["1.2", "MB", "weights", "artifacts/teachers/x.pt:", "nobody", "needs", "it"]
    assert second.split()[:2] == ["12", "B"]
    assert last == "Can be removed: 2 items, 1.2 MB. Nothing was touched; --yes removes it."
    assert cleaning.lines([small], is_real=True)[-1] == "Removed: 1 item, 12 B."
    assert cleaning.lines([], is_real=True) == ["Nothing to clean: whatever is there is needed."]

"""Lanes on a cluster of TPU hosts that are none: where they land, and what becomes of them when hosts come and go.

Four hosts make two v4-16 slices, a and b; tests add more, and take some away. Everything trains on the CPU.
"""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from rich.console import Console

from orchestrator import table
from orchestrator.driver import Launch, Outcome, drive
from orchestrator.errors import LaneError
from orchestrator.groups import Crew, _trainer
from orchestrator.journal import Journal
from orchestrator.placement import Placement
from orchestrator.reading import study_of
from tests.fake_tpus import FakeTpus, Noting, fake_tpus, notes
from tests.synthetic import Synthetic
from trainables.loop import never
from trainables.runner import Runner
from trainables.trial import Leg, Row

pytestmark = pytest.mark.cluster
SMALL = ["search.trials=2", "search.rungs=[]", "confirm.blocks=1"]
"""2 teachers, 2 arms of 2 trials, 3 arms of 1 block."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeTpus]:
    with fake_tpus(tmp_path_factory.mktemp("tpus")) as found:
        yield found


@pytest.fixture
def tpus(cluster: FakeTpus) -> FakeTpus:
    cluster.restore()
    return cluster


def run(text: str, folder: Path, launch: Launch, *overrides: str) -> Outcome:
    return drive(study_of(text, overrides, options={"storage": str(folder)}), launch, Console(quiet=True))


def on(tpus: FakeTpus, make_runner: Callable[[int], Synthetic] | None = None, patience_s: float = 300.0) -> Launch:
    return Launch(make_runner=make_runner, address=tpus.address, patience_s=patience_s)


def rows(folder: Path) -> list[dict]:
    return [e for e in Journal(folder / "tiny").read() if e["event"] == "row" and (e["where"] or e["status"] == "preempted")]


def trials(folder: Path) -> table.pa.Table:
    return table.read_trials(folder / "tiny")


@contextlib.contextmanager
def running(text: str, folder: Path, launch: Launch, *overrides: str) -> Iterator[Future[Outcome]]:
    """A study in another thread, while this one, where nodes may be started, does something to the cluster."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(run, text, folder, launch, *overrides)


def awaited(study: Future[Outcome], folder: Path, count: int) -> list[dict]:
    """The rows so far, once there are so many."""
    while not study.done():
        time.sleep(0.05)
        if (folder / "tiny/journal.jsonl").exists() and len(found := rows(folder)) >= count:
            return found
    raise AssertionError(f"The study ended before it had {count} rows: {study.result()}")


def noting(folder: Path, nap_s: float = 0.2, together: int = 1, imports: bool = False) -> Noting:
    folder.mkdir()
    return Noting(folder, nap_s, together, imports)


def test_chips_wait_for_a_host_to_come_and_share_it(tiny_study_text: str, tmp_path: Path, tpus: FakeTpus) -> None:
    # Nothing of the cluster is of this topology until the host joins; the study's device is left to the lane: torch_xla.
    lane = ["run.lane=chip", "run.topology=2x2x1", "run.lanes=4", "run.workers=0", "run.device=auto"]
    with running(tiny_study_text, tmp_path, on(tpus, noting(tmp_path / "notes", 0.0, together=4, imports=True)), *lane) as study:
        awaited(study, tmp_path, 0)
        tpus.add("c", topology="2x2x1")
        assert study.result().exit_code == 0
    found = notes(tmp_path / "notes")
    assert sorted(note["TPU_VISIBLE_CHIPS"] for note in found.values()) == ["0", "1", "2", "3"]
    assert {note["TPU_NAME"] for note in found.values()} == {"c"}
    assert len({note["TPU_PROCESS_PORT"] for note in found.values()}) == 4
    imported = tpus.imported()
    assert os.getpid() not in imported, "the driver leaves the TPU alone"
    for pid, note in found.items():
        assert not note["early"]
        assert imported[pid]["PJRT_DEVICE"] == "TPU"
        assert imported[pid]["TPU_CHIPS_PER_PROCESS_BOUNDS"] == "1,1,1"


def test_a_host_that_joins_gets_a_lane(tiny_study_text: str, tmp_path: Path, tpus: FakeTpus) -> None:
    tpus.add("c", topology="2x2x1")
    lane = ["run.lane=host", "run.topology=2x2x1", "run.lanes=2", "run.workers=0"]
    with running(tiny_study_text, tmp_path, on(tpus, noting(tmp_path / "notes", together=2)), *lane) as study:
        while not notes(tmp_path / "notes"):
            time.sleep(0.05)
        tpus.add("d", topology="2x2x1")
        assert study.result().exit_code == 0
    found = notes(tmp_path / "notes")
    assert sorted(note["TPU_NAME"] for note in found.values()) == ["c", "d"]
    assert all(note["TPU_VISIBLE_CHIPS"] == "0,1,2,3" and "TPU_PROCESS_BOUNDS" not in note for note in found.values())
    assert {row["where"]["pid"] for row in rows(tmp_path)} == {str(pid) for pid in found}


@pytest.mark.parametrize("workers", [0, 1])
def test_a_host_that_is_switched_off_costs_no_attempt(workers: int, tiny_study_text: str, tmp_path: Path, tpus: FakeTpus) -> None:
    run(tiny_study_text, tmp_path / "whole", Launch(in_process=True, make_runner=lambda _: Synthetic()))
    before = set(tpus.imported())
    lane = ["run.lane=host", "run.topology=2x2x2", "run.lanes=2", f"run.workers={workers}", "run.retries=0"]
    with running(tiny_study_text, tmp_path / "hit", on(tpus, noting(tmp_path / "notes", 0.5, 2, imports=True)), *lane) as study:
        pid = awaited(study, tmp_path / "hit", 5)[-1]["where"]["pid"]
        note = notes(tmp_path / "notes")[int(pid)]
        tpus.switch_off(note["TPU_NAME"], int(note["TPU_WORKER_ID"]))
        assert study.result().exit_code == 0
    found = rows(tmp_path / "hit")
    (lost,) = [row for row in found if row["status"] == "preempted"]
    assert lost["message"] == "The machine that held this cell went away."
    assert pid not in {row["where"]["pid"] for row in found[found.index(lost) + 1 :]}
    assert table.same(trials(tmp_path / "whole"), trials(tmp_path / "hit")) == []
    assert set(tpus.imported()) - before == set(notes(tmp_path / "notes")), "who trains imports torch_xla, and nobody else"


class Slow:
    """Trains as it should, but takes a nap at every step."""

    def __init__(self, root: str, nap_s: float, workers: int) -> None:
        self._runner, self._nap_s = Runner(root, "cpu", workers), nap_s

    def run(self, leg: Leg, halt: Callable[[], bool] = never) -> Row:
        def nap() -> bool:
            time.sleep(self._nap_s)
            return halt()

        row = self._runner.run(leg, nap)
        return Row(**{**vars(row), "where": {**row.where, "slice": os.environ["TPU_NAME"], "worker": os.environ["TPU_WORKER_ID"]}})


def slow(folder: Path, nap_s: float) -> Callable[[int], Slow]:
    return functools.partial(Slow, str(folder / "tiny/artifacts"), nap_s)


def test_a_drained_host_hands_on_what_it_trains_and_no_number_changes(tiny_study_text: str, tmp_path: Path, tpus: FakeTpus) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    run(tiny_study_text, here, Launch(in_process=True), *SMALL)
    lane = ["run.lane=host", "run.topology=2x2x2", "run.lanes=2", "run.workers=0"]
    with running(tiny_study_text, there, on(tpus, slow(there, 0.08)), *SMALL, *lane) as study:
        where = awaited(study, there, 3)[-1]["where"]
        hit = (where["slice"], where["worker"])
        tpus.drain(where["slice"], int(where["worker"]))
        assert study.result().exit_code == 0
    found = rows(there)
    (early,) = [row for row in found if row["status"] == "preempted"]
    assert (early["where"]["slice"], early["where"]["worker"]) == hit
    assert early["steps"] > 0
    assert early["reports"] == []
    rest = found[found.index(early) + 1 :]
    assert hit not in {(row["where"]["slice"], row["where"]["worker"]) for row in rest}
    assert early["cell"] in {row["cell"] for row in rest}
    assert table.same(trials(here), trials(there)) == []
    assert table.read_reports(here / "tiny").equals(table.read_reports(there / "tiny"))


def test_slices_are_taken_whole_share_every_batch_and_end_where_one_host_is_drained(
    tiny_study_text: str, tmp_path: Path, tpus: FakeTpus
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    # 72 steps: two processes ask each other every 20 whether to stop, and nap then.
    wanted = [*SMALL, "student.recipe.epochs=12", "run.lane=slice", "run.topology=2x2x2", "run.lanes=2", "run.workers=2"]
    run(tiny_study_text, one, Launch(in_process=True), *wanted)
    with running(tiny_study_text, two, on(tpus, slow(two, 0.7)), *wanted) as study:
        where = awaited(study, two, 4)[-1]["where"]
        slice_name = where["slice"]
        tpus.drain(slice_name, 1 - int(where["worker"]))
        assert study.result().exit_code == 0
    found = rows(two)
    assert {row["where"]["workers"] for row in found} == {"2"}
    assert {row["where"]["slice"] for row in found} == {"a", "b"}
    (early,) = [row for row in found if row["status"] == "preempted"]
    assert early["where"]["slice"] == slice_name
    assert slice_name not in {row["where"]["slice"] for row in found[found.index(early) + 1 :]}
    frames = [trials(folder).to_pandas() for folder in (one, two)]
    assert list(frames[0].cell) == list(frames[1].cell)
    assert frames[1]["metric.validation.nll"].to_numpy() == pytest.approx(frames[0]["metric.validation.nll"].to_numpy(), rel=1e-3)


def test_two_studies_share_a_cluster_and_both_end_in_the_tables_of_one_process(
    tiny_study_text: str, tmp_path: Path, tpus: FakeTpus
) -> None:
    here, there, other = tmp_path / "here", tmp_path / "there", tmp_path / "other"
    run(tiny_study_text, here, Launch(in_process=True), *SMALL)
    (tmp_path / "study.yaml").write_text(tiny_study_text)
    sets = [word for override in (*SMALL, "run.workers=0", "run.lanes=3") for word in ("--set", override)]
    command = ["run", str(tmp_path / "study.yaml"), "--storage", str(other), "--address", tpus.address, *sets]
    place = ["--lane", "host", "--topology", "2x2x2"]
    beside = subprocess.Popen(
        [sys.executable, "-m", "orchestrator", *command, *place], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        # Five lanes for four hosts; these train in a worker of Ray Train.
        run(tiny_study_text, there, on(tpus), *SMALL, "run.lane=host", "run.topology=2x2x2", "run.lanes=2", "run.workers=1")
        said, _ = beside.communicate(timeout=300)
    finally:
        beside.kill()
    assert beside.returncode == 0, said
    for found in (there, other):
        # The command asks git for itself, and somebody may work on the code meanwhile.
        assert table.same(*(trials(folder).drop_columns(["code_commit"]) for folder in (here, found))) == []
        assert table.read_reports(here / "tiny").equals(table.read_reports(found / "tiny"))


def test_a_study_without_room_gives_up_after_its_patience_and_says_what_is_missing(
    tiny_study_text: str, tmp_path: Path, tpus: FakeTpus
) -> None:
    launch = on(tpus, lambda _: Synthetic(), patience_s=2.0)
    with pytest.raises(
        LaneError, match=r"No lane found room within 2 seconds\. Of machines with a TPU-V4 the cluster has 4 of topology 2x2x2\."
    ):
        run(tiny_study_text, tmp_path, launch, "run.lane=chip", "run.topology=2x2x1", "run.workers=0")
    # Without an address nothing can join.
    alone = Launch(make_runner=launch.make_runner)
    with pytest.raises(LaneError, match=r"A lane that is a host of 2x2x4 finds no room on this machine. .* Use --address for a cluster."):
        run(tiny_study_text, tmp_path, alone, "run.lane=host", "run.topology=2x2x4")


@pytest.mark.parametrize(("device", "workers", "joins"), [("xla", 2, False), ("cpu", 2, True), ("cpu", 1, False)])
def test_a_process_group_of_torch_is_for_the_cpu_alone(device: str, workers: int, joins: bool, tmp_path: Path) -> None:
    placement = Placement("slice", "2x2x2" if workers == 2 else "2x2x1")
    trainer = _trainer(Crew(workers, lambda _: Synthetic(), {"CPU": 1.0, "TPU": 4.0}, placement, device), {}, str(tmp_path))
    assert trainer.backend_config.joins is joins

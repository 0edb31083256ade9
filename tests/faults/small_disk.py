"""The command on a disk of its own that is full, or read-only, at an exact moment; then again, with room. For a mount namespace alone.

``python -m tests.faults.small_disk FOLDER MOMENT...`` writes FOLDER/MOMENT.json.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from orchestrator import report, table
from orchestrator.__main__ import main
from orchestrator.journal import Journal
from orchestrator.record import record_of
from tests.synthetic import Synthetic
from trainables.loop import never
from trainables.runner import Runner
from trainables.trial import Leg, Row

LEG = 6
"""Before which, or behind which, the disk is full."""


def command(folder: Path, storage: Path) -> tuple[int, str]:
    """Exit code of the run, and what it says to standard error."""
    sys.argv = ["kdsweep", "run", str(folder / "tiny.yaml"), "--storage", str(storage), "--in-process"]
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0), said.getvalue()
    return 0, said.getvalue()


def fill(disk: Path) -> None:
    """To the last byte."""
    with contextlib.suppress(OSError), (disk / "filler").open("ab", buffering=0) as file:
        while True:
            file.write(bytes(1024))


def make_read_only(disk: Path) -> None:
    """Whoever opens a file for writing from now on is refused, as where a disk with errors was mounted anew by the system."""
    subprocess.run(["mount", "--bind", str(disk), str(disk)], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", str(disk)], check=True)


def mend(disk: Path, moment: str) -> None:
    """Make room, or let write again."""
    if moment == "read-only":
        subprocess.run(["umount", str(disk)], check=True)
    else:
        (disk / "filler").unlink()


def legs(does: Callable[[int], object] | None, trains: Callable[[Runner, Leg, Callable[[], bool]], Row] | None = None) -> None:
    """Patch what trains: by formula, or for real, and something at a leg of that number."""
    count = 0

    def run(self: Runner, leg: Leg, halt: Callable[[], bool] = never) -> Row:
        nonlocal count
        count += 1
        if does is not None:
            does(count)
        return Synthetic().run(leg, halt) if trains is None else trains(self, leg, halt)

    Runner.run = run  # type: ignore[method-assign]


def injected(moment: str, disk: Path) -> Callable[[], None]:
    """Arrange for the fault; how to take back what was patched for that."""
    real_run, real_commit, real_report = Runner.run, table.write, report.write
    if moment != "report":
        report.write = lambda folder, found=None: dict.fromkeys(("md", "html", "json"), "")  # drawing takes its time
    if moment in ("journal", "checkpoint"):
        legs(lambda count: fill(disk) if count == LEG else None, real_run if moment == "checkpoint" else None)
    elif moment == "read-only":
        legs(lambda count: make_read_only(disk) if count == LEG else None)
    elif moment != "real":
        legs(None)
    if moment == "table":
        table.write = lambda record, folder: (fill(disk), real_commit(record, folder))[1]
    if moment == "report":
        report.write = lambda folder, found=None: (fill(disk), real_report(folder, found))[1]

    def back() -> None:
        Runner.run, table.write, report.write = real_run, real_commit, real_report  # type: ignore[method-assign]

    return back


def finished(storage: Path) -> list[str]:
    return sorted(attempt.cell for attempt in record_of(Journal(storage / "tiny").read()).finished)


def story(folder: Path, moment: str) -> dict[str, object]:
    """The fault, then the same command with room."""
    disk, unbroken = folder / moment, folder / ("real" if moment == "checkpoint" else "formula")
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], check=True)
    if not unbroken.exists():
        back = injected("real" if moment == "checkpoint" else "none", folder)
        assert command(folder, unbroken)[0] == 0
        back()
    back = injected(moment, disk)
    code, said = command(folder, disk)
    back()
    before = Journal(disk / "tiny").read()
    kept = finished(disk)
    mend(disk, moment)
    back = injected("real" if moment == "checkpoint" else "none", disk)
    later, _ = command(folder, disk)
    back()
    after = Journal(disk / "tiny").read()
    differences = table.same(table.read_trials(unbroken / "tiny"), table.read_trials(disk / "tiny"))
    differences += table.same(table.read_reports(unbroken / "tiny"), table.read_reports(disk / "tiny"))
    again = {event["cell"] for event in after[len(before) :] if event["event"] == "row"} & set(kept)
    is_kept = after[: len(before)] == before and len(kept) >= (3 if moment in ("journal", "checkpoint", "read-only") else 9)
    return {
        "disk": str(disk),
        "code": code,
        "said": said,
        "finished": kept,
        "kept": kept if is_kept else [],
        "later": later,
        "differences": differences,
        "repeated": sorted(again),
    }


if __name__ == "__main__":
    os.environ["COLUMNS"] = "200"
    place, *moments = sys.argv[1:]
    for name in moments:
        (Path(place) / f"{name}.json").write_text(json.dumps(story(Path(place), name)))

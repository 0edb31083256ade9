"""``python -m tests.soak``: a study under random kills of its driver, workers and nodes, and the same study undisturbed.

Exit codes: 0 the tables are equal, and nothing was lost or trained twice; 1 otherwise.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator import table
from orchestrator.events import Event
from orchestrator.journal import Journal
from orchestrator.reading import study_of
from tests.soak import sizing
from tests.soak.accounts import Account, account
from tests.soak.nodes import NodeError, Nodes
from tests.soak.processes import adopt, end, family
from tests.soak.schedule import KINDS, Fault, Relaunch, faults, relaunches
from tests.soak.storm import NODES, Storm, Stuck, notes_of

REPOSITORY = Path(__file__).parents[2]
_PACE_S = 12.0
_YIELD = 0.25
"""Device-seconds that two lanes bring a second while they are killed; a first guess, then it is measured."""
_LEAST_S = 60.0
"""Less time is not worth another study."""
_SHOWN = 20


@dataclass(frozen=True)
class Round:
    """One study, disturbed and not."""

    account: Account
    differences: list[str]
    storm: Storm


def main(arguments: Sequence[str] | None = None) -> int:
    given = _given(arguments)
    adopt()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))
    # Short, whatever TMPDIR says: Ray's sockets lie deep below it, and the path of a socket may have 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="kdsoak-", dir="/tmp"))
    code = 1
    try:
        code = _soak(given, folder)
    except (Stuck, NodeError, subprocess.CalledProcessError) as error:
        _say(f"FAILED: {error}")
    except KeyboardInterrupt:
        _say("stopped")
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # once is enough: what was started has to be ended first
        end(family)
        if code or given.keep:
            _say(f"everything is kept in {folder}")
        else:
            shutil.rmtree(folder)
    return code


def _given(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=str(__doc__).partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=20.0, help="how long kills come (20)")
    parser.add_argument("--seed", type=int, help="of the kills and of the study; without it one is drawn, and printed")
    parser.add_argument("--study", type=Path, help="another study file; it is taken as it is, again and again with other seeds")
    parser.add_argument("--kinds", default=",".join(KINDS), help=f"what goes wrong, with commas: {', '.join(KINDS)}")
    parser.add_argument("--pace", type=float, default=_PACE_S, help=f"seconds between two faults, on average ({_PACE_S:g})")
    parser.add_argument("--calm", action="store_true", help="only the undisturbed study")
    parser.add_argument("--keep", action="store_true", help="keep logs and results")
    return parser.parse_args(arguments)


def _soak(given: argparse.Namespace, folder: Path) -> int:
    seed = int.from_bytes(os.urandom(3)) if given.seed is None else given.seed
    kinds = tuple(given.kinds.split(","))
    plan, starts = faults(seed, kinds, given.pace), relaunches(seed)
    _say(f"seed {seed}, {given.minutes:g} minutes, a fault every {given.pace:g} s: {', '.join(kinds)}")
    epoch_s = None if given.study else _seconds_an_epoch(folder, seed)
    nodes = Nodes(folder, REPOSITORY)
    left, rate, rounds = 60.0 * given.minutes, _YIELD, list[Round]()
    while not rounds or left > _LEAST_S:
        here = folder / f"round-{len(rounds) + 1}"
        here.mkdir()
        _write_study(here, given.study, seed + len(rounds), None if epoch_s is None else sizing.size_of(left * rate, epoch_s))
        calm_s = _undisturbed(here)
        if given.calm:
            return 0
        if nodes.head is None:
            nodes.start(NODES)
        nodes.fill(NODES)
        begun = time.monotonic()
        rounds.append(_round(here, nodes, plan, starts, begun + left))
        took = time.monotonic() - begun
        left -= took
        rate = calm_s / took
        _say(f"round {len(rounds)} took {took:.0f} s, {max(left, 0):.0f} s are left")
    nodes.end()
    return _told(rounds, seed)


def _write_study(here: Path, file: Path | None, seed: int, size: sizing.Size | None) -> None:
    overrides = (*sizing.RUN, f"seed={seed}", *(size.overrides if size else ()))
    study = study_of((file or REPOSITORY / sizing.STUDY).read_text(), overrides)
    (here / "study.yaml").write_text(study.text)
    (here / "name").write_text(study.name)
    _say(f"study {study.name}, seed {seed}" + (f": {', '.join(size.overrides)}" if size else ""))


def _seconds_an_epoch(folder: Path, seed: int) -> float:
    here = folder / "first"
    here.mkdir()
    study = study_of((REPOSITORY / sizing.STUDY).read_text(), (*sizing.RUN, *sizing.SMALL, f"seed={seed}"))
    (here / "study.yaml").write_text(study.text)
    _command(here, "calm")
    found = sizing.seconds_an_epoch(Journal(here / "calm" / study.name).read())
    _say(f"an epoch of a student takes {1000 * found:.1f} ms here")
    return found


def _undisturbed(here: Path) -> float:
    """Device-seconds of the undisturbed study, which is run in one process."""
    begun = time.monotonic()
    _command(here, "calm")
    events = Journal(here / "calm" / (here / "name").read_text()).read()
    trained = sum(event["device_seconds"] for event in events if event["event"] == "row")
    _say(f"undisturbed, in one process: {_cells(events)} cells, {trained:.0f} device-seconds, {time.monotonic() - begun:.0f} s")
    return trained


def _cells(events: Sequence[Event]) -> int:
    return len({event["cell"] for event in events if event["event"] == "cell"})


def _command(here: Path, storage: str) -> None:
    """``kdsweep run`` in one process, without Ray."""
    command = (sys.executable, "-m", "orchestrator", "run", "study.yaml", "--in-process", "--storage", storage)
    path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    with (here / f"{storage}.log").open("ab") as log:
        subprocess.run(
            command, cwd=here, stdout=log, stderr=log, check=True, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
        )


def _round(here: Path, nodes: Nodes, plan: Iterator[Fault], starts: Iterator[Relaunch], until: float) -> Round:
    name = (here / "name").read_text()
    storm = Storm(here, name, nodes, REPOSITORY, plan, starts, _say)
    storm.run(until)
    before = storm.events()
    _command(here, "soaked")
    after = storm.events()
    differences = []
    if any(event["event"] == "row" for event in after[len(before) :]):
        differences.append("a launch of the complete study trained something")
    calm = Journal(here / "calm" / name).read()
    differences += _differences(here / "calm" / name, here / "soaked" / name, calm, after)
    return Round(account(calm, after, notes_of(here), storm.tally.died), differences, storm)


def _differences(calm: Path, soaked: Path, undisturbed: Sequence[Event], disturbed: Sequence[Event]) -> list[str]:
    """What differs between the results of the two, apart from times and from how often a cell was taken again."""
    found = []
    for name, read in (("trials", table.read_trials), ("reports", table.read_reports)):
        one, other = (read(folder).drop_columns(["attempt"]) for folder in (calm, soaked))
        found += [f"{name}: {line}" for line in table.same(one, other)]
    for kind, keys in (("choice", ("arm", "number", "score", "config")), ("design", ("hash",))):
        # Which of two arms ends its search first is a matter of time.
        said = [
            sorted(str([event[key] for key in keys]) for event in events if event["event"] == kind) for events in (undisturbed, disturbed)
        ]
        if said[0] != said[1]:
            found.append(f"journal: {kind} is {said[0]} in the first, {said[1]} in the second")
    return found


def _told(rounds: Sequence[Round], seed: int) -> int:
    hit, missed, ends = Counter[str](), Counter[str](), Counter[str]()
    for found in rounds:
        hit += found.storm.tally.faults
        missed += found.storm.tally.missed
        ends += found.storm.tally.ends
    wrong = [line for found in rounds for line in found.storm.tally.wrong]
    differences = [line for found in rounds for line in found.differences]
    accounts = [found.account for found in rounds]
    lost, twice = [cell for a in accounts for cell in a.lost], [cell for a in accounts for cell in a.twice]
    trained, redone = sum(one.trained_s for one in accounts), sum(one.redone_s for one in accounts)
    start_ups = sorted(seconds for found in rounds for seconds in found.storm.tally.start_ups)
    lines = [
        f"seed {seed}: {len(rounds)} studies, {sum(a.cells for a in accounts)} cells, {sum(a.launches for a in accounts)} launches",
        f"faults survived: {sum(hit.values())}" + "".join(f"\n  {kind}: {hit[kind]}" for kind in KINDS if hit[kind]),
        *([f"faults that found nothing to hit: {dict(missed)}"] if missed else []),
        f"launches that ended by themselves, unfinished: {sum(ends.values())}"
        + "".join(f"\n  {count} x {end}" for end, count in ends.items()),
        f"cells lost: {len(lost)} {lost or ''}",
        f"cells trained twice: {len(twice)} {twice or ''}",
        f"legs begun: {sum(a.legs for a in accounts)}, cut off: {sum(a.cut_off for a in accounts)}, repeated: {sum(a.repeated for a in accounts)}",
        f"work redone: {100 * redone / trained if trained else 0:.1f} % ({redone:.0f} of {trained:.0f} device-seconds)",
        *([f"from a driver's start to its first leg: {start_ups[len(start_ups) // 2]:.1f} s, median"] if start_ups else []),
        *(f"WRONG: {line}" for line in wrong),
        *(f"DIFFERS: {line}" for line in differences[:_SHOWN]),
        *([f"... and {len(differences) - _SHOWN} more"] if len(differences) > _SHOWN else []),
        "tables: " + ("DIFFERENT" if differences else "equal"),
    ]
    for line in lines:
        _say(line)
    return int(bool(differences or lost or twice or wrong))


def _say(line: str) -> None:
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

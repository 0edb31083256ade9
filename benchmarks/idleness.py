"""What generations that wait for their slowest cell cost in idle lanes, beside --async: the same studies both ways.

    python -m benchmarks.idleness

On paper, the sweep itself hands legs to lanes whose clock is virtual, for many seeds; on real lanes the same trainings sleep, so
that there are as many lanes as are asked for whatever the machine has. How long a whole training takes is drawn once for every
content id and seed, from a log-normal distribution; a leg takes its part of it. Writes docs/idleness.md.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import heapq
import itertools
import logging
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import ray
from rich.console import Console

from orchestrator.analysis.occupancy import Replay, Spell, occupancy
from orchestrator.cluster import connected
from orchestrator.driver import Launch, drive
from orchestrator.events import SEARCH, Event, study_event
from orchestrator.journal import Journal
from orchestrator.reading import study_of
from orchestrator.record import Record, record_of
from orchestrator.report import facts_of
from orchestrator.study import Study
from orchestrator.sweep import Sweep
from trainables.loop import never
from trainables.status import OK, RUNNING
from trainables.trial import Leg, Row, Trial

MEDIAN_S, SPREAD = 1.5, 0.8
"""Of a whole training: median, and standard deviation of its logarithm."""
RUNGS = (0.25, 0.5)
TRIALS, GENERATION = 16, 8
ON_PAPER = ((1, 2), (1, 4), (2, 2), (2, 4), (4, 4))
ON_LANES = ((1, 2), (1, 4))
"""Arms and lanes."""
ARMS = ("slam", "vanilla", "kd", "taylor")
STUDY = """\
study: idleness
question: What does waiting for the slowest cost?
seed: SEED
data: {source: digits, labelled: 50, validation: 100, test: 1000}
teacher: {model: {family: mlp}, recipe: {}}
student: {model: {family: mlp}, recipe: {}}
arms: ARMS
search:
  trials: 16
  generation: 8
  startup: 8
  blocks: 1
  rungs: [0.25, 0.5]
  keep: 0.5
  space: {all: {recipe.learning_rate: {log_uniform: [0.001, 10.0]}}}
run: {wandb: "off", device: cpu, workers: 0}
"""


def draw(trial: Trial, seed: int, what: str) -> float:
    """Standard normal, the same for the same training."""
    text = hashlib.sha256(f"{what}/{seed}/{trial.id}".encode()).hexdigest()[:13]
    return statistics.NormalDist().inv_cdf((int(text, 16) + 0.5) / 16**13)


def seconds_of(leg: Leg, seed: int) -> float:
    """How long it takes."""
    if leg.trial.method is None:
        return MEDIAN_S
    begun = max((rung for rung in RUNGS if rung < leg.until), default=0.0)
    return (leg.until - begun) * MEDIAN_S * math.exp(SPREAD * draw(leg.trial, seed, "seconds"))


def row_of(leg: Leg, seed: int, seconds: float) -> Row:
    """What comes of it: a score with one peak over the learning rate, and noise."""
    rate = float(leg.trial.config()["recipe.learning_rate"])
    score = 1.0 - 0.1 * abs(math.log10(rate) + 1.0) - 0.2 * (1.0 - leg.until) + 0.02 * draw(leg.trial, seed, "score")
    where = {"host": "here", "pid": str(os.getpid()), "device": "cpu", "workers": "1"}
    status = OK if leg.until == 1.0 else RUNNING
    return Row(leg.trial.id, status, leg.until, 1, {"validation.accuracy": score}, seconds=seconds, where=where)


@dataclass(frozen=True)
class Sleeper:
    """Trains nothing, for as long as a training would take."""

    seed: int

    def run(self, leg: Leg, halt: Callable[[], bool] = never) -> Row:
        """The row of a leg that slept."""
        del halt
        started = time.perf_counter()
        time.sleep(seconds_of(leg, self.seed))
        return row_of(leg, self.seed, time.perf_counter() - started)


def sleeper(seed: int, workers: int) -> Sleeper:
    """For lanes."""
    del workers
    return Sleeper(seed)


@dataclass(frozen=True)
class Run:
    """One study, one way. Seconds are counted from when its first leg began."""

    seconds: float
    idle: float
    """Share of lane-time since then."""
    trained: float
    """Whole trainings that the progress of all cells of the search adds up to."""
    best: tuple[tuple[float, float], ...]
    """When the best score of any arm at the end of a training became better, and to what: summed over arms, 0 where there is none."""
    replay: Replay | None
    """Of generations, as the report has it."""

    def at(self, seconds: float) -> float:
        """The best by then."""
        return max((score for when, score in self.best if when <= seconds), default=0.0)


def study_with(arms: int, seed: int, **options: str | int) -> Study:
    text = STUDY.replace("SEED", str(seed)).replace("ARMS", "{" + ", ".join(f"{name}: {{method: {name}}}" for name in ARMS[:arms]) + "}")
    return study_of(text, options=options)


def on_lanes(arms: int, lanes: int, seed: int, asynchronous: bool) -> Run:
    """A study whose trainings sleep."""
    with tempfile.TemporaryDirectory() as folder:
        study = study_with(arms, seed, storage=folder, lanes=lanes)
        drive(study, Launch(make_runner=functools.partial(sleeper, seed), asynchronous=asynchronous), Console(quiet=True))
        return told(study, Journal(Path(folder, study.name)).read())


def on_paper(arms: int, lanes: int, seed: int, asynchronous: bool) -> Run:
    """The same, where nothing but legs takes time."""
    study = study_with(arms, seed, lanes=lanes)
    sweep = Sweep(study, record_of([]), asynchronous=asynchronous)
    now = began = datetime(2026, 1, 1, tzinfo=UTC)
    launch = study_event(
        study=study.name, fingerprint="", text="", seed=seed, question="", metric={}, base=None, versions={}, code_commit=None,
        lock_hash=None, space_fingerprint="", parameters=[], metrics=[], mode="async" if asynchronous else "generations", lanes=lanes,
        clock=lambda: began,
    )  # fmt: skip
    events = [launch, *sweep.drain()]
    running: list[tuple[datetime, int, float, Leg]] = []
    for number in itertools.count():
        while len(running) < lanes and (leg := sweep.take()) is not None:
            seconds = seconds_of(leg, seed)
            heapq.heappush(running, (now + timedelta(seconds=seconds), number * lanes + len(running), seconds, leg))
        events += sweep.drain()
        if not running:
            return told(study, events)
        now, _, seconds, leg = heapq.heappop(running)
        events += [event | {"time": now.isoformat()} for event in sweep.give(row_of(leg, seed, seconds))]
    raise AssertionError("a sweep ends")


def told(study: Study, events: Sequence[Event]) -> Run:
    record = record_of(events)
    found = occupancy(facts_of(events, record))
    assert found is not None
    (spell,) = found.spells
    return _run(study, record, spell, found.replay)


def _run(study: Study, record: Record, spell: Spell, replay: Replay | None) -> Run:
    began = datetime.fromisoformat(spell.began) + timedelta(seconds=spell.start_up / spell.lanes)
    left = spell.lane_seconds - spell.start_up
    ended = sorted(
        ((datetime.fromisoformat(row["time"]) - began).total_seconds(), attempt.plan["arm"], row["metrics"][study.metric.select])
        for attempt in record.attempts
        for row in attempt.rows
        if attempt.plan["stage"] == SEARCH and row["status"] == OK
    )
    best, so_far = [], dict[str, float]()
    for when, arm, score in ended:
        so_far[arm] = max(score, so_far.get(arm, 0.0))
        best.append((when, math.fsum(so_far.values()) / len(study.arms)))
    trained = math.fsum(attempt.progress for attempt in record.attempts if attempt.plan["stage"] == SEARCH)
    return Run(left / spell.lanes, spell.idle / left, trained, tuple(best), replay)


def spread(values: Sequence[float], form: str = "{:.2f}") -> str:
    """Median and range."""
    low, middle, high = (form.format(value) for value in (min(values), statistics.median(values), max(values)))
    return f"{middle} ({low} to {high})"


PERCENT = "{:.0%}"
ABOUT = f"""\
# What waiting for the slowest cell costs

By default proposals come in generations, and at a rung a whole generation is compared: lanes then wait for its slowest cell, unless
another arm or a teacher has something for them. `--async` lets nobody wait, and what it proposes and promotes hangs on the order of
arrival. This is what the two come to side by side; a report says of its own study, under *How lanes were used*, how much of it was idle.

    python -m benchmarks.idleness

Searches of {TRIALS} trials an arm in generations of {GENERATION}, rungs at {RUNGS[0]} and {RUNGS[1]}, half of them going on, one block. A whole training takes
{MEDIAN_S} s (median; log-normal, sd of the logarithm {SPREAD}), a leg its part of that; the same training takes as long both ways. Seconds are
from the first leg's beginning to the last row.
"""
NOTES = """\
* Time: of the study with `--async`, in parts of that with generations; below 1 it is faster. Trained: whole trainings that the progress
  of all cells adds up to, for the two do not train the same cells.
* Idle: share of lane-time without a leg. Replay: what the report says of the study with generations: how much was idle for waiting
  alone, and how long the same legs take without that wait, in parts of how long they take with it. It is no forecast of `--async`,
  which trains other cells.
* Best score: mean over arms of the best training that is finished, of which 1 is the peak without noise (0 before an arm has one); in
  the end, and by half of the time that generations took.
"""
Pairs = dict[tuple[int, int], list[tuple[Run, Run]]]
"""By arms and lanes: with generations, and with --async."""


def table(found: Pairs) -> list[str]:
    """Cases down, numbers across; each a median with its range over seeds."""
    waits = ["seconds, generations", "time, async", "trained, generations", "trained, async", "idle, generations", "idle, async"]
    scores = [
        "replay: idle for waiting",
        "replay: time without",
        "best, generations",
        "best, async",
        "by half, generations",
        "by half, async",
    ]
    lines: dict[str, list[str]] = {}
    for what in (waits, scores):
        lines[what[0]] = [f"| arms, lanes | {' | '.join(what)} |", f"| :-- |{' --: |' * len(what)}"]
    for (arms, lanes), pairs in found.items():
        replays = [g.replay for g, _ in pairs if g.replay is not None]
        cells = {
            waits[0]: [
                spread([g.seconds for g, _ in pairs], "{:.1f}"),
                spread([a.seconds / g.seconds for g, a in pairs]),
                spread([g.trained for g, _ in pairs], "{:.1f}"),
                spread([a.trained for _, a in pairs], "{:.1f}"),
                spread([g.idle for g, _ in pairs], PERCENT),
                spread([a.idle for _, a in pairs], PERCENT),
            ],
            scores[0]: [
                spread([each.held_share for each in replays], PERCENT),
                spread([each.free / each.waiting for each in replays]),
                spread([g.at(math.inf) for g, _ in pairs], "{:.3f}"),
                spread([a.at(math.inf) for _, a in pairs], "{:.3f}"),
                spread([g.at(g.seconds / 2) for g, _ in pairs], "{:.3f}"),
                spread([a.at(g.seconds / 2) for g, a in pairs], "{:.3f}"),
            ],
        }
        for what, said in cells.items():
            lines[what].append(f"| {arms}, {lanes} | {' | '.join(said)} |")
    first, second = lines.values()
    return [*first, "", *second]


def summary(found: Pairs) -> list[str]:
    """All pairs together."""
    pairs = [pair for each in found.values() for pair in each]
    busier = sum(a.idle < g.idle for g, a in pairs)
    faster = sum(a.seconds < g.seconds for g, a in pairs)
    return [
        f"Lanes were less idle with `--async` in {busier} of {len(pairs)} pairs, and it was done earlier in {faster}. For the same number of trials",
        f"it trained {spread([a.trained / g.trained for g, a in pairs])} times as much, for it promotes on what has arrived, when there is little to compare with. Its best score",
        f"in the end was higher by {spread([a.at(math.inf) - g.at(math.inf) for g, a in pairs], '{:+.3f}')}.",
    ]


def gathered(cases: Sequence[tuple[int, int]], seeds: int, run: Callable[[int, int, int, bool], Run], what: str) -> Pairs:
    found: Pairs = {case: [] for case in cases}
    for seed in range(seeds):
        for arms, lanes in cases:
            # The order alternates, so that what else the machine does falls on both alike.
            order = (False, True) if seed % 2 == 0 else (True, False)
            by = {way: run(arms, lanes, seed, way) for way in order}
            found[arms, lanes].append((by[False], by[True]))
            print(f"{what}, seed {seed}, {arms} arms, {lanes} lanes: {by[False].seconds:.1f} s, async {by[True].seconds:.1f} s", flush=True)
    return found


def main() -> None:
    """Run, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10, help="on paper")
    parser.add_argument("--real", type=int, default=2, help="seeds on real lanes; 0 starts no Ray")
    parser.add_argument("--to", type=Path, default=Path(__file__).parents[1] / "docs/idleness.md")
    arguments = parser.parse_args()
    command = "python -m benchmarks.idleness"
    lines = [ABOUT.replace(command, command if arguments.real else f"{command} --real 0"), "## On paper", ""]
    lines += [f"Nothing but legs takes time. Seeds 0 to {arguments.seeds - 1}: median and range, of ratios within a seed.", ""]
    paper = gathered(ON_PAPER, arguments.seeds, on_paper, "on paper")
    lines += [*table(paper), "", *summary(paper), "", NOTES]
    if arguments.real:
        with connected(max(lanes for _, lanes in ON_LANES) + 1):
            logging.getLogger("ray").setLevel(logging.ERROR)
            found = gathered(ON_LANES, arguments.real, on_lanes, "on lanes")
            real = [*table(found), "", *summary(found)]
        load = f"{os.getloadavg()[1]:.1f} on average over the five minutes before the end, other work included"
        lines += [
            "## On real lanes",
            "",
            f"The same with Ray {ray.__version__}, `--workers 0` and trainings that sleep, on {os.cpu_count()} cores with a load",
        ]
        lines += [f"of {load}. Idle holds the handing out of legs here."]
        lines += [f"Seeds 0 to {arguments.real - 1}.", "", *real]
    arguments.to.write_text("\n".join(lines).rstrip() + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()

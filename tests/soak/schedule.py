"""What a soak does to a study, and when: a function of a seed, and of nothing else."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

KINDS: Mapping[str, str] = {
    "driver-kill": "SIGKILL to the driver",
    "driver-interrupt": "SIGINT to the driver: it has to save what is in flight and end with exit code 4",
    "worker-kill": "SIGKILL to a process that trains",
    "lane-kill": "SIGKILL to a lane's actor",
    "node-kill": "SIGKILL to every process of a node; a fresh one joins later",
    "node-drain": "notice that a node goes, as for a spot machine, then SIGKILL to all of it; a fresh one joins later",
    "worker-freeze": "SIGSTOP to a process that trains, later SIGCONT",
    "node-freeze": "SIGSTOP to every process of a node until the cluster takes it for dead, later SIGCONT; a fresh one joins",
    "pause": "kdsweep pause, later kdsweep resume",
    "stop": "kdsweep stop",
    "cancel": "kdsweep cancel",
    "head": "SIGKILL to every process of Ray's head; a fresh cluster starts later",
}
_WEIGHTS = {"driver-kill": 4, "worker-kill": 4, "driver-interrupt": 2, "node-kill": 2, "node-drain": 2, "worker-freeze": 2}
"""How often in a bag; all others once."""
_AT_ROW = 0.5
"""Share of the driver's deaths that come just when the journal has grown: between a row and whatever follows from it."""
_EARLY = 0.25
"""Share of faults that do not wait until something trains again: they may come while driver, lanes or nodes are starting."""


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong."""

    number: int
    kind: str
    gap_s: float
    """Seconds after the one before, or after something trains again."""
    aim: float
    """Which of those that it can hit, as a share of their list, in [0, 1)."""
    rest_s: float
    """Seconds until what was taken away comes back."""
    at_row: bool
    """Whether it waits for the next row."""
    is_early: bool
    """Whether it may come before anything trains again."""

    def target(self, count: int) -> int:
        """Index of the one that is hit among so many."""
        return int(self.aim * count)


@dataclass(frozen=True)
class Relaunch:
    """How the driver is started the next time."""

    delay_s: float
    workers: int
    """Ray Train workers a lane; with 0 a lane trains in its own process. It changes nothing in a table."""


def faults(seed: int, kinds: Sequence[str], pace_s: float) -> Iterator[Fault]:
    """Faults without end, on average ``pace_s`` apart. Every kind comes at least once in a bag, and bags follow one another.

    Raises:
        ValueError: a kind is not known, or there is none.
    """
    if not kinds or (unknown := [kind for kind in kinds if kind not in KINDS]):
        raise ValueError(f"A soak needs kinds out of {', '.join(KINDS)}, but got {', '.join(unknown) if kinds else 'none'}.")
    draw, number = random.Random(f"faults/{seed}"), 0
    while True:
        bag = [kind for kind in kinds for _ in range(_WEIGHTS.get(kind, 1))]
        draw.shuffle(bag)
        for kind in bag:
            number += 1
            gap, aim, rest = draw.uniform(0.2, 1.8) * pace_s, draw.random(), draw.uniform(1.0, 10.0)
            yield Fault(number, kind, gap, aim, rest, draw.random() < _AT_ROW, draw.random() < _EARLY)


def relaunches(seed: int) -> Iterator[Relaunch]:
    """Starts of the driver, without end. A third of them has lanes with a Ray Train worker."""
    draw = random.Random(f"launches/{seed}")
    while True:
        yield Relaunch(draw.uniform(0.0, 4.0), int(draw.random() < 1 / 3))

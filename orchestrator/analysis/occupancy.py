"""Occupancy: what lanes did with their time, launch by launch, and how much of it waiting for the slowest of a generation cost."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from orchestrator.analysis.facts import StudyFacts
from orchestrator.events import SEARCH, TEACHER
from trainables.status import RUNNING

_SLACK = 1.02
"""How much more than all of its lanes' time a launch may have trained: stamps and stop-watches are different clocks."""


@dataclass(frozen=True)
class Spell:
    """One launch, from its start to the last row that came back. All in lane-seconds."""

    launch: int
    """From 1."""
    began: str
    lanes: int
    lane_seconds: float
    training: float
    """The seconds that its legs say they took."""
    start_up: float
    """Of all lanes, until the first leg began."""
    idle: float
    """The rest: waiting for other cells, handing out, reading and writing, lanes that came up later or died with what they held."""


@dataclass(frozen=True)
class Replay:
    """Tuning, and the teachers trained beside it, once more on paper: every recorded leg takes the seconds that it took, a lane that is
    free takes the first leg in the order of the plan that may run, and nothing else takes time. In seconds."""

    lanes: int
    legs: int
    work: float
    """Of all legs, one after the other."""
    waiting: float
    """How long it takes where a generation waits for its slowest cell, at each rung and before the next generation."""
    free: float
    """How long it takes where a leg waits for the one before it, its teacher and a lane alone."""
    least: float
    """No order of these legs on these lanes takes less: their work shared out evenly, or the longest chain of legs that need each other."""
    held: float
    """Lane-seconds that were idle in the first case while a leg waited for nothing but its generation."""

    @property
    def held_share(self) -> float:
        """Of the lane-time of the first case."""
        return self.held / (self.lanes * self.waiting)


@dataclass(frozen=True)
class Occupancy:
    """How lanes were used."""

    spells: tuple[Spell, ...]
    passed_over: tuple[tuple[int, str], ...]
    """Launch and reason, of launches that cannot be told of."""
    replay: Replay | None
    """None where nothing was tuned generation by generation."""

    def total(self, name: str) -> float:
        """Sum over launches of lane_seconds, training, start_up or idle."""
        return math.fsum(getattr(each, name) for each in self.spells)


def occupancy(facts: StudyFacts) -> Occupancy | None:
    """How the lanes of a study were used; None where no leg came back."""
    by_launch: dict[int, list[Mapping[str, Any]]] = {}
    for place, row in facts.rows:
        if row.get("seconds", 0.0) > 0:
            by_launch.setdefault(place, []).append(row)
    if not by_launch:
        return None
    spells, passed_over = [], []
    for place, rows in by_launch.items():
        found = _spell(place + 1, facts.launches[place], rows)
        if isinstance(found, str):
            passed_over.append((place + 1, found))
        else:
            spells.append(found)
    lanes = max(spells, key=lambda each: each.lane_seconds).lanes if spells else 0
    is_tuned = lanes > 0 and facts.study.get("mode") != "async"
    return Occupancy(tuple(spells), tuple(passed_over), _replay(facts, lanes) if is_tuned else None)


def _spell(number: int, launch: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Spell | str:
    lanes = launch.get("lanes")
    if not lanes:
        return "its journal does not say how many lanes it had"
    start = datetime.fromisoformat(launch["time"])
    ends = [(datetime.fromisoformat(row["time"]) - start).total_seconds() for row in rows]
    wall = max(ends)
    training = math.fsum(row["seconds"] for row in rows)
    first = min(end - row["seconds"] for end, row in zip(ends, rows, strict=True))
    if wall <= 0.0 or training > _SLACK * lanes * wall:
        return "its legs took longer than its clock ran"
    start_up = lanes * min(max(0.0, first), wall)
    # What is left where the clocks disagree by less than the slack.
    idle = max(0.0, lanes * wall - start_up - training)
    return Spell(number, launch["time"], int(lanes), lanes * wall, training, start_up, idle)


@dataclass(frozen=True)
class _Leg:
    cell: str
    place: int
    """Of the cell in the plan."""
    seconds: float
    needs: tuple[str, ...]
    gate: tuple[str, int, int] | None
    """Arm, generation and rung that it waits for; None of what waits for no generation."""


def _replay(facts: StudyFacts, lanes: int) -> Replay | None:
    chains = _chains(facts)
    legs = [leg for chain in chains for leg in chain]
    if not any(leg.gate is not None for leg in legs):
        return None
    work = math.fsum(leg.seconds for leg in legs)
    waiting, held = _scheduled(chains, lanes, is_waiting=True)
    free, _ = _scheduled(chains, lanes, is_waiting=False)
    # With a lane for every cell nothing but chains of needs takes time.
    longest, _ = _scheduled(chains, len(chains), is_waiting=False)
    return Replay(lanes, len(legs), work, waiting, free, max(work / lanes, longest), held)


def _chains(facts: StudyFacts) -> list[list[_Leg]]:
    """By cell, in the order of the plan, the legs that it took, one after the other: of tuning, of what it needs, and of all teachers."""
    cells = {cell["cell"]: cell for cell in facts.cells}
    wanted = {name for name, cell in cells.items() if cell["stage"] == SEARCH or (cell["stage"] == TEACHER and cell["method"] is None)}
    open_ = [name for name in wanted if cells[name]["stage"] == SEARCH]
    gates: dict[str, tuple[str, int]] = {}
    for name in open_:
        gates[name] = (cells[name]["arm"], cells[name]["generation"] or 0)
    while open_:
        name = open_.pop()
        for other in cells[name].get("needs", ()):
            if other in cells and cells[other]["method"] is not None and cells[other]["stage"] == TEACHER:
                # A student that a proposal needs enters the plan with the first that does.
                gate = min(gates[name], gates.get(other, gates[name]), key=lambda each: each[1])
                if gates.get(other) != gate:
                    gates[other] = gate
                    open_.append(other)
                wanted.add(other)
    took: dict[str, list[Mapping[str, Any]]] = {}
    for _, row in facts.rows:
        if row["cell"] in wanted and row.get("seconds", 0.0) > 0:
            took.setdefault(row["cell"], []).append(row)
    chains = []
    for place, name in enumerate(name for name in cells if name in took):
        rungs: set[float] = set()
        chain = []
        for row in took[name]:
            rung = len(rungs) if cells[name]["stage"] == SEARCH else 0
            needs = tuple(other for other in cells[name].get("needs", ()) if other in took)
            chain.append(_Leg(name, place, row["seconds"], needs, (*gates[name], rung) if name in gates else None))
            if row["status"] == RUNNING:
                rungs.add(row["progress"])
        chains.append(chain)
    return chains


class _Gates:
    """Which legs may run of an arm's generations: those of one rung when all before it are done."""

    def __init__(self, legs: Iterable[_Leg], *, is_waiting: bool) -> None:
        self._left: dict[str, Counter[tuple[int, int]]] = {}
        self._is_waiting = is_waiting
        for leg in legs:
            if leg.gate is not None:
                self._left.setdefault(leg.gate[0], Counter())[leg.gate[1:]] += 1
        self._order = {arm: sorted(left, reverse=True) for arm, left in self._left.items()}

    def is_open(self, leg: _Leg) -> bool:
        return leg.gate is None or not self._is_waiting or leg.gate[1:] <= self._order[leg.gate[0]][-1]

    def done(self, leg: _Leg) -> bool:
        """A leg is done; whether that opened a gate."""
        if leg.gate is None:
            return False
        left, order = self._left[leg.gate[0]], self._order[leg.gate[0]]
        left[leg.gate[1:]] -= 1
        opened = False
        while len(order) > 1 and left[order[-1]] == 0:
            order.pop()
            opened = True
        return opened


def _scheduled(chains: Sequence[Sequence[_Leg]], lanes: int, *, is_waiting: bool) -> tuple[float, float]:
    """Seconds until all is done, and lane-seconds that were idle while a leg waited for its generation alone."""
    gates = _Gates((leg for chain in chains for leg in chain), is_waiting=is_waiting)
    names = {chain[0].cell: place for place, chain in enumerate(chains)}
    unmet = [len({names[other] for other in chain[0].needs}) for chain in chains]
    waited_for: dict[int, list[int]] = {}
    for place, chain in enumerate(chains):
        for other in {names[other] for other in chain[0].needs}:
            waited_for.setdefault(other, []).append(place)
    at = [0] * len(chains)
    ready: list[int] = []
    held: set[int] = set()
    running: list[tuple[float, int]] = []
    now, idle_held = 0.0, 0.0

    def offer(place: int) -> None:
        if gates.is_open(chains[place][at[place]]):
            heapq.heappush(ready, place)
        else:
            held.add(place)

    for place, missing in enumerate(unmet):
        if not missing:
            offer(place)
    while True:
        while ready and len(running) < lanes:
            place = heapq.heappop(ready)
            heapq.heappush(running, (now + chains[place][at[place]].seconds, place))
        if not running:
            return now, idle_held
        end = running[0][0]
        idle_held += min(lanes - len(running), len(held)) * (end - now)
        now = end
        while running and running[0][0] == now:
            place = heapq.heappop(running)[1]
            leg = chains[place][at[place]]
            at[place] += 1
            if at[place] < len(chains[place]):
                offer(place)
            else:
                for other in waited_for.get(place, ()):
                    unmet[other] -= 1
                    if not unmet[other]:
                        offer(other)
            if gates.done(leg):
                freed = [other for other in held if gates.is_open(chains[other][at[other]])]
                held.difference_update(freed)
                for other in freed:
                    heapq.heappush(ready, other)

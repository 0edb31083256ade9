"""Dispatch: which lane is given which leg, and what follows when one dies or its machine is taken away. It knows nothing of Ray."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from orchestrator.command import Command
from orchestrator.errors import LaneError
from orchestrator.events import Event
from orchestrator.sweep import Sweep
from trainables.status import FAILED, OUT_OF_MEMORY, PREEMPTED, TIMED_OUT
from trainables.trial import Leg, Row

Deliver = Callable[[list[Event]], None]
Hand = Callable[[str, Leg | None], None]
"""Gives a lane its next leg; None sends it home."""

_DEATHS_A_LANE = 3
"""Deaths in a row, times the number of lanes, after which lanes are not started any more."""
_SAY_S = 30.0
"""How long lanes may take to start before the user is told that there are none."""
_SAVE_S = 15.0
"""How long lanes may take to save what they hold when the study ends early."""
_SLACK_S = 120.0
"""How much longer than a process takes to end itself the driver waits for a leg that has taken too long: a group may have to start first."""
_DOUBT_S = 90.0
"""How long a machine that does not answer may take to be known as gone: Ray gives it 65 seconds (2.60)."""


@dataclass
class _Place:
    """A lane that is up."""

    nodes: frozenset[str]
    cell: str | None = None
    """The cell that it holds."""
    last: str | None = None
    """The cell that it held before."""
    deadline: float = math.inf
    """When it is ended by force, if it still holds the cell."""
    is_overdue: bool = False
    """It was ended by force."""
    rows: int = 0
    """How many it has brought."""
    is_leaving: bool = False
    """It was sent home."""


@dataclass(frozen=True)
class _Doubt:
    """A lane that vanished, until it is known why, but no longer than a deadline."""

    place: _Place
    trace: str
    deadline: float


class Dispatch:
    """Feeds lanes from a sweep and takes in what they bring.

    ``deliver`` is called with the events of every row, in order of arrival, before another leg is handed out.
    """

    def __init__(
        self,
        sweep: Sweep,
        deliver: Deliver,
        hand: Hand,
        lanes: int,
        *,
        patience_s: float,
        shortage: Callable[[], str],
        say: Callable[[str], None],
        command: Command | None = None,
        end: Callable[[str], None] = lambda _: None,
        slack_s: float = _SLACK_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``patience_s``: how long the study may be without a single lane. ``shortage`` says why there is none, ``say`` tells the user.
        ``end`` ends a lane by force, so that it dies; ``slack_s`` is how long it is left to end itself."""
        self._sweep, self._deliver, self._hand = sweep, deliver, hand
        self._places: dict[str, _Place] = {}
        self._doubts: list[_Doubt] = []
        self._staying: frozenset[str] | None = None
        self._deaths, self._most_deaths = 0, _DEATHS_A_LANE * lanes
        self._patience_s, self._shortage, self._say, self._clock = patience_s, shortage, say, clock
        self._without_since, self._has_said = clock(), False
        self._command, self._end, self._slack_s = command or Command(), end, slack_s
        self._closing_since: float | None = None
        self.failure: LaneError | None = None

    @property
    def is_closing(self) -> bool:
        """Whether nothing is left to do, or nobody to do it, or the user wants no more: nothing is handed out any more."""
        return self._hands_out_nothing or (self._command.is_finishing and self._is_idle and not self._doubts)

    @property
    def is_over(self) -> bool:
        """Whether nothing more is to be expected of lanes, either: what they hold when the study ends early is saved first."""
        if not self.is_closing:
            self._closing_since = None
            return False
        if self._closing_since is None:
            self._closing_since = self._clock()
        return self._is_idle or self.failure is not None or self._clock() - self._closing_since >= _SAVE_S

    @property
    def _is_idle(self) -> bool:
        return all(place.cell is None for place in self._places.values())

    @property
    def _hands_out_nothing(self) -> bool:
        return self.failure is not None or self._sweep.is_done or self._sweep.hopeless is not None or self._command.is_cancelled()

    def up(self, lane: str, nodes: tuple[str, ...]) -> None:
        """A lane is up, on these nodes."""
        self._places[lane] = _Place(frozenset(nodes))
        self._hand_out()

    def row(self, lane: str, row: Row, nodes: tuple[str, ...]) -> None:
        """A lane brings the row of what it held."""
        place = self._places[lane]
        place.nodes, place.rows = frozenset(nodes), place.rows + 1
        events = self._take_in(place, row)
        if row.status == PREEMPTED:
            self._send_home(lane, place)
        self._hand_out(events)

    def _take_in(self, place: _Place, row: Row) -> list[Event]:
        place.cell, place.last, place.deadline = None, row.trial, math.inf
        self._deaths = 0
        if row.status == TIMED_OUT and row.steps == 0:  # whoever ended it does not know where it stood
            row = replace(row, progress=self._sweep.cells[row.trial].progress)
        return self._sweep.give(row)

    def brought(self, lane: str) -> int:
        """How many rows a lane has brought."""
        place = self._places.get(lane)
        return 0 if place is None else place.rows

    def left(self, lane: str) -> None:
        """A lane went home, or never found room. It holds nothing."""
        self._places.pop(lane, None)

    def died(self, lane: str, trace: str, vanished: bool = False, row: Row | None = None, status: str = FAILED) -> None:
        """A lane died. It counts, for the cell and for the lanes, unless a machine of it went away.

        ``vanished``: it does not answer any more, and nobody saw it die. Its machine may be found gone a little later.
        ``row``: what it left behind. ``status``: out_of_memory where that is what it died of.
        """
        place = self._places.pop(lane, None) or _Place(frozenset())
        if place.is_overdue and row is None and place.cell is not None:
            message = "Neither it nor its process answered for long after its time was over (run.cell_seconds), so its lane was ended."
            row = Row(place.cell, TIMED_OUT, 0.0, 0, {}, message=message)
        if row is not None and row.trial == place.cell:
            self._hand_out(self._take_in(place, row))
            return
        if vanished and self._stays(place):
            self._doubts.append(_Doubt(place, trace, self._clock() + _DOUBT_S))
        else:
            self._bury(place, trace, status)
            self._hand_out()

    def collapsed(self, trace: str, ran_out: Callable[[str], bool]) -> None:
        """All lanes died at once because the memory of one's machine ran out: ``ran_out`` says of which, where that is known. It
        costs the others nothing."""
        lanes, self._places = self._places, {}
        culprits = [lane for lane, place in lanes.items() if ran_out(lane)] or (list(lanes) if len(lanes) == 1 else [])
        for lane, place in lanes.items():
            if lane in culprits:
                self._bury(place, trace, OUT_OF_MEMORY)
            else:
                self._hand_back(place, "Its lane ended with another whose machine ran out of memory.")
        if not culprits:
            self._count(trace)

    def _bury(self, place: _Place, trace: str, status: str = FAILED) -> None:
        if not self._stays(place):
            self._hand_back(place, "The machine that held this cell went away.", trace)
            return
        self._count(trace)
        if place.cell is not None:
            # Ray's words on memory begin with what happened, and end with advice.
            why = trace.partition("\n")[0] if status == OUT_OF_MEMORY else _last(trace)
            self._deliver(self._sweep.lost(place.cell, f"The lane that held this cell died: {why}", trace, status))

    def _hand_back(self, place: _Place, message: str, trace: str = "") -> None:
        """What a lane held that died through no fault of the cell is taken again, as the same attempt."""
        if place.cell is not None:
            progress = self._sweep.cells[place.cell].progress
            self._deliver(self._sweep.give(Row(place.cell, PREEMPTED, progress, 0, {}, message=message, trace=trace)))

    def _count(self, trace: str) -> None:
        self._deaths += 1
        if self._deaths >= self._most_deaths:
            self.failure = LaneError(f"{self._deaths} lanes in a row died before they finished anything. The last one: {_last(trace)}")

    def look(self, staying: frozenset[str]) -> None:
        """Take in which nodes are up and not about to be taken away: lanes elsewhere are given nothing more."""
        self._staying = staying
        self._retry()
        for lane, place in self._places.items():
            if self._clock() >= place.deadline and not place.is_overdue:
                place.is_overdue = True
                self._end(lane)
            # A lane that holds a cell hears of it by itself, and brings what it has first.
            if place.cell is None and not place.is_leaving and not self._stays(place):
                self._send_home(lane, place)
        settled = [doubt for doubt in self._doubts if not self._stays(doubt.place) or self._clock() >= doubt.deadline]
        self._doubts = [doubt for doubt in self._doubts if doubt not in settled]
        for doubt in settled:
            self._bury(doubt.place, doubt.trace)
        self._hand_out()
        self._wait()

    def _retry(self) -> None:
        wanted = self._command.retried()
        if wanted:
            self._deliver(self._sweep.retry(wanted))

    def _wait(self) -> None:
        """Be patient with a cluster that holds no lane, and say so."""
        waited = self._clock() - self._without_since
        if self._places:
            self._without_since, self._has_said = self._clock(), False
        elif waited > self._patience_s and self.failure is None:
            self.failure = LaneError(f"No lane found room within {self._patience_s:g} seconds. {self._shortage()}")
        elif waited > _SAY_S and not self._has_said:
            self._has_said = True
            self._say(f"No lane has found room yet. {self._shortage()} Waiting for up to {self._patience_s:g} seconds.")

    def _hand_out(self, events: Sequence[Event] = ()) -> None:
        """Give every lane that is free something to do; ``events`` are durable, with those that this leads to, before any lane is."""
        told, handed = [*events], list[tuple[str, Leg]]()
        for lane, place in self._places.items():
            if place.cell is not None or place.is_leaving or not self._stays(place):
                continue
            leg = self._next(place)
            if leg is None:
                continue
            place.cell = leg.trial.id
            place.deadline = self._clock() + leg.overdue_s + self._slack_s
            told += [*self._sweep.drain(), self._sweep.cells[place.cell].handed(leg.until, lane)]
            handed.append((lane, leg))
        self._deliver(told)
        for lane, leg in handed:
            self._hand(lane, leg)

    def _next(self, place: _Place) -> Leg | None:
        if self._hands_out_nothing or self._command.is_paused:
            return None
        if self._command.is_finishing:
            return None if place.last is None else self._sweep.take_on(place.last)
        return self._sweep.take(after=place.last)

    def _stays(self, place: _Place) -> bool:
        return self._staying is None or place.nodes <= self._staying

    def _send_home(self, lane: str, place: _Place) -> None:
        place.is_leaving = True
        self._hand(lane, None)


def _last(trace: str) -> str:
    return trace.strip().rpartition("\n")[2]

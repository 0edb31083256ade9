"""Desk: where legs and rows change hands. The driver puts, a lane takes; what a lane's workers answer is kept until the lane asks.

It stands beside the driver, on a machine that nobody takes away, so a row is safe as soon as it is here.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from trainables.trial import Leg, Row

_WAITING = 10_000
"""Calls that may wait at the same time: two for every lane, and two for each of its workers."""


class _Tray:
    """What lies on the desk for one lane."""

    def __init__(self) -> None:
        self.legs: list[Leg | None] = []
        self.rows: list[Row] = []
        self.answers: dict[int, Row] = {}
        """By rank, for the first leg that has no row yet."""
        self.last_word: Row | None = None
        """Of a lane that trains in its own process and had to end it."""
        self.size = 0
        self.nodes: dict[int, str] = {}
        """Where each worker is, by rank."""

    @property
    def where(self) -> tuple[str, ...]:
        """Nodes of the lane, once all of its workers are there."""
        return tuple(self.nodes[rank] for rank in sorted(self.nodes)) if len(self.nodes) == self.size else ()


class Desk:
    """Numbered legs one way, rows the other, for every lane by its name."""

    def __init__(self) -> None:
        self._trays: defaultdict[str, _Tray] = defaultdict(_Tray)
        self._changed = asyncio.Condition()
        self._is_closed = False

    async def put(self, lane: str, leg: Leg | None) -> None:
        """Give a lane its next leg; None sends it home."""
        async with self._changed:
            self._trays[lane].legs.append(leg)
            self._changed.notify_all()

    async def close(self) -> None:
        """Send every lane home, whatever is put afterwards."""
        async with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    async def closed(self) -> None:
        """Answers when lanes are sent home."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._is_closed)

    async def arrive(self, lane: str, rank: int, size: int, node: str) -> int:
        """A worker of a lane is up, or up again: the number of the leg that it goes on with."""
        async with self._changed:
            tray = self._trays[lane]
            tray.size, tray.nodes[rank] = size, node
            tray.answers.pop(rank, None)
            self._changed.notify_all()
            return len(tray.rows)

    async def where(self, lane: str) -> tuple[str, ...]:
        """Nodes on which a lane trains, as soon as all of its workers are up."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._trays[lane].where)
            return self._trays[lane].where

    async def take(self, lane: str, number: int) -> Leg | None:
        """Leg ``number``, as soon as there is one; None: go home."""
        async with self._changed:
            legs = self._trays[lane].legs
            await self._changed.wait_for(lambda: self._is_closed or len(legs) > number)
            return None if self._is_closed else legs[number]

    async def answer(self, lane: str, number: int, rank: int, row: Row) -> None:
        """What a worker has to say about leg ``number``. The first worker's row counts, but not before all have answered.

        Where one of them dies, the others may fail for want of it, and that is no fact about the training.
        """
        async with self._changed:
            tray = self._trays[lane]
            if number != len(tray.rows):
                return  # of a group that was restarted
            tray.answers[rank] = row
            if len(tray.answers) == tray.size:
                tray.rows.append(tray.answers[0])
                tray.answers = {}
                self._changed.notify_all()

    async def overdue(self, lane: str, number: int, row: Row, is_of_group: bool) -> None:
        """What a process says of leg ``number`` before it ends itself, because the leg does not end. One of a group says it for all:
        its lane goes on with the next leg as soon as the group is up again."""
        async with self._changed:
            tray = self._trays[lane]
            if not is_of_group:
                tray.last_word = row
            elif number == len(tray.rows):
                tray.rows.append(row)
                tray.answers = {}
                self._changed.notify_all()

    async def left_behind(self, lane: str, taken: int) -> Row | None:
        """Of a lane that died: the row that it could not bring any more, where there is one. ``taken``: how many it brought."""
        tray = self._trays[lane]
        return tray.rows[taken] if len(tray.rows) > taken else tray.last_word

    async def row(self, lane: str, number: int) -> tuple[Row, tuple[str, ...]]:
        """The row of leg ``number``, as soon as it is there, and the nodes that it was trained on."""
        async with self._changed:
            tray = self._trays[lane]
            await self._changed.wait_for(lambda: len(tray.rows) > number)
            return tray.rows[number], tray.where


def opened() -> Any:
    """A desk on this process's own node."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(Desk).options(num_cpus=0, max_concurrency=_WAITING, scheduling_strategy=here).remote()

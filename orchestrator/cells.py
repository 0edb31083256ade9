"""Cells under way: where each of them stands, who asks for it, and how far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from orchestrator.events import Event, Role, cell_event, leg_event
from orchestrator.plan import Cell
from orchestrator.tuning import END
from trainables.status import OK


@dataclass
class Standing:
    """Where a cell stands."""

    cell: Cell
    needs: tuple[Standing, ...]
    """What must be finished before it starts, its teacher before others."""
    rungs: tuple[float, ...] = ()
    """Where its legs end, before the end of the training: the same whoever asks for it."""
    claims: dict[Role, float] = field(default_factory=dict)
    """How far the proposals that it belongs to may train, by what it is for them."""
    is_whole: bool = False
    """Whether it runs to the end, whatever becomes of proposals."""
    is_needed: bool = False
    """Whether other cells need it."""
    keeps: bool = False
    """Whether its network is kept for them."""
    progress: float = 0.0
    """Of the last rung, or the end. A leg that was preempted got further, which counts for nothing here."""
    status: str | None = None
    """A final status, or None."""
    attempt: int = 1
    seconds: float = 0.0
    """What the legs of this attempt took."""
    in_flight: bool = False
    levels: dict[float, Mapping[str, float]] = field(default_factory=dict)
    """Metrics by progress of rung or end."""

    @property
    def goal(self) -> float:
        """How far it may train now."""
        return END if self.is_whole else max(self.claims.values(), default=0.0)

    @property
    def until(self) -> float:
        """Where its next leg ends."""
        return min((rung for rung in (*self.rungs, self.goal) if rung > self.progress), default=self.goal)

    @property
    def is_ready(self) -> bool:
        """Whether a lane may take it now."""
        return not self.in_flight and self.progress < self.goal and all(needed.status == OK for needed in self.needs)

    @property
    def waits_for_teacher(self) -> bool:
        """Whether a network that is no student is still to be trained before it."""
        return any(needed.status != OK and (needed.cell.method is None or needed.waits_for_teacher) for needed in self.needs)

    def event(self) -> Event:
        """What the journal says of it when it enters the plan, or is taken again."""
        cell, block = self.cell, self.cell.trial.block
        return cell_event(
            cell=cell.id,
            attempt=self.attempt,
            stage=cell.stage,
            arm=cell.arm,
            method=cell.method,
            block=cell.block,
            seeds={"split": block.split, "teacher": block.teacher, "init": block.init, "order": block.order},
            generation=cell.generation,
            number=cell.number,
            proposed_by=cell.proposed_by,
            needs=[needed.cell.id for needed in self.needs],
            config=cell.trial.config(),
            point=cell.point,
        )

    def handed(self, until: float, lane: str) -> Event:
        """What the journal says of it when a lane is handed its next leg."""
        return leg_event(cell=self.cell.id, attempt=self.attempt, until=until, lane=lane)

"""Sweep: the state of a running study, without Ray or torch work. It says which leg may run next and takes in rows.

Everything here is a function of the study and of the rows so far, so a restart replays the journal's rows into a new
Sweep and stands where the old one stood. Whoever executes (this process, or lanes on Ray) calls ``take`` for a leg and
``give`` with the row it led to; ``give`` returns the journal events that must be durable before anything else happens.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

from orchestrator import chains, plan, variants
from orchestrator.cells import Standing
from orchestrator.events import CONFIRM, SEARCH, TEACHER, Event, choice_event, role_of, row_event
from orchestrator.fixed import fixing
from orchestrator.hope import Hope
from orchestrator.outlook import Outlook
from orchestrator.path import Walk, mean_of
from orchestrator.plan import Cell
from orchestrator.proof import Prove
from orchestrator.record import Record
from orchestrator.study import Arm, Confirm, Study
from orchestrator.tuning import END, Arrivals, Candidate, Generations, Hooks, Tuning, proposals_of
from trainables.status import FAILED, FAILURES, LOST, OK, PREEMPTED, RUNNING, STOPPED
from trainables.trial import Leg, Row


class Sweep:
    """A study under way.

    ``record`` holds what the journal has of earlier launches: finished cells are not trained again, and cells that stand
    at a rung go on from there.
    """

    def __init__(self, study: Study, record: Record, *, asynchronous: bool = False, prove: Prove | None = None) -> None:
        """``prove``: tells of two arms of stage two whether they are different trainings, before it opens."""
        self.study = study
        self.cells: dict[str, Standing] = {}
        """In plan order."""
        self._open: dict[str, Standing] = {}
        """Those without a final status, in the same order."""
        self.variants: variants.Variants | None = None
        """The arms of stage two, once tuning has chosen."""
        self._walk: Walk | None = None
        self._record, self._prove = record, prove
        self._events: list[Event] = []
        self._tunings: dict[str, Tuning] = {}
        self._chosen: dict[str, Candidate] = {}
        self._is_asynchronous = asynchronous
        self._outlook = Outlook(study)
        self._hope = Hope(record, study.run.give_up_after)
        self._taught = chains.methods_that_teach(study)
        kind = Arrivals if asynchronous else Generations
        if study.search is not None:
            for name in study.search.spaces:
                tuning = kind(study, study.search, study.arms[name], Hooks(self._enter, self._stop, self._score))
                self._tunings[name] = tuning
                if isinstance(tuning, Arrivals):
                    tuning.restore(proposals_of(record, name, tuning.space))
        self._settle()
        if study.confirm is not None:
            # Their seeds are known already, so they fill lanes that wait for a generation to end.
            for cell in plan.confirm_cells(study, study.confirm, {name: study.arms[name] for name in study.confirm.arms}):
                self._enter_needed(cell.first_teacher)
            for cell in plan.path_cells(study, study.confirm):
                self._enter_needed(cell.first_teacher)

    # -- what is asked of it

    @property
    def is_done(self) -> bool:
        return not self._open and all(t.is_done for t in self._tunings.values())

    @property
    def best(self) -> Mapping[str, float]:
        """Best score so far of each searched arm."""
        found = {name: tuning.best for name, tuning in self._tunings.items()}
        return {name: best.scores[END] for name, best in found.items() if best is not None}

    @property
    def problems(self) -> tuple[str, ...]:
        """Why stage two cannot open, if it cannot."""
        return tuple(
            f"No training of {name} reached the end of its search, so there is nothing to confirm."
            for name, tuning in self._tunings.items()
            if tuning.is_done and tuning.best is None
        )

    def counts(self) -> dict[str, int]:
        """Cells by status; "running" are in flight, "waiting" is everything else that is known to come."""
        found = dict.fromkeys(("ok", "stopped", "failed", "running", "waiting"), 0)
        # A list at once: this is called while another thread adds cells.
        for s in list(self.cells.values()):
            if s.status is None:
                found["running" if s.in_flight else "waiting"] += 1
            else:
                found["failed" if s.status in FAILURES else s.status] += 1
        found["waiting"] += self._cells_to_come
        return found

    def remaining(self) -> float:
        """Whole trainings left, at most (early stopping may spare some of those counted)."""
        known = sum(max(0.0, END - s.progress) for s in list(self._open.values()))
        return known + self._cells_to_come

    @property
    def _cells_to_come(self) -> int:
        if self.study.confirm is None or self.variants is not None or self.problems:
            return self._outlook.of_search(self._tunings)
        return self._outlook.of_search(self._tunings) + self._outlook.of_confirm(self._walk)

    def take(self, after: str | None = None) -> Leg | None:
        """The next leg that may run now, marked as in flight; None if there is none at the moment (or none at all).

        ``after`` is the cell that the lane which asks held before. Of the cells that come before the next one which others need
        (a teacher) in the order of the plan, it is given the first that needs no other compiled graphs than that cell; where none
        of them is like it, and without ``after``, the order of the plan decides alone. A teacher never waits longer for its turn.
        """
        standing = self._ready(after)
        for tuning in self._tunings.values():
            if standing is not None:
                break
            # Whoever waits for a teacher comes first: proposals made meanwhile would know nothing of it.
            if isinstance(tuning, Arrivals) and not self._has_waiting(tuning) and tuning.extend():
                self._spread_goals(tuning)
                standing = self._ready(after)
        return None if standing is None else self._leg(standing)

    def take_on(self, trial: str) -> Leg | None:
        """The next leg of this cell, as ``take`` gives one; None where it is finished, or waits for others at its rung."""
        standing = self.cells[trial]
        return self._leg(standing) if standing.status is None and standing.is_ready else None

    def _leg(self, standing: Standing) -> Leg:
        standing.in_flight = True
        limit = self.study.run.cell_seconds
        left = None if limit is None else max(0.0, limit - standing.seconds)
        return Leg(standing.cell.trial, standing.until, keeps=standing.keeps, seconds=left)

    def give(self, row: Row) -> list[Event]:
        """Take in what a leg led to, and return the events to be journalled.

        A leg that was preempted may be taken again at once: the same leg, of the same attempt. A failure that the study retries
        ends the attempt, and not the cell.
        """
        standing = self.cells[row.trial]
        standing.in_flight = False
        standing.seconds += row.seconds
        self._events.append(row_event(row.trial, standing.attempt, row))
        self._hope.add(row, is_student=standing.cell.method is not None)
        if row.status in FAILURES and self._is_retried(standing, row.status):
            self._retry(standing)
        else:
            self._apply(standing, row.status, row.progress, row.metrics)
            self._settle()
        return self.drain()

    def lost(self, trial: str, message: str, trace: str = "", status: str = FAILED) -> list[Event]:
        """A lane died with this cell: it is taken again, unless that happened more often than the study allows.

        ``status``: what the cell has then; out_of_memory where that is what the lane died of.
        """
        standing = self.cells[trial]
        standing.in_flight = False
        if status == FAILED and self._is_retried(standing, LOST):
            self._retry(standing)
            return self.drain()
        return self.give(Row(trial, status, standing.progress, 0, {}, message=message, trace=trace))

    def retry(self, trials: Collection[str]) -> list[Event]:
        """Take failed cells again, but none of a search or path: what was decided by their failure stands."""
        for trial, standing in self.cells.items():
            if trial in trials and standing.status in FAILURES and standing.cell.stage in (TEACHER, CONFIRM):
                standing.status = None
                self._open[trial] = standing
                self._retry(standing)
        self._settle()
        return self.drain()

    def _is_retried(self, standing: Standing, reason: str) -> bool:
        run = self.study.run
        return reason in run.retry_on and standing.attempt <= run.retries

    def _retry(self, standing: Standing) -> None:
        standing.attempt, standing.seconds = standing.attempt + 1, 0.0
        self._events.append(standing.event())

    @property
    def hopeless(self) -> str | None:
        """Why it makes no sense to go on, or None."""
        return self._hope.lost

    def drain(self) -> list[Event]:
        """Events since the last call."""
        events, self._events = self._events, []
        return events

    # -- cells

    def _enter(self, cell: Cell) -> Standing:
        """Put a cell into the plan, behind what it needs, with what the record knows of it. It may be there for another arm."""
        standing = self.cells.get(cell.id)
        if standing is None:
            needs = tuple(self._enter_needed(needed) for needed in cell.needs)
            is_tuning = cell.method is not None and not cell.trial.opens_test
            rungs = self.study.search.rungs if is_tuning and self.study.search is not None else ()
            standing = Standing(cell, needs, rungs, keeps=is_tuning and cell.method in self._taught)
            self.cells[cell.id] = self._open[cell.id] = standing
            self._say(standing)
            self._recall(standing)
        elif cell.role < standing.cell.role:
            standing.cell = cell
            self._say(standing)
        if standing.status == STOPPED:
            standing.status = None
            self._open[cell.id] = standing
        standing.is_whole = standing.is_whole or cell.stage != SEARCH
        return standing

    def _enter_needed(self, cell: Cell) -> Standing:
        standing = self._enter(cell)
        standing.is_needed = standing.keeps = True
        return standing

    def _say(self, standing: Standing) -> None:
        """Put into the journal what a cell is, unless it holds that, or something weightier, already."""
        known = self._record.cells.get(standing.cell.id)
        if known is None:
            self._events.append(standing.event())
            return
        standing.attempt = max(standing.attempt, known.attempt)
        if standing.cell.role < role_of(known.plan["stage"], known.plan["arm"], known.plan["number"]):
            self._events.append(standing.event())

    def _recall(self, standing: Standing) -> None:
        known = self._record.cells.get(standing.cell.id)
        standing.seconds = 0.0 if known is None else known.total("seconds")
        for row in self._record.rows_of(standing.cell.id):
            is_orphan = any(needed.status in FAILURES for needed in standing.needs)
            if row["status"] in FAILURES and self._is_retried(standing, row["status"]) and not is_orphan:
                self._retry(standing)  # the journal ended before the next attempt, or more retries are allowed now
                continue
            # "stopped" is the driver's own decision and follows again from the rows.
            if row["status"] != STOPPED:
                self._apply(standing, row["status"], row["progress"], row["metrics"])

    def _apply(self, standing: Standing, status: str, progress: float, metrics: Mapping[str, float]) -> None:
        if status == PREEMPTED:
            return  # between two rungs: where the cell stands and what it is asked for next are as before
        standing.progress = progress
        if status in (RUNNING, OK):
            standing.levels[progress] = metrics
        if status != RUNNING:
            self._close(standing, status)

    def _close(self, standing: Standing, status: str) -> None:
        standing.status = status
        del self._open[standing.cell.id]

    def _stop(self, cell: Cell) -> None:
        """Early stopping does not continue a cell, unless somebody else asks for it."""
        standing = self.cells[cell.id]
        standing.claims.pop(cell.role, None)
        if standing.status is not None or standing.is_whole or standing.claims:
            return
        self._close(standing, STOPPED)
        if not any(row["status"] == STOPPED for row in self._record.rows_of(cell.id)):
            metrics = standing.levels[standing.progress]
            self._events.append(row_event(cell.id, standing.attempt, Row(cell.id, STOPPED, standing.progress, 0, metrics)))

    def _ready(self, after: str | None = None) -> Standing | None:
        known = None if after is None else self.cells.get(after)
        first: Standing | None = None
        for standing in self._open.values():
            if not standing.is_ready:
                continue
            if standing.is_needed:
                # Taking a cell from behind it would make this teacher, and its students, wait for one leg more.
                return first or standing
            if known is None or standing.cell.signature == known.cell.signature:
                return standing
            first = first or standing
        return first

    def _has_waiting(self, tuning: Tuning) -> bool:
        """Whether a proposal waits for a lane, or for the first network of a block. The students of a chain are not waited for:
        all lanes but one would be idle meanwhile."""
        standings = (self.cells[cell.id] for candidate in tuning.candidates for cell in candidate.cells)
        return any(s.status is None and (s.is_ready or (s.progress < s.goal and s.waits_for_teacher)) for s in standings)

    # -- decisions

    def _settle(self) -> None:
        """Do all that has become decidable. What enters the plan meanwhile may need what has failed, and is decided as well."""
        self._fail_orphans()
        self._decide()
        while self._fail_orphans():
            self._decide()

    def _decide(self) -> None:
        for name, tuning in self._tunings.items():
            tuning.settle()
            self._spread_goals(tuning)
            self._stop_siblings(tuning)
            if tuning.is_done and name not in self._chosen and tuning.best is not None:
                self._chosen[name] = tuning.best
                if self.study.confirm is None:
                    self._announce(name, ())
        confirm = self.study.confirm
        if self.variants is None and confirm is not None and self._arms_are_known():
            if self._walk is None and confirm.path is not None:
                self._walk = Walk(self.study, confirm, confirm.path, self.tuned(confirm.base), self._enter, self._score_of)
            if self._walk is not None:
                self._walk.settle()
            if self._walk is None or self._walk.is_done:
                self._open_stage_two(confirm)

    def _fail_orphans(self) -> bool:
        """Whether there were any."""
        events = len(self._events)
        for standing in list(self._open.values()):
            failed = next((needed for needed in standing.needs if needed.status in FAILURES), None)
            if failed is not None:
                self._close(standing, FAILED)
                name = failed.cell.id
                is_teacher = failed is standing.needs[0]
                why = f"Its teacher {name} failed." if is_teacher else f"Cell {name} failed, at whose network its method looks."
                row = Row(standing.cell.id, FAILED, 0.0, 0, {}, message=why)
                self._events.append(row_event(standing.cell.id, standing.attempt, row))
        return len(self._events) > events

    def _score(self, candidates: Sequence[Candidate]) -> None:
        """Bring candidates up to date with the rows of their cells."""
        metric = self.study.metric.select
        for candidate in candidates:
            if candidate.is_final:
                continue
            standings = [self.cells[cell.id] for cell in candidate.cells]
            if any(s.status in FAILURES for s in standings):
                candidate.failed = True
            for level in set.intersection(*(set(s.levels) for s in standings)):
                # A cell that others need may be beyond its proposal's goal, but when it got there must not change what is proposed.
                if level > candidate.goal and not self._is_asynchronous:
                    continue
                values = [s.levels[level].get(metric, math.nan) for s in standings]
                candidate.scores[level] = math.fsum(values) / len(values)

    def _score_of(self, cells: Sequence[Cell]) -> tuple[bool, float | None]:
        """Whether cells of the path are final, and the mean of the selecting metric; None where one failed."""
        standings = [self.cells[cell.id] for cell in cells]
        if any(s.status is None for s in standings):
            return False, None
        if any(s.status in FAILURES for s in standings):
            return True, None
        return True, mean_of([s.levels[END].get(self.study.metric.select, math.nan) for s in standings])

    def _spread_goals(self, tuning: Tuning) -> None:
        for candidate in tuning.candidates:
            for cell in () if candidate.stopped else candidate.cells:
                self.cells[cell.id].claims[cell.role] = candidate.goal

    def _stop_siblings(self, tuning: Tuning) -> None:
        """Where one cell of a candidate failed, those on other blocks end at the rung they were asked for, whenever that is."""
        for candidate in tuning.candidates:
            for cell in candidate.cells if candidate.failed else ():
                standing = self.cells[cell.id]
                if not standing.in_flight and standing.progress >= candidate.goal:
                    self._stop(cell)

    def _arms_are_known(self) -> bool:
        confirm = self.study.confirm
        if confirm is None:
            return False
        return all(name in self._chosen or name not in self._tunings for name in confirm.arms)

    def tuned(self, name: str) -> Arm:
        """An arm with its chosen point applied; as declared where it was not searched."""
        arm = self.study.arms[name]
        return arm.changed(self._chosen[name].point) if name in self._chosen else arm

    def _open_stage_two(self, confirm: Confirm) -> None:
        course = None if self._walk is None else self._walk.course
        self.variants = variants.variants(self.study, confirm, {name: self.tuned(name) for name in confirm.arms}, self._prove, course)
        for name in self._chosen:
            self._announce(name, self.variants.skipped if name == confirm.base else ())
        self._events += fixing(self.study, confirm, self.variants, self._record)
        for cell in plan.confirm_cells(self.study, confirm, self.variants.arms):
            self._enter(cell)

    def _announce(self, name: str, skipped: Sequence[tuple[str, str]]) -> None:
        """Put a search's choice into the journal, once."""
        if all(event["arm"] != name for event in self._record.choices):
            best = self._chosen[name]
            self._events.append(
                choice_event(
                    arm=name, number=best.number, score=best.scores[END], config=best.point, skipped=[list(pair) for pair in skipped]
                )
            )

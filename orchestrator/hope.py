"""Hope: whether a launch in which trainings fail is worth going on with."""

from __future__ import annotations

from collections import Counter

from orchestrator.record import Record
from trainables.status import FAILURES, OK, RUNNING
from trainables.trial import Row

_TOLD = 3
"""Messages that are told, of the most frequent failures."""


class Hope:
    """Counts the failures of one launch, until one student gets somewhere. A teacher that does shows nothing of the students that fail."""

    def __init__(self, record: Record, limit: int) -> None:
        """``record``: of the launches before. ``limit``: so many failures, and nothing else, are enough; 0: never."""
        self._limit = limit
        self._failures: Counter[str] = Counter()
        """By message."""
        self._is_certain = any(
            row["status"] in (RUNNING, OK) for attempt in record.attempts if attempt.plan["method"] is not None for row in attempt.rows
        )

    def add(self, row: Row, *, is_student: bool) -> None:
        """Take in what a training led to. Cells that fail with their teacher are no trainings."""
        if row.status in FAILURES:
            self._failures[row.message.partition("\n")[0]] += 1
        elif row.status in (RUNNING, OK) and is_student:
            self._is_certain = True

    @property
    def lost(self) -> str | None:
        """Why it makes no sense to go on: so many trainings failed, and no student of the study ever got to a rung; or None."""
        count = self._failures.total()
        if self._is_certain or self._limit == 0 or count < self._limit:
            return None
        told = "; ".join(f"{times} x {message}" for message, times in self._failures.most_common(_TOLD))
        return (
            f"{count} trainings failed, and no student got anywhere, so nothing more was begun: {told}. The table has the traces. Mend it, "
            "then `kdsweep retry STUDY --failed` and `kdsweep resume STUDY`; run.give_up_after says how many failures it takes (0: never)."
        )

"""Status of a cell, in rows, journal and table. Words alone, so that whoever only reads results does not load torch."""

from __future__ import annotations

RUNNING, OK, STOPPED = "running", "ok", "stopped"
FAILED, DIVERGED, OUT_OF_MEMORY, TIMED_OUT = "failed", "diverged", "out_of_memory", "timed_out"
FAILURES = (FAILED, DIVERGED, OUT_OF_MEMORY, TIMED_OUT)
LOST = "lost"
"""The lane died that held a cell: no status, for nobody was left to report one, but a reason to take the cell again."""
PREEMPTED = "preempted"
"""A leg that ended early, with a checkpoint, because its machine is going away: no failure, and no end of its cell."""

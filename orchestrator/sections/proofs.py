"""Whether the arms of stage two were shown to be different trainings, and which were not trained, in words."""

from __future__ import annotations

from orchestrator.analysis.frames import Frames
from orchestrator.sections.forms import Section, Table

_MEANS = (
    "Before the design was fixed, every arm was rehearsed beside what it is compared with: some 24 steps on few rows of a block of tuning, "
    "from the same seeds. What a rehearsal tells is no result: it says that two arms are different trainings, not which is better."
)


def proofs(frames: Frames) -> Section | None:
    """How each compared pair differs, and what was not trained or not compared; None where nothing of that is known."""
    facts = frames.facts
    rows = tuple((arm, against, reason) for arm, against, differs, reason in facts.proofs if differs)
    tables = [Table(("arm", "compared with", "how it differs"), rows, names=3)] if rows else []
    if facts.skipped:
        tables.append(Table(("not trained, or not compared", "why"), facts.skipped, names=2))
    return Section("Proof of difference", paragraphs=(_MEANS,) if facts.proofs else (), tables=tuple(tables)) if tables else None

"""The section on tuning: what every arm was given, and what it found."""

from __future__ import annotations

from orchestrator.analysis.budget import equality
from orchestrator.analysis.frames import Frames
from orchestrator.analysis.wording import amount, number, setting
from orchestrator.sections.forms import Section, Table


def tuning(frames: Frames) -> Section:
    """Budget and choice of every searched arm."""
    rows = []
    for each in frames.tunings:
        by = ", ".join(f"{count} {name}" for name, count in each.proposed_by.items())
        cells = (each.trials, each.cells, each.ok, each.stopped, each.failed, each.missing)
        spent = (number(each.trainings, 1), amount(each.device_seconds), number(each.best, 4))
        rows.append((each.arm, by, *map(str, cells), *spent))
    columns = ("arm", "proposed by", "trials", "cells", "ok", "stopped", "failed", "missing", "trainings", "device-seconds", "best score")
    chosen = [
        (each.arm, str(each.chosen), ", ".join(f"{name}={setting(value)}" for name, value in each.config.items()) or "as declared")
        for each in frames.tunings
        if each.chosen is not None
    ]
    tables = [Table(columns, tuple(rows), names=2)]
    if chosen:
        tables.append(Table(("arm", "trial", "chosen configuration"), tuple(chosen), names=3))
    notes = (
        f"Best score: {frames.facts.metric['select']}, mean over the tuning blocks. Trainings: the progress of all cells, added up.",
        "Stopped: given up by early stopping. Device-seconds hold failed attempts too; teachers are counted apart.",
    )
    return Section("Tuning", paragraphs=(equality(frames.tunings),), tables=tuple(tables), notes=notes)

"""The workload: floating-point operations of what is still to be trained of a study, counted before anything has run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

from orchestrator.costs import shares
from orchestrator.events import SEARCH
from orchestrator.record import Record
from orchestrator.study import Study
from trainables.folder import name_of
from trainables.form import Form
from trainables.operations import operations
from trainables.source import Extent


@dataclass(frozen=True)
class Workload:
    """Of networks alone, forward and backward."""

    operations: float | None
    """In bfloat16 operations of a TPU; None where they cannot be counted."""
    obstacle: str = ""
    """Why not."""


def workload(study: Study, record: Record) -> Workload:
    """What is still to come. Arms are as they are declared: what a search will find, and what it tries, may be longer or shorter.

    Builds every network of the study, on shapes alone.
    """
    try:
        form, extent = study.data.form, study.data.extent
        if form is None or extent is None:
            return Workload(None, f"how many rows {name_of(study.data)} has is not known before it is read")
        by_method = _of_trainings(study, form, extent)
    except (ValueError, ModuleNotFoundError) as error:
        return Workload(None, str(error))
    students = fmean(value for method, value in by_method.items() if method is not None)
    return Workload(sum(share.missing * by_method.get(share.method, students) for share in shares(study, record)))


def _of_trainings(study: Study, form: Form, extent: Extent) -> Mapping[str | None, float]:
    """By method, None for teachers: the mean training of the arms that have it."""
    block = study.block(SEARCH, 0)
    found: dict[str | None, list[float]] = {}
    for arm in study.arms.values():
        trial = arm.trial(study, block, opens_test=False)
        found.setdefault(name_of(arm.method), []).append(operations(trial, form, extent))
        if trial.first_teacher is not None:
            found.setdefault(None, []).append(operations(trial.first_teacher, form, extent))
    return {method: fmean(values) for method, values in found.items()}

"""Prospects: what the planned tests of a study can be expected to show of the effect that it states."""

from __future__ import annotations

from orchestrator.analysis.effects import comparisons, summaries
from orchestrator.analysis.power import Power, Spread, powered, seen
from orchestrator.events import CONFIRM
from orchestrator.outline import EFFECTS, Outline
from orchestrator.record import Record
from orchestrator.study import Study
from orchestrator.table import trials_frame


def prospects(study: Study, found: Outline, record: Record) -> tuple[Power, ...]:
    """The power of each family of tests; nothing where no effect is stated.

    Correlation and seed sd are those of finished cells of the record, else what the study declares, else assumed.
    """
    confirm = study.confirm
    if confirm is None or confirm.effect is None:
        return ()
    declared = None if confirm.correlation is None else Spread(None, confirm.correlation, "declared")
    spread = _seen(study, confirm.base, record) or declared
    return tuple(
        powered(confirm.effect, confirm.blocks, family.size, spread, runs=found.runs if family.name == EFFECTS else 2, what=family.name)
        for family in found.families
    )


def _seen(study: Study, base: str, record: Record) -> Spread | None:
    """Of arms against the base, whatever the design compares."""
    if record.study is None:
        return None
    trials = trials_frame(record).to_pandas()
    finished = trials[trials["stage"] == CONFIRM]
    if base not in set(finished["arm"]):
        return None
    metric = study.metric
    return seen(summaries(finished, metric.report), comparisons(finished, metric.report, base, metric.goal, resamples=0))

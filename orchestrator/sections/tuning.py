"""The sections on tuning: what every arm was given, what it found at which cost, and what another search would find."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from orchestrator.analysis.budget import equality
from orchestrator.analysis.curves import SIMULATED, Course, TuningCurve
from orchestrator.analysis.effects import CONFIDENCE
from orchestrator.analysis.frames import Frames
from orchestrator.analysis.wording import NOTHING, Unit, amount, number, setting
from orchestrator.figures.curves import MOST_COURSES, MOST_CURVES, courses, tuning_curves
from orchestrator.sections.forms import Picture, Section, Table


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


def compute_matched(frames: Frames) -> Section | None:
    """The best score so far of every searched arm against what it cost; None where no score has come yet."""
    metric, unit = frames.facts.metric["select"], _unit(frames.facts.metric["select"])
    found = [course for course in frames.exploration.courses if course.best and course.best[-1] is not None]
    if not found:
        return None
    least = min(found, key=lambda course: course.device_seconds[-1])
    budget = least.device_seconds[-1]
    rows = []
    for course in found:
        trials, best = course.at(budget)
        last = (str(course.trials[-1]), amount(course.device_seconds[-1]), unit.number(course.best[-1]))
        rows.append((course.arm, str(trials), unit.number(best), *last, amount(_reached(course))))
    named = _named(found, budget, frames.facts.base, frames.facts.metric["goal"])
    columns = ("arm", f"trials by {amount(budget)} s", f"best by then{unit.score}", "all trials", "device-seconds", f"best{unit.score}")
    table = Table((*columns, "device-seconds until it"), tuple(rows))
    shown = "" if len(named) == len(found) else f"; by name {', '.join(named)}, the others grey"
    caption = (
        f"Best {metric} so far, against trials (above) and device-seconds (below){shown}. One search each: a description, without a band."
    )
    notes = (
        "All proposals in their order, of whatever sampler, with what failed or was given up in the cost; teachers are counted apart.",
        "Scores of a generation in which early stopping chose count when all of it is trained that far, so steps may be whole generations.",
        "This describes the searches that took place. Another seed would draw other lines, and best scores of tuning are too good.",
    )
    said = f"{least.arm} spent the least, {amount(budget)} device-seconds. The table has what every arm had found by then, and in the end."
    picture = Picture("courses", caption, partial(courses, found, named, metric, unit))
    return Section("Tuning at equal cost", paragraphs=(said,), pictures=(picture,), tables=(table,), notes=notes)


def another_search(frames: Frames) -> Section | None:
    """Tuning curves with their bands, and why arms have none; None where nothing was searched."""
    found, metric = frames.exploration.curves, frames.facts.metric["select"]
    if not found:
        return None
    unit = _unit(metric)
    drawn = [curve for curve in found if not curve.refused]
    refused = _by_reason({curve.arm: curve.refused for curve in found if curve.refused}, len(found))
    level = f"{CONFIDENCE * 100:g} %"
    if not drawn:
        said = "No curve of what the best of k trials would be in another search: that takes random trials with a final score."
        if any(curve.stopped for curve in found):
            said += " A search without `rungs` has them."
        return Section("Tuning curves", paragraphs=(said,), points=tuple(refused))
    rows = []
    for curve in drawn:
        sizes = dict.fromkeys((1, max(1, (curve.trials + 1) // 2), curve.trials))
        counts = (str(curve.trials), str(curve.failed), str(curve.stopped))
        rows += [
            (curve.arm, *counts, str(size), unit.number(curve.median[size - 1]) if curve.median else NOTHING, _limits(curve, size, unit))
            for size in sizes
        ]
    table = Table(("arm", "random trials", "failed", "given up", "k", f"median best of k{unit.score}", f"{level} band"), tuple(rows))
    notes = [
        (
            f"What the best of k random trials would be in another search: the median, and a band that holds for all k at once in {level} of "
            "studies (Lourie, Cho and He, NAACL 2024; opda), whatever the distribution of scores. It holds for each arm by itself."
        ),
        (
            "Only trials that were drawn at random before the sampler began to model. Scores are of the rows that choose: as a forecast of the "
            "test, the best of them is too good."
        ),
        f"The band is Learned-Miller and DeStefano's up to {SIMULATED} trials, and Kolmogorov and Smirnov's above.",
    ]
    if any(curve.failed for curve in drawn):
        notes.append("A trial that failed counts as the worst score that is possible.")
    if any(curve.stopped for curve in drawn):
        notes.append(
            "Trials that early stopping gave up have no final score, and none is made up: the lower limit takes them for the worst, the upper "
            "one for the best that is possible, so that the band holds for trainings carried to their end. There is no median then."
        )
    pictured = drawn[:MOST_CURVES]
    more = f" The first {len(pictured)} of {len(drawn)} arms." if len(pictured) < len(drawn) else ""
    caption = (
        f"Best {metric} of k random trials: the median in another search, with a {level} band that holds for all k at once. Bands run out of "
        f"the picture where nothing limits them.{more}"
    )
    picture = Picture("tuning-curves", caption, partial(tuning_curves, pictured, metric, unit))
    return Section("Tuning curves", pictures=(picture,), points=tuple(refused), tables=(table,), notes=tuple(notes))


def _unit(metric: str) -> Unit:
    return Unit(100.0, 1) if metric.endswith("accuracy") else Unit()


def _limits(curve: TuningCurve, size: int, unit: Unit) -> str:
    low, high = curve.low[size - 1], curve.high[size - 1]
    if abs(low) == float("inf"):
        return f"up to {unit.number(high)}"
    return f"from {unit.number(low)}" if abs(high) == float("inf") else f"{unit.number(low)} to {unit.number(high)}"


def _by_reason(refused: Mapping[str, str], arms: int) -> list[str]:
    reasons: dict[str, list[str]] = {}
    for arm, reason in refused.items():
        reasons.setdefault(reason, []).append(arm)
    return [
        f"{(f'All {arms} arms' if arms > 2 else 'Both arms') if len(each) == arms > 1 else ', '.join(each)}: {reason}."
        for reason, each in reasons.items()
    ]


def _reached(course: Course) -> float:
    """Device-seconds until its best score."""
    return course.device_seconds[course.best.index(course.best[-1])]


def _named(found: Sequence[Course], budget: float, base: str | None, goal: str) -> list[str]:
    """Arms whose lines have a name: the base, the best at the least cost of all, and the best in the end; in their order."""
    sign = 1.0 if goal == "maximise" else -1.0

    def by(scores: Mapping[str, float | None]) -> list[str]:
        known = {arm: sign * score for arm, score in scores.items() if score is not None}
        return sorted(known, key=lambda arm: -known[arm])

    early, late = by({course.arm: course.at(budget)[1] for course in found}), by({course.arm: course.best[-1] for course in found})
    first = [*([base] if base else []), *early[: MOST_COURSES // 2], *late]
    arms = [course.arm for course in found]
    best = [arm for arm in dict.fromkeys(first) if arm in arms][:MOST_COURSES]
    return [arm for arm in arms if arm in best]

"""The section of treatments over several data sets and teachers."""

from __future__ import annotations

from functools import partial

from orchestrator.analysis.effects import CONFIDENCE
from orchestrator.analysis.profiles import FEWEST_SOURCES, Profiles
from orchestrator.analysis.wording import Unit, equals, name_of, number
from orchestrator.figures.profiles import performance
from orchestrator.sections.forms import Picture, Section, Table


def over_settings(found: Profiles, unit: Unit, metric: str) -> Section:
    """Interquartile means and performance profiles; ranks where there are enough data sets."""
    rows: list[tuple[str, ...]] = []
    for each in found.profiles:
        interval = unit.interval(each.iqm_low, each.iqm_high)
        rows.append((each.treatment, str(each.cells), str(each.failed), unit.number(each.iqm), interval, number(each.rank, 2)))
    columns: tuple[str, ...] = ("treatment", "cells", "failed", f"IQM{unit.score}", f"{CONFIDENCE * 100:g} % interval", "mean rank")
    if found.critical is None:
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    blocks = dict.fromkeys(map(str, found.blocks))
    crossed = f"{len(found.profiles)} treatments in each of {len(found.settings)} settings: {'; '.join(found.settings)}"
    notes = [
        f"IQM: the mean of the middle half of all cells of a treatment, over settings and blocks ({' or '.join(blocks)} in a setting).",
        "Scores are as measured: a setting with larger differences weighs more. A cell that failed is below every score.",
        "Intervals are percentiles of resamples of the blocks within each setting.",
    ]
    several = "1 data set" if len(found.sources) == 1 else f"{len(found.sources)} data sets"
    if found.critical is None:
        notes.append(f"{several}: no critical difference of ranks, which takes {FEWEST_SOURCES}.")
    else:
        notes.append(f"Mean ranks over {several} that differ by less than {number(found.critical, 2)} cannot be told apart (Nemenyi, .05).")
        if found.p is not None:
            notes.append(f"That all treatments are alike: p {equals(found.p)} (Friedman's test over data sets).")
    notes += [
        f"{each.treatment}: more than a quarter of its cells failed, so that it has no IQM." for each in found.profiles if each.iqm is None
    ]
    caption = f"Share of a treatment's cells with a better {name_of(metric)} than the value below; higher is better."
    picture = Picture("profiles", caption, partial(performance, found, unit, metric))
    return Section(
        "Over data sets and teachers",
        paragraphs=(f"{crossed}.",),
        pictures=(picture,),
        tables=(Table(columns, tuple(rows)),),
        notes=tuple(notes),
    )

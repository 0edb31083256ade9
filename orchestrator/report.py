"""The report of a study: Markdown, HTML, LaTeX, JSON and a table for the terminal, all from the same frames.

Frames are made from the journal, so the report of an unfinished study says what is missing instead of failing.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from orchestrator import latex
from orchestrator import markdown as markdowns
from orchestrator.analysis.budget import equality
from orchestrator.analysis.facts import StudyFacts
from orchestrator.analysis.frames import SMOKE, Frames, frames_of
from orchestrator.analysis.wording import amount, name_of, number, p_value
from orchestrator.errors import StorageError
from orchestrator.events import Event
from orchestrator.figures import drawing
from orchestrator.journal import Journal
from orchestrator.record import Record, record_of
from orchestrator.sections import sections
from orchestrator.sections.forms import Section
from orchestrator.storage import folder_at
from orchestrator.table import mend, reports_frame, trials_frame

if TYPE_CHECKING:
    from rich.table import Table as RichTable

REPORT_VERSION = 1
"""Of the form of report.json."""
FIGURES = "figures"
"""Folder of the pictures, beside the report."""


def frames(folder: str | Path) -> Frames:
    """What there is to say of the study whose results lie in ``folder`` (local path or fsspec URL).

    Raises:
        StorageError: there is no study, or its results contradict themselves.
    """
    events = Journal(folder).read()
    record = record_of(events)
    if record.study is None:
        raise StorageError(f"{folder} holds no results of a study: there is no journal in it. `kdsweep run STUDY` makes one.")
    return frames_of(facts_of(events, record), trials_frame(record).to_pandas(), reports_frame(record).to_pandas())


def facts_of(events: Sequence[Event], record: Record) -> StudyFacts:
    """What a journal says beside its rows."""
    last = next((event for event in reversed(events) if event["event"] in ("study", "end")), {"event": "study"})
    ended = str(last["status"]) if last["event"] == "end" else None
    cells = tuple(attempt.plan for attempt in record.cells.values())
    rows: list[tuple[int, Event]] = []
    launches = 0
    for event in events:
        launches += event["event"] == "study"
        if event["event"] == "row" and launches:
            rows.append((launches - 1, event))
    return StudyFacts(tuple(record.launches), cells, record.choices, ended, record.design, record.extensions, tuple(rows))


def write(folder: str | Path, found: Frames | None = None) -> dict[str, str]:
    """Write report.md, report.html, report.tex, report.json, and every picture as figures/NAME.svg and .png.

    Each file is replaced at once. ``found`` are the frames of the folder, where the caller has them already. Tables that are
    missing, damaged or behind the journal are made again. Returns what (md, html, tex, json, or the name of a picture's file) to where.

    Raises:
        StorageError: as ``frames``; or the folder cannot be written.
    """
    found = found or frames(folder)
    mend(folder)
    written = sections(found)
    drawn = _drawn(written)
    files = {
        "md": ("", "report.md", _markdown(found, written).encode()),
        "html": ("", "report.html", _html(found, written, drawn).encode()),
        "tex": ("", "report.tex", latex.document(found.facts.name, written).encode()),
        "json": ("", "report.json", to_json(found).encode()),
    }
    for name, figure in drawn.items():
        files[f"{name}.svg"] = (f"/{FIGURES}", f"{name}.svg", drawing.svg(figure).encode())
        files[f"{name}.png"] = (f"/{FIGURES}", f"{name}.png", drawing.png(figure))
    paths = {}
    for what, (inner, name, content) in files.items():
        place = folder_at(f"{folder}{inner}")
        place.replace(name, content)
        paths[what] = place.label(name)
    return paths


def html(frames: Frames) -> str:
    """One page that loads nothing: style and pictures are in it."""
    written = sections(frames)
    return _html(frames, written, _drawn(written))


def markdown(frames: Frames) -> str:
    """The same in Markdown; pictures stand beside it as files."""
    return _markdown(frames, sections(frames))


def tables_in_latex(frames: Frames) -> str:
    """Its tables for a paper."""
    return latex.document(frames.facts.name, sections(frames))


def _drawn(written: Sequence[Section]) -> dict[str, Figure]:
    return {picture.name: picture.draw() for section in written for picture in section.pictures}


def _html(frames: Frames, written: Sequence[Section], drawn: Mapping[str, Figure]) -> str:
    # Everything that is not marked as safe is escaped; pictures are ours, and matplotlib escapes the labels in them.
    environment = Environment(
        loader=PackageLoader("orchestrator"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["words"] = _with_code
    template = environment.get_template("report.html.j2")
    return template.render(
        facts=frames.facts,
        is_complete=frames.is_complete,
        sections=written,
        pictures={name: Markup(drawing.svg(figure)) for name, figure in drawn.items()},
        status=_status(frames),
        smoke=SMOKE if frames.facts.is_smoke else "",
    )


def _markdown(frames: Frames, written: Sequence[Section]) -> str:
    question = str(frames.facts.study.get("question") or "")
    lead = [f"**{SMOKE}**"] if frames.facts.is_smoke else []
    lead += [f"*{markdowns.escaped(question)}*"] if question else []
    return markdowns.document(frames.facts.name, [*lead, f"{_status(frames)}."], written, FIGURES)


def to_json(frames: Frames) -> str:
    """The same numbers, unrounded, for machines. Null is "not defined" or "not known"."""
    facts = frames.facts
    compared = [
        {**dataclasses.asdict(each), "n": each.n, "is_shown": each.is_shown, "sentence": claim}
        for each, claim in zip(frames.comparisons, frames.claims, strict=True)
    ]
    content = {
        "report_version": REPORT_VERSION,
        "study": facts.name,
        "question": facts.study.get("question"),
        "metric": facts.metric,
        "base": facts.base,
        "is_complete": frames.is_complete,
        "notices": frames.notices,
        "cells": frames.counts.to_dict("records"),
        "comparisons": compared,
        "extended": [dataclasses.asdict(each) for each in frames.extended],
        "arms": [dataclasses.asdict(each) for each in frames.summaries],
        "factorial": None if frames.factorial is None else dataclasses.asdict(frames.factorial),
        "ranking": None if frames.ranking is None else dataclasses.asdict(frames.ranking),
        "profiles": None if frames.profiles is None else dataclasses.asdict(frames.profiles),
        "learning": [dataclasses.asdict(each) for each in frames.learning],
        "scores": frames.scores.reset_index().to_dict("records"),
        "blocks": frames.teachers.to_dict("records"),
        "tuning": [dataclasses.asdict(each) for each in frames.tunings],
        "exploration": dataclasses.asdict(frames.exploration),
        "tuning_equality": equality(frames.tunings),
        "pictures": [{"name": each.name, "caption": each.caption} for section in sections(frames) for each in section.pictures],
        "skipped": [{"variant": label, "reason": reason} for label, reason in facts.skipped],
        "path": None if frames.path is None else dataclasses.asdict(frames.path),
        "lanes": None if frames.occupancy is None else dataclasses.asdict(frames.occupancy),
        "published": [dataclasses.asdict(each) for each in frames.published],
        "proofs": [
            {"arm": arm, "against": against, "differs": differs, "reason": reason} for arm, against, differs, reason in facts.proofs
        ],
        "failures": frames.failures.to_dict("records"),
        "ran": frames.ran,
        "held": frames.held,
        "not_varied": frames.limits,
        "study_file": facts.study.get("text"),
    }
    return json.dumps(_plain(content), indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def effect_table(frames: Frames) -> RichTable:
    """The comparisons for a terminal; of a study without any, what tuning found."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    facts, unit = frames.facts, frames.unit
    if frames.comparisons:
        bases = {each.base for each in frames.comparisons}
        base = next(iter(bases)) if len(bases) == 1 else "the arm compared with"
        title = f"{facts.name}: {name_of(facts.metric['report'])}, difference to {base}{f' in{unit.difference}' if unit.points else ''}"
        columns: tuple[str, ...] = ("arm", "n", "diff.", "95 % interval", "p", "Holm p")
        rows: list[tuple[str, ...]] = [
            (
                each.arm if len(bases) == 1 else f"{each.arm} against {each.base}",
                f"{each.n}/{each.planned}",
                unit.number(each.difference, signed=True),
                unit.interval(each.t_low, each.t_high),
                p_value(each.p),
                p_value(each.p_holm),
            )
            for each in frames.comparisons
        ]
    else:
        title = f"{facts.name}: tuning"
        columns = ("arm", "trials", "failed", "device-seconds", f"best {facts.metric['select']}")
        rows = [
            (each.arm, str(each.trials), str(each.failed), amount(each.device_seconds), number(each.best, 4)) for each in frames.tunings
        ]
    # Text, not markup: an arm may be called [red].
    table = RichTable(
        title=Text(title), title_justify="left", caption=Text(_status(frames)), caption_justify="left", box=box.SIMPLE, pad_edge=False
    )
    for place, column in enumerate(columns):
        # Labels are long and numbers are not: at 80 columns labels fold.
        table.add_column(Text(column), justify="left" if place == 0 else "right", no_wrap=place > 0, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _status(frames: Frames) -> str:
    planned, missing, failed = (int(frames.counts[name].sum()) for name in ("planned", "missing", "failed"))
    state = "Complete" if frames.is_complete else "Unfinished"
    if frames.facts.is_smoke:
        state = f"Smoke run, {state.lower()}"
    return f"{state}: {planned - missing} of {planned} planned cells are in, {failed} of them failed"


def _with_code(text: str) -> Markup:
    """HTML of words: `backticks` set commands apart, and no line ends within "p = .02" or "95 %"."""
    held = re.sub(r"\b([np]) (=|&lt;) ", "\\1\u00a0\\2\u00a0", str(escape(text))).replace(" %", "\u00a0%")
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", held))


def _plain(value: Any) -> Any:
    """What JSON can say: not-a-number, infinities and missing values are null."""
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value.item() if hasattr(value, "item") else str(value)

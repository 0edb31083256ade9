"""The shelf: the studies that come with the package, which paper each follows, how it is launched and what it needs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from orchestrator.citations import paper_of
from orchestrator.outline import outline
from orchestrator.published import PAPERS
from orchestrator.reading import read_study
from orchestrator.study import Study
from search_spaces import flat

_FOLDER = "search_spaces/studies"


@dataclass(frozen=True)
class Entry:
    """One study of the package."""

    file: str
    study: str
    paper: str
    """First author, venue and year; empty for a study that follows no table."""
    url: str
    table: str
    setting: str
    """Teacher and student as the paper calls them, where the study names them."""
    command: str
    needs: tuple[str, ...]
    cells: int
    """At most."""


def entries() -> list[Entry]:
    """All of them, by file."""
    with resources.as_file(resources.files("search_spaces") / "studies") as folder:
        return [_entry(path) for path in sorted(Path(folder).glob("*.yaml"))]


def _entry(path: Path) -> Entry:
    study = read_study(path)
    asked = study.published
    cited = None if asked is None else paper_of(PAPERS[asked.paper])
    others = " et al." if cited is not None and len(cited.authors) > 2 else ""
    paper = "" if cited is None else f"{' and '.join(cited.authors[: 1 if others else 2])}{others}, {cited.venue} {cited.year}"
    roles = () if asked is None else tuple(role for role in (asked.teacher, asked.student) if role is not None)
    return Entry(
        file=f"{_FOLDER}/{path.name}",
        study=study.name,
        paper=paper,
        url="" if cited is None else cited.url,
        table="" if asked is None else asked.table,
        setting=" to ".join(roles),
        command=f"kdsweep run {_FOLDER}/{path.name}",
        needs=tuple(_needs(study)),
        cells=outline(study).cells,
    )


def _needs(study: Study) -> Iterator[str]:
    data = flat(study.data)
    extras = sorted({thing.extra for thing in (study.data, *_models(study)) if thing.extra})
    if extras:
        yield f"`kdsweep[{','.join(extras)}]`"
    yield f"`{data['hub']}`" if "hub" in data else "no download"
    if "tokenizer" in data:
        yield f"tokenizer `{data['tokenizer']}`"
    weights = dict.fromkeys(str(found) for model in _models(study) if (found := flat(model).get("weights")))
    if weights:
        yield f"weights {', '.join(f'`{name}`' for name in weights)}"


def _models(study: Study) -> Iterator[Any]:
    yield study.teacher.model
    for arm in study.arms.values():
        yield arm.model
        if arm.teacher is not None:
            yield arm.teacher.model


def markdown_table() -> list[str]:
    """The README's table: those that follow a paper's table, by paper."""
    found = [entry for entry in entries() if entry.paper]
    rows = ["| paper | table | command | cells | needs |", "|---|---|---|---|---|"]
    for entry in sorted(found, key=lambda entry: (entry.paper, entry.file)):
        table = f"{entry.table}{f': {entry.setting}' if entry.setting else ''}"
        file = entry.file.rpartition("/")[2]
        command = f"`kdsweep run` [{file}]({entry.file})"
        rows.append(f"| [{entry.paper}]({entry.url}) | {table} | {command} | {entry.cells:,} | {'; '.join(entry.needs)} |")
    return rows

"""Markdown: sections of a report as text. Words come from studies and messages, so that nothing in them is markup."""

from __future__ import annotations

import re
from collections.abc import Iterable

from orchestrator.sections.forms import Section, Table

_SPECIAL = {"\\": "\\\\", "&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "\\|", "*": "\\*", "[": "\\[", "]": "\\]"}


def document(title: str, lead: Iterable[str], sections: Iterable[Section], figures: str) -> str:
    """A title, a few lines that are Markdown already, and sections. ``figures`` is the folder of their pictures."""
    lines = [f"# {escaped(title)}", ""]
    for words in lead:
        lines += [words, ""]
    for section in sections:
        lines += [f"## {escaped(section.title)}", "", *_section(section, figures)]
    return "\n".join(lines).rstrip() + "\n"


def escaped(text: str) -> str:
    """Words as Markdown shows them: on one line, and nothing in them is HTML, a link, emphasis or the end of a table cell."""
    return "".join(_SPECIAL.get(character, character) for character in " ".join(text.split()))


def _section(section: Section, figures: str) -> list[str]:
    lines: list[str] = []
    for paragraph in section.paragraphs:
        lines += [escaped(paragraph), ""]
    for picture in section.pictures:
        lines += [f"![{escaped(picture.caption)}]({figures}/{picture.name}.svg)", ""]
    if section.points:
        lines += [*(f"- {escaped(point)}" for point in section.points), ""]
    for table in section.tables:
        lines += [*_table(table), ""]
    if section.notes:
        lines += [escaped(" ".join(section.notes)), ""]
    if section.code:
        fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", section.code)), default=0))
        lines += [f"{fence}yaml", section.code, fence, ""]
    return lines


def _table(table: Table) -> list[str]:
    rule = [":--" if place < table.names else "--:" for place in range(len(table.columns))]
    return ["| " + " | ".join(escaped(cell) for cell in row) + " |" for row in (table.columns, rule, *table.rows)]

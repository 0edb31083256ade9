"""LaTeX: the tables of a report for a paper, from the same sections as its other forms.

``report.tex`` is a fragment to ``\\input``: one float per table, a longtable where a page would not hold it. Words come from
studies and messages, so everything that LaTeX could read as a command is escaped.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from orchestrator.sections.forms import Section, Table

LONG = 40
"""Rows of a table that still fits on a page."""
_WIDE = 44
"""Characters of a cell above which its column breaks lines."""

_PAGE = 80
"""Characters of small letters across a page."""

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": "$<$",
    ">": "$>$",
    "|": "$|$",
    '"': "''",
    # After the end of a row LaTeX takes these for an argument.
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
    "−": "$-$",
    "–": "--",
    "±": r"$\pm$",
    "×": r"$\times$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "→": r"$\rightarrow$",
    "←": r"$\leftarrow$",
    "…": r"\ldots{}",
    "ⁿ": "$^n$",
    "²": "$^2$",
    "χ": r"$\chi$",
    "α": r"$\alpha$",
    "¼": r"$\frac{1}{4}$",
    "½": r"$\frac{1}{2}$",
    "¾": r"$\frac{3}{4}$",
    "\u00a0": "~",
    "\u2003": r"\quad{}",
}


def escaped(text: str) -> str:
    """Words as LaTeX prints them, on one line: nothing in them is a command, a comment, mathematics or the end of a cell."""
    plain = "".join(_SPECIAL.get(character, character) for character in " ".join(text.split()))
    # Two hyphens would become a dash, as in --async; ours are dashes already.
    return re.sub(r"(?<![-–])--(?=\w)", "-{}-", plain)


def document(study: str, sections: Sequence[Section]) -> str:
    """Every table of the sections, in their order, with its section's title, first notes and a label tab:STUDY:TITLE."""
    lines = [
        f"% Tables of the study {' '.join(study.split())}, made by kdsweep. In the preamble:",
        r"% \usepackage[T1]{fontenc} \usepackage{booktabs} \usepackage{array} \usepackage{longtable}",
    ]
    used: set[str] = set()
    for section in sections:
        for place, table in enumerate(section.tables):
            label = _label(study, section.title, used)
            notes = section.notes if place == len(section.tables) - 1 else ()
            lines += ["", *_table(table, section.title, label, notes)]
    return "\n".join(lines) + "\n"


def _table(table: Table, title: str, label: str, notes: Sequence[str]) -> list[str]:
    kinds = "".join(_kind(table, place) for place in range(len(table.columns)))
    titles = [_folded(column, max((len(row[place]) for row in table.rows), default=0)) for place, column in enumerate(table.columns)]
    head = " & ".join(_heading(lines, place < table.names) for place, lines in enumerate(titles)) + r" \\"
    size = _size(table, titles)
    rows = [_row(row) for row in table.rows]
    caption = rf"\caption{{{escaped(title)}}}\label{{{label}}}"
    remarks = [rf"\par\smallskip{{\footnotesize {_words(' '.join(notes))}\par}}"] if notes else []
    if len(rows) > LONG:
        start = [rf"\begingroup{size}", rf"\begin{{longtable}}{{@{{}}{kinds}@{{}}}}", rf"{caption}\\", r"\toprule", head, r"\midrule"]
        again = [r"\endfirsthead", r"\toprule", head, r"\midrule", r"\endhead", r"\bottomrule", r"\endfoot"]
        return [*start, *again, *rows, r"\end{longtable}", *remarks, r"\endgroup"]
    start = [
        r"\begin{table}[htbp]",
        rf"\centering{size}",
        caption,
        rf"\begin{{tabular}}{{@{{}}{kinds}@{{}}}}",
        r"\toprule",
        head,
        r"\midrule",
    ]
    return [*start, *rows, r"\bottomrule", r"\end{tabular}", *remarks, r"\end{table}"]


def _folded(title: str, width: int) -> tuple[str, ...]:
    """A heading on two lines where it is wider than what stands below it."""
    words = title.split()
    if len(title) <= width or len(words) < 2:
        return (title,)
    cuts = [(" ".join(words[:cut]), " ".join(words[cut:])) for cut in range(1, len(words))]
    return min(cuts, key=lambda cut: max(map(len, cut)))


def _heading(lines: Sequence[str], is_name: bool) -> str:
    if len(lines) == 1:
        return _words(lines[0])
    side, stack = "l" if is_name else "r", r"\\".join(map(_words, lines))
    return rf"\shortstack[{side}]{{{stack}}}"


def _size(table: Table, titles: Sequence[Sequence[str]]) -> str:
    """Small letters, and smaller ones with less between columns where the table would be wider than a page."""
    cells = [max([len(row[place]) for row in table.rows] + [len(line) for line in titles[place]]) for place in range(len(titles))]
    return r"\small" if sum(cells) + 2 * len(cells) <= _PAGE else r"\scriptsize\setlength{\tabcolsep}{3pt}"


def _row(cells: Sequence[str]) -> str:
    return " & ".join(map(_words, cells)) + r" \\"


def _kind(table: Table, place: int) -> str:
    """Names on the left, numbers on the right; long words break."""
    if max((len(row[place]) for row in table.rows), default=0) > _WIDE:
        return r">{\raggedright\arraybackslash}p{0.5\linewidth}"
    return "l" if place < table.names else "r"


def _words(text: str) -> str:
    """Escaped, with `backticks` as a typewriter."""
    return re.sub(r"`([^`]+)`", r"\\texttt{\1}", escaped(text))


def _label(study: str, title: str, used: set[str]) -> str:
    slug = ":".join(re.sub(r"[^a-z0-9]+", "-", part.lower()).strip("-") for part in (study, title))
    found, number = f"tab:{slug}", 1
    while found in used:
        number += 1
        found = f"tab:{slug}-{number}"
    used.add(found)
    return found

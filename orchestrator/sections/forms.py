"""Forms: what a report is made of, whatever it is written as: sections of words, pictures and tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from matplotlib.figure import Figure


@dataclass(frozen=True)
class Table:
    """Cells are words; the first ``names`` columns are read, the others compared."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    names: int = 1


@dataclass(frozen=True)
class Picture:
    """A figure of the report."""

    name: str
    """Of its files: figures/NAME.svg and .png."""
    caption: str
    """What it shows, for those who do not see it too."""
    draw: Callable[[], Figure]


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it, in this order."""

    title: str
    paragraphs: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = ()
    points: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()
    code: str = ""
    kind: str = ""
    """claims and notices stand out."""

"""Citations: what the methods of a table come from, read from the head of each method's docstring, as BibTeX."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trainables import folder

if TYPE_CHECKING:
    from orchestrator.catalogue import Entry

_METHODS = "trainables.methods"

_PAPER = re.compile(
    r'^(?P<authors>[^"]+), "(?P<title>[^"]+)", (?:(?P<venue>[^"]*?) )?(?P<year>(?:19|20)\d\d)\b.*?(?P<url>https?://\S+?)[.,:;)]*(?:\s|$)'
)
_SMALL = {"a", "an", "and", "are", "by", "for", "from", "in", "of", "on", "or", "the", "to", "via", "with", "can", "even", "your"}


@dataclass(frozen=True)
class Citation:
    """A paper, as a method's docstring names it."""

    authors: tuple[str, ...]
    """Last names."""
    title: str
    venue: str
    """Empty where the docstring names none."""
    year: int
    url: str

    @property
    def key(self) -> str:
        """First author, year and the first telling word of the title, as in ``hinton2015distilling``."""
        words = [word for word in re.findall(r"[a-z]+", self.title.lower()) if word not in _SMALL]
        return re.sub(r"[^a-z0-9]", "", f"{self.authors[0].lower()}{self.year}{words[0]}")

    def words(self) -> str:
        """As a list of references has it: authors, title, venue and year, link."""
        *first, last = self.authors
        authors = f"{', '.join(first)} and {last}" if first else last
        where = f"{self.venue} {self.year}" if self.venue else str(self.year)
        end = "" if self.title.endswith(("?", "!")) else "."
        return f"{authors}: {self.title}{end} {where}. {self.url}"

    def bibtex(self) -> str:
        """One entry. Authors are last names: a docstring has no more."""
        kind, where = ("inproceedings", f"  booktitle = {{{self.venue}}},\n") if self.venue else ("misc", "")
        authors = " and ".join(self.authors)
        return f"@{kind}{{{self.key},\n  author = {{{authors}}},\n  title = {{{{{self.title}}}}},\n{where}  year = {{{self.year}}},\n  url = {{{self.url}}},\n}}"


def citation(entry: Entry) -> Citation:
    """The paper of a method: the second paragraph of its docstring begins ``Authors, "Title", Venue Year, https://...``.

    Raises:
        ValueError: it does not.
    """
    found = _cited(entry.text)
    if found is None:
        raise ValueError(
            f"A citation needs 'Authors, \"Title\", Venue Year, https://...' below the first line, but got the docstring of {entry.name}."
        )
    return found


def paper_of(method: str) -> Citation | None:
    """The paper of a method by its name, read from its file without importing it (nor torch); None where there is no such method."""
    if method not in folder.names(_METHODS):
        return None
    path = Path(importlib.import_module(_METHODS).__path__[0], f"{method}.py")
    return _cited(inspect.cleandoc(ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""))


def _cited(text: str) -> Citation | None:
    paragraphs = [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]
    found = _PAPER.match(paragraphs[1]) if len(paragraphs) > 1 else None
    if found is None:
        return None
    authors = tuple(name.strip() for name in re.split(r",| and ", found["authors"]) if name.strip())
    return Citation(authors, found["title"], found["venue"] or "", int(found["year"]), found["url"])


def bibtex(entries: Iterable[Entry]) -> str:
    """BibTeX of the papers of some methods, each once, by key."""
    papers = {paper.key: paper for paper in map(citation, entries)}
    return "\n\n".join(papers[key].bibtex() for key in sorted(papers))

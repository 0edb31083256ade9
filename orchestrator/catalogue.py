"""What there is to choose from: methods with their fields, for the command line, the README and the tests."""

from __future__ import annotations

import inspect
import re
import sys
from dataclasses import MISSING, dataclass
from typing import Any

from orchestrator.errors import StudyError
from search_spaces import Tunable, tunables
from trainables import folder
from trainables.distiller import Distiller

_PACKAGE = "trainables.methods"


@dataclass(frozen=True)
class Entry:
    """One method."""

    name: str
    summary: str
    """First line of its docstring."""
    text: str
    """The whole docstring: paper, equations, departures, where defaults come from."""
    url: str
    needs: tuple[str, ...]
    """What the step must supply, in words."""
    fields: tuple[Tunable, ...]

    def to_json(self) -> dict[str, Any]:
        """Name, citation and fields."""
        return {
            "name": self.name,
            "summary": self.summary,
            "url": self.url,
            "docstring": self.text,
            "needs": list(self.needs),
            "fields": [
                {
                    "name": f.name,
                    "default": str(f.default) if f.domain is None else f.default,
                    "domain": None if f.domain is None else f.domain.to_json(),
                    "off": None if f.off is MISSING else (str(f.off) if f.domain is None else f.off),
                    "only_if": {sibling: list(values) for sibling, values in f.only_if},
                    "doc": f.doc,
                }
                for f in self.fields
            ],
        }


def all_methods() -> list[Entry]:
    """Every method of the folder, by name."""
    return [method(name) for name in folder.names(_PACKAGE)]


def method(name: str) -> Entry:
    """One method.

    Raises:
        StudyError: there is none of that name; the message suggests the nearest.
    """
    try:
        found: type[Distiller[Any]] = folder.load(_PACKAGE, name, Distiller)  # type: ignore[type-abstract] # load wants the contract
    except KeyError as error:
        raise StudyError([str(error.args[0])]) from error
    text = inspect.cleandoc(sys.modules[found.__module__].__doc__ or "")
    url = re.search(r"https?://\S+", text)
    return Entry(name, text.partition("\n")[0], text, url.group(0).rstrip(".,:;)") if url else "", _needs(found), tunables(found))


def _needs(kind: type[Distiller[Any]]) -> tuple[str, ...]:
    needs = kind.needs
    said = {
        "a teacher": needs.teacher,
        f"features of student and teacher: {', '.join(needs.features)}": bool(needs.features),
        f"{len(needs.views)} view{'s' * (len(needs.views) > 1)} of a row: {', '.join(needs.views)}": needs.views != ("plain",),
        "the held-out split, at the start of every epoch": needs.holdout and needs.each_epoch,
        "the held-out split, once": needs.holdout and not needs.each_epoch,
        "the student's outputs at the start of every epoch": needs.each_epoch and not needs.holdout,
        "a slow copy of the student": needs.ema,
        "the whole batch on every worker: its terms compare rows": needs.whole_batch,
        "its state at evaluation: it does not classify with the student's own classifier": kind.predict is not Distiller.predict,
    }
    return tuple(need for need, so in said.items() if so) or ("nothing but the student",)


def lines(entry: Entry) -> list[str]:
    """A method for the terminal."""
    shown = [entry.text, "", "Needs:", *(f"  {need}" for need in entry.needs), "", "Fields:"]
    for f in entry.fields:
        off = "" if f.off is MISSING else f", off: {f.off.kind if f.domain is None else f.off}"
        only = "".join(f", only if {sibling} is {' or '.join(map(str, values))}" for sibling, values in f.only_if)
        domain = f"a schedule ({f.default.kind} by default)" if f.domain is None else f"{f.default} by default; {f.domain}"
        shown.append(f"  {f.name}: {f.doc} ({domain}{off}{only})")
    return shown


def markdown_table() -> list[str]:
    """The README's table of methods."""
    rows = [f"| `{entry.name}` | {entry.summary} | [paper]({entry.url}) | {len(entry.fields)} |" for entry in all_methods()]
    return ["| method | what it does | source | fields |", "|---|---|---|---|", *rows]

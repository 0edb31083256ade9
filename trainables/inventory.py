"""Inventory: whether a machine has what trainings on it will ask for, looked at before the first of them, without reading or fetching it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from search_spaces import flat
from trainables.extras import lack
from trainables.folder import name_of
from trainables.network import Family
from trainables.redaction import redacted
from trainables.source import Source


@dataclass(frozen=True)
class Wanted:
    """What the trainings of a study need."""

    sources: tuple[Source, ...]
    networks: tuple[tuple[Family, Source], ...]
    """Families and what they are trained on."""

    @property
    def families(self) -> tuple[Family, ...]:
        """Each of them once."""
        return tuple(dict.fromkeys(family for family, _ in self.networks))


@dataclass(frozen=True)
class Inventory:
    """What was found on a machine."""

    host: str
    faults: tuple[str, ...]
    """Why trainings would fail on it."""
    remarks: tuple[str, ...] = ()


def lacking(wanted: Wanted) -> tuple[str, ...]:
    """Which extras this machine lacks, and which places of data. In moments: nothing is imported, and the hub is not asked."""
    found = [*_extras(wanted)]
    for source in wanted.sources:
        try:
            source.found()
        except (ValueError, OSError) as error:
            found.append(_line(error))
    return tuple(dict.fromkeys(found))


def taken(wanted: Wanted, is_lane: bool = False) -> Inventory:
    """Look at everything: extras, places, splits, columns, labels, numbers of rows, tokenizers, weights, and whether it fits together.

    ``is_lane``: this is a machine of a cluster, whose lanes have a working directory of their own.
    """
    faults: list[str] = [*_extras(wanted)]
    remarks: list[str] = []
    forms = {source: source.form for source in wanted.sources}
    for source in wanted.sources:
        if is_lane and (fault := _adrift(source)):
            faults.append(fault)
        elif lack("", source.extra, source.packages) is None:
            try:
                stock = source.stocked()
            except (ValueError, OSError, ImportError) as error:
                faults.append(_line(error))
            else:
                remarks += stock.remarks
                form = source.form
                forms[source] = None if form is None else replace(form, vocabulary=stock.vocabulary)
    for family in wanted.families:
        if is_lane and (fault := _adrift(family)):
            faults.append(fault)
        elif lack("", family.extra, family.packages) is None:
            try:
                remarks += family.stocked()
            except (ValueError, OSError, ImportError) as error:
                faults.append(_line(error))
    for family, source in wanted.networks:
        form = forms[source]
        try:
            if form is not None:
                family.fits(form)
        except ValueError as error:
            faults.append(_line(error))
    return Inventory(socket.gethostname(), tuple(dict.fromkeys(faults)), tuple(dict.fromkeys(remarks)))


def _extras(wanted: Wanted) -> Iterator[str]:
    sources: list[tuple[str, Source | Family]] = [(f"Data source {name_of(source)}", source) for source in wanted.sources]
    for what, thing in [*sources, *((f"Network family {name_of(family)}", family) for family in wanted.families)]:
        fault = lack(what, thing.extra, thing.packages)
        if fault is not None:
            yield fault


def _adrift(thing: Source | Family) -> str | None:
    """Why a relative path leads nowhere in a lane."""
    if os.environ.get("KDSWEEP_DATA"):
        return None
    fields = flat(thing)
    # A name on the hub looks like a path, too; which it is only the machine with the folder can tell.
    name = "path" if fields.get("path") else None
    if name is None or Path(str(fields[name])).expanduser().is_absolute():
        return None
    return (
        f"{name_of(thing)} needs KDSWEEP_DATA to be set where Ray is started on this machine, or an absolute path, but got none and "
        f"path={fields[name]!r}: lanes have working directories of their own."
    )


def _line(error: BaseException) -> str:
    return redacted(" ".join(str(error).split()) or type(error).__name__)

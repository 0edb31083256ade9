"""Shapes: what an event must be to count as one of its kind, checked once, where a journal is read.

A journal may have been edited, cut, or put there by somebody else, and everything behind it trusts what it says: the table its
types, the report that there are so many blocks, whoever removes a checkpoint that the id of a cell is no path. Kinds and keys
that are not known here are passed over, and so are those that older versions did not write.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from orchestrator.fields import MANY
from orchestrator.located import one_line, quoted

Check = Callable[[Any, str], str | None]
"""A value and its dotted name to what is wrong with it, or None."""

_LONGEST_ID = 128
"""Characters. Content ids are 16 hex digits; what matters is that no file name that is made of one leads anywhere else."""


def complaint(event: Mapping[str, Any]) -> str | None:
    """Why an event is none of its kind, or None."""
    shape = _EVENTS.get(event["event"])
    return None if shape is None else shape(event, "")


def _leaf(need: str, holds: Callable[[Any], bool]) -> Check:
    def check(value: Any, name: str) -> str | None:
        return None if holds(value) else f"{name} needs to be {need}, but got {_said(value)}"

    return check


def _said(value: Any) -> str:
    return one_line(quoted(value)) if value is None or isinstance(value, str | int | float | bool) else f"a {type(value).__name__}"


def _is_whole(value: Any, low: int = -(2**63), high: int = 2**63 - 1) -> bool:
    return type(value) is int and low <= value <= high


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or _is_whole(value)


def _is_time(value: Any) -> bool:
    try:
        return isinstance(value, str) and datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False


def _is_id(value: Any) -> bool:
    if not isinstance(value, str) or len(value) > _LONGEST_ID or not value.isprintable() or set(value) & set("\\:"):
        return False
    return all(part and not part.startswith(".") for part in value.split("/"))


def _whole(low: int, high: int = 2**63 - 1) -> Check:
    return _leaf(f"a whole number from {low} to {high}", lambda value: _is_whole(value, low, high))


def _or_none(check: Check) -> Check:
    return lambda value, name: None if value is None else check(value, name)


def _list(check: Check, most: int = MANY) -> Check:
    def found(value: Any, name: str) -> str | None:
        if not isinstance(value, list) or len(value) > most:
            return f"{name} needs to be a list, but got {_said(value)}"
        return next((fault for place, inner in enumerate(value) if (fault := check(inner, f"{name}[{place}]"))), None)

    return found


def _map(check: Check) -> Check:
    def found(value: Any, name: str) -> str | None:
        if not isinstance(value, dict):
            return f"{name} needs to be a map, but got {_said(value)}"
        return next((fault for key, inner in value.items() if (fault := check(inner, f"{name}.{one_line(key)}"))), None)

    return found


def _record(required: Mapping[str, Check], optional: Mapping[str, Check] | None = None) -> Check:
    """A map with certain keys. Others may be there."""

    def found(value: Any, name: str) -> str | None:
        if not isinstance(value, dict):
            return f"{name} needs to be a map, but got {_said(value)}"
        for key, check in required.items():
            if key not in value:
                return f"{name}{'.' if name else ''}{key} needs to be there, but is not"
            if (fault := check(value[key], f"{name}{'.' if name else ''}{key}")) is not None:
                return fault
        for key, check in (optional or {}).items():
            if key in value and (fault := check(value[key], f"{name}{'.' if name else ''}{key}")) is not None:
                return fault
        return None

    return found


_TEXT = _leaf("text", lambda value: isinstance(value, str))
_WORD = _leaf("text that is not empty", lambda value: isinstance(value, str) and bool(value.strip()))
_FLAG = _leaf("true or false", lambda value: isinstance(value, bool))
_ID = _leaf("the content id of a cell", _is_id)
_TIME = _leaf("a time with its zone, ISO-8601", _is_time)
_NUMBER = _leaf("a number", _is_number)
_FRACTION = _leaf("a number from 0 to 1", lambda value: _is_number(value) and 0.0 <= value <= 1.0)
_SECONDS = _leaf("finite seconds", lambda value: _is_number(value) and math.isfinite(value) and value >= 0)
_SCALAR = _leaf("text, a number or a flag", lambda value: isinstance(value, str | bool) or _is_number(value))
_COUNT = _whole(0)
_BLOCKS = _whole(0, MANY)
_PAIR = _leaf("a pair of words", lambda value: isinstance(value, list) and len(value) == 2 and all(isinstance(each, str) for each in value))
_METRICS = _map(_NUMBER)
_CONFIG = _map(_SCALAR)
_SKIPPED = _list(_PAIR)
_WORDS = _list(_TEXT)

_STUDY = _record(
    {
        "time": _TIME,
        "study": _WORD,
        "fingerprint": _WORD,
        "metric": _record({"select": _WORD, "report": _WORD, "goal": _WORD}),
        "versions": _map(_TEXT),
        "code_commit": _or_none(_TEXT),
        "lock_hash": _or_none(_TEXT),
        "space_fingerprint": _TEXT,
        "parameters": _list(_record({"name": _WORD, "column": _WORD})),
        "metrics": _list(_WORD),
        "mode": _WORD,
    },
    {
        "text": _TEXT,
        "seed": _whole(-(2**63)),
        "question": _or_none(_TEXT),
        "base": _or_none(_TEXT),
        "blocks": _or_none(_BLOCKS),
        "lanes": _whole(1, MANY),
        "machine": _or_none(_map(_or_none(_SCALAR))),
        "schema_version": _COUNT,
    },
)
_CELL_EVENT = _record(
    {
        "time": _TIME,
        "cell": _ID,
        "attempt": _whole(1),
        "stage": _WORD,
        "arm": _WORD,
        "method": _or_none(_WORD),
        "block": _BLOCKS,
        "seeds": _record({name: _whole(-(2**63)) for name in ("split", "teacher", "init", "order")}),
        "generation": _or_none(_COUNT),
        "number": _or_none(_COUNT),
        "proposed_by": _TEXT,
        "needs": _list(_ID),
        "config": _CONFIG,
    },
    {"point": _CONFIG},
)
_ROW = _record(
    {
        "time": _TIME,
        "cell": _ID,
        "attempt": _whole(1),
        "status": _WORD,
        "progress": _FRACTION,
        "steps": _COUNT,
        "metrics": _METRICS,
        "seconds": _SECONDS,
        "device_seconds": _SECONDS,
        "message": _TEXT,
    },
    {"reports": _list(_record({"step": _COUNT, "progress": _FRACTION, "metrics": _METRICS})), "trace": _TEXT, "where": _map(_TEXT)},
)
_CHOICE = _record({"arm": _WORD, "number": _COUNT, "score": _NUMBER, "config": _CONFIG}, {"time": _TIME, "skipped": _SKIPPED})
_FACTORIAL = _record(
    {
        "factors": _list(_record({"name": _WORD, "low": _TEXT, "high": _TEXT, "differs": _FLAG})),
        "runs": _list(_record({"arm": _WORD, "levels": _map(_whole(-1, 1))})),
        "effects": _list(_record({"factors": _WORDS, "aliases": _list(_record({"factors": _WORDS, "sign": _whole(-1, 1)}))})),
        "resolution": _or_none(_COUNT),
    }
)
_PATH = _record(
    {
        "start": _or_none(_TEXT),
        "blocks": _BLOCKS,
        "steps": _list(_record({"part": _TEXT, "tried": _list(_record({"part": _TEXT, "score": _or_none(_NUMBER)}))})),
        "arms": _WORDS,
        "idle": _WORDS,
        "stuck": _WORDS,
    }
)
_DESIGN = _record(
    {
        "hash": _WORD,
        "blocks": _BLOCKS,
        "base": _WORD,
        "arms": _list(_record({"arm": _WORD, "kinds": _WORDS}, {"cell": _ID})),
        "comparisons": _list(_record({"arm": _WORD, "against": _WORD}, {"kind": _TEXT})),
        "skipped": _SKIPPED,
    },
    {
        "time": _TIME,
        "late": _FLAG,
        "factorial": _or_none(_FACTORIAL),
        "proofs": _list(_record({"arm": _TEXT, "against": _TEXT, "differs": _FLAG, "reason": _TEXT})),
        "path": _or_none(_PATH),
    },
)
_EXTENSION = _record({"name": _WORD, "before": _BLOCKS, "blocks": _BLOCKS, "hash": _TEXT}, {"time": _TIME, "design": _TEXT})
_END = _record({"status": _WORD}, {"time": _TIME, "counts": _map(_COUNT)})
_LEG = _record({"cell": _ID, "attempt": _COUNT, "until": _NUMBER}, {"time": _TIME, "lane": _TEXT})
_ORDER = _record({"order": _WORD, "token": _WORD, "by": _TEXT}, {"time": _TIME, "cells": _list(_ID)})

_EVENTS: Mapping[str, Check] = {
    "study": _STUDY,
    "cell": _CELL_EVENT,
    "leg": _LEG,
    "row": _ROW,
    "choice": _CHOICE,
    "design": _DESIGN,
    "extension": _EXTENSION,
    "end": _END,
    "order": _ORDER,
}

"""The columns of the tables, known before anything runs. Every column is nullable and has one type in every file of a study:

- numbers are float64, and int64 only where every value was declared whole; NaN and infinities are kept, null is "none";
- a hyper-parameter declared as a mix of words, numbers and booleans is a string: words as they are, the rest as JSON writes
  it (1, 2.5, true). ``config_json`` tells them apart;
- a hyper-parameter that has no effect in a cell is null;
- strings are plain; Parquet's own dictionary pages make them small, and polars, duckdb and pandas see strings;
- times are UTC microseconds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa

from orchestrator.errors import StorageError
from orchestrator.events import SCHEMA_VERSION, Event

TIME_COLUMNS = ("seconds", "device_seconds", "finished_at", "host", "device", "workers", "trace")
"""Columns of ``trials`` that may differ between two runs of one study."""

_COLUMNS = {"float64": pa.float64(), "int64": pa.int64(), "string": pa.string(), "bool": pa.bool_()}
TIME = pa.timestamp("us", tz="UTC")
_LARGEST_EXACT = 2**53
_FIRST: tuple[tuple[str, pa.DataType], ...] = (
    ("study", pa.string()),
    ("cell", pa.string()),
    ("attempt", pa.int64()),
    ("stage", pa.string()),
    ("arm", pa.string()),
    ("method", pa.string()),
    ("block", pa.int64()),
    ("generation", pa.int64()),
    ("number", pa.int64()),
    ("proposed_by", pa.string()),
    ("status", pa.string()),
    ("progress", pa.float64()),
    ("steps", pa.int64()),
)
_LAST: tuple[tuple[str, pa.DataType], ...] = (
    ("seconds", pa.float64()),
    ("device_seconds", pa.float64()),
    ("finished_at", TIME),
    ("host", pa.string()),
    ("device", pa.string()),
    ("workers", pa.string()),
    ("message", pa.string()),
    ("trace", pa.string()),
    ("seeds_json", pa.string()),
    ("config_json", pa.string()),
    ("schema_version", pa.int64()),
    ("code_commit", pa.string()),
    ("lock_hash", pa.string()),
    ("space_fingerprint", pa.string()),
)
_REPORTS: tuple[tuple[str, pa.DataType], ...] = (
    ("study", pa.string()),
    ("cell", pa.string()),
    ("attempt", pa.int64()),
    ("step", pa.int64()),
    ("progress", pa.float64()),
    ("metric", pa.string()),
    ("value", pa.float64()),
)
_STUDIES: tuple[tuple[str, pa.DataType], ...] = (
    ("study", pa.string()),
    ("launch", pa.int64()),
    ("launched_at", TIME),
    ("fingerprint", pa.string()),
    ("question", pa.string()),
    ("text", pa.string()),
    ("seed", pa.int64()),
    ("metric_select", pa.string()),
    ("metric_report", pa.string()),
    ("metric_goal", pa.string()),
    ("base", pa.string()),
    ("mode", pa.string()),
    ("versions_json", pa.string()),
    ("parameters_json", pa.string()),
    ("metrics_json", pa.string()),
    ("schema_version", pa.int64()),
    ("code_commit", pa.string()),
    ("lock_hash", pa.string()),
    ("space_fingerprint", pa.string()),
)


def schema_of(study_event: Event) -> dict[str, pa.Schema]:
    """The exact schemas of trials, reports and studies, from the study event alone.

    The file metadata has, under ``kdsweep.`` names: table, study, schema_version, written_by (a version of kdsweep),
    study_fingerprint, space_fingerprint, code_commit, lock_hash and time_columns (a JSON list).

    Raises:
        StorageError: a parameter is declared twice, or with a column that is none of float64, int64, string, bool.
    """
    parameters: dict[str, pa.DataType] = {}
    for parameter in study_event["parameters"]:
        name, column = parameter["name"], parameter["column"]
        if column not in _COLUMNS or name in parameters:
            raise StorageError(
                f"A parameter needs one declaration with a column among {', '.join(_COLUMNS)}, but got {name} with column={column!r}"
                f"{' again' if name in parameters else ''}. Was the journal edited?"
            )
        parameters[name] = _COLUMNS[column]
    fields = {
        "trials": (
            *_FIRST,
            *((f"hp.{name}", kind) for name, kind in parameters.items()),
            *((f"metric.{name}", pa.float64()) for name in study_event["metrics"]),
            *_LAST,
        ),
        "reports": _REPORTS,
        "studies": _STUDIES,
    }
    return {
        table: pa.schema([pa.field(name, kind) for name, kind in columns], metadata=_metadata(table, study_event))
        for table, columns in fields.items()
    }


def _metadata(table: str, study_event: Event) -> dict[str, str]:
    facts = {
        "table": table,
        "study": study_event["study"],
        "schema_version": str(SCHEMA_VERSION),
        "written_by": study_event.get("versions", {}).get("kdsweep", ""),
        "study_fingerprint": study_event["fingerprint"],
        "space_fingerprint": study_event["space_fingerprint"],
        "code_commit": study_event["code_commit"] or "",
        "lock_hash": study_event["lock_hash"] or "",
        "time_columns": json.dumps(TIME_COLUMNS if table == "trials" else ["launched_at"] if table == "studies" else []),
    }
    return {f"kdsweep.{name}": value for name, value in facts.items()}


def table_of(schema: pa.Schema, columns: Mapping[str, Sequence[Any]], owner: Callable[[int], str]) -> pa.Table:
    """The table of these columns, every value checked against its column; ``owner`` says whose a row is.

    Raises:
        StorageError: a value does not fit; owner, column and value are named.
    """
    arrays = []
    for field in schema:
        fit = _FITS[field.type]
        values: list[Any] = []
        for row, value in enumerate(columns[field.name]):
            fitting = None if value is None else fit(value)
            if fitting is None and value is not None:
                raise StorageError(
                    f"Table {schema.metadata[b'kdsweep.table'].decode()} needs a value that {_called(field.type)} holds in column "
                    f"{field.name}, but got {field.name}={value!r} in {owner(row)}. The journal keeps it. The study event declares the "
                    "columns: it must make this one wide enough for every cell."
                )
            values.append(fitting)
        arrays.append(pa.array(values, field.type))
    return pa.Table.from_arrays(arrays, schema=schema)


def _called(kind: pa.DataType) -> str:
    return next((name for name, known in _COLUMNS.items() if known == kind), str(kind))


def _as_float(value: object) -> float | None:
    if isinstance(value, float):
        return value
    whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _LARGEST_EXACT
    return float(value) if whole else None  # type: ignore[arg-type] # an int, by the line above


def _as_int(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63 else None


def _as_string(value: object) -> str | None:
    if not isinstance(value, str | bool | int | float):
        return None
    text = value if isinstance(value, str) else json.dumps(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        return None
    return text


def _as_bool(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _as_time(value: object) -> datetime | None:
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return found if found is not None and found.tzinfo is not None else None


_FITS: dict[pa.DataType, Callable[[object], Any]] = {
    pa.float64(): _as_float,
    pa.int64(): _as_int,
    pa.string(): _as_string,
    pa.bool_(): _as_bool,
    TIME: _as_time,
}

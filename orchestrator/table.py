"""The tables: the record of a study as three Parquet files, of the columns that ``orchestrator.schema`` declares.

``trials`` has a row per finished attempt at a cell, ``reports`` a row per metric at a point of a training, ``studies`` a row
per launch. Files of one study, and of studies with equal parameters, can be read together as they are. Studies with
different parameters need a union: ``pa.unify_schemas`` as the schema of ``pyarrow.dataset``, ``union_by_name=true`` in
duckdb, ``pl.concat(..., how="diagonal")`` in polars, ``pd.concat`` in pandas. Where a parameter is whole in one study and
real in another, ``pa.unify_schemas`` needs ``promote_options="permissive"`` and polars ``how="diagonal_relaxed"``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from orchestrator.errors import StorageError
from orchestrator.events import SCHEMA_VERSION, STAGES, Event, finite
from orchestrator.record import Attempt, Record
from orchestrator.schema import TIME_COLUMNS, schema_of, table_of
from orchestrator.storage import Folder, folder_at
from search_spaces import nearest

__all__ = [
    "STAGES",
    "TABLES",
    "TIME_COLUMNS",
    "export",
    "read_reports",
    "read_studies",
    "read_trials",
    "reports_frame",
    "same",
    "schema_of",
    "studies_frame",
    "trials_frame",
    "write",
]

TABLES = ("trials", "reports", "studies")


# From record to tables


def trials_frame(record: Record) -> pa.Table:
    """One row per finished attempt, by stage, arm (in the order in which arms entered the plan), number, block, attempt.

    Raises:
        StorageError: nothing was launched, or a value does not fit its column; cell, column and value are named.
    """
    study = _study(record)
    schema = schema_of(study)["trials"]
    attempts = _in_order(record)
    columns: dict[str, list[Any]] = {
        "study": [study["study"]] * len(attempts),
        "cell": [attempt.cell for attempt in attempts],
        "attempt": [attempt.attempt for attempt in attempts],
        "status": [attempt.status for attempt in attempts],
        "progress": [attempt.progress for attempt in attempts],
        "steps": [attempt.steps for attempt in attempts],
        "seconds": [attempt.total("seconds") for attempt in attempts],
        "device_seconds": [attempt.total("device_seconds") for attempt in attempts],
        "finished_at": [attempt.rows[-1]["time"] for attempt in attempts],
        "seeds_json": [_canonical(attempt.plan["seeds"]) for attempt in attempts],
        "config_json": [_canonical(attempt.plan["config"]) for attempt in attempts],
        "schema_version": [SCHEMA_VERSION] * len(attempts),
        "space_fingerprint": [study["space_fingerprint"]] * len(attempts),
    }
    for name in ("stage", "arm", "method", "block", "generation", "number", "proposed_by"):
        columns[name] = [attempt.plan[name] for attempt in attempts]
    for name in ("host", "device", "workers"):
        columns[name] = [attempt.where.get(name) for attempt in attempts]
    for name in ("message", "trace"):
        columns[name] = [attempt.rows[-1].get(name, "") for attempt in attempts]
    for name in ("code_commit", "lock_hash"):
        columns[name] = [record.launches[attempt.launch].get(name) for attempt in attempts]
    for parameter in study["parameters"]:
        columns[f"hp.{parameter['name']}"] = [attempt.plan["config"].get(parameter["name"]) for attempt in attempts]
    declared = set(study["metrics"])
    for attempt in attempts:
        for name in attempt.metrics:
            if name not in declared:
                raise StorageError(
                    f"Table trials needs metrics that the study declared at launch, but got {name}={attempt.metrics[name]!r} in cell "
                    f"{attempt.cell}.{nearest(name, declared)} The journal keeps it. The study event declares the metrics: it must name "
                    "this one."
                )
    for name in study["metrics"]:
        columns[f"metric.{name}"] = [attempt.metrics.get(name) for attempt in attempts]
    cells = columns["cell"]
    return table_of(schema, columns, lambda row: f"cell {cells[row]}")


def reports_frame(record: Record) -> pa.Table:
    """One row per metric of every report of the attempts in ``trials``, in their order, then by step and metric.

    Raises:
        StorageError: nothing was launched, or a value does not fit its column.
    """
    study = _study(record)
    schema = schema_of(study)["reports"]
    columns: dict[str, list[Any]] = {name: [] for name in schema.names}
    for attempt in _in_order(record):
        for report in attempt.reports:
            for metric in sorted(report["metrics"]):
                columns["cell"].append(attempt.cell)
                columns["attempt"].append(attempt.attempt)
                columns["step"].append(report["step"])
                columns["progress"].append(report["progress"])
                columns["metric"].append(metric)
                columns["value"].append(report["metrics"][metric])
    cells = columns["cell"]
    columns["study"] = [study["study"]] * len(cells)
    return table_of(schema, columns, lambda row: f"cell {cells[row]}")


def studies_frame(record: Record) -> pa.Table:
    """One row per launch, in order, with the text of the study and the versions it ran under.

    Raises:
        StorageError: nothing was launched, or a value does not fit its column.
    """
    schema = schema_of(_study(record))["studies"]
    rows = [
        {
            **launch,
            "launch": number,
            "launched_at": launch["time"],
            "metric_select": launch["metric"]["select"],
            "metric_report": launch["metric"]["report"],
            "metric_goal": launch["metric"]["goal"],
            "versions_json": _canonical(launch["versions"]),
            "parameters_json": _canonical(launch["parameters"]),
            "metrics_json": _canonical(launch["metrics"]),
        }
        for number, launch in enumerate(record.launches)
    ]
    columns = {name: [row.get(name) for row in rows] for name in schema.names}
    return table_of(schema, columns, lambda row: f"launch {row}")


def _study(record: Record) -> Event:
    if record.study is None:
        raise StorageError("A table needs a study that was launched, but got a journal without a study event. Run the study first.")
    return record.study


def _in_order(record: Record) -> list[Attempt]:
    arms = {arm: place for place, arm in enumerate(record.arms)}

    def place(attempt: Attempt) -> tuple[int, int, int, int, int, str]:
        plan = attempt.plan
        stage = STAGES.index(plan["stage"]) if plan["stage"] in STAGES else len(STAGES)
        number = -1 if plan["number"] is None else plan["number"]
        # The cell id decides between teachers of tuning and of reporting blocks, whose indices both begin at 0.
        return stage, arms[plan["arm"]], number, plan["block"], attempt.attempt, attempt.cell

    return sorted(record.finished, key=place)


def _canonical(value: object) -> str:
    return json.dumps(finite(value), sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


# Files


def write(record: Record, folder: str | Path) -> None:
    """Write trials.parquet, reports.parquet and studies.parquet, each at once: a reader sees the old file or the new one.

    Raises:
        StorageError: a value does not fit its column (then nothing is written), or the folder cannot be written.
    """
    place = folder_at(folder)
    frames = {"studies": studies_frame(record), "reports": reports_frame(record), "trials": trials_frame(record)}
    for name, frame in frames.items():
        place.replace(f"{name}.parquet", _parquet(frame))


def read_trials(folder: str | Path) -> pa.Table:
    """The table ``trials`` of a study's folder, of whatever schema version, in the present form.

    Raises:
        StorageError: there is none, it is no table of kdsweep, or a newer kdsweep wrote it.
    """
    return _read(folder_at(folder), "trials")


def read_reports(folder: str | Path) -> pa.Table:
    """The table ``reports`` of a study's folder; errors as ``read_trials``."""
    return _read(folder_at(folder), "reports")


def read_studies(folder: str | Path) -> pa.Table:
    """The table ``studies`` of a study's folder; errors as ``read_trials``."""
    return _read(folder_at(folder), "studies")


def export(folder: str | Path, format: str, to: str | Path) -> tuple[str, ...]:
    """Write the tables of a study's folder into the folder ``to`` as "parquet" or "csv"; returns what was written.

    In CSV, null is an empty field, NaN is ``nan`` and a word is quoted.

    Raises:
        StorageError: unknown format, no tables, or ``to`` cannot be written.
    """
    if format not in _WRITERS:
        raise StorageError(f"Export needs a format among {', '.join(_WRITERS)}, but got format={format!r}.")
    source, target = folder_at(folder), folder_at(to)
    frames = {name: _read(source, name) for name in TABLES}
    for name, frame in frames.items():
        target.replace(f"{name}.{format}", _WRITERS[format](frame))
    return tuple(target.label(f"{name}.{format}") for name in frames)


def _parquet(frame: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(frame, sink, compression="zstd")
    return bytes(memoryview(sink.getvalue()))


def _csv(frame: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pa.csv.write_csv(frame, sink)
    return bytes(memoryview(sink.getvalue()))


_WRITERS: dict[str, Callable[[pa.Table], bytes]] = {"parquet": _parquet, "csv": _csv}


def _read(place: Folder, name: str) -> pa.Table:
    file = f"{name}.parquet"
    label = place.label(file)
    data = place.read(file)
    if data is None:
        raise StorageError(f"Reading the table {name} needs {label}, but got no such file. It is written when the study runs.")
    try:
        frame = pq.ParquetFile(pa.BufferReader(data)).read()
    except pa.ArrowException as fault:
        raise StorageError(
            f"Reading needs a whole Parquet file, but got {label}: {fault}. Delete it: it is made again from the journal."
        ) from fault
    metadata = frame.schema.metadata or {}
    told = metadata.get(b"kdsweep.schema_version", b"").decode()
    if metadata.get(b"kdsweep.table", b"").decode() != name or not told.isdecimal():
        raise StorageError(f"Reading needs a table {name} that kdsweep wrote, but got {label} without its metadata.")
    reader = _READERS.get(int(told))
    if reader is None:
        writer = metadata.get(b"kdsweep.written_by", b"").decode() or "another version"
        raise StorageError(
            f"Reading {label} needs schema_version among {', '.join(map(str, _READERS))}, but got schema_version={told}, "
            f"written by kdsweep {writer}. Install that version of kdsweep, or a later one."
        )
    return reader(frame)


def _version_1(frame: pa.Table) -> pa.Table:
    return frame


_READERS: dict[int, Callable[[pa.Table], pa.Table]] = {1: _version_1}
"""One per schema version ever written: each brings a table into the present form."""


# Equality


def same(a: pa.Table, b: pa.Table) -> list[str]:
    """What differs between two tables ``trials`` outside TIME_COLUMNS, one line each; empty if they say the same.

    Columns, their types and order, rows and their order, and every value count; NaN equals NaN; file metadata does not
    count. Two tables ``reports`` can be compared as well.
    """
    found: list[str] = []
    kinds = [{field.name: field.type for field in frame.schema if field.name not in TIME_COLUMNS} for frame in (a, b)]
    for which, mine, theirs in (("first", kinds[0], kinds[1]), ("second", kinds[1], kinds[0])):
        found += [f"column {name} is only in the {which}" for name in mine if name not in theirs]
    shared = [name for name in kinds[0] if name in kinds[1]]
    for name in shared:
        if kinds[0][name] != kinds[1][name]:
            found.append(f"column {name} is {kinds[0][name]} in the first, {kinds[1][name]} in the second")
    if shared != [name for name in kinds[1] if name in kinds[0]]:
        found.append("the columns stand in another order")
    rows = [_by_key(frame, shared) for frame in (a, b)]
    for which, mine, theirs, frame in (("first", rows[0], rows[1], a), ("second", rows[1], rows[0], b)):
        found += [f"{key} is only in the {which}" for key in mine if key not in theirs]
        if len(mine) < frame.num_rows:
            found.append(f"a row stands more than once in the {which}")
    keys = [key for key in rows[0] if key in rows[1]]
    for key in keys:
        for name in shared:
            one, other = rows[0][key][name], rows[1][key][name]
            if one != other and not (_is_nan(one) and _is_nan(other)):
                found.append(f"{key}: {name} is {one!r} in the first, {other!r} in the second")
    if keys != [key for key in rows[1] if key in rows[0]]:
        found.append("the rows stand in another order")
    return found


def _by_key(frame: pa.Table, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    keys = [name for name in ("cell", "attempt", "step", "metric") if name in names]
    return {" ".join(f"{name} {row[name]}" for name in keys): row for row in frame.select(names).to_pylist()}


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)

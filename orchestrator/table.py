"""The tables: the record of a study as three Parquet files, of the columns that ``orchestrator.schema`` declares.

``trials`` has a row per finished attempt at a cell, ``reports`` a row per metric at a point of a training, ``studies`` a row
per launch. Files of one study, and of studies with equal parameters, can be read together as they are. Studies with
different parameters need a union: ``pa.unify_schemas`` as the schema of ``pyarrow.dataset``, ``union_by_name=true`` in
duckdb, ``pl.concat(..., how="diagonal")`` in polars, ``pd.concat`` in pandas. Where a parameter is whole in one study and
real in another, ``pa.unify_schemas`` needs ``promote_options="permissive"`` and polars ``how="diagonal_relaxed"``.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from orchestrator.errors import StorageError, StudyLocked
from orchestrator.events import SCHEMA_VERSION, STAGES, Event, finite
from orchestrator.journal import Journal
from orchestrator.record import Attempt, Record, record_of
from orchestrator.schema import TIME_COLUMNS, schema_of, table_of
from orchestrator.storage import Folder, StudyLock, folder_at, waiting
from search_spaces import nearest

__all__ = [
    "STAGES",
    "TABLES",
    "TIME_COLUMNS",
    "export",
    "mend",
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

_log = logging.getLogger("orchestrator.table")


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
    place = waiting(folder_at(folder))
    for name, frame in _frames(record).items():
        place.replace(f"{name}.parquet", _parquet(frame))


def mend(folder: str | Path) -> tuple[str, ...]:
    """Make those files again that are missing, damaged or behind the journal; their names, and why, are logged as a warning, and returned.

    Nothing is done while a driver is at work, which sees to them itself, nor to files of another version of kdsweep.

    Raises:
        StorageError: the journal cannot be read, or the folder cannot be written.
    """
    place = folder_at(folder)
    if not _stale(place, _frames(record_of(Journal(folder).read()))):
        return ()
    try:
        with StudyLock(folder):
            frames = _frames(record_of(Journal(folder).read()))
            found = _stale(place, frames)
            for name in found:
                place.replace(f"{name}.parquet", _parquet(frames[name]))
    except StudyLocked:
        return ()
    for name, why in found.items():
        _log.warning("%s %s: it was made again from the journal.", place.label(f"{name}.parquet"), why)
    return tuple(found)


def _frames(record: Record) -> dict[str, pa.Table]:
    return {"studies": studies_frame(record), "reports": reports_frame(record), "trials": trials_frame(record)}


def _stale(place: Folder, frames: dict[str, pa.Table]) -> dict[str, str]:
    """Names of tables whose files do not hold these frames, and why."""
    found = {}
    for name, frame in frames.items():
        data = place.read(f"{name}.parquet")
        if data is None:
            found[name] = "was missing"
        elif data != _parquet(frame):
            try:
                _opened(data, name, place.label(f"{name}.parquet"))
                found[name] = "was behind the journal"
            except _Damaged:
                found[name] = "was damaged"
            except StorageError:
                continue  # another version of kdsweep wrote it, or something else did
    return found


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

    They say what the journal says. Where it cannot be read, the Parquet files are taken, with a warning in the log. In CSV, null is
    an empty field, NaN is ``nan`` and a word is quoted.

    Raises:
        StorageError: unknown format, no tables, or ``to`` cannot be written.
    """
    if format not in _WRITERS:
        raise StorageError(f"Export needs a format among {', '.join(_WRITERS)}, but got format={format!r}.")
    target = folder_at(to)
    try:
        frames = _frames(record_of(Journal(folder).read()))
    except StorageError as fault:
        frames = {name: _read(folder_at(folder), name) for name in TABLES}
        _log.warning("%s What is exported is the table as it was last written.", fault)
    else:
        with contextlib.suppress(StorageError):  # who may only read gets what was asked for all the same
            mend(folder)
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
        raise StorageError(f"Reading the table {name} needs {label}, but got no such file. `kdsweep report` makes it from the journal.")
    return _opened(data, name, label)


class _Damaged(StorageError):
    """What is there is no Parquet file, or not the whole of one."""


def _opened(data: bytes, name: str, label: str) -> pa.Table:
    try:
        frame = pq.ParquetFile(pa.BufferReader(data)).read()
    except (pa.ArrowException, OSError) as fault:
        raise _Damaged(
            f"Reading needs a whole Parquet file, but got {label}: {fault}. It is made again from the journal: run `kdsweep report`."
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

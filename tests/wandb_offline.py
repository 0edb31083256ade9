"""Reads the ``.wandb`` file of an offline run: LevelDB log blocks of 32 KiB that hold protobuf records.

wandb ships no reader in Python. The format: a header of 7 bytes, then records of 4 bytes checksum, 2 bytes length, 1 byte kind (1 whole, 2 first,
3 middle and 4 last part), which never cross the end of a block; a rest of a block too short for a header is padding.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record

_BLOCK, _HEADER = 32768, 7
_WHOLE, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


@dataclass
class OfflineRun:
    """What a ``.wandb`` file says of its run."""

    id: str = ""
    project: str = ""
    name: str = ""
    group: str = ""
    job_type: str = ""
    tags: tuple[str, ...] = ()
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None


def read_run(path: Path) -> OfflineRun:
    """The run in a ``.wandb`` file."""
    found = OfflineRun()
    for record in records(path):
        if record.HasField("run"):
            run = record.run
            found.id, found.project, found.name = run.run_id, run.project, run.display_name
            found.group, found.job_type, found.tags = run.run_group, run.job_type, tuple(run.tags)
            found.config |= _items(run.config.update)
        elif record.HasField("config"):
            found.config |= _items(record.config.update)
        elif record.HasField("history"):
            found.history.append(_items(record.history.item))
        elif record.HasField("summary"):
            found.summary |= _items(record.summary.update)
        elif record.HasField("exit"):
            found.exit_code = record.exit.exit_code
    return found


def records(path: Path) -> Iterator[Record]:
    """Every record, in order. Raises ValueError where a checksum is wrong or the file is torn."""
    data = path.read_bytes()
    if struct.unpack_from("<4sHB", data) != (b":W&B", 0xBEE1, 0):
        raise ValueError(f"{path} is no .wandb file")
    place, parts = _HEADER, b""
    while place < len(data):
        if _BLOCK - place % _BLOCK < _HEADER:
            place += _BLOCK - place % _BLOCK
            continue
        checksum, length, kind = struct.unpack_from("<IHB", data, place)
        part = data[place + _HEADER : place + _HEADER + length]
        if len(part) < length or zlib.crc32(bytes([kind]) + part) != checksum:
            raise ValueError(f"{path} is torn or corrupt at byte {place}")
        place += _HEADER + length
        parts = part if kind in (_WHOLE, _FIRST) else parts + part
        if kind in (_WHOLE, _LAST):
            record = Record()
            record.ParseFromString(parts)
            yield record


def _items(items: Any) -> dict[str, Any]:
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}

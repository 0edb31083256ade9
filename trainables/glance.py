"""A glance at one split of a data set: how many rows, which columns and labels, without reading what they hold and without fetching any.

Of Parquet files that is what their footers say, and the column of labels alone; of a folder of pictures the names of its files; of the
hub what it, or the copy of it on this machine, tells of the set.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainables.hub import FOLDER, Place, check_names, column_of, described, listed, located, parquet_files, pictures_in, whole_labels
from trainables.partition import Sizes

IN_FOLDER = ("image", "label")
"""Columns that ``datasets`` gives a folder of pictures."""
_GB = 1e9


@dataclass(frozen=True)
class Asked:
    """What a split is held to."""

    names: Sequence[str]
    """What it may be called."""
    what: str
    """How messages call it."""
    content: str
    """The column of pictures, or texts."""
    label: str | None
    """The column of labels; None: it has none."""
    classes: int
    rows: int
    """That were published: a copy on the hub has as many."""
    is_text: bool = False


@dataclass(frozen=True)
class Glance:
    """What was seen."""

    rows: int
    labels: NDArray[np.int64] | None
    """(N,), None where they could not be seen without fetching them, or there are none."""
    fetched: float | None = 0.0
    """Bytes that whoever opens the split fetches first; None: it is not known how many."""


def foreseen(
    owner: str, place: Place, asked: Mapping[str, Asked], kept: Mapping[str, NDArray[np.int64]], sizes: Sizes, more: str
) -> tuple[str, ...]:
    """Look at all splits of a set, and whether parts can be drawn from them; what is going to be fetched, in sentences.

    Args:
        asked: train, test and maybe ``more`` to what they are held to.
        kept: labels of splits that stand in the cache of this machine, and need not be looked at.

    Raises:
        ValueError, OSError: as of ``glance``; or the sizes do not fit the rows.
    """
    seen = {part: Glance(len(kept[part]), kept[part]) if part in kept else glance(place, each) for part, each in asked.items()}
    train, test = (seen[part] for part in asked if part != more)
    classes = next(iter(asked.values())).classes
    if train.labels is None:
        sizes.check(owner, train.rows, test.rows, classes)
    else:
        sizes.check_labels(owner, train.labels, test.rows, classes)
    fetched = [each.fetched for each in seen.values()]
    if not any(each != 0.0 for each in fetched):
        return ()
    told = next((each for each in fetched if each), None)
    return (f"{place} will be fetched on every machine that trains: {'it is not known how much' if told is None else size(told)}.",)


def glance(place: Place, asked: Asked) -> Glance:
    """Look at a split.

    Raises:
        ValueError: it is not there, cannot be read, or lacks a column, a class or rows.
        OSError: a file of it cannot be read.
    """
    if not place.path:
        return _on_hub(place, asked)
    kind, name = located(place, asked.names)
    return _pictures(place, name, asked) if kind == FOLDER else _parquet(parquet_files(place, name), asked)


def size(amount: float) -> str:
    """Bytes in a sentence."""
    return f"{amount / _GB:.1f} GB" if amount >= _GB / 10 else f"{amount / 1e6:.1f} MB"


def _parquet(files: Sequence[Path], asked: Asked) -> Glance:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows, found = 0, []
    for file in files:
        try:
            with pq.ParquetFile(file, memory_map=True) as opened:
                schema = opened.schema_arrow
                label = _columns(schema.names, asked)
                rows += opened.metadata.num_rows
                if label is not None:
                    check_names(_names(schema.metadata or {}, label), label, asked.classes, asked.what)
                    found.append(opened.read([label]).column(0).to_numpy())
        except pa.ArrowException as error:
            said = (str(error).strip().splitlines() or [type(error).__name__])[0][:300].rstrip(".")
            raise ValueError(
                f"{asked.what} needs Parquet files that can be read, but got {file}: {said}. Fetch it again; a file of Git LFS that was "
                "not pulled is a text of three lines."
            ) from error
    return _counted(rows, found, asked)


def _columns(names: Sequence[str], asked: Asked) -> str | None:
    """The column of labels, once those that are needed are known to be there."""
    is_folder = not asked.is_text and set(names) == set(IN_FOLDER)
    column_of(names, IN_FOLDER[0] if is_folder else asked.content, asked.what)
    if asked.label is None:
        return None
    return column_of(names, IN_FOLDER[1] if is_folder else asked.label, asked.what)


def _counted(rows: int, found: Sequence[NDArray[Any]], asked: Asked) -> Glance:
    if rows == 0:
        raise ValueError(f"{asked.what} needs rows, but has none.")
    if asked.label is None:
        return Glance(rows, None)
    return Glance(rows, whole_labels(np.concatenate(found), asked.label, asked.classes, asked.what))


def _names(metadata: Mapping[bytes, bytes], label: str) -> Sequence[str] | None:
    """Names of the classes, where ``datasets`` wrote them into the file."""
    try:
        names = json.loads(metadata[b"huggingface"])["info"]["features"][label]["names"]
    except (KeyError, ValueError, TypeError):
        return None
    return names if isinstance(names, list) else None


def _pictures(place: Place, name: str, asked: Asked) -> Glance:
    if asked.is_text:
        raise ValueError(f"{asked.what} needs Parquet files with texts, but got a folder of pictures.")
    counts = Counter(file.parent.name for file in pictures_in(place, name))
    if asked.label is None:
        return Glance(sum(counts.values()), None)
    classes = sorted(counts)
    if len(classes) != asked.classes:
        raise ValueError(
            f"{asked.what} needs a folder with pictures for each of {asked.classes} classes, but has {len(classes)}: {listed(classes)}."
        )
    return Glance(sum(counts.values()), np.repeat(np.arange(len(classes)), [counts[each] for each in classes]))


def _on_hub(place: Place, asked: Asked) -> Glance:
    told = described(place)
    info = told.info
    if info.features is not None:
        label = _columns(list(info.features), asked)
        if label is not None:
            check_names(getattr(info.features[label], "names", None), label, asked.classes, asked.what)
    rows = asked.rows
    if info.splits:
        split = info.splits.get(asked.names[0])
        if split is None:
            raise ValueError(
                f"{asked.what} needs the split {asked.names[0]}, but the set has {listed(info.splits)}. Name another revision, or give path."
            )
        rows = split.num_examples or asked.rows
    if rows != asked.rows:
        raise ValueError(
            f"{asked.what} needs the {asked.rows} rows that were published, but has {rows}. "
            "Name another revision, or give path if another number is meant."
        )
    return Glance(rows, None, 0.0 if Path(told.cache_dir).is_dir() else info.download_size or None)

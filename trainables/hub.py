"""Hugging Face ``datasets``: the one file that knows it. A split of a data set, from the hub or from a folder of this machine.

A folder holds Parquet files as the hub has them, ``<split>-00000-of-00001.parquet`` in it or in a folder of it, or
``<split>/*.parquet``; or pictures as ``<split>/<class>/<file>``, classes in the order of their names. A relative path is below KDSWEEP_DATA where that is
set, so that a study file, and the ids of its cells, can be the same on every machine.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search_spaces import nearest

PARQUET, FOLDER = "parquet", "imagefolder"
_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"}
_SHOWN = 12


@dataclass(frozen=True)
class Place:
    """Where a data set lies: a folder, or else a name on the hub."""

    hub: str
    """Like uoft-cs/cifar10."""
    revision: str
    """A commit, tag or branch of it."""
    config: str
    """Which of its subsets; empty for the only one."""
    path: str
    """The folder that is read instead; empty for none."""

    def __str__(self) -> str:
        return str(self.folder) if self.path else f"{self.hub} (revision {self.revision})"

    @property
    def folder(self) -> Path:
        """The folder of ``path``."""
        return (Path(os.environ.get("KDSWEEP_DATA", "")) / Path(self.path).expanduser()).absolute()

    def check(self) -> None:
        """Raise ValueError where ``path`` is given and there is no such folder."""
        if self.path and not self.folder.is_dir():
            raise ValueError(
                f"A data set needs path to be a folder with Parquet files or pictures, but got path={self.path!r}, which is {self.folder}. "
                "Give the right one, or set KDSWEEP_DATA to the folder that it is in."
            )


def check_splits(place: Place, splits: Iterable[Sequence[str]]) -> None:
    """Raise ValueError where a folder is named that is not there, or lacks one of the splits, each given by what it may be called."""
    if place.path:
        for names in splits:
            located(place, names)


def content_of(place: Place, names: Sequence[str]) -> str:
    """What a split is made of, in a word that changes when it does: revision, or names, sizes and times of its files. Reads none.

    Raises:
        ValueError: the folder has no such split.
    """
    if not place.path:
        return f"{place.hub}@{place.revision}/{place.config}/{names[0]}"
    kind, name = located(place, names)
    files = parquet_files(place, name) if kind == PARQUET else sorted(pictures_in(place, name))
    digest = hashlib.sha256()
    for file in files:
        state = file.stat()
        digest.update(f"{file.relative_to(place.folder)}\0{state.st_size}\0{state.st_mtime_ns}\n".encode())
    return f"{place.folder}/{digest.hexdigest()}"


def opened(place: Place, names: Sequence[str]) -> Any:
    """A split as a ``datasets.Dataset``: memory-mapped Arrow, rows by number. ``names`` are what the split may be called.

    Raises:
        ValueError: no such folder or split, nothing that can be read, or no way to the hub; the message says what to do.
        ModuleNotFoundError: ``datasets`` is not installed.
    """
    try:
        import datasets  # two seconds, and an extra
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"The data set {place} needs the package {error.name}, but it is not installed. Run `pip install 'kdsweep[data]'`."
        ) from error
    if place.path:
        kind, name = located(place, names)
        try:
            if kind == FOLDER:
                return datasets.load_dataset(kind, data_dir=str(place.folder / name), split="train")
            files = [str(file) for file in parquet_files(place, name)]
            return datasets.load_dataset(kind, data_files={name: files}, split=name)
        except _faults(datasets) as error:
            raise ValueError(
                f"The split {name} in {place} needs {'pictures in a folder per class' if kind == FOLDER else 'Parquet files'} that can "
                f"be read, but got: {_reason(error)}"
            ) from error
    try:
        return datasets.load_dataset(place.hub, place.config or None, split=names[0], revision=place.revision)
    except _faults(datasets) as error:
        raise _out_of_reach(place, error) from error


def described(place: Place) -> Any:
    """What the hub, or the copy of it on this machine, says of a data set: a ``datasets.DatasetBuilder``. No rows are fetched.

    Raises:
        ValueError: it is neither on this machine nor within reach.
        ModuleNotFoundError: ``datasets`` is not installed.
    """
    import datasets

    try:
        return datasets.load_dataset_builder(place.hub, place.config or None, revision=place.revision)
    except _faults(datasets) as error:
        raise _out_of_reach(place, error) from error


def column_of(columns: Sequence[str], name: str, what: str) -> str:
    """The name of a column, once it is known to be there.

    Raises:
        ValueError: it is not; the message has those that are.
    """
    if name not in columns:
        raise ValueError(f"{what} needs the column {name}, but has {listed(columns)}.{nearest(name, columns)}")
    return name


def labels_of(data: Any, column: str, classes: int, what: str, labelled: bool = True) -> NDArray[np.int64]:
    """(N,) labels, checked. Of a split that is not ``labelled`` they are all -1, whatever it says.

    Raises:
        ValueError: anything but whole numbers 0..classes-1, or another number of class names.
    """
    if not labelled:
        return np.full(len(data), -1, np.int64)
    check_names(getattr(data.features[column_of(data.column_names, column, what)], "names", None), column, classes, what)
    return whole_labels(np.asarray(data[column][:]), column, classes, what)


def check_names(names: Sequence[str] | None, column: str, classes: int, what: str) -> None:
    """Raise ValueError where the classes have names, but others than so many."""
    if names is not None and len(names) != classes:
        raise ValueError(f"{what} needs {classes} classes, but the column {column} has {len(names)}: {listed(names)}.")


def whole_labels(found: NDArray[Any], column: str, classes: int, what: str) -> NDArray[np.int64]:
    """(N,) values of a column as labels, or ValueError where one is anything but a whole number 0..classes-1."""
    if found.dtype == np.bool_:
        found = found.astype(np.int64)
    if not np.issubdtype(found.dtype, np.integer):
        raise ValueError(f"{what} needs whole numbers in the column {column}, but got values such as {_plain(found[0])!r}.")
    wrong = np.flatnonzero((found < 0) | (found >= classes))
    if len(wrong):
        hint = " The hub keeps the labels of such a test split to itself: take another split." if (found == -1).all() else ""
        raise ValueError(
            f"{what} needs labels from 0 to {classes - 1}, but got {found[wrong[0]]} in row {wrong[0]} and others outside "
            f"in {len(wrong)} of {len(found)} rows.{hint}"
        )
    return found.astype(np.int64)


def located(place: Place, names: Sequence[str]) -> tuple[str, str]:
    """(parquet or imagefolder, what the split is called) in a folder; looks no further than to the first picture."""
    place.check()
    root, parquet = place.folder, _parquet(place)
    for name in names:
        if any(_is_of(file, name) for file in parquet):
            return PARQUET, name
        if any(True for _ in pictures_in(place, name)):
            return FOLDER, name
    there = sorted({file.stem.partition("-")[0] for file in parquet} | {entry.name for entry in root.iterdir() if entry.is_dir()})
    raise ValueError(
        f"The data set in {root} needs the split {' or '.join(names)}, as {names[0]}-*.parquet or as {names[0]}/<class>/<picture>, "
        f"but has {listed(there) or 'nothing'}.{nearest(names[0], there)}"
    )


def parquet_files(place: Place, name: str) -> list[Path]:
    """The files of a split, in the order of their rows."""
    return [file for file in _parquet(place) if _is_of(file, name)]


def _parquet(place: Place) -> list[Path]:
    # No deeper: a folder of pictures has a million files there.
    return sorted({*place.folder.glob("*.parquet"), *place.folder.glob("*/*.parquet")})


def _is_of(file: Path, name: str) -> bool:
    return file.stem == name or file.stem.startswith(f"{name}-") or file.parent.name == name


def pictures_in(place: Place, name: str) -> Iterator[Path]:
    """The files of a split in a folder of pictures."""
    return (file for file in (place.folder / name).glob("*/**/*") if file.suffix.lower() in _SUFFIXES)


def listed(names: Iterable[str]) -> str:
    """Names in a sentence, the first dozen of them."""
    found = list(names)
    return ", ".join(found[:_SHOWN]) + (", ..." if len(found) > _SHOWN else "")


def _faults(datasets: Any) -> tuple[type[BaseException], ...]:
    return OSError, ValueError, RuntimeError, KeyError, TypeError, datasets.exceptions.DatasetsError


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _out_of_reach(place: Place, error: BaseException) -> ValueError:
    return ValueError(f"The data set {place} needs to be on this machine or within reach, but got: {_reason(error)} {_advice(error)}")


def _reason(error: BaseException) -> str:
    """The first sentence that says most: what ``datasets`` raises is often the last link of a chain."""
    inner = error.__cause__ or error
    lines = str(inner).strip().splitlines() or [type(inner).__name__]
    return lines[0][:300].rstrip(".") + "."


def _advice(error: BaseException) -> str:
    if "gated" in str(error).lower():
        return "Accept its terms on its page of the hub, then log in with `hf auth login` or set HF_TOKEN; or give path."
    return (
        "Give path, the folder of a copy, or fetch it once on a machine with network access and set HF_HOME to where it then lies; "
        "data.hub names another copy on the hub."
    )

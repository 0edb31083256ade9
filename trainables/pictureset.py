"""Published sets of labelled pictures: what they all share. A set is a file in ``data/`` that states its facts.

The test split is the official one, or, where the labels of that are kept secret, the official validation split, which the
papers report on; either way no training, selection or calibration sees it, and V is drawn from the training split. Rows are
drawn by content (``partition``): what is in the test split too is left out of training, and so are copies.

Pictures are decoded once per node, into a file that its lanes share, where that takes at most KDSWEEP_DECODED_GIB (16)
gibibytes; of larger sets each is decoded when it is needed. Both give the same pixels.
"""

from __future__ import annotations

import hashlib
import logging
import os
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from search_spaces import Choice, Text, Uniform, tunable
from trainables import nodecache
from trainables.augmentation import AUGMENTATIONS
from trainables.extras import DATA
from trainables.folder import name_of
from trainables.form import Form
from trainables.glance import Asked, foreseen
from trainables.hub import Place, check_splits, column_of, content_of, labels_of, opened
from trainables.partition import FIRST, STRATIFIED, Part, Sizes, partition
from trainables.pictures import Encoded, Joined, Mapped, Shape, content_id, decoded, ids_of_files
from trainables.rows import Chosen, Rows
from trainables.source import NO_AUGMENTATION, Extent, Scaling, Source, Splits, Stock

_log = logging.getLogger(__name__)
TRAIN, TEST, MORE = "train", "test", "more"
_FORMAT = 1
"""Raised when the same files come to be decoded to other pixels."""
_MOST_GIB = 16.0
_FILE = "rows.npy"


@dataclass(frozen=True)
class Facts:
    """What is known of a set before any of it is read."""

    picture: str
    """Column with the pictures, on the hub. In a folder of pictures it is image, and that of the classes label."""
    splits: Mapping[str, tuple[str, ...]]
    """Part (train, test, more) to what the split is called on the hub, then what else it is called in folders."""
    rows: Mapping[str, int]
    """Part to how many rows were published."""
    scaling: Scaling
    config: str = ""


@dataclass(frozen=True)
class PictureSet(Source):
    """What is in neither A, V nor the test rows is the unlabelled part U."""

    extra: ClassVar[str] = DATA
    packages: ClassVar[tuple[str, ...]] = ("datasets", "PIL")
    facts: ClassVar[Facts]

    labelled: float = tunable(
        0.1, Uniform(0.01, 1.0), "rows of A, which train the teacher: below 1 a share of the training split, 1 all that V leaves, from 2 a count",
        low=1e-6,
    )  # fmt: skip
    validation: float = tunable(
        0.01, Uniform(0.001, 0.2), "rows of V, which calibrate and select: below 1 a share, from 2 a count", low=1e-6
    )
    test: float = tunable(
        1.0, Uniform(0.01, 1.0), "rows of the test split that the report opens: below 1 a share, 1 all, from 2 a count", low=1e-6
    )
    draw: str = tunable(
        FIRST, Choice((FIRST, STRATIFIED)), "which rows are A: the first on disk, as in the papers, or each class by its share"
    )
    augmentation: str = tunable(
        NO_AUGMENTATION, Choice(tuple(AUGMENTATIONS)), "what training shows instead of plain rows", off=NO_AUGMENTATION
    )
    path: str = tunable("", Text(), "folder of a copy, with Parquet files or pictures; below KDSWEEP_DATA if relative; empty for the hub")
    hub: str = tunable("", Text(), "name on the hub", only_if={"path": ("",)})
    revision: str = tunable("main", Text(), "commit, tag or branch of it", only_if={"path": ("",)})

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.path:
            self._sizes.check(self._name, self.facts.rows[TRAIN], self.facts.rows[TEST], self.classes)

    @property
    @abstractmethod
    def classes(self) -> int:
        """How many there are."""

    @property
    @abstractmethod
    def shape(self) -> Shape:
        """Of a picture."""

    @property
    def label(self) -> str:
        """The column with the classes, on the hub."""
        return "label"

    @property
    def joins_more(self) -> bool:
        """Whether the split without labels joins U."""
        return False

    @property
    def form(self) -> Form:
        return Form((3, self.shape.side, self.shape.side), self.classes)

    def fits(self) -> None:
        """What there is to tell without the data, the fields' own checks have told."""

    def found(self) -> None:
        check_splits(self.place, (self.facts.splits[part] for part in self._parts))

    @property
    def extent(self) -> Extent:
        train = self.facts.rows[TRAIN]
        labelled, validation, _ = self._sizes.check(self._name, train, self.facts.rows[TEST], self.classes)
        rows = train - validation + (self.facts.rows[MORE] if self.joins_more else 0)
        return Extent(labelled, rows, self.augmentation != NO_AUGMENTATION)

    def stocked(self) -> Stock:
        parts = {name: _Stored(self, name) for name in self._parts}
        asked = {name: each.asked for name, each in parts.items()}
        kept = {name: labels for name, each in parts.items() if (labels := each.kept_labels()) is not None}
        return Stock(foreseen(self._name, self.place, asked, kept, self._sizes, MORE))

    def load(self, split: int, opens_test: bool) -> Splits:
        """The pictures, as Rows that are read from files when they are needed, or all at once by whoever has the memory.

        Raises:
            ValueError: the place is not there or out of reach, is not the set that was published, or does not fit the sizes.
            OSError: the cache of the node has no room.
            ModuleNotFoundError: the extra kdsweep[data] is not installed.
        """
        parts = {name: _Stored(self, name) for name in self._parts}
        train, test = parts[TRAIN].part, parts[TEST].part
        drawn = partition(self._name, train, test, self._sizes, self.classes, split, more=parts[MORE].part if MORE in parts else None)
        if drawn.also_test or drawn.copies:
            _log.info("%s: %d training rows are test rows too, %d are copies: left out.", self._name, drawn.also_test, drawn.copies)
        pictures: Rows = parts[TRAIN].rows
        if MORE in parts:
            pictures = Joined([pictures, parts[MORE].rows])
        shown = np.concatenate([drawn.labelled, drawn.unlabelled, drawn.more + len(train.ids)])
        labels = np.concatenate([train.labels[drawn.labelled], np.full(len(shown) - len(drawn.labelled), -1)])
        return Splits(
            inputs=Chosen(pictures, torch.from_numpy(shown)),
            labels=torch.from_numpy(labels),
            labelled=len(drawn.labelled),
            holdout_inputs=Chosen(pictures, torch.from_numpy(drawn.holdout)),
            holdout_labels=torch.from_numpy(train.labels[drawn.holdout]),
            test_inputs=Chosen(parts[TEST].rows, torch.from_numpy(drawn.test)) if opens_test else None,
            test_labels=torch.from_numpy(test.labels[drawn.test]) if opens_test else None,
            classes=self.classes,
            scaling=self.facts.scaling,
            augmentation=self.augmentation,
        )

    @property
    def _parts(self) -> tuple[str, ...]:
        return (TRAIN, TEST, MORE) if self.joins_more else (TRAIN, TEST)

    @property
    def _name(self) -> str:
        return type(self).__name__

    @property
    def _sizes(self) -> Sizes:
        return Sizes(self.labelled, self.validation, self.test, self.draw)

    @property
    def place(self) -> Place:
        """Where it is read from."""
        return Place(self.hub, self.revision, self.facts.config, self.path)


class _Stored:
    """One split of a set in the cache of the node; the data set itself is opened only for what is not there."""

    def __init__(self, source: PictureSet, part: str) -> None:
        self._source, self._part = source, part
        self._place, self._names = source.place, source.facts.splits[part]
        self._what = f"The split {self._names[0]} of {name_of(source)} in {self._place}"
        self._content = content_of(self._place, self._names)
        self._is_decoded = sum(source.facts.rows.values()) * source.shape.bytes <= _most_bytes()

    @cached_property
    def part(self) -> Part:
        """Content ids and labels. Of pictures of fixed size the ids are of their pixels, of others of their files: see ``_write_ids``."""
        labels = self._array("labels", 8, self._write_labels, *self._told_of_labels)
        if self._is_decoded:
            _ = self._pictures  # before the ids, so that a picture is decoded once
        return Part(self._array("ids", 32, self._write_ids).astype("S32"), labels.astype(np.int64))

    @property
    def asked(self) -> Asked:
        """What the split is held to."""
        source, label = self._source, self._source.label if self._part != MORE else None
        return Asked(self._names, self._what, source.facts.picture, label, source.classes, source.facts.rows[self._part])

    def kept_labels(self) -> NDArray[np.int64] | None:
        """Labels of a split of which all that is needed stands in the cache; None where the data set has to be opened."""
        names = [self._entry("labels", *self._told_of_labels), self._entry("ids")]
        if self._is_decoded:
            names.append(self._entry("pictures", repr(self._source.shape)))
        folders = [nodecache.standing(name) for name in names]
        is_needed = not self._is_decoded and not self._place.path  # a folder of the same content has been read already
        if is_needed or folders[0] is None or None in folders:
            return None
        return nodecache.array(folders[0] / _FILE).astype(np.int64)

    @property
    def rows(self) -> Rows:
        """The pictures."""
        if self._is_decoded:
            return Mapped(torch.from_numpy(self._pictures))
        return Encoded(*self._files, self._source.shape)

    @property
    def _told_of_labels(self) -> tuple[str, str]:
        return self._source.label, str(self._source.classes)

    @cached_property
    def _pictures(self) -> NDArray[Any]:
        return self._array("pictures", self._source.shape.bytes, self._write_pictures, repr(self._source.shape))

    @cached_property
    def _data(self) -> Any:
        data = opened(self._place, self._names)
        published = self._source.facts.rows[self._part]
        if len(data) != published:
            if not self._place.path:
                raise ValueError(
                    f"{self._what} needs the {published} rows that were published, but has {len(data)}. "
                    "Name another revision, or give path if another number is meant."
                )
            _log.info("%s has %d rows, where %d were published.", self._what, len(data), published)
        return data

    @cached_property
    def _files(self) -> tuple[Any, str]:
        from datasets import Image  # an extra, opened() has said so

        column = self._column(self._source.facts.picture, "image")
        return self._data.cast_column(column, Image(decode=False)), column

    def _column(self, on_hub: str, in_folder: str) -> str:
        is_folder = self._place.path and set(self._data.column_names) == {"image", "label"}
        return column_of(self._data.column_names, in_folder if is_folder else on_hub, self._what)

    def _array(self, kind: str, row_bytes: int, write: Callable[[Path], None], *more: str) -> NDArray[Any]:
        """One .npy file of the cache, one row per row of the split."""
        name = self._entry(kind, *more)
        size = 0 if self._place.path else row_bytes * self._source.facts.rows[self._part]
        return nodecache.array(nodecache.kept(name, size, lambda folder: write(folder / _FILE)) / _FILE)

    def _entry(self, kind: str, *more: str) -> str:
        told = "\0".join([str(_FORMAT), self._content, self._source.facts.picture, *more])
        return f"{name_of(self._source)}-{self._part}-{kind}-{hashlib.sha256(told.encode()).hexdigest()[:16]}"

    def _write_labels(self, file: Path) -> None:
        is_labelled = self._part != MORE
        column = self._column(self._source.label, "label") if is_labelled else ""
        np.save(file, labels_of(self._data, column, self._source.classes, self._what, is_labelled))

    def _write_pictures(self, file: Path) -> None:
        data, column = self._files
        shape = self._source.shape
        whole = (len(data), 3, shape.side, shape.side)
        nodecache.write_array(file, whole, np.dtype(np.uint8), decoded(data, column, shape, self._what))

    def _write_ids(self, file: Path) -> None:
        """Ids of pixels are the same for PNG files and Parquet; ids of files do not depend on the size that pictures are brought to."""
        if not self._source.shape.fixed:
            ids = ids_of_files(*self._files)
        elif self._is_decoded:
            ids = [content_id(pixels.tobytes()) for pixels in self._pictures]
        else:
            data, column = self._files
            ids = [content_id(pixels.tobytes()) for part in decoded(data, column, self._source.shape, self._what) for pixels in part]
        np.save(file, np.array(ids, "S32"))


def _most_bytes() -> float:
    given = os.environ.get("KDSWEEP_DECODED_GIB", "")
    try:
        return (float(given) if given else _MOST_GIB) * 2**30
    except ValueError as error:
        raise ValueError(f"KDSWEEP_DECODED_GIB needs a number of GiB, but got KDSWEEP_DECODED_GIB={given!r}.") from error

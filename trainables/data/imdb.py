"""Large Movie Reviews (IMDB): 50,000 reviews, for or against; 25,000 to train on, 25,000 to test, and 50,000 more without labels.

Maas, Daly, Pham, Huang, Ng, Potts, "Learning Word Vectors for Sentiment Analysis", ACL 2011, https://aclanthology.org/P11-1015/. It
states no licence; reviews belong to who wrote them. On the hub: stanfordnlp/imdb, columns text and label, splits train, test and
unsupervised, whose labels are -1. Test is the official test split. Rows are sorted by class, so A is drawn. Some reviews are there
twice, a few in both splits: copies, and training rows that are test rows too, are left out. SLaM labels 2, 4, 8 and 40 per
cent and goes from ALBERT-large to ALBERT-base (from memory, not from the paper); its length of a text is not published.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from search_spaces import Choice, IntUniform, Text, Uniform, tunable
from trainables import nodecache
from trainables.extras import DATA
from trainables.form import Form
from trainables.glance import Asked, foreseen
from trainables.hub import Place, check_splits, column_of, content_of, labels_of, opened
from trainables.partition import FIRST, STRATIFIED, Part, Sizes, partition
from trainables.pictures import content_id
from trainables.source import Extent, Source, Splits, Stock
from trainables.tokens import tokenized, tokenizer_content, tokenizer_of

LABELS = ("neg", "pos")
_TRAIN, _TEST, _MORE = "train", "test", "unsupervised"
_ROWS = {_TRAIN: 25_000, _TEST: 25_000, _MORE: 50_000}
_FORMAT = 1
_FILE = "rows.npy"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Imdb(Source):
    """Reviews as token ids (N, length) int64, 0 behind the end. What is in neither A, V nor the test rows is the unlabelled part U."""

    extra: ClassVar[str] = DATA
    packages: ClassVar[tuple[str, ...]] = ("datasets", "transformers")
    name: ClassVar[str] = "Imdb"

    labelled: float = tunable(
        0.08, Uniform(0.01, 1.0), "rows of A, which train the teacher: below 1 a share of the training split, 1 all that V leaves, from 2 a count",
        low=1e-6,
    )  # fmt: skip
    validation: float = tunable(
        0.02, Uniform(0.005, 0.2), "rows of V, which calibrate and select: below 1 a share, from 2 a count", low=1e-6
    )
    test: float = tunable(
        1.0, Uniform(0.01, 1.0), "rows of the test split that the report opens: below 1 a share, 1 all, from 2 a count", low=1e-6
    )
    draw: str = tunable(STRATIFIED, Choice((FIRST, STRATIFIED)), "which rows are A: the first on disk, or each class by its share")
    path: str = tunable("", Text(), "folder of a copy, with Parquet files; below KDSWEEP_DATA if relative; empty for the hub")
    hub: str = tunable("stanfordnlp/imdb", Text(), "name on the hub", only_if={"path": ("",)})
    revision: str = tunable("e6281661ce1c48d982bc483cf8a173c1bbeb5d31", Text(), "commit, tag or branch of it", only_if={"path": ("",)})
    tokenizer: str = tunable("albert/albert-base-v2", Text(), "folder or name on the hub of the tokenizer that the networks read")
    length: int = tunable(256, IntUniform(32, 512), "token ids of a text", low=2, high=4096)
    unlabelled: bool = tunable(False, Choice((False, True)), "whether the 50,000 reviews without labels join U")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.path:
            self._sizes.check(self.name, _ROWS[_TRAIN], _ROWS[_TEST], len(LABELS))

    @property
    def form(self) -> Form:
        return Form((self.length,), len(LABELS))

    def fits(self) -> None:
        """What there is to tell without the data, the fields' own checks have told."""

    def found(self) -> None:
        check_splits(self._place, ([part] for part in self._parts))

    @property
    def extent(self) -> Extent:
        labelled, validation, _ = self._sizes.check(self.name, _ROWS[_TRAIN], _ROWS[_TEST], len(LABELS))
        rows = _ROWS[_TRAIN] - validation + (_ROWS[_MORE] if self.unlabelled else 0)
        return Extent(labelled, rows)

    def stocked(self) -> Stock:
        parts = {name: _Stored(self, self._place, name) for name in self._parts}
        asked = {name: each.asked for name, each in parts.items()}
        kept = {name: labels for name, each in parts.items() if (labels := each.kept_labels()) is not None}
        remarks = foreseen(self.name, self._place, asked, kept, self._sizes, _MORE)
        if len(kept) == len(parts):
            return Stock(remarks, 1 + max(int(each.tokens.max(initial=0)) for each in parts.values()))
        return Stock(remarks, len(tokenizer_of(self.tokenizer)))

    def load(self, split: int, opens_test: bool) -> Splits:
        """Token ids, int64.

        Raises:
            ValueError: the place or the tokenizer is not there or out of reach, is not the set that was published, or does not fit the sizes.
            OSError: the cache of the node has no room.
            ModuleNotFoundError: the extra kdsweep[data] is not installed.
        """
        parts = {name: _Stored(self, self._place, name) for name in self._parts}
        train, test = parts[_TRAIN].part, parts[_TEST].part
        more = parts[_MORE].part if self.unlabelled else None
        drawn = partition(self.name, train, test, self._sizes, len(LABELS), split, more)
        if drawn.also_test or drawn.copies:
            _log.info("%s: %d training rows are test rows too, %d are copies: left out.", self.name, drawn.also_test, drawn.copies)
        texts = parts[_TRAIN].tokens
        inputs = texts[np.concatenate([drawn.labelled, drawn.unlabelled])]
        if self.unlabelled:
            inputs = np.concatenate([inputs, parts[_MORE].tokens[drawn.more]])
        labels = np.concatenate([train.labels[drawn.labelled], np.full(len(inputs) - len(drawn.labelled), -1)])
        return Splits(
            inputs=torch.from_numpy(np.asarray(inputs)),
            labels=torch.from_numpy(labels),
            labelled=len(drawn.labelled),
            holdout_inputs=torch.from_numpy(np.asarray(texts[drawn.holdout])),
            holdout_labels=torch.from_numpy(train.labels[drawn.holdout]),
            test_inputs=torch.from_numpy(np.asarray(parts[_TEST].tokens[drawn.test])) if opens_test else None,
            test_labels=torch.from_numpy(test.labels[drawn.test]) if opens_test else None,
            classes=len(LABELS),
        )

    @property
    def _parts(self) -> tuple[str, ...]:
        return (_TRAIN, _TEST, _MORE) if self.unlabelled else (_TRAIN, _TEST)

    @property
    def _sizes(self) -> Sizes:
        return Sizes(self.labelled, self.validation, self.test, self.draw)

    @property
    def _place(self) -> Place:
        return Place(self.hub, self.revision, "plain_text", self.path)


class _Stored:
    """One split in the cache of the node."""

    def __init__(self, source: Imdb, place: Place, part: str) -> None:
        self._source, self._place, self._part = source, place, part
        self._what = f"The split {part} of imdb in {place}"
        self._content = content_of(place, [part])

    @cached_property
    def part(self) -> Part:
        """Content ids and labels."""
        labels = self._array("labels", 8, self._write_labels)
        return Part(self._array("ids", 32, self._write_ids).astype("S32"), labels.astype(np.int64))

    @property
    def asked(self) -> Asked:
        """What the split is held to."""
        label = "label" if self._part != _MORE else None
        return Asked([self._part], self._what, "text", label, len(LABELS), _ROWS[self._part], is_text=True)

    def kept_labels(self) -> NDArray[np.int64] | None:
        """Labels of a split of which all that is needed stands in the cache; None where the data set has to be opened."""
        names = (self._entry("labels"), self._entry("ids"), self._entry("tokens", *self._told_of_tokens))
        folders = [nodecache.standing(name) for name in names]
        return None if folders[0] is None or None in folders else nodecache.array(folders[0] / _FILE).astype(np.int64)

    @property
    def _told_of_tokens(self) -> tuple[str, str]:
        return tokenizer_content(self._source.tokenizer), str(self._source.length)

    @cached_property
    def tokens(self) -> NDArray[np.int64]:
        """(N, length)."""
        return self._array("tokens", 8 * self._source.length, self._write_tokens, *self._told_of_tokens)

    @cached_property
    def _data(self) -> Any:
        data = opened(self._place, [self._part])
        if len(data) != _ROWS[self._part]:
            if not self._place.path:
                raise ValueError(
                    f"{self._what} needs the {_ROWS[self._part]} rows that were published, but has {len(data)}. "
                    "Name another revision, or give path if another number is meant."
                )
            _log.info("%s has %d rows, where %d were published.", self._what, len(data), _ROWS[self._part])
        return data

    @cached_property
    def _texts(self) -> Sequence[str]:
        texts: list[str] = list(self._data[column_of(self._data.column_names, "text", self._what)])
        wrong = [row for row, text in enumerate(texts) if not isinstance(text, str)]
        if wrong:
            raise ValueError(f"{self._what} needs texts in the column text, but got {texts[wrong[0]]!r} in row {wrong[0]}.")
        return texts

    def _array(self, kind: str, row_bytes: int, write: Callable[[Path], None], *more: str) -> NDArray[Any]:
        name = self._entry(kind, *more)
        size = 0 if self._place.path else row_bytes * _ROWS[self._part]
        return nodecache.array(nodecache.kept(name, size, lambda folder: write(folder / _FILE)) / _FILE)

    def _entry(self, kind: str, *more: str) -> str:
        told = "\0".join([str(_FORMAT), self._content, *more])
        return f"imdb-{self._part}-{kind}-{hashlib.sha256(told.encode()).hexdigest()[:16]}"

    def _write_labels(self, file: Path) -> None:
        np.save(file, labels_of(self._data, "label", len(LABELS), self._what, labelled=self._part != _MORE))

    def _write_ids(self, file: Path) -> None:
        np.save(file, np.array([content_id(text.encode()) for text in self._texts], "S32"))

    def _write_tokens(self, file: Path) -> None:
        texts, length = self._texts, self._source.length
        parts = tokenized(texts, tokenizer_of(self._source.tokenizer), length)
        nodecache.write_array(file, (len(texts), length), np.dtype(np.int64), parts)

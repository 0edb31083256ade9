"""Made-up data in the form that a source has on disk: a handful of rows, all different, for runs that only show that everything runs.

Parquet files as the hub has them, below a folder of the node's cache, so that the loader of the source reads them as it would read
the real ones. A source that needs no files (digits) is used as it is.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from search_spaces import Value
from trainables import nodecache
from trainables.data.imdb import Imdb
from trainables.folder import name_of
from trainables.partition import STRATIFIED
from trainables.pictureset import PictureSet
from trainables.source import Source

_VERSION = 2
"""Raised when the same source comes to other files."""
LABELLED, HELD, TESTED = 8, 8, 16
"""Rows of A, at least, of V and of the test split."""
_LEAST, _MORE = 32, 24
"""Training rows: one of every class and so many more, and so many at least."""
_SIDE, _STORED = 32, 40
"""Of pictures whose size can be chosen: as they are read, which is the least that networks for ImageNet take, and as they are stored."""
_LENGTH, _WORDS = 8, 60
"""Token ids of a text, and words that there are."""


def stand_in(source: Source) -> dict[str, Value]:
    """Fields of a source, and what they need to be for the made-up data, which are written where they are not there yet.

    Raises:
        OSError: the cache of the node has no room or cannot be written.
        ModuleNotFoundError: the extra kdsweep[data] is not installed.
    """
    found: dict[str, Value]
    if isinstance(source, PictureSet):
        found = {"path": str(_kept(source, f"{source.label} {source.shape}", lambda folder: _pictures(source, folder)))}
        if not source.shape.fixed:
            found["size"] = _SIDE
        rows: Mapping[str, int] = source.facts.rows
        return found | _sizes(source, source.labelled, rows["train"])
    if isinstance(source, Imdb):
        folder = _kept(source, "", _texts)
        found = {"path": str(folder), "tokenizer": str(folder / "tokenizer"), "length": _LENGTH}
        return found | _sizes(source, source.labelled, 25_000)
    return {}


def training_rows(source: Source) -> int | None:
    """How many rows the training split of the made-up data has; None where a source is used as it is."""
    if isinstance(source, PictureSet):
        return max(_LEAST, source.classes + _MORE)
    return _LEAST if isinstance(source, Imdb) else None


def _sizes(source: PictureSet | Imdb, labelled: float, published: int) -> dict[str, Value]:
    rows = training_rows(source) or 1
    share = labelled if labelled <= 1 else labelled / published
    if share < 1:
        # A hundredth of so few rows is none, one row is a batch without statistics, and a stratified A has a row of each class.
        least = max(LABELLED, source.form.classes if source.draw == STRATIFIED else 0)
        share = min(max(share, least / rows), 1 - HELD / rows)
    return {"labelled": share, "validation": HELD, "test": 1.0}


def _kept(source: Source, more: str, make: Callable[[Path], None]) -> Path:
    told = hashlib.sha256(f"{_VERSION} {name_of(source)} {more}".encode()).hexdigest()[:12]
    return nodecache.kept(f"smoke-{name_of(source)}-{told}", 64 * 2**20, make)


def _pictures(source: PictureSet, folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    count = training_rows(source) or 0
    side = source.shape.side if source.shape.fixed else _STORED
    for part, rows in (("train", count), ("test", TESTED), *([("more", TESTED)] if source.joins_more else [])):
        rng = np.random.RandomState(rows)
        cells = []
        for row in range(rows):
            file = io.BytesIO()
            Image.fromarray(rng.randint(0, 256, (side, side, 3)).astype(np.uint8)).save(file, "PNG")
            cells.append({"bytes": file.getvalue(), "path": f"{row:05d}.png"})
        labels = [row % source.classes if part != "more" else -1 for row in range(rows)]
        # Attributes of faces are yes or no.
        values = pa.array([bool(label) for label in labels]) if name_of(source) == "celeba" else pa.array(labels, pa.int64())
        table = pa.table({source.facts.picture: pa.array(cells, _cell(pa)), source.label: values})
        pq.write_table(table, folder / f"{source.facts.splits[part][0]}-00000-of-00001.parquet")


def _cell(pa: Any) -> Any:
    return pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def _texts(folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = [f"word{number}" for number in range(_WORDS)]
    for part, rows in (("train", _LEAST), ("test", TESTED), ("unsupervised", TESTED)):
        rng = np.random.RandomState(len(part))
        texts = [f"{part} {words[row % _WORDS]} {' '.join(rng.choice(words, 3 + row % 9))}" for row in range(rows)]
        labels = [row % 2 if part != "unsupervised" else -1 for row in range(rows)]
        table = pa.table({"text": texts, "label": pa.array(labels, pa.int64())})
        pq.write_table(table, folder / f"{part}-00000-of-00001.parquet")
    tokens = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", *words)
    tokenizer = Tokenizer(models.WordPiece({token: number for number, token in enumerate(tokens)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    (folder / "tokenizer").mkdir()
    tokenizer.save(str(folder / "tokenizer" / "tokenizer.json"))
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    told = json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"} | special)
    (folder / "tokenizer" / "tokenizer_config.json").write_text(told, encoding="utf-8")

"""Small data sets, written as the hub has them: Parquet with struct<bytes, path>, folders of pictures, Parquet of texts."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

CELL = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def pictures(count, side=32, seed=0, width=None):
    """(N, H, W, 3) uint8, all different."""
    rng = np.random.RandomState(seed)
    return rng.randint(0, 256, (count, side, width or side, 3)).astype(np.uint8)


def file_of(pixels, kind="PNG", **options):
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind, **options)
    return out.getvalue()


def write_parquet(folder, split, cells, labels, picture="image", label="label", names=None, shards=1):
    """``<split>-00000-of-00001.parquet``, with the features in the metadata if ``names`` of classes are given."""
    folder.mkdir(parents=True, exist_ok=True)
    more = labels if isinstance(labels, dict) else {label: labels}
    cells = [cell if isinstance(cell, dict) else {"bytes": cell, "path": f"{index:05d}.png"} for index, cell in enumerate(cells)]
    table = pa.table({picture: pa.array(cells, CELL), **{name: pa.array(list(values)) for name, values in more.items()}})
    if names is not None:
        features = {picture: {"_type": "Image"}, label: {"names": list(names), "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    for index in range(shards):
        part = table.slice(index * len(cells) // shards, (index + 1) * len(cells) // shards - index * len(cells) // shards)
        pq.write_table(part, folder / f"{split}-{index:05d}-of-{shards:05d}.parquet")


def write_folder(folder, split, pixels, names, kind="PNG"):
    """``<split>/<class>/<row>.png``."""
    for index, (one, name) in enumerate(zip(pixels, names, strict=True)):
        file = Path(folder) / split / name / f"{index:05d}.{kind.lower()}"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(one).save(file)


def write_texts(folder, split, texts, labels):
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"text": texts, "label": pa.array(labels, pa.int64())}), folder / f"{split}-00000-of-00001.parquet")


def write_tokenizer(folder, words, pad="[PAD]"):
    """A WordPiece tokenizer over a list of words, padding first."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    vocabulary = {token: index for index, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": pad,
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))

"""Texts as token ids of one length, by a tokenizer of ``transformers``: the one file that knows it for data."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_CHUNK = 1000


def tokenizer_of(name: str) -> Any:
    """A fast tokenizer whose padding is 0.

    ``name``: a folder with tokenizer.json or what it is made from, below KDSWEEP_DATA if relative, or a name on the hub.

    Raises:
        ValueError: there is none, or it pads with something else.
        ModuleNotFoundError: ``transformers`` is not installed.
    """
    try:
        from transformers import AutoTokenizer  # seconds, and an extra
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"The tokenizer {name} needs the package {error.name}, but it is not installed. Run `pip install 'kdsweep[data]'`."
        ) from error
    folder = _folder(name)
    try:
        found = AutoTokenizer.from_pretrained(str(folder) if folder.is_dir() else name, use_fast=True)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise ValueError(
            f"A text source needs tokenizer to be a folder with a tokenizer or a name on the hub, but got tokenizer={name!r}: {said}. "
            "Fetch it once on a machine with network access and set HF_HOME to where it then lies, or give its folder."
        ) from error
    if not found.is_fast or found.pad_token_id != 0:
        raise ValueError(
            f"A text source needs a fast tokenizer that pads with 0, as BERT's and ALBERT's do, but got tokenizer={name!r}, "
            f"which {'is slow' if not found.is_fast else f'pads with {found.pad_token_id}'}."
        )
    return found


def tokenizer_content(name: str) -> str:
    """A word that changes when the tokenizer does: the hash of its files, or its name on the hub."""
    folder = _folder(name)
    if not folder.is_dir():
        return name
    digest = hashlib.sha256()
    for file in sorted(file for file in folder.iterdir() if file.is_file()):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def tokenized(texts: Sequence[str], tokenizer: Any, length: int) -> Iterator[NDArray[np.int64]]:
    """(B, length) ids at a time, cut where a text is longer, with 0 behind it where it is shorter."""
    for start in range(0, len(texts), _CHUNK):
        part = list(texts[start : start + _CHUNK])
        ids = tokenizer(part, truncation=True, max_length=length, add_special_tokens=True)["input_ids"]
        found = np.zeros((len(part), length), np.int64)
        for row, tokens in zip(found, ids, strict=True):
            row[: len(tokens)] = tokens
        yield found


def _folder(name: str) -> Path:
    return Path(os.environ.get("KDSWEEP_DATA", "")) / Path(name).expanduser()

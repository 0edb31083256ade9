"""Form: what networks are given, which is known before any of it is read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Form:
    """Rows of a source, one by one."""

    shape: tuple[int, ...]
    """(C, H, W) of a picture, (L,) of token ids."""
    classes: int
    vocabulary: int | None = None
    """Token ids lie below it; None: no tokens, or not known before the tokenizer is looked at."""

"""Small coloured pictures of uint8, in memory or read along the way."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from search_spaces import Choice, IntUniform, tunable
from tests.small_trials import Blobs
from trainables.augmentation import AUGMENTATIONS
from trainables.rows import Rows
from trainables.source import NO_AUGMENTATION, Scaling, Splits

SCALING = Scaling((0.5, 0.4, 0.3), (0.25, 0.2, 0.3))
MEMORY, READ, MAPPED = "memory", "read", "mapped"


class Kept(Rows):
    """Rows of a tensor that tells what was asked of it. ``broken``: a row that cannot be read."""

    def __init__(self, pictures: Tensor, broken: int = -1, mapped: bool = False) -> None:
        self.pictures, self.broken, self.mapped = pictures, broken, mapped
        self.asked: list[int] = []
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.pictures.shape[1:])

    @property
    def is_mapped(self) -> bool:
        return self.mapped

    def fetch(self, rows: Tensor) -> Tensor:
        with self._lock:
            self.asked += rows.tolist()
        if self.broken in rows.tolist():
            raise OSError("broken data stream")
        return self.pictures[rows]

    def name(self, row: int) -> str:
        return f"cats/{row:03}.png"


@dataclass(frozen=True)
class Photos(Blobs):
    """Blobs as colours of 8x8 pictures, no two pixels of which are alike."""

    augmentation: str = tunable(NO_AUGMENTATION, Choice(tuple(AUGMENTATIONS)), "what training shows")
    lies: str = tunable(MEMORY, Choice((MEMORY, READ, MAPPED)), "where the pictures are")
    broken: int = tunable(-1, IntUniform(-1, 100), "a row that cannot be read")

    def load(self, split: int, opens_test: bool) -> Splits:
        found = super().load(split, opens_test)
        grain = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))

        def picture(points: Tensor) -> Tensor:
            colours = torch.cat([points.reshape(-1, 2), points.reshape(-1, 2).sum(1, keepdim=True)], dim=1)  # (N, 3)
            return ((colours / 8 + 0.5).clamp(0.2, 0.8)[:, :, None, None] * 200 + 90 * (grain - 0.5)).clamp(0, 255).to(torch.uint8)

        def kept(points: Tensor, broken: int = -1) -> Tensor | Rows:
            return picture(points) if self.lies == MEMORY else Kept(picture(points), broken, mapped=self.lies == MAPPED)

        return replace(
            found,
            inputs=kept(found.inputs, self.broken),
            holdout_inputs=kept(found.holdout_inputs),
            test_inputs=None if found.test_inputs is None else kept(found.test_inputs),
            scaling=SCALING,
            augmentation=self.augmentation,
        )

"""Inputs as they are kept, and how they become what a network reads.

Tensors of float32 and of token ids are kept as they are read. Pictures of uint8 stay uint8, on the device or outside of memory, and
are scaled batch by batch: a quarter of the memory, and of what is sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import prod
from typing import TypeAlias, final

import torch
from torch import Tensor

from trainables.device import Device
from trainables.rows import Rows, ahead, all_of, resident_bytes
from trainables.source import Scaling


@final
class Pictures:
    """(N, C, H, W) uint8, which lie on a device or are read a few batches ahead."""

    def __init__(self, stored: Tensor | Rows, scaling: Scaling, device: Device) -> None:
        """A tensor is moved to the device. ValueError where the scaling is for another number of channels."""
        shape = stored.shape if isinstance(stored, Rows) else stored.shape[1:]
        if len(shape) != 3 or len(scaling.mean) != shape[0]:
            raise ValueError(
                f"Pictures need a mean and a std for every channel of (C, H, W), but got {len(scaling.mean)} for shape={tuple(shape)}."
            )
        self.stored = stored if isinstance(stored, Rows) else stored.to(device.torch_device)
        """As they are kept."""
        self.shape = (len(stored), *shape)
        """(N, C, H, W)."""
        self._device = device
        there = device.torch_device
        self._mean, self._std = (torch.tensor(values, device=there).reshape(1, -1, 1, 1) for values in (scaling.mean, scaling.std))

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def is_streamed(self) -> bool:
        """Whether they are read along the way."""
        return isinstance(self.stored, Rows)

    def pixels(self, rows: Tensor) -> Tensor:
        """(B,) row numbers -> (B, C, H, W) uint8 on the device."""
        if isinstance(self.stored, Rows):
            return next(self.ahead([rows.cpu()]))
        return self.stored.index_select(0, rows.to(self.stored.device))

    def ahead(self, numbers: Iterable[Tensor]) -> Iterator[Tensor]:
        """The pixels of batch after batch; ``numbers``: (B,) int64 each, on the host."""
        if isinstance(self.stored, Rows):
            yield from (self._device.sent(found) for found in ahead(self.stored, numbers))
        else:
            yield from (self.pixels(rows) for rows in numbers)

    def scaled(self, pixels: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 255] -> float32, by the channel's mean and standard deviation."""
        return ((pixels.float() / 255.0 - self._mean) / self._std).contiguous(memory_format=self._device.picture_format)


Inputs: TypeAlias = Tensor | Pictures
"""Rows by number, on a device or on their way to it."""


def inputs_on(parts: Sequence[Tensor | Rows | None], scaling: Scaling | None, device: Device) -> list[Inputs | None]:
    """Parts of one data set, on the device.

    Rows are read at once where all parts together are no larger than KDSWEEP_RESIDENT_GIB, and the device has not mapped them anyway.
    """
    found = [part for part in parts if isinstance(part, Rows)]
    is_here = device.is_host and all(part.is_mapped for part in found)
    at_once = not is_here and sum(len(part) * prod(part.shape) for part in found) <= resident_bytes()
    return [None if part is None else _kept(part, scaling, device, at_once) for part in parts]


def ready(inputs: Inputs, rows: Tensor) -> Tensor:
    """What a network reads of some rows: (B,) -> (B, ...)."""
    if isinstance(inputs, Pictures):
        return inputs.scaled(inputs.pixels(rows))
    return inputs.index_select(0, rows.to(inputs.device))


def in_turn(inputs: Inputs, numbers: Sequence[Tensor]) -> Iterator[Tensor]:
    """The same for batch after batch; ``numbers``: (B,) int64 each, on the host."""
    if isinstance(inputs, Pictures):
        yield from (inputs.scaled(found) for found in inputs.ahead(numbers))
    else:
        yield from (ready(inputs, rows) for rows in numbers)


def _kept(part: Tensor | Rows, scaling: Scaling | None, device: Device, at_once: bool) -> Inputs:
    kind = torch.uint8 if isinstance(part, Rows) else part.dtype
    if (kind == torch.uint8) != (scaling is not None) or kind not in (torch.uint8, torch.float32, torch.int64):
        raise ValueError(
            f"Splits need float32 inputs, int64 token ids, or uint8 pictures with a scaling, but got {kind} and scaling={scaling}."
        )
    if scaling is not None:
        return Pictures(all_of(part) if isinstance(part, Rows) and at_once else part, scaling, device)
    return torch.as_tensor(part).to(device.torch_device)

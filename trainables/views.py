"""Views: the ways in which the rows of a batch can be shown. Static shapes; what is random depends on seed, epoch and row alone.

plain      as they are
weak       moved by up to an eighth of the side in each direction, the rest zero
strong     weak, with contrast and brightness changed and a square of half the side cut out
rot90, rot180, rot270   turned; pictures must be square. A turned 6 is a 9: what a class is may depend on the view
partner    another labelled row of the same class; an unlabelled row is its own partner

No mirror image of their own: whether it keeps the class is a fact about the data, which most digits and letters do not survive.

Where training augments its rows (``trainables.augmentation``), plain and turned show one and the same augmented picture, and partner
an augmented other one. Weak and strong move a picture already: of the augmentation they take the mirror image, which says that the
data survive it, and strong its random operations, too. Of token ids there is plain and partner.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainables.augmentation import cut

PLAIN, WEAK, STRONG, PARTNER = "plain", "weak", "strong", "partner"
ROTATIONS = {"rot90": 1, "rot180": 2, "rot270": 3}
KINDS = (PLAIN, WEAK, STRONG, *ROTATIONS, PARTNER)
FIXED = (PLAIN, *ROTATIONS)
"""Views that are the same in every epoch."""
DRAWS = 6
"""Uniform numbers that a view may use for each row."""
_CONTRAST, _BRIGHTNESS = 0.4, 0.2


def check_views(kinds: tuple[str, ...], shape: tuple[int, ...]) -> None:
    """Raise ValueError on a view that does not exist, or that inputs of ``shape``, (C, H, W) or (L,), do not have."""
    for kind in kinds:
        if kind not in KINDS:
            raise ValueError(f"A view needs one of {', '.join(KINDS)}, but got view={kind!r}.")
        if kind not in (PLAIN, PARTNER) and len(shape) == 1:
            raise ValueError(
                f"The view {kind} needs pictures (C, H, W), but got token ids of shape={tuple(shape)}: they have plain and partner."
            )
        if kind in ROTATIONS and (len(shape) != 3 or shape[1] != shape[2]):
            raise ValueError(f"The view {kind} needs square pictures (C, H, H), but got inputs of shape={tuple(shape)}.")


def shown(kind: str, inputs: Tensor, draws: Tensor | None = None) -> Tensor:
    """One view of a batch: (B, C, H, W) and, for a random one, (B, DRAWS) numbers in [0, 1) -> (B, C, H, W). Partners are up to the caller."""
    if kind in ROTATIONS:
        return torch.rot90(inputs, ROTATIONS[kind], dims=(2, 3))
    if draws is None:
        return inputs
    if kind == WEAK:
        return _moved(inputs, draws)
    if kind == STRONG:
        return cut(_lit(_moved(inputs, draws), draws), draws[:, 4], draws[:, 5])
    return inputs


def _moved(inputs: Tensor, draws: Tensor) -> Tensor:
    for axis, size in ((2, inputs.shape[2]), (3, inputs.shape[3])):
        furthest = size // 8
        if furthest == 0:
            continue
        by = (draws[:, axis - 2] * (2 * furthest + 1)).floor().long() - furthest  # (B,)
        source = torch.arange(size, device=inputs.device) + by.unsqueeze(1)  # (B, size)
        inside = (source >= 0) & (source < size)
        shape = [len(inputs), 1, 1, 1]
        shape[axis] = size
        index = source.clamp(0, size - 1).reshape(shape).expand_as(inputs)
        inputs = inputs.gather(axis, index) * inside.reshape(shape)
    return inputs


def _lit(inputs: Tensor, draws: Tensor) -> Tensor:
    contrast = 1 + _CONTRAST * (2 * draws[:, 2] - 1)
    brightness = _BRIGHTNESS * (2 * draws[:, 3] - 1)
    mean = inputs.mean(dim=(1, 2, 3), keepdim=True)
    return (inputs - mean) * contrast.reshape(-1, 1, 1, 1) + mean + brightness.reshape(-1, 1, 1, 1)

"""Augmentation: what training shows instead of a plain picture. Static shapes; what is drawn depends on seed, epoch and row alone.

none                 the rows as they are
crop                 moved by up to an eighth of the side in each direction (4 of 32 pixels), black where nothing is
crop_flip            crop, and a mirror image half of the time: the usual training of CIFAR networks
crop_flip_reflect    the same with the picture reflected at its edges where nothing is
cutout               crop_flip, then a square of half the side set to the mean colour (DeVries and Taylor, 2017, arXiv:1708.04552)
randaugment          crop_flip, then two operations at magnitude 9 of 30 (Cubuk et al., 2020, arXiv:1909.13719)
resized_crop_flip    a part of 8 to 100 % of the area, of 3:4 to 4:3, resized to the whole, and a mirror image half of the time: the
                     usual training of ImageNet networks

They act on pixels as they are stored, before these are scaled, but for the square, which is cut out of what the network reads.

Of RandAugment all fourteen operations are there, with the strengths of torchvision's table (31 levels): identity, shear and
translate in x and y, rotate, brightness, colour, contrast, sharpness, posterise, solarise, autocontrast, equalise. On uint8 pixels the
results are PIL's, level for level, but for this:
Departure: pictures stay in float32 between the operations and are whole numbers after each, so only ties of rounding may differ, by one
level. Departure: shear and translation are about the top left corner and by fractions of a pixel, as PIL's transform with nearest
neighbours does, where torchvision rounds translations. A row's two operations may be the same one, as in the paper.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor

from search_spaces import nearest
from trainables.source import NO_AUGMENTATION

DRAWS = 11
"""Uniform numbers that an augmentation may use for each row: four of the crop, one of the mirror, two of the square, two of each operation."""
OPERATIONS = (
    "identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate",
    "brightness", "colour", "contrast", "sharpness", "posterise", "solarise", "autocontrast", "equalise",
)  # fmt: skip
_GEOMETRIC, _BLENDED = 6, 10
"""Where the operations that move pixels end, and where those end that mix the picture with a poorer one."""
_LEVELS = 30
_TOP = 255.0


@dataclass(frozen=True)
class Augmentation:
    """What is done, in this order."""

    crop: str = ""
    """"", "zero", "reflect" or "resized"."""
    mirrors: bool = False
    """Whether half of the pictures are mirrored: that keeps the class is a fact about the data."""
    operations: int = 0
    """RandAugment's N, at most 2."""
    magnitude: int = 9
    """RandAugment's M, of 30."""
    cuts: bool = False
    """Whether a square is cut out."""


AUGMENTATIONS: Mapping[str, Augmentation | None] = MappingProxyType(
    {
        NO_AUGMENTATION: None,
        "crop": Augmentation("zero"),
        "crop_flip": Augmentation("zero", mirrors=True),
        "crop_flip_reflect": Augmentation("reflect", mirrors=True),
        "cutout": Augmentation("zero", mirrors=True, cuts=True),
        "randaugment": Augmentation("zero", mirrors=True, operations=2),
        "resized_crop_flip": Augmentation("resized", mirrors=True),
    }
)
"""By the name that a source gives them."""


def augmentation_named(name: str, shape: tuple[int, ...], is_stored: bool) -> Augmentation | None:
    """The augmentation of inputs of ``shape``; ``is_stored``: they are uint8 pixels. ValueError for one that is not there, or not for them."""
    if name not in AUGMENTATIONS:
        raise ValueError(
            f"An augmentation needs one of {', '.join(AUGMENTATIONS)}, but got augmentation={name!r}.{nearest(name, AUGMENTATIONS)}"
        )
    found = AUGMENTATIONS[name]
    if found is not None and len(shape) != 3:
        raise ValueError(
            f"The augmentation {name} needs pictures (C, H, W), but got inputs of shape={tuple(shape)}. Use {NO_AUGMENTATION}."
        )
    if found is not None and found.operations and (not is_stored or shape[0] not in (1, 3)):
        kind = "uint8" if is_stored else "float32"
        raise ValueError(f"The augmentation {name} needs uint8 pictures of 1 or 3 channels, but got {kind} inputs of shape={tuple(shape)}.")
    return found


def augmented(wanted: Augmentation, pictures: Tensor, draws: Tensor) -> Tensor:
    """Pixels as they are stored, (B, C, H, W) uint8 or float32, and (B, DRAWS) numbers in [0, 1) -> the same, changed; uint8 may come back
    as float32 in [0, 255]. The square is not cut yet."""
    if wanted.crop == "resized":
        pictures = _resized(pictures, draws, wanted.mirrors)
    elif wanted.crop or wanted.mirrors:
        pictures = _moved(pictures, draws, wanted.crop, wanted.mirrors)
    for number in range(wanted.operations):
        first = 7 + 2 * number
        pictures = operated(pictures.float(), draws[:, first], draws[:, first + 1], wanted.magnitude / _LEVELS)
    return pictures


def mirrored(pictures: Tensor, draws: Tensor) -> Tensor:
    """Half of the pictures (B, C, H, W) as in a mirror."""
    return _moved(pictures, draws, "", True)


def cut(inputs: Tensor, vertical: Tensor, horizontal: Tensor) -> Tensor:
    """A square of half the side around a centre, numbers (B,) in [0, 1), set to 0; at the border a part of it: (B, C, H, W) -> the same."""
    hole = torch.ones_like(inputs[:, :1], dtype=torch.bool)  # (B, 1, H, W)
    for axis, size, draw in ((2, inputs.shape[2], vertical), (3, inputs.shape[3], horizontal)):
        centre = (draw * size).floor().unsqueeze(1)  # (B, 1)
        offset = torch.arange(size, device=inputs.device) - centre  # (B, size)
        near = (offset >= -(size // 4)) & (offset < size - size // 2 - size // 4)
        shape = [len(inputs), 1, 1, 1]
        shape[axis] = size
        hole = hole & near.reshape(shape)
    return inputs * ~hole


def _moved(pictures: Tensor, draws: Tensor, edge: str, mirrors: bool) -> Tensor:
    """Crop and mirror in one pass over the pixels."""
    height, width = pictures.shape[2:]
    here = pictures.device
    if mirrors:
        turned = draws[:, 4:5] < 0.5  # (B, 1)
    row = torch.arange(height, device=here).expand(len(pictures), height)
    column = torch.arange(width, device=here).expand(len(pictures), width)
    if mirrors:
        column = torch.where(turned, width - 1 - column, column)
    if edge:
        row, column = (
            place + (draws[:, index : index + 1] * (2 * (size // 8) + 1)).floor().long() - size // 8
            for index, place, size in ((0, row, height), (1, column, width))
        )
    if edge == "reflect":
        row, column = (size - 1 - (size - 1 - place.abs()).abs() for place, size in ((row, height), (column, width)))
    return _picked(pictures, row.unsqueeze(2), column.unsqueeze(1), is_inside=edge != "zero")


def _picked(pictures: Tensor, row: Tensor, column: Tensor, is_inside: bool = False) -> Tensor:
    """The pixels at row and column numbers, which broadcast to (B, H, W); 0 for numbers outside."""
    count, channels, height, width = pictures.shape
    place = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)  # (B, H, W)
    index = place.flatten(1).unsqueeze(1).expand(count, channels, height * width)
    found = pictures.flatten(2).gather(2, index).reshape(pictures.shape)
    if is_inside:
        return found
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)  # (B, H, W)
    return found * inside.unsqueeze(1)


def _resized(pictures: Tensor, draws: Tensor, mirrors: bool) -> Tensor:
    """As RandomResizedCrop with bilinear interpolation and antialiasing; its sides are not rounded to whole pixels."""
    height, width = pictures.shape[2:]
    area = 0.08 + 0.92 * draws[:, 2]
    ratio = torch.exp((2 * draws[:, 3] - 1) * math.log(4 / 3))
    tall = (area / ratio).sqrt().clamp(max=1.0) * height  # (B,)
    wide = (area * ratio).sqrt().clamp(max=1.0) * width
    by_row = _weights(draws[:, 0] * (height - tall), tall, height)  # (B, H, H)
    by_column = _weights(draws[:, 1] * (width - wide), wide, width)
    if mirrors:
        by_column = torch.where((draws[:, 4] < 0.5).reshape(-1, 1, 1), by_column.flip(1), by_column)
    found = by_row.unsqueeze(1) @ pictures.float() @ by_column.unsqueeze(1).transpose(2, 3)
    return found.clamp(0.0, _TOP).round() if pictures.dtype == torch.uint8 else found


def _weights(start: Tensor, length: Tensor, size: int) -> Tensor:
    """What each pixel of a stretch, resized to ``size``, takes of the pixels of the whole: (B,), (B,) -> (B, size, size), rows sum to 1."""
    pixels = torch.arange(size, device=start.device) + 0.5
    scale = (length / size).reshape(-1, 1, 1)
    centre = start.reshape(-1, 1, 1) + pixels.reshape(1, -1, 1) * scale
    near = (1 - (pixels - centre).abs() / scale.clamp(min=1.0)).clamp(min=0.0)
    # What lies outside of the stretch is not there for it.
    inside = (pixels + 0.5 > start.reshape(-1, 1, 1)) & (pixels - 0.5 < (start + length).reshape(-1, 1, 1))
    near = near * inside
    return near / near.sum(dim=2, keepdim=True)


def operated(pictures: Tensor, choice: Tensor, sign: Tensor, strength: float) -> Tensor:
    """One operation each: (B, C, H, W) float32 whole numbers in [0, 255], (B,) numbers in [0, 1) that choose it and its sign -> the same."""
    chosen = (choice * len(OPERATIONS)).floor().clamp(max=len(OPERATIONS) - 1)
    # No round numbers below: a learning rate that is one of a step's constants would make another graph of that step (torch_xla 2.9).
    to = 2 * (sign >= 0.5).float() - 1  # (B,)
    wide = (chosen < _GEOMETRIC).reshape(-1, 1, 1, 1)
    found = torch.where(wide, _transformed(pictures, chosen, to, strength), pictures)
    blended = ((chosen >= _GEOMETRIC) & (chosen < _BLENDED)).reshape(-1, 1, 1, 1)
    found = torch.where(blended, _blended(pictures, chosen, to, strength), found)
    step = 2.0 ** round(strength * 4)  # 8 bits down to 4
    poorer = (pictures / step).floor() * step
    threshold = _TOP * (1 - strength)
    turned = torch.where(pictures >= threshold, _TOP - pictures, pictures)
    for name, other in (
        ("posterise", poorer),
        ("solarise", turned),
        ("autocontrast", _stretched(pictures)),
        ("equalise", _equalised(pictures)),
    ):
        found = torch.where((chosen == OPERATIONS.index(name)).reshape(-1, 1, 1, 1), other, found)
    return found


def _transformed(pictures: Tensor, chosen: Tensor, to: Tensor, strength: float) -> Tensor:
    """Shear by up to 0.3, translation by up to 150/331 of the side, rotation by up to 30 degrees: each pixel is looked up at the nearest."""
    height, width = pictures.shape[2:]

    def at(name: str, most: float) -> Tensor:
        return ((chosen == OPERATIONS.index(name)) * to * (most * strength)).reshape(-1, 1, 1)

    angle = at("rotate", math.radians(30.0))
    cosine, sine = angle.cos(), angle.sin()
    across, down = at("shear_x", 0.3), at("shear_y", 0.3)
    right, below = at("translate_x", 150 / 331 * width), at("translate_y", 150 / 331 * height)
    x = (torch.arange(width, device=to.device) + 0.5).reshape(1, 1, -1)
    y = (torch.arange(height, device=to.device) + 0.5).reshape(1, -1, 1)
    u, v = x - width / 2, y - height / 2
    # A picture is turned, sheared or moved, never two of them, so the three can be added up.
    column = cosine * u - sine * v + width / 2 + across * y + right
    row = sine * u + cosine * v + height / 2 + down * x + below
    return _picked(pictures, row.floor().long(), column.floor().long())


def _blended(pictures: Tensor, chosen: Tensor, to: Tensor, strength: float) -> Tensor:
    """The picture, up to 0.9 nearer to or farther from black, grey, its mean grey, or itself made smooth."""
    grey = _grey(pictures)  # (B, 1, H, W)
    mean = (grey.mean(dim=(1, 2, 3), keepdim=True) + 0.5).floor()

    def is_(name: str) -> Tensor:
        return (chosen == OPERATIONS.index(name)).reshape(-1, 1, 1, 1)

    poorer = torch.where(is_("colour"), grey, torch.where(is_("contrast"), mean, torch.where(is_("sharpness"), _smooth(pictures), 0.0)))
    return (poorer + (1 + 0.9 * strength * to).reshape(-1, 1, 1, 1) * (pictures - poorer)).clamp(0.0, _TOP).floor()


def _grey(pictures: Tensor) -> Tensor:
    if pictures.shape[1] == 1:
        return pictures
    weight = torch.tensor([19595.0, 38470.0, 7471.0], device=pictures.device).reshape(1, 3, 1, 1)
    return (((pictures * weight).sum(dim=1, keepdim=True) + 32768) / 65536).floor()


def _smooth(pictures: Tensor) -> Tensor:
    """(1 1 1, 1 5 1, 1 1 1) / 13 within, the edges as they are."""
    channels = pictures.shape[1]
    kernel = torch.ones(channels, 1, 3, 3, device=pictures.device)
    kernel[:, :, 1, 1] = 5.0
    within = (F.conv2d(pictures, kernel, groups=channels) / 13 + 0.5).floor()
    height, width = pictures.shape[2:]
    y = torch.arange(height, device=pictures.device).reshape(-1, 1)
    x = torch.arange(width, device=pictures.device)
    inner = (y > 0) & (y < height - 1) & (x > 0) & (x < width - 1)
    return torch.where(inner, F.pad(within, (1, 1, 1, 1)), pictures)


def _stretched(pictures: Tensor) -> Tensor:
    """Each channel from 0 to 255."""
    low, high = pictures.amin(dim=(2, 3), keepdim=True), pictures.amax(dim=(2, 3), keepdim=True)
    scale = _TOP / (high - low).clamp(min=1.0)
    # A little more, since a quotient that is whole may come out just below.
    return torch.where(high > low, ((pictures - low) * scale + 1e-4).floor().clamp(0.0, _TOP), pictures)


def _equalised(pictures: Tensor) -> Tensor:
    """Each channel with its levels evenly used."""
    count, channels, height, width = pictures.shape
    levels = pictures.reshape(count * channels, height * width).long().clamp(0, 255)
    used = torch.zeros(len(levels), 256, device=pictures.device).scatter_add_(1, levels, torch.ones_like(levels, dtype=torch.float32))
    last = used.gather(1, levels.amax(dim=1, keepdim=True))  # pixels of the highest level that there is
    step = ((height * width - last) / _TOP).floor()
    below = used.cumsum(dim=1) - used
    table = (((step / 2).floor() + below) / step.clamp(min=1.0)).floor().clamp(max=_TOP)
    found = torch.where(step > 0, table.gather(1, levels), levels.float())
    return found.reshape(pictures.shape)

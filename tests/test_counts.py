"""Parameter counts: the published ones, and those that follow from the layer tables of the papers, added up here by hand."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
import torch
import yaml

from tests.small_networks import needs_models
from trainables.folder import load, names
from trainables.models.mobilenetv2 import MobileNetV2
from trainables.models.resnet import ResNet
from trainables.models.resnet50 import ResNet50
from trainables.models.shufflenetv1 import ShuffleNetV1
from trainables.models.shufflenetv2 import ShuffleNetV2
from trainables.models.vgg import VGG
from trainables.models.wrn import WRN
from trainables.network import Family


def count(family, classes, shape=(3, 32, 32)):
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in family.build(shape, classes).parameters())


def cbn(inputs, outputs, kernel=1, groups=1, bias=0):
    """A convolution and the scales and shifts of its batch norm."""
    return inputs * outputs * kernel**2 // groups + bias * outputs + 2 * outputs


def head(inputs, classes):
    return (inputs + 1) * classes


def resnet(depth, widths, classes):
    """6n + 2 layers: n blocks of two 3x3 convolutions in each of three groups, and 1x1 shortcuts where the shape changes."""
    total, n = cbn(3, widths[0], 3), (depth - 2) // 6
    for before, after in itertools.pairwise(widths):
        total += cbn(before, after, 3) + (2 * n - 1) * cbn(after, after, 3)
        if before != after or after != widths[1]:
            total += cbn(before, after)
    return total + head(widths[-1], classes)


def wrn(depth, width, classes):
    """6n + 4 layers: batch norm comes before each convolution, and once at the end; shortcuts have none."""
    widths, n = [16, 16 * width, 32 * width, 64 * width], (depth - 4) // 6
    total = 27 * 16
    for before, after in itertools.pairwise(widths):
        convolutions = 9 * before * after + (2 * n - 1) * 9 * after**2 + (before * after if before != after else 0)
        total += convolutions + 2 * before + (2 * n - 1) * 2 * after
    return total + 2 * widths[-1] + head(widths[-1], classes)


def vgg(row, classes):
    total, before = 0, 3
    for width in row:
        total, before = total + cbn(before, width, 3, bias=1), width
    return total + head(512, classes)


def mobilenetv2(width, classes):
    table = [(1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1)]
    before = int(32 * width)
    total = cbn(3, before, 3)
    for expansion, channels, blocks in table:
        for _ in range(blocks):
            inner, after = expansion * before, int(channels * width)
            total += cbn(before, inner) + cbn(inner, inner, 3, groups=inner) + cbn(inner, after)
            before = after
    return total + cbn(before, 1280) + head(1280, classes)


def shufflenetv1(groups, first, classes):
    total, before = cbn(3, 24), 24
    for stage, blocks in enumerate((4, 8, 4)):
        width = first * 2**stage
        for block in range(blocks):
            returned = width - before if block == 0 else width
            inner = returned // 4
            total += cbn(before, inner, groups=1 if before == 24 else groups)
            total += cbn(inner, inner, 3, groups=inner) + cbn(inner, returned, groups=groups)
            before = width
    return total + head(before, classes)


def shufflenetv2(widths, last, classes):
    total, before = cbn(3, 24), 24
    for width, blocks in zip(widths, (4, 8, 4), strict=True):
        half = width // 2
        total += cbn(before, before, 3, groups=before) + cbn(before, half)  # left
        total += cbn(before, half) + cbn(half, half, 3, groups=half) + cbn(half, half)  # right
        total += (blocks - 1) * (cbn(half, half) + cbn(half, half, 3, groups=half) + cbn(half, half))
        before = width
    return total + cbn(before, last) + head(last, classes)


def resnet50(classes):
    total, before = cbn(3, 64, 3), 64
    for narrow, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        total += cbn(before, 4 * narrow)
        for _ in range(blocks):
            total += cbn(before, narrow) + cbn(narrow, narrow, 3) + cbn(narrow, 4 * narrow)
            before = 4 * narrow
    return total + head(before, classes)


A, B, D = (
    [64, 128, 256, 256, 512, 512, 512, 512],
    [64, 64, 128, 128, 256, 256, 512, 512, 512, 512],
    [64, 64, 128, 128, *[256] * 3, *[512] * 6],
)
E = [64, 64, 128, 128, *[256] * 4, *[512] * 8]
S = [64, 128, 256, 512, 512]
BY_HAND = [
    *[(ResNet(depth=d), lambda k, d=d: resnet(d, [16, 16, 32, 64], k)) for d in (8, 14, 20, 32, 44, 56, 110)],
    *[(ResNet(depth=d, width=4), lambda k, d=d: resnet(d, [32, 64, 128, 256], k)) for d in (8, 32)],
    *[(WRN(depth=d, width=w), lambda k, d=d, w=w: wrn(d, w, k)) for d in (16, 28, 40) for w in (1, 2, 10)],
    *[(VGG(depth=d), lambda k, row=row: vgg(row, k)) for d, row in ((8, S), (11, A), (13, B), (16, D), (19, E))],
    *[(MobileNetV2(width=w), lambda k, w=w: mobilenetv2(w, k)) for w in (0.25, 0.5, 0.75, 1.0)],
    *[(ShuffleNetV1(groups=g), lambda k, g=g, f=f: shufflenetv1(g, f, k)) for g, f in ((1, 144), (2, 200), (3, 240))],
    (ShuffleNetV2(width=0.5), lambda k: shufflenetv2((48, 96, 192), 1024, k)),
    (ShuffleNetV2(width=1.0), lambda k: shufflenetv2((116, 232, 464), 1024, k)),
    (ShuffleNetV2(width=1.5), lambda k: shufflenetv2((176, 352, 704), 1024, k)),
    (ShuffleNetV2(width=2.0), lambda k: shufflenetv2((244, 488, 976), 2048, k)),
    (ResNet50(), resnet50),
]


@pytest.mark.parametrize(("family", "by_hand"), BY_HAND, ids=lambda value: str(value) if hasattr(value, "build") else "")
@pytest.mark.parametrize("classes", [10, 100])
def test_counts_of_the_layer_tables(family, by_hand, classes):
    assert count(family, classes) == by_hand(classes)


# Where somebody else says how many there are. A number of millions is rounded as it was there.
# [1] He et al. 2016, table 6 (CIFAR-10; without 1x1 shortcuts, whose 2,752 parameters are taken off here)
# [2] the table of github.com/chenyaofo/pytorch-cifar-models (CIFAR-10), which has the shortcuts
# [3] Zagoruyko and Komodakis 2017 (arXiv:1612.03928), table 1 (CIFAR-10): from memory of the paper, not looked up
# [4] public notes that print the count of RepDistiller's resnet32x4 (CIFAR-100), of AugMix's WRN-40-2 and of ResNet-50 with a 3x3 stem
# [5] the table of github.com/huyvnphan/PyTorch_CIFAR10 (CIFAR-10)
# [6] the table of github.com/bearpaw/pytorch-classification (CIFAR-10), from whose author CRD's code has its networks
SHORTCUTS = 16 * 32 + 64 + 32 * 64 + 128


@pytest.mark.parametrize(("depth", "millions"), [(20, "0.27"), (32, "0.46"), (44, "0.66"), (56, "0.85"), (110, "1.73")])
def test_resnets_of_the_paper(depth, millions):  # [1], which says 1.7 of the last
    assert f"{(count(ResNet(depth=depth), 10) - SHORTCUTS) / 1e6:.2f}" == millions


@pytest.mark.parametrize(("depth", "millions"), [(20, "0.27"), (32, "0.47"), (44, "0.66"), (56, "0.86")])
def test_resnets_with_shortcuts(depth, millions):  # [2]
    assert f"{count(ResNet(depth=depth), 10) / 1e6:.2f}" == millions


@pytest.mark.parametrize(("depth", "width", "millions"), [(16, 1, "0.2"), (16, 2, "0.7"), (40, 1, "0.6"), (40, 2, "2.2")])
def test_wide_resnets_of_attention_transfer(depth, width, millions):  # [3]
    assert f"{count(WRN(depth=depth, width=width), 10) / 1e6:.1f}" == millions


def test_published_to_the_last_digit():
    assert count(ResNet(depth=32, width=4), 100) == 7_433_860  # [4]
    assert count(WRN(depth=40, width=2), 100) == 2_255_156  # [4]
    assert count(ResNet50(), 100) == 23_705_252  # [4]
    assert f"{count(ResNet50(), 10) / 1e6:.3f}" == "23.521"  # [5]


@pytest.mark.parametrize(("family", "millions"), [(VGG(depth=19), "20.04"), (WRN(depth=28, width=10), "36.48")], ids=str)
def test_published_to_two_digits(family, millions):  # [6]
    assert f"{count(family, 10) / 1e6:.2f}" == millions


ROOT = Path(__file__).parents[1]
LINES = re.findall(
    r"^\| [^|]+ \| `({family: [^`]+})` \| ([^a-z]+) \| (\S+) \.\.\. (\S+) \|$", (ROOT / "docs/networks.md").read_text(), re.MULTILINE
)
CLASSES = {"imagenet": ((3, 224, 224), (200, 1000)), "bert": ((128,), (2,)), "albert": ((128,), (2,))}


@pytest.mark.parametrize(
    ("model", "counts", "first", "last"),
    [pytest.param(*line, marks=needs_models if re.search("imagenet|bert", line[0]) else (), id=line[0]) for line in LINES],
)
def test_the_page_of_networks(model, counts, first, last):
    entries = yaml.safe_load(model)
    name = entries.pop("family")
    family = load("trainables.models", name, Family)(**entries)
    shape, classes = CLASSES.get(name, ((3, 32, 32), (10, 100)))
    assert [f"{count(family, k, shape):,}" for k in classes] == counts.split(" | ")
    with torch.device("meta"):
        stages = family.build(shape, 2).stages
    assert (stages[0], stages[-1]) == (first, last)


def test_every_family_has_a_line_on_the_page():
    assert {yaml.safe_load(model)["family"] for model, *_ in LINES} == set(names("trainables.models")) - {"cnn", "mlp"}

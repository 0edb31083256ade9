"""Every family of networks at a size that tests can afford."""

from __future__ import annotations

import importlib.util
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from trainables.models.albert import ALBERT
from trainables.models.bert import BERT
from trainables.models.cnn import CNN
from trainables.models.imagenet import ImageNet
from trainables.models.mlp import MLP
from trainables.models.mobilenetv2 import MobileNetV2
from trainables.models.resnet import ResNet
from trainables.models.resnet50 import ResNet50
from trainables.models.shufflenetv1 import ShuffleNetV1
from trainables.models.shufflenetv2 import ShuffleNetV2
from trainables.models.vgg import VGG
from trainables.models.wrn import WRN
from trainables.network import Family, Network

CLASSES = 7


class Setting(NamedTuple):
    family: Family
    shape: tuple[int, ...]


SETTINGS = {
    "mlp": Setting(MLP(width=5, depth=3), (1, 8, 8)),
    "cnn": Setting(CNN(width=4, depth=3, norm="none", head="pool"), (1, 8, 8)),
    "resnet": Setting(ResNet(depth=14), (3, 16, 16)),
    "resnet8x4": Setting(ResNet(depth=8, width=4), (1, 8, 8)),
    "wrn": Setting(WRN(depth=16, width=1, dropout=0.2), (3, 16, 16)),
    "vgg": Setting(VGG(depth=8), (3, 16, 16)),
    "vgg for large pictures": Setting(VGG(depth=8), (1, 64, 64)),
    "mobilenetv2": Setting(MobileNetV2(width=0.25), (3, 32, 32)),
    "shufflenetv1": Setting(ShuffleNetV1(groups=2), (3, 16, 16)),
    "shufflenetv2": Setting(ShuffleNetV2(width=0.5), (3, 16, 16)),
    "resnet50": Setting(ResNet50(), (3, 16, 16)),
    "imagenet": Setting(ImageNet(network="resnet18"), (3, 64, 64)),
    "imagenet, mobilenetv1": Setting(ImageNet(network="mobilenetv1", width=0.5), (1, 64, 64)),
    "imagenet, mobilenetv2": Setting(ImageNet(network="mobilenetv2", width=0.5, dropout=0.2), (3, 64, 64)),
    "imagenet, efficientnet": Setting(ImageNet(network="efficientnet_b0"), (3, 64, 64)),
    "bert": Setting(BERT(size="tiny", vocabulary=50), (6,)),
    "albert": Setting(ALBERT(size="base", vocabulary=50), (6,)),
}
needs_models = pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="the extra models is not installed")
every = pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=needs_models) if isinstance(s.family, ImageNet | BERT | ALBERT) else name for name, s in SETTINGS.items()],
)


def built(name: str, seed: int = 0) -> Network:
    torch.manual_seed(seed)
    setting = SETTINGS[name]
    return setting.family.build(setting.shape, CLASSES)


def inputs_for(name: str, seed: int = 0) -> Tensor:
    """Two rows: pictures, or token ids, of which the second row has one less."""
    generator = torch.Generator().manual_seed(seed)
    shape = SETTINGS[name].shape
    if len(shape) > 1:
        return torch.rand(2, *shape, generator=generator)
    tokens = torch.randint(1, 50, (2, *shape), generator=generator)
    tokens[1, -1] = 0
    return tokens

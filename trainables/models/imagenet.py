"""The networks of the ImageNet studies, built by ``transformers`` from its configurations or with a checkpoint: the extra ``models``.

resnet18, resnet34, resnet50: He et al. 2016 (arXiv:1512.03385), table 1; the stride of a bottleneck lies in its 3x3 convolution.
mobilenetv1: Howard et al. 2017 (arXiv:1704.04861), table 1. mobilenetv2: Sandler et al. 2018 (arXiv:1801.04381), table 2.
efficientnet_b0: Tan and Le 2019 (arXiv:1905.11946), table 1.
Stages end where the resolution halves, at a quarter, an eighth, a sixteenth and a 32nd of it. Those of the ResNets and of mobilenetv1 are
rectified; those of mobilenetv2 and efficientnet_b0 are linear.

Departures from the library: drawn weights are those of torchvision, He's normal by fan-out (the library's EfficientNet draws the scales of
batch norm around 0); batch norm has torch's momentum (the library has TensorFlow's decay in its place, so that what is remembered is
the last batch); ``dropout`` is the share left out (the library's MobileNets leave out 0.999 and 0.8, which TensorFlow keeps).
Departure from the EfficientNet paper: no stochastic depth (the library has plain dropout in its place).
A checkpoint of a MobileNet may have one class more in front, which is background; its row is left out.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import nn

from search_spaces import Choice, Text, Uniform, tunable
from trainables.convolutions import Convolutional, check_pictures, initialise, small_head
from trainables.extras import MODELS
from trainables.form import Form
from trainables.network import Family, Network
from trainables.pretrained import fitted, made, stocked

_RESNETS: dict[str, dict[str, Any]] = {
    "resnet18": {"layer_type": "basic", "depths": [2, 2, 2, 2], "hidden_sizes": [64, 128, 256, 512]},
    "resnet34": {"layer_type": "basic", "depths": [3, 4, 6, 3], "hidden_sizes": [64, 128, 256, 512]},
    "resnet50": {"layer_type": "bottleneck", "depths": [3, 4, 6, 3], "hidden_sizes": [256, 512, 1024, 2048]},
}
_B0 = {"width_coefficient": 1.0, "depth_coefficient": 1.0, "hidden_dim": 1280, "drop_connect_rate": 0.0}
MOBILE = MOBILENETV1, MOBILENETV2 = ("mobilenetv1", "mobilenetv2")
EFFICIENTNET = "efficientnet_b0"
_MOMENTUM = 0.1


@dataclass(frozen=True)
class ImageNet(Family):
    """Stages stem, stage1, ..., stage4, for any pictures whose sides are multiples of 32."""

    extra: ClassVar[str] = MODELS
    packages: ClassVar[tuple[str, ...]] = ("transformers",)

    network: str = tunable("resnet18", Choice((*_RESNETS, *MOBILE, EFFICIENTNET)), "which")
    width: float = tunable(1.0, Choice((0.5, 0.75, 1.0, 1.4, 2.0)), "factor on the channels", only_if={"network": MOBILE})
    dropout: float = tunable(
        0.0,
        Uniform(0.0, 0.5),
        "share of what the classifier reads that a training step leaves out: in the papers 0.2 for efficientnet_b0, 0 for ResNets",
        off=0.0,
        low=0.0,
        high=1.0,
    )
    weights: str = tunable(
        "", Text(), "folder, below KDSWEEP_DATA if relative, or hub id of a checkpoint to start from; none by default", off=""
    )
    revision: str = tunable("", Text(), "commit of the hub id; the newest by default", off="")

    def untrained(self) -> ImageNet:
        return replace(self, weights="")

    def fits(self, form: Form) -> None:
        check_pictures("ImageNet", form.shape, stride=32, least=32)

    def stocked(self) -> tuple[str, ...]:
        return stocked("ImageNet", *self._configuration(), self.weights, self.revision)

    def build(self, shape: tuple[int, ...], classes: int) -> Network:
        self.fits(Form(shape, classes))
        kind, settings = self._configuration()
        settings["num_channels"] = shape[0]
        found = made("ImageNet", kind, "ForImageClassification", settings, classes, self.weights, self.revision)
        for module in found.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = _MOMENTUM
        head = found.classifier[-1] if self.network in _RESNETS else found.classifier
        if not self.weights:
            initialise(found)
            self._draw(head)
        head = fitted(head, classes, has_background=self.network in MOBILE)
        return Convolutional(*self._parts(found), head, self.dropout)

    def _configuration(self) -> tuple[str, dict[str, Any]]:
        if self.network in _RESNETS:
            return "ResNet", dict(_RESNETS[self.network])
        if self.network == EFFICIENTNET:
            return "EfficientNet", dict(_B0)
        kind = "MobileNetV1" if self.network == MOBILENETV1 else "MobileNetV2"
        return kind, {"depth_multiplier": self.width}

    def _draw(self, head: nn.Linear) -> None:
        if self.network in MOBILE:
            small_head(head)
        elif self.network == EFFICIENTNET:
            bound = head.out_features**-0.5
            nn.init.uniform_(head.weight, -bound, bound)
            nn.init.zeros_(head.bias)
        else:
            head.reset_parameters()

    def _parts(self, found: Any) -> tuple[nn.Module, list[nn.Module], nn.Module]:
        """Stem, stages and tail of the library's network."""
        if self.network in _RESNETS:
            return found.resnet.embedder, list(found.resnet.encoder.stages), nn.Identity()
        if self.network == EFFICIENTNET:
            encoder, blocks = found.efficientnet.encoder, list(found.efficientnet.encoder.blocks)
            tail = nn.Sequential(encoder.top_conv, encoder.top_bn, encoder.top_activation)
            return nn.Sequential(found.efficientnet.embeddings, blocks[0]), _cut(blocks, (1, 3, 5, 11, 16)), tail
        if self.network == MOBILENETV1:
            body, blocks = found.mobilenet_v1, list(found.mobilenet_v1.layer)  # a depthwise and a 1x1 convolution by turns
            return nn.Sequential(body.conv_stem, *blocks[:2]), _cut(blocks, (2, 6, 10, 22, 26)), nn.Identity()
        body = found.mobilenet_v2
        return body.conv_stem, _cut(list(body.layer), (0, 2, 5, 12, 16)), body.conv_1x1


def _cut(blocks: list[nn.Module], ends: tuple[int, ...]) -> list[nn.Module]:
    return [nn.Sequential(*blocks[start:end]) for start, end in itertools.pairwise(ends)]

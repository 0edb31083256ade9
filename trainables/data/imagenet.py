"""ImageNet-1k (ILSVRC 2012): 1,281,167 photographs in a thousand classes to train on, 50,000 to validate, 100,000 without labels.

Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", IJCV 115(3), 2015, https://arxiv.org/abs/1409.0575.
Terms: non-commercial research, to be accepted at https://image-net.org or on the hub: ILSVRC/imagenet-1k, columns image and label,
splits train, validation and test, the last with labels -1. Test is the official validation split, on which the literature
reports; V is drawn from the training split. A picture is the middle of it: at 224 pixels the shorter side is 256, as in every
evaluation since Krizhevsky et al., 2012. Departure: training starts from that square too, where the papers cut their random part out
of the whole photograph; `augmentation: resized_crop_flip` cuts it out of the square. Channel means and deviations: torchvision's.

At 224 pixels the set is not decoded ahead, but every file is read once per node for its content id, some 150 GB. `datasets` keeps an
Arrow copy of Parquet files below HF_HOME, of the same size; of a folder of pictures it keeps only their paths.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from search_spaces import IntUniform, Text, tunable
from trainables.pictures import Shape
from trainables.pictureset import Facts, PictureSet
from trainables.source import Scaling


@dataclass(frozen=True)
class ImageNet(PictureSet):
    """Test is the official validation split. Classes of a folder are its WordNet ids in order, which is the official order."""

    facts: ClassVar[Facts] = Facts(
        picture="image",
        splits={"train": ("train",), "test": ("validation", "val", "valid")},
        rows={"train": 1_281_167, "test": 50_000},
        scaling=Scaling((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    )

    hub: str = tunable("ILSVRC/imagenet-1k", Text(), "name on the hub", only_if={"path": ("",)})
    revision: str = tunable("49e2ee26f3810fb5a7536bbf732a7b07389a47b5", Text(), "commit, tag or branch of it", only_if={"path": ("",)})
    size: int = tunable(224, IntUniform(64, 256), "side of the squares, in pixels", low=8, high=1024)

    @property
    def classes(self) -> int:
        return 1000

    @property
    def shape(self) -> Shape:
        return Shape(self.size, fixed=False, margin=8 / 7)

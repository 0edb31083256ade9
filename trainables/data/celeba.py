"""CelebA: 202,599 photographs of faces, aligned, 178x218 pixels, with forty attributes each, of which one is the class.

Liu, Luo, Wang, Tang, "Deep Learning Face Attributes in the Wild", ICCV 2015, https://arxiv.org/abs/1411.7766,
http://mmlab.ie.cuhk.edu.hk/projects/CelebA.html. Terms: non-commercial research. On the hub: flwrlabs/celeba, configuration
img_align+identity+attr, a column image and one of booleans per attribute; splits train (162,770), valid (19,867), test (19,962),
no person in two of them. Test is the official test split; the official validation split is not used, V being drawn from train
anew for every block. A picture is the square in the middle, resized. Which attribute and size SLaM used is not
published: Male is a guess. Pixels are scaled to [-1, 1].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from search_spaces import Choice, IntUniform, Text, tunable
from trainables.pictures import Shape
from trainables.pictureset import Facts, PictureSet
from trainables.source import Scaling

LABELS = ("no", "yes")
ATTRIBUTES = (
    "5_o_Clock_Shadow", "Arched_Eyebrows", "Attractive", "Bags_Under_Eyes", "Bald", "Bangs", "Big_Lips", "Big_Nose", "Black_Hair",
    "Blond_Hair", "Blurry", "Brown_Hair", "Bushy_Eyebrows", "Chubby", "Double_Chin", "Eyeglasses", "Goatee", "Gray_Hair",
    "Heavy_Makeup", "High_Cheekbones", "Male", "Mouth_Slightly_Open", "Mustache", "Narrow_Eyes", "No_Beard", "Oval_Face", "Pale_Skin",
    "Pointy_Nose", "Receding_Hairline", "Rosy_Cheeks", "Sideburns", "Smiling", "Straight_Hair", "Wavy_Hair", "Wearing_Earrings",
    "Wearing_Hat", "Wearing_Lipstick", "Wearing_Necklace", "Wearing_Necktie", "Young",
)  # fmt: skip


@dataclass(frozen=True)
class CelebA(PictureSet):
    """Test is the official test split."""

    facts: ClassVar[Facts] = Facts(
        picture="image",
        splits={"train": ("train",), "test": ("test",)},
        rows={"train": 162_770, "test": 19_962},
        scaling=Scaling((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        config="img_align+identity+attr",
    )

    hub: str = tunable("flwrlabs/celeba", Text(), "name on the hub", only_if={"path": ("",)})
    revision: str = tunable("2d738f56e0e7f925ea36ae7c808ea925264aacec", Text(), "commit, tag or branch of it", only_if={"path": ("",)})
    attribute: str = tunable("Male", Choice(ATTRIBUTES), "which attribute is the class; in a folder of pictures its two folders are")
    size: int = tunable(64, IntUniform(32, 178), "side of the squares, in pixels", low=8, high=178)

    @property
    def classes(self) -> int:
        return len(LABELS)

    @property
    def shape(self) -> Shape:
        return Shape(self.size, fixed=False)

    @property
    def label(self) -> str:
        return self.attribute

"""Augmentation by hand and against PIL, the streams it draws from, and what training, validation and the teacher are shown of it."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from tests.small_pictures import SCALING, Photos
from tests.small_trials import TEACHER, Plain, student_trial
from trainables.augmentation import AUGMENTATIONS, DRAWS, OPERATIONS, Augmentation, augmentation_named, augmented, operated
from trainables.batches import resident
from trainables.device import Cpu
from trainables.distiller import Needs
from trainables.exposure import Exposure
from trainables.loop import Training
from trainables.models.cnn import CNN
from trainables.teachers import FrozenTeacher

SIDE = 16
PICTURES = torch.from_numpy(np.random.default_rng(0).integers(1, 256, (3, 3, SIDE, SIDE)).astype(np.uint8))


def draws(count: int = 3, **wanted: float) -> torch.Tensor:
    found = torch.full((count, DRAWS), 0.5)  # in the middle: nothing moves and nothing is mirrored
    for name, value in wanted.items():
        found[:, int(name[1:])] = value
    return found


def test_a_crop_is_black_where_nothing_is_and_a_reflected_one_is_not():
    assert torch.equal(augmented(Augmentation("zero"), PICTURES, draws()), PICTURES)
    down = augmented(Augmentation("zero"), PICTURES, draws(d0=0.0, d1=0.999)).numpy()
    expected = np.pad(PICTURES.numpy(), ((0, 0), (0, 0), (2, 2), (2, 2)))[:, :, :SIDE, 4 : SIDE + 4]
    assert np.array_equal(down, expected)
    assert down.dtype == np.uint8
    reflected = augmented(Augmentation("reflect"), PICTURES, draws(d0=0.0, d1=0.999)).numpy()
    assert np.array_equal(reflected, np.pad(PICTURES.numpy(), ((0, 0), (0, 0), (2, 2), (2, 2)), mode="reflect")[:, :, :SIDE, 4 : SIDE + 4])


def test_a_mirror_image_is_moved_like_the_picture():
    found = augmented(Augmentation("zero", mirrors=True), PICTURES, draws(d1=0.999, d4=0.49)).numpy()
    flipped = PICTURES.numpy()[:, :, :, ::-1]
    # Two pixels to the right in the original are two to the left in its mirror image.
    assert np.array_equal(found, np.pad(flipped, ((0, 0), (0, 0), (0, 0), (2, 2)))[:, :, :, :SIDE])
    assert torch.equal(augmented(Augmentation("zero", mirrors=True), PICTURES, draws(d4=0.5)), PICTURES)


def test_crops_are_of_all_places_equally_often():
    place = torch.zeros(2000, 1, SIDE, SIDE, dtype=torch.uint8)
    place[:, :, 8, 8] = 1
    found = augmented(Augmentation("zero"), place, torch.rand(2000, DRAWS, generator=torch.Generator().manual_seed(0)))
    where = found.flatten(1).argmax(1)
    counts = torch.bincount(where, minlength=SIDE * SIDE).reshape(SIDE, SIDE)
    assert int(counts[6:11, 6:11].sum()) == 2000
    assert 50 < int(counts[6:11, 6:11].min()) <= int(counts[6:11, 6:11].max()) < 115  # 80 each


def test_a_resized_part_is_what_pil_makes_of_it():
    # The whole height and half of the width, which starts at a quarter: area .5, ratio 1/2 is out of reach, so 3/4: .667 x .75 of 16.
    wanted = draws(d0=0.5, d1=0.25, d2=(0.5 - 0.08) / 0.92, d3=0.0)
    found = augmented(Augmentation("resized"), PICTURES, wanted)
    tall, wide = math.sqrt(0.5 / 0.75) * SIDE, math.sqrt(0.5 * 0.75) * SIDE
    top, left = 0.5 * (SIDE - tall), 0.25 * (SIDE - wide)
    for picture, ours in zip(PICTURES.numpy(), found.numpy(), strict=True):
        image = Image.fromarray(picture.transpose(1, 2, 0))
        theirs = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=(left, top, left + wide, top + tall)))
        assert np.abs(ours.transpose(1, 2, 0) - theirs).max() <= 2
    whole = augmented(Augmentation("resized"), PICTURES, draws(d2=1.0, d3=0.5))
    assert torch.equal(whole, PICTURES.float())
    turned = augmented(Augmentation("resized", mirrors=True), PICTURES, draws(d2=1.0, d3=0.5, d4=0.1))
    assert torch.equal(turned, PICTURES.float().flip(3))


STRENGTH = 9 / 30


def _with_pil(name: str, image: Image.Image, by: float) -> Image.Image:
    def moved(*matrix: float) -> Image.Image:
        return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST)

    return {
        "identity": lambda: image,
        "shear_x": lambda: moved(1, 0.3 * by, 0, 0, 1, 0),
        "shear_y": lambda: moved(1, 0, 0, 0.3 * by, 1, 0),
        "translate_x": lambda: moved(1, 0, 150 / 331 * SIDE * by, 0, 1, 0),
        "translate_y": lambda: moved(1, 0, 0, 0, 1, 150 / 331 * SIDE * by),
        "rotate": lambda: image.rotate(30 * by),
        "brightness": lambda: ImageEnhance.Brightness(image).enhance(1 + 0.9 * by),
        "colour": lambda: ImageEnhance.Color(image).enhance(1 + 0.9 * by),
        "contrast": lambda: ImageEnhance.Contrast(image).enhance(1 + 0.9 * by),
        "sharpness": lambda: ImageEnhance.Sharpness(image).enhance(1 + 0.9 * by),
        "posterise": lambda: ImageOps.posterize(image, 7),  # round(.3 * 4) = 1 bit less
        "solarise": lambda: ImageOps.solarize(image, 179),  # .7 * 255 = 178.5, and levels are whole
        "autocontrast": lambda: ImageOps.autocontrast(image),
        "equalise": lambda: ImageOps.equalize(image),
    }[name]()


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_are_those_of_pil(name, sign):
    dull = (PICTURES // 2 + 60).to(torch.uint8)  # not all levels: something is left for contrast
    dull[0, 1] = 7  # one level only
    choice = torch.full((3,), (OPERATIONS.index(name) + 0.5) / len(OPERATIONS))
    ours = operated(dull.float(), choice, torch.full((3,), 0.75 if sign > 0 else 0.25), STRENGTH).numpy()
    theirs = np.stack(
        [np.asarray(_with_pil(name, Image.fromarray(p.transpose(1, 2, 0)), sign * STRENGTH)).transpose(2, 0, 1) for p in dull.numpy()]
    )
    assert np.array_equal(ours, np.round(ours))
    difference = np.abs(ours - theirs)
    assert difference.max() <= (1 if name == "autocontrast" else 0)
    assert (difference > 0).mean() < 0.02
    assert name == "identity" or not np.array_equal(ours, dull.numpy())


def test_operations_follow_one_another():
    wanted = draws(d7=(OPERATIONS.index("solarise") + 0.5) / 14, d9=(OPERATIONS.index("rotate") + 0.5) / 14, d10=0.9)
    found = augmented(Augmentation(operations=2), PICTURES, wanted)
    for picture, ours in zip(PICTURES.numpy(), found.numpy(), strict=True):
        image = ImageOps.solarize(Image.fromarray(picture.transpose(1, 2, 0)), 179).rotate(9)
        assert np.array_equal(ours.transpose(1, 2, 0), np.asarray(image))


def test_names():
    assert augmentation_named("none", (120,), is_stored=False) is None
    with pytest.raises(ValueError, match=r"An augmentation needs one of none, crop, .* but got augmentation='crop_flips'.*crop_flip"):
        augmentation_named("crop_flips", (3, 8, 8), is_stored=True)
    with pytest.raises(ValueError, match=r"crop needs pictures \(C, H, W\), but got inputs of shape=\(120,\)"):
        augmentation_named("crop", (120,), is_stored=False)
    for shape, is_stored in (((3, 8, 8), False), ((4, 8, 8), True)):
        with pytest.raises(ValueError, match="randaugment needs uint8 pictures of 1 or 3 channels"):
            augmentation_named("randaugment", shape, is_stored)


ROWS = torch.tensor([3, 44, 17, 40])
DEVICE = Cpu()


def _exposed(augmentation: str, *kinds: str, seed: int = 3, epoch: int = 0, teacher: FrozenTeacher | None = None) -> Exposure:
    data = resident(Photos(augmentation=augmentation).load(0, opens_test=False), DEVICE)
    found = Exposure(Needs(teacher=teacher is not None, views=kinds), data, 50, teacher, seed, DEVICE)
    found.start(epoch)
    return found


@pytest.mark.parametrize("name", [name for name in AUGMENTATIONS if name != "none"])
def test_what_is_drawn_depends_on_seed_epoch_and_row_alone(name):
    kinds = ("plain", "weak", "strong", "rot90", "partner")
    together, _ = _exposed(name, *kinds).of(ROWS)
    torch.rand(3)
    other = _exposed(name, *kinds)
    apart = torch.cat([other.of(row)[0] for row in ROWS.flip(0).split(1)], dim=1).flip(1)
    assert torch.equal(together, apart)
    everyone = torch.arange(50)
    first = _exposed(name, "plain").of(everyone)[0]
    assert torch.equal(first[ROWS], together[0]), "whatever else is shown"
    for changed in (_exposed(name, "plain", epoch=1), _exposed(name, "plain", seed=4)):
        found = changed.of(everyone)[0]
        assert (found != first).flatten(1).any(1).float().mean() > 0.5
    with_plain = _exposed("none", "plain").of(everyone)[0]
    assert (with_plain != first).flatten(1).any(1).float().mean() > 0.5


def test_views_of_an_augmented_picture():
    everyone = torch.arange(50)
    kinds = ("plain", "rot90", "weak", "partner")
    (plain, turned, weak, partner), _ = _exposed("crop_flip", *kinds).of(everyone)
    assert torch.equal(turned, torch.rot90(plain, 1, (2, 3)))
    own = everyone[12:]  # unlabelled rows are their own partners, augmented another time
    assert (partner[own] != plain[own]).flatten(1).any(1).float().mean() > 0.5
    raw, _, alone, _ = _exposed("none", *kinds).of(everyone)[0]
    is_same = (weak == alone).flatten(1).all(1)
    # Of the augmentation, weak takes the mirror image alone: what is not mirrored is what it was, and what is, is moved alike.
    assert 15 <= int(is_same.sum()) <= 35
    for row in (~is_same).nonzero().squeeze(1):
        candidates = [_shifted(raw[row].flip(2), down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)]
        assert any(torch.equal(weak[row], candidate) for candidate in candidates)


def _shifted(picture: torch.Tensor, down: int, right: int) -> torch.Tensor:
    padded = torch.nn.functional.pad(picture, (1, 1, 1, 1))
    return padded[:, 1 - down : 9 - down, 1 - right : 9 - right]


def test_a_square_is_the_mean_colour_and_a_crop_leaves_black():
    everyone = torch.arange(50)
    plain = _exposed("crop_flip", "plain").of(everyone)[0]
    cut = _exposed("cutout", "plain").of(everyone)[0]
    changed = (cut != plain).any(1)  # (50, 8, 8)
    assert (cut.permute(0, 2, 3, 1)[changed] == 0).all()
    assert int(changed.flatten(1).sum(1).min()) >= 4
    assert int(changed.flatten(1).sum(1).max()) == 16
    black = torch.tensor([-mean / std for mean, std in zip(SCALING.mean, SCALING.std, strict=True)])
    pixels = plain.permute(0, 2, 3, 1).reshape(-1, 3)
    assert 0.02 < float((pixels - black).abs().amax(1).lt(1e-6).float().mean()) < 0.3


@pytest.mark.parametrize("kind", ["plain", "rot90", "partner"])
def test_the_teacher_sees_the_augmented_picture(kind):
    torch.manual_seed(0)
    teacher = FrozenTeacher(CNN(width=4).build((3, 8, 8), 3), DEVICE)
    inputs, outputs = _exposed("randaugment", kind, teacher=teacher).of(ROWS)
    torch.testing.assert_close(outputs.logits, teacher.network(inputs).logits)
    plain, _ = _exposed("none", kind, teacher=teacher).of(ROWS)
    assert not torch.allclose(outputs.logits, teacher.network(plain).logits)


def test_nothing_but_training_is_augmented():
    torch.manual_seed(0)
    teacher = FrozenTeacher(TEACHER.model.build((3, 8, 8), 3), DEVICE)
    trial = student_trial(Plain(), data=Photos(augmentation="randaugment"), opens_test=True)
    splits = trial.data.load(0, opens_test=True)
    training = Training(trial, resident(splits, DEVICE), teacher, DEVICE)
    last = training.advance(1.0)[-1].metrics
    student = training.student.eval()
    for prefix, pictures, labels in (
        ("validation", splits.holdout_inputs, splits.holdout_labels), ("test", splits.test_inputs, splits.test_labels),
    ):  # fmt: skip
        x = pictures.numpy().astype(np.float64) / 255
        x = (x - np.array(SCALING.mean).reshape(1, 3, 1, 1)) / np.array(SCALING.std).reshape(1, 3, 1, 1)
        with torch.no_grad():
            logits = student(torch.from_numpy(x).float()).logits
        assert last[f"{prefix}.accuracy"] == float((logits.argmax(1) == labels).double().mean())
        assert last[f"{prefix}.nll"] == pytest.approx(float(torch.nn.functional.cross_entropy(logits, labels)), rel=1e-4)
    plain = Training(dataclasses.replace(trial, data=Photos()), resident(Photos().load(0, opens_test=True), DEVICE), teacher, DEVICE)
    assert plain.advance(1.0)[-1].metrics["train.loss"] != last["train.loss"]

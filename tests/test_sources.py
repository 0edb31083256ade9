"""Published data sets, read through ``datasets`` from small copies in the forms in which they come."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import sys
from collections import Counter
from pathlib import Path

import datasets
import huggingface_hub
import numpy as np
import pytest
import torch
from PIL import Image

from orchestrator.errors import StudyError
from orchestrator.reading import read_study
from search_spaces import flat
from tests.small_sets import file_of, pictures, write_folder, write_parquet, write_texts, write_tokenizer
from trainables import hub, pictureset
from trainables.data import celeba, cifar10, cifar100, cub200, imagenet, imdb, stl10, tinyimagenet
from trainables.data.celeba import CelebA
from trainables.data.cifar10 import Cifar10
from trainables.data.cifar100 import Cifar100
from trainables.data.cub200 import Cub200
from trainables.data.imagenet import ImageNet
from trainables.data.imdb import Imdb
from trainables.data.stl10 import Stl10
from trainables.data.tinyimagenet import TinyImageNet
from trainables.folder import load, names
from trainables.rows import all_of
from trainables.source import Source

pytestmark = pytest.mark.slow

SETS = [Cifar10, Cifar100, Stl10, TinyImageNet, ImageNet, CelebA, Cub200]
TRAIN, TEST = 60, 20


@pytest.fixture(autouse=True)
def own_caches(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("caches")
    monkeypatch.setenv("KDSWEEP_CACHE", str(folder / "node"))
    monkeypatch.delenv("KDSWEEP_DATA", raising=False)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "arrow")
    for module in (datasets.config, huggingface_hub.constants):
        monkeypatch.setattr(module, "HF_HUB_OFFLINE", True)
    return folder


@pytest.fixture
def small(tmp_path):
    """A CIFAR-10 of 60 and 20 rows: where it is, its training pictures (N, 3, 32, 32) and labels, and those to test."""
    pixels, labels = pictures(TRAIN + TEST), np.arange(TRAIN + TEST) % 10
    _write(tmp_path, pixels, labels)
    chw = pixels.transpose(0, 3, 1, 2)
    return tmp_path, chw[:TRAIN], labels[:TRAIN], chw[TRAIN:], labels[TRAIN:]


def _write(folder, pixels, labels):
    cells = [file_of(one) for one in pixels]
    write_parquet(folder / "plain_text", "train", cells[:TRAIN], labels[:TRAIN], picture="img", names=cifar10.LABELS, shards=2)
    write_parquet(folder / "plain_text", "test", cells[TRAIN:], labels[TRAIN:], picture="img", names=cifar10.LABELS)


def _ten(path, **fields):
    return Cifar10(path=str(path), **{"labelled": 20, "validation": 10, "draw": "stratified", **fields})


def _known(row):
    return hashlib.sha256(np.ascontiguousarray(row).tobytes()).hexdigest()[:12]


def _rows(inputs):
    return [_known(row.numpy()) for row in (inputs if isinstance(inputs, torch.Tensor) else all_of(inputs))]


def _held(splits):
    return dataclasses.replace(splits, **{part: all_of(getattr(splits, part)) for part in ("inputs", "holdout_inputs", "test_inputs")})


def _same(first, second):
    parts = ("inputs", "holdout_inputs", "test_inputs")
    return all(_rows(getattr(first, part)) == _rows(getattr(second, part)) for part in parts) and torch.equal(first.labels, second.labels)


def test_every_row_is_in_one_part_with_its_own_label(small):
    path, train, labels, test, test_labels = small
    splits = _ten(path).load(3, opens_test=True)
    assert (len(splits.inputs), splits.inputs.shape, splits.labelled, splits.classes) == (50, (3, 32, 32), 20, 10)
    assert all_of(splits.inputs).dtype == torch.uint8
    seen = _rows(splits.inputs) + _rows(splits.holdout_inputs)
    assert Counter(seen) == Counter(_known(one) for one in train)
    assert _rows(splits.test_inputs) == [_known(one) for one in test]
    truth = {_known(one): int(label) for one, label in zip(train, labels, strict=True)}
    assert [truth[row] for row in _rows(splits.inputs)[:20]] == splits.labels[:20].tolist()
    assert [truth[row] for row in _rows(splits.holdout_inputs)] == splits.holdout_labels.tolist()
    assert splits.labels[20:].tolist() == [-1] * 30
    assert splits.test_labels.tolist() == test_labels.tolist()
    assert splits.labels.dtype == splits.holdout_labels.dtype == splits.test_labels.dtype == torch.int64
    assert splits.labels[:20].bincount().tolist() == [2] * 10
    assert splits.scaling.mean == (0.4914, 0.4822, 0.4465)


def test_the_test_split_stays_sealed_and_the_same(small):
    path, *_, test, _ = small
    sealed = _ten(path).load(0, opens_test=False)
    assert sealed.test_inputs is None
    assert sealed.test_labels is None
    few = [_ten(path, test=10).load(seed, opens_test=True) for seed in (0, 1)]
    assert _rows(few[0].test_inputs) == _rows(few[1].test_inputs)
    assert set(_rows(few[0].test_inputs)) < {_known(one) for one in test}
    assert few[0].test_labels.bincount().tolist() == [1] * 10


def test_blocks_differ_and_repeat(small):
    path = small[0]
    first, again, other = (_ten(path).load(seed, opens_test=True) for seed in (0, 0, 1))
    assert _same(first, again)
    assert set(_rows(first.holdout_inputs)) != set(_rows(other.holdout_inputs))


def test_the_first_rows_are_those_on_disk_and_v_is_drawn_anew(small):
    path, train, *_ = small
    first, other = (_ten(path, draw="first").load(seed, opens_test=False) for seed in (0, 1))
    for splits in (first, other):
        assert _rows(splits.inputs)[:20] == [_known(one) for one in train[:20]]
    assert set(_rows(first.holdout_inputs)) != set(_rows(other.holdout_inputs))


def test_all_rows_can_be_labelled(small):
    path, _, labels, *_ = small
    splits = _ten(path, labelled=1).load(0, opens_test=False)
    assert splits.labelled == len(splits.inputs) == len(splits.labels) == 50
    assert Counter(splits.labels.tolist()) + Counter(splits.holdout_labels.tolist()) == Counter(labels.tolist())


def test_shares_are_of_the_training_split(small):
    path = small[0]
    splits = _ten(path, labelled=0.5, validation=0.25).load(0, opens_test=False)
    assert (splits.labelled, len(splits.holdout_inputs), len(splits.inputs)) == (30, 15, 45)


def test_neither_the_order_on_disk_nor_the_kind_of_file_matters(small, tmp_path):
    path, train, labels, test, test_labels = small
    pixels, all_labels = np.concatenate([train, test]).transpose(0, 2, 3, 1), np.concatenate([labels, test_labels])
    order = np.concatenate([np.random.RandomState(5).permutation(TRAIN), np.arange(TRAIN, TRAIN + TEST)])
    _write(tmp_path / "shuffled", pixels[order], all_labels[order])
    names = [cifar10.LABELS[label] for label in all_labels]
    write_folder(tmp_path / "folder", "train", pixels[:TRAIN], names[:TRAIN])
    write_folder(tmp_path / "folder", "test", pixels[TRAIN:], names[TRAIN:])
    given = _ten(path).load(2, opens_test=False)
    for other in ("shuffled", "folder"):
        found = _ten(tmp_path / other).load(2, opens_test=False)
        assert _rows(found.inputs) == _rows(given.inputs)
        assert _rows(found.holdout_inputs) == _rows(given.holdout_inputs)
        assert torch.equal(found.labels, given.labels)


def test_rows_of_the_test_split_and_copies_are_left_out_of_training(tmp_path, caplog):
    pixels, labels = pictures(TRAIN + TEST), np.arange(TRAIN + TEST) % 10
    pixels[0], labels[0] = pixels[TRAIN + 3], labels[TRAIN + 3]
    pixels[1], pixels[2] = pixels[11], pixels[21]
    labels[1], labels[2] = labels[11], 9  # a copy with another label: the lower one stays
    _write(tmp_path, pixels, labels)
    with caplog.at_level("INFO"):
        splits = _ten(tmp_path, labelled=1).load(0, opens_test=True)
    assert "1 training rows are test rows too, 2 are copies" in caplog.text
    seen = _rows(splits.inputs) + _rows(splits.holdout_inputs)
    assert len(seen) == len(set(seen)) == TRAIN - 3
    assert not set(seen) & set(_rows(splits.test_inputs))
    known = dict(zip(_rows(splits.inputs), splits.labels.tolist(), strict=True))
    known |= dict(zip(_rows(splits.holdout_inputs), splits.holdout_labels.tolist(), strict=True))
    assert known[_known(pixels[21].transpose(2, 0, 1))] == 1


def test_a_second_load_opens_no_data_set_and_a_changed_file_does(small, monkeypatch):
    path, train, labels, test, test_labels = small
    given = _ten(path).load(0, opens_test=True)
    real = pictureset.opened
    monkeypatch.setattr(pictureset, "opened", lambda *_: pytest.fail("the cache has it"))
    assert _same(_ten(path).load(0, opens_test=True), given)
    monkeypatch.setattr(pictureset, "opened", real)
    pixels = np.concatenate([train, test]).transpose(0, 2, 3, 1).copy()
    pixels[0] = 7
    _write(path, pixels, np.concatenate([labels, test_labels]))
    changed = _ten(path).load(0, opens_test=True)
    assert _known(np.full(3072, 7, np.uint8)) in _rows(changed.inputs) + _rows(changed.holdout_inputs)


def test_a_damaged_cache_is_made_again(small, own_caches, caplog):
    path = small[0]
    given = _held(_ten(path).load(0, opens_test=True))
    for file in sorted((own_caches / "node").glob("*/rows.npy")):
        data = bytearray(file.read_bytes())
        data[-1] ^= 255
        file.write_bytes(data)
        os.utime(file.parent / "whole.json", ns=(1, 1))  # as another process finds it, which has not checked it yet
    assert _same(_ten(path).load(0, opens_test=True), given)
    assert "is not whole, and is made again" in caplog.text


def test_pictures_are_decoded_ahead_or_when_needed_to_the_same_pixels(small, monkeypatch, own_caches):
    path = small[0]
    given = _ten(path).load(0, opens_test=True)
    assert list((own_caches / "node").glob("cifar10-train-pictures-*"))
    monkeypatch.setenv("KDSWEEP_DECODED_GIB", "0")
    monkeypatch.setenv("KDSWEEP_CACHE", str(own_caches / "other"))
    assert _same(_ten(path).load(0, opens_test=True), given)
    assert not list((own_caches / "other").glob("*pictures*"))


def test_lanes_read_the_same_memory(small, own_caches):
    path = small[0]
    splits = _ten(path).load(0, opens_test=False)
    shown = all_of(splits.inputs)
    mapped = [
        line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if f"{own_caches}/node/cifar10-train-pictures" in line
    ]
    assert len(set(mapped)) == 1
    # Not a copy: what another process writes into the file is seen here.
    with Path(mapped[0]).open("r+b") as file:
        file.seek(-TRAIN * 3072, os.SEEK_END)
        file.write(bytes(TRAIN * 3072))
    assert int(all_of(splits.inputs).sum()) == 0 < int(shown.sum())


def test_coarse_and_fine_labels(tmp_path):
    fine, pixels = np.arange(300) % 100, pictures(300, seed=1)
    coarse = fine % 20
    for split, part in (("train", slice(0, 200)), ("test", slice(200, 300))):
        labels = {"fine_label": fine[part], "coarse_label": coarse[part]}
        write_parquet(tmp_path / "cifar100", split, [file_of(one) for one in pixels[part]], labels, picture="img")
    found = {}
    for kind, classes in (("fine", 100), ("coarse", 20)):
        splits = Cifar100(path=str(tmp_path), labels=kind, labelled=1, validation=40).load(0, opens_test=True)
        assert splits.classes == classes
        found[kind] = dict(zip(_rows(splits.inputs), splits.labels.tolist(), strict=True))
    truth = {_known(one.transpose(2, 0, 1)): int(label) for one, label in zip(pixels, fine, strict=True)}
    assert all(truth[row] == label for row, label in found["fine"].items())
    assert all(truth[row] % 20 == label for row, label in found["coarse"].items())


def test_pictures_without_labels_join_u_but_for_those_to_test(tmp_path):
    pixels, labels = pictures(60, side=96), np.arange(60) % 10
    loose = np.concatenate([pictures(6, side=96, seed=9), pixels[35:37], pixels[:1]])
    for split, part in (("train", slice(0, 30)), ("test", slice(30, 60))):
        write_parquet(tmp_path, split, [file_of(one) for one in pixels[part]], labels[part])
    write_parquet(tmp_path, "unlabeled", [file_of(one) for one in loose], np.full(9, -1))
    splits = Stl10(path=str(tmp_path), labelled=10, validation=10, unlabelled=True).load(0, opens_test=True)
    assert (splits.labelled, len(splits.inputs)) == (10, 10 + 10 + 6)
    assert splits.labels[10:].tolist() == [-1] * 16
    assert _rows(splits.inputs)[20:] == [_known(one.transpose(2, 0, 1)) for one in loose[:6]]
    assert splits.inputs.name(25) == "row 5"
    assert splits.inputs.is_mapped
    assert len(Stl10(path=str(tmp_path), labelled=10, validation=10).load(0, opens_test=True).inputs) == 20


def test_the_test_rows_of_tiny_imagenet_are_its_validation_split(tmp_path):
    pixels, names = pictures(500, side=64), [f"n{index % 200:08d}" for index in range(500)]
    write_folder(tmp_path, "train", pixels[:300], names[:300])
    write_folder(tmp_path, "val", pixels[300:], names[300:])
    splits = TinyImageNet(path=str(tmp_path), labelled=200, validation=50).load(0, opens_test=True)
    assert splits.labels[:200].bincount().tolist() == [1] * 200
    assert set(_rows(splits.test_inputs)) == {_known(one.transpose(2, 0, 1)) for one in pixels[300:]}


def _middle(image, shorter, side):
    wide, high = image.size
    image = image.resize(
        (shorter, int(shorter * high / wide)) if wide < high else (int(shorter * wide / high), shorter), Image.Resampling.BILINEAR
    )
    left, top = (round((length - side) / 2) for length in image.size)
    return np.asarray(image.crop((left, top, left + side, top + side)).convert("RGB")).transpose(2, 0, 1)


def test_an_attribute_is_the_class_and_faces_are_cut_to_squares(tmp_path):
    pixels = pictures(40, side=218, width=178)
    cells = [file_of(one, "JPEG", quality=95) for one in pixels]
    male, smiling = np.arange(40) % 2 == 0, np.arange(40) % 3 == 0
    for split, part in (("train", slice(0, 30)), ("test", slice(30, 40))):
        labels = {"celeb_id": np.arange(40)[part], "Male": male[part], "Smiling": smiling[part]}
        write_parquet(tmp_path / "img_align+identity+attr", split, cells[part], labels)
    for attribute, truth in (("Male", male), ("Smiling", smiling)):
        source = CelebA(path=str(tmp_path), attribute=attribute, size=32, labelled=1, validation=4, draw="stratified")
        splits = source.load(0, opens_test=True)
        assert splits.classes == 2
        wanted = {_known(_middle(Image.open(io.BytesIO(cell)), 32, 32)): int(label) for cell, label in zip(cells, truth, strict=True)}
        assert [wanted[row] for row in _rows(splits.inputs)] == splits.labels.tolist()
        assert [wanted[row] for row in _rows(splits.test_inputs)] == splits.test_labels.tolist()


def test_imagenet_is_decoded_when_needed_and_colourless_pictures_are_coloured(tmp_path, monkeypatch):
    rng = np.random.RandomState(0)
    grey = rng.randint(0, 256, (1100, 20, 28)).astype(np.uint8)
    cells = [file_of(one, "JPEG") for one in grey]
    write_parquet(tmp_path / "data", "train", cells[:1060], np.arange(1060) % 1000, shards=3)
    write_parquet(tmp_path / "data", "validation", cells[1060:], np.arange(40))
    source = ImageNet(path=str(tmp_path), size=224, labelled=1, validation=10)
    splits = source.load(0, opens_test=True)
    assert splits.inputs.shape == (3, 224, 224)
    assert not splits.inputs.is_mapped
    assert not list(Path(os.environ["KDSWEEP_CACHE"]).glob("*pictures*"))
    shown = splits.test_inputs.fetch(torch.tensor([7, 0, 7]))
    for row, index in ((0, 7), (1, 0), (2, 7)):
        wanted = _middle(Image.open(io.BytesIO(cells[1060 + index])).convert("RGB"), 256, 224)
        assert np.array_equal(shown[row].numpy(), wanted)
    assert (shown[:, 0] == shown[:, 2]).all()
    monkeypatch.setenv("KDSWEEP_CACHE", str(tmp_path / "other"))
    ahead = dataclasses.replace(source, size=64).load(0, opens_test=True)
    assert list(Path(os.environ["KDSWEEP_CACHE"]).glob("imagenet-train-pictures-*"))
    # Which rows are drawn does not depend on the size.
    assert [ahead.inputs.name(row).split()[1] for row in range(1050)] == [splits.inputs.name(row).split()[1] for row in range(1050)]
    assert ahead.inputs.shape == (3, 64, 64)


def test_birds_in_folders(tmp_path):
    pixels, names = pictures(450, side=12, width=9), [f"{index % 200 + 1:03d}.Bird" for index in range(450)]
    write_folder(tmp_path, "train", pixels[:250], names[:250], "PNG")
    write_folder(tmp_path, "test", pixels[250:], names[250:], "PNG")
    splits = Cub200(path=str(tmp_path), size=8, validation=40).load(0, opens_test=True)
    assert (splits.labelled, len(splits.inputs)) == (210, 210)
    truth = {_known(_middle(Image.fromarray(one), round(8 * 8 / 7), 8)): index % 200 for index, one in enumerate(pixels)}
    assert [truth[row] for row in _rows(splits.inputs)] == splits.labels.tolist()


# --- what is wrong


def test_a_folder_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("KDSWEEP_DATA", str(tmp_path))
    with pytest.raises(
        ValueError, match=rf"needs path to be a folder .*got path='nowhere', which is {tmp_path}/nowhere\. Give the right one"
    ):
        Cifar10(path="nowhere").found()
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"needs the split train, as train-\*\.parquet or as train/<class>/<picture>, but has nothing"):
        Cifar10(path="empty").found()


def test_a_split_of_another_name(tmp_path):
    write_parquet(tmp_path, "training", [file_of(one) for one in pictures(2)], [0, 1])
    with pytest.raises(ValueError, match=r"needs the split train, .* but has training\. Did you mean training\?"):
        _ten(tmp_path).found()


def _broken(folder, change):
    cells, labels = [file_of(one) for one in pictures(TRAIN)], list(np.arange(TRAIN) % 10)
    keywords = {"picture": "img"}
    change(cells, labels, keywords)
    write_parquet(folder, "train", cells, labels, **keywords)
    write_parquet(folder, "test", [file_of(one) for one in pictures(TEST, seed=1)], np.arange(TEST) % 10, picture="img")
    return _ten(folder)


def _cut_short(cells, labels, keywords):
    cells[17] = cells[17][:60]


def _no_picture(cells, labels, keywords):
    cells[17] = b"no picture"


def _nothing(cells, labels, keywords):
    cells[17] = {"bytes": None, "path": "gone.png"}


def _larger(cells, labels, keywords):
    cells[17] = file_of(pictures(1, side=33)[0])


def _gap(cells, labels, keywords):
    labels[:] = [9 if label == 4 else label for label in labels]


def _outside(cells, labels, keywords):
    labels[5] = 10


def _secret(cells, labels, keywords):
    labels[:] = [-1] * len(labels)


def _words(cells, labels, keywords):
    labels[:] = [cifar10.LABELS[label] for label in labels]


def _other_label(cells, labels, keywords):
    keywords["label"] = "labels"


def _other_picture(cells, labels, keywords):
    keywords["picture"] = "imgs"


def _nine_names(cells, labels, keywords):
    labels[:] = [label % 9 for label in labels]
    keywords["names"] = cifar10.LABELS[:9]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_cut_short, r"needs pictures that can be read, but got row 17 \(00017\.png\): it cannot be decoded .*Replace or remove it"),
        (_no_picture, r"got row 17 \(00017\.png\): it cannot be decoded \(cannot identify"),
        (_nothing, r"got row 17 \(gone\.png\): it cannot be decoded"),
        (_larger, r"got row 17 \(00017\.png\): it needs 32x32 pixels, but has 33x33"),
        (_gap, "Cifar10 needs training rows of all 10 classes, but has none of 1, such as class 4: complete the data"),
        (_outside, "needs labels from 0 to 9, but got 10 in row 5 and others outside in 1 of 60 rows"),
        (_secret, "needs labels from 0 to 9, but got -1 in row 0 .* The hub keeps the labels of such a test split to itself"),
        (_words, "needs whole numbers in the column label, but got values such as 'airplane'"),
        (_other_label, r"needs the column label, but has img, labels\. Did you mean labels\?"),
        (_other_picture, r"needs the column img, but has imgs, label\. Did you mean imgs\?"),
        (_nine_names, "needs 10 classes, but the column label has 9: airplane"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_data_that_are_broken(tmp_path, own_caches, change, message):
    with pytest.raises(ValueError, match=message):
        _broken(tmp_path, change).load(0, opens_test=False)
    assert not list((own_caches / "node").glob("*.part-*"))


def test_a_broken_picture_that_is_decoded_when_needed_is_named(tmp_path, monkeypatch):
    write_parquet(tmp_path, "train", [file_of(one) for one in pictures(1005, side=9)], np.arange(1005) % 1000)
    broken = [*(file_of(one) for one in pictures(2, side=9, seed=3)), b"no picture"]
    write_parquet(tmp_path, "val", broken, np.arange(3))
    splits = ImageNet(path=str(tmp_path), labelled=1, validation=3).load(0, opens_test=True)
    assert len(all_of(splits.inputs)) == 1002
    with pytest.raises(ValueError, match=r"row 2 \(00002\.png\).*cannot be decoded"):
        all_of(splits.test_inputs)


def test_a_file_that_is_no_parquet(tmp_path):
    (tmp_path / "train.parquet").write_bytes(b"PAR1 but not really")
    (tmp_path / "test.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(ValueError, match=r"The split train in .* needs Parquet files that can be read, but got: "):
        _ten(tmp_path).load(0, opens_test=False)


def test_a_class_without_a_folder_is_no_other_class(tmp_path):
    pixels = pictures(40)
    names = [cifar10.LABELS[index % 10] for index in range(40)]
    write_folder(tmp_path, "train", pixels[:20], names[:20])
    write_folder(tmp_path, "test", pixels[21:29], names[21:29])
    with pytest.raises(ValueError, match=r"The split test .* needs 10 classes, but the column label has 8: automobile, bird"):
        _ten(tmp_path, labelled=1, validation=2).load(0, opens_test=False)


def test_sizes_that_do_not_fit(small):
    path = small[0]
    with pytest.raises(
        ValueError, match=r"Cifar10 needs labelled \+ validation to be at most the 60 rows of its training split, but got labelled=55"
    ):
        _ten(path, labelled=55).load(0, opens_test=False)
    with pytest.raises(ValueError, match="Cifar10 needs test to be at most the 20 rows of its test split, but got test=21"):
        _ten(path, test=21).load(0, opens_test=False)
    with pytest.raises(ValueError, match=r"needs labelled to be a share up to 1 or a whole number of rows, but got labelled=2\.5"):
        _ten(path, labelled=2.5).load(0, opens_test=False)
    with pytest.raises(ValueError, match=r"at most the 50000 rows .*labelled=49999"):
        Cifar10(labelled=49_999, validation=2)


def test_rows_that_are_sorted_have_no_first_ones(tmp_path):
    labels = np.sort(np.arange(400) % 10)
    write_parquet(tmp_path, "train", [file_of(one) for one in pictures(400)], labels, picture="img")
    write_parquet(tmp_path, "test", [file_of(one) for one in pictures(TEST, seed=1)], np.arange(TEST) % 10, picture="img")
    with pytest.raises(
        ValueError, match="needs draw=stratified with these data, but got draw=first: its first 200 rows have none of 5 classes"
    ):
        _ten(tmp_path, draw="first", labelled=200).load(0, opens_test=False)


def test_another_number_of_rows_than_published(small, monkeypatch, caplog):
    path = small[0]
    with caplog.at_level("INFO"):
        _ten(path).load(0, opens_test=False)
    assert "has 60 rows, where 50000 were published" in caplog.text
    data = hub.opened(Cifar10(path=str(path)).place, ["train"])
    monkeypatch.setattr(pictureset, "opened", lambda *_: data)
    with pytest.raises(
        ValueError, match=r"uoft-cs/cifar10 .* needs the 50000 rows that were published, but has 60\. Name another revision, or give path"
    ):
        Cifar10().load(0, opens_test=False)


def test_a_hub_that_is_out_of_reach():
    with pytest.raises(
        ValueError, match=r"uoft-cs/cifar10 \(revision 0b27.*\) needs to be on this machine or within reach.*Give path.*HF_HOME"
    ):
        Cifar10().load(0, opens_test=False)


def test_terms_that_were_not_accepted(monkeypatch):
    def gated(*_, **__):
        raise datasets.exceptions.DatasetNotFoundError("Dataset 'ILSVRC/imagenet-1k' is a gated dataset on the Hub. You must log in.")

    monkeypatch.setattr(datasets, "load_dataset", gated)
    with pytest.raises(ValueError, match=r"is a gated dataset on the Hub.*Accept its terms .* set HF_TOKEN; or give path"):
        ImageNet().load(0, opens_test=False)


def test_the_extra_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(
        ModuleNotFoundError, match=r"needs the package datasets, but it is not installed\. Run `pip install 'kdsweep\[data\]'`"
    ):
        Cifar10().load(0, opens_test=False)


def test_studies_are_read_without_their_data():
    for kind in (*SETS, Imdb):
        kind().fits()


@pytest.mark.parametrize("kind", SETS, ids=lambda kind: kind.__name__)
def test_what_is_declared(kind):
    source = kind()
    assert source.hub.count("/") == 1
    assert source.facts.rows.keys() == source.facts.splits.keys()
    assert "cite" not in source.hub
    text = sys.modules[kind.__module__].__doc__
    assert "https://" in text or "http://" in text
    assert source.hub in text
    assert any(word in text for word in ("licence", "Terms", "terms"))


def test_names_of_classes():
    assert len(set(celeba.ATTRIBUTES)) == 40
    assert len(cifar10.LABELS) == len(stl10.LABELS) == 10
    assert len(set(cifar100.COARSE_LABELS)) == 20
    assert all(names == tuple(sorted(names)) for names in (cifar10.LABELS, stl10.LABELS, cifar100.COARSE_LABELS))
    assert {cub200.Cub200().classes, tinyimagenet.TinyImageNet().classes} == {200}
    assert imagenet.ImageNet().classes == 1000


# --- texts

WORDS = ["good", "bad", "film", "very", "a", "b", "c", "d"]


@pytest.fixture
def reviews(tmp_path):
    """(N,) texts of four words, for (1) or against (0), sorted by class as on the hub."""
    rng = np.random.RandomState(0)
    texts = {}
    for split, count, seed in (("train", 40, 0), ("test", 20, 1), ("unsupervised", 10, 2)):
        labels = np.sort(np.arange(count) % 2)
        texts[split] = [
            f"{['bad', 'good'][label]} film {' '.join(rng.choice(WORDS, 6))} x{seed}{index}" for index, label in enumerate(labels)
        ]
        write_texts(tmp_path / "plain_text", split, texts[split], labels if split != "unsupervised" else np.full(count, -1))
    write_tokenizer(tmp_path / "tokens", WORDS)
    return tmp_path, texts


def _imdb(path, **fields):
    return Imdb(path=str(path), **{"tokenizer": str(path / "tokens"), "length": 16, "labelled": 10, "validation": 6, **fields})


def test_texts_become_ids_of_one_length(reviews):
    path, texts = reviews
    splits = _imdb(path).load(0, opens_test=True)
    assert (splits.inputs.dtype, tuple(splits.inputs.shape), splits.labelled) == (torch.int64, (34, 16), 10)
    assert splits.scaling is None
    number = {"[UNK]": 1, "[CLS]": 2, "[SEP]": 3, **{word: index + 4 for index, word in enumerate(WORDS)}}
    wanted = [[2, *(number.get(word, 1) for word in text.split()), 3] for text in texts["test"]]
    assert splits.test_inputs.tolist() == [ids + [0] * (16 - len(ids)) for ids in wanted]
    assert splits.labels[:10].bincount().tolist() == [5, 5]
    assert splits.labels[10:].tolist() == [-1] * 24
    assert splits.inputs[:10, 1].tolist() == [number["good"] if label else number["bad"] for label in splits.labels[:10].tolist()]
    short = _imdb(path, length=4).load(0, opens_test=True)
    assert short.test_inputs.tolist() == [[*ids[:3], 3] for ids in wanted]


def test_texts_without_labels_join_u_and_copies_are_left_out(reviews):
    path, texts = reviews
    train = [*texts["train"][:-1], texts["test"][0]]
    write_texts(path / "plain_text", "train", train, np.sort(np.arange(40) % 2))
    write_texts(path / "plain_text", "unsupervised", [*texts["unsupervised"][:8], texts["test"][1], train[0]], np.full(10, -1))
    splits = _imdb(path, unlabelled=True).load(0, opens_test=True)
    assert len(splits.inputs) == 39 - 6 + 8


def test_tokenizers_that_do_not_do(reviews, tmp_path):
    path = reviews[0]
    with pytest.raises(
        ValueError, match=r"needs tokenizer to be a folder with a tokenizer or a name on the hub, but got tokenizer='no/where': .*HF_HOME"
    ):
        _imdb(path, tokenizer="no/where").load(0, opens_test=False)
    write_tokenizer(tmp_path / "other", WORDS, pad="[SEP]")
    with pytest.raises(ValueError, match=r"needs a fast tokenizer that pads with 0, .* which pads with 3"):
        _imdb(path, tokenizer=str(tmp_path / "other")).load(0, opens_test=False)


def test_texts_that_are_broken(reviews):
    path, texts = reviews
    write_texts(path / "plain_text", "train", [None, *texts["train"][1:]], np.arange(40) % 2)
    with pytest.raises(ValueError, match="needs texts in the column text, but got None in row 0"):
        _imdb(path).load(0, opens_test=False)
    write_texts(path / "plain_text", "train", texts["train"], np.zeros(40, int))
    with pytest.raises(ValueError, match="Imdb needs training rows of all 2 classes, but has none of 1, such as class 1"):
        _imdb(path).load(0, opens_test=False)
    with pytest.raises(ValueError, match=r"stanfordnlp/imdb \(revision e628.*needs to be on this machine"):
        imdb.Imdb().load(0, opens_test=False)


# --- studies


def _study(tiny_study_text, tmp_path, data):
    file = tmp_path / "study.yaml"
    file.write_text(tiny_study_text.replace("{source: digits, labelled: 50, validation: 100, test: 1000}", data))
    return read_study(file)


def test_a_study_names_a_source_and_its_sizes_in_whole_numbers(tiny_study_text, tmp_path):
    study = _study(tiny_study_text, tmp_path, "{source: cifar100, labelled: 1, validation: 500, augmentation: crop_flip, labels: coarse}")
    assert study.data == Cifar100(labelled=1.0, validation=500.0, augmentation="crop_flip", labels="coarse")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("{source: cifar10, labelled: 49999, validation: 2}", r"data: Cifar10 needs labelled \+ validation to be at most the 50000 rows"),
        (
            "{source: cifar100, draw: stratified, labelled: 99}",
            r"data: Cifar100 needs labelled to be at least a row of each of its 100 classes",
        ),
        ("{source: cifar10, augmentation: crop_flop}", r"needs one of none, crop, crop_flip, .* Did you mean crop_flip\?"),
        ("{source: celeba, attribute: male}", r"got 'male'\. Did you mean Male\?"),
        ("{source: cifar1000}", r"Did you mean cifar100\?"),
        ('{source: cifar10, path: "a\\nb"}', "needs a line of at most 500 printable characters"),
    ],
)
def test_a_study_whose_data_are_wrong(tiny_study_text, tmp_path, data, message):
    with pytest.raises(StudyError, match=message):
        _study(tiny_study_text, tmp_path, data)


def test_where_a_copy_lies_is_in_the_id_and_what_it_replaces_is_not(tmp_path, monkeypatch):
    monkeypatch.setenv("KDSWEEP_DATA", str(tmp_path))
    (tmp_path / "ten").mkdir()
    assert Cifar10(path="ten").place.folder == tmp_path / "ten"
    assert Cifar10(path=str(tmp_path / "ten")).place.folder == tmp_path / "ten"
    assert {"path", "hub", "revision"} & flat(Cifar10(path="ten")).keys() == {"path"}
    assert {"path", "hub", "revision"} <= flat(Cifar10()).keys()


def test_the_readme_has_every_source():
    text = (Path(__file__).parents[1] / "README.md").read_text()
    for name in names("trainables.data"):
        if name == "digits":
            continue
        source = load("trainables.data", name, Source)()
        rows = source.facts.rows if isinstance(source, pictureset.PictureSet) else {"train": 25_000, "test": 25_000, "more": 50_000}
        more = f" (and {rows['more']:,} without labels)" if "more" in rows else ""
        assert f"| `{name}` | {source.hub} | {rows['train']:,}, {rows['test']:,}{more} |" in text

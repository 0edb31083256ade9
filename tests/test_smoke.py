"""Smoke runs: what of a study is made small and what is left, that data are in the real form, and that its results stand apart."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from orchestrator import report, smoke
from orchestrator.analysis.frames import SMOKE
from orchestrator.plan import trainings
from orchestrator.reading import read_study
from orchestrator.study import Study
from tests.test_cli import kdsweep
from trainables import synthetic
from trainables.data.celeba import CelebA
from trainables.data.cifar100 import Cifar100
from trainables.data.cub200 import Cub200
from trainables.data.digits import Digits
from trainables.data.imagenet import ImageNet
from trainables.data.imdb import Imdb
from trainables.data.stl10 import Stl10
from trainables.folder import name_of

STUDIES = sorted((Path(__file__).parent.parent / "search_spaces" / "studies").glob("*.yaml"))


def small(path: Path, rows: int | None = None) -> Study:
    """The study made small, with its own data."""
    return read_study(path, smoke.overrides(read_study(path), {}, rows))


def method_names(study: Study) -> list[str]:
    return [name_of(arm.method) for arm in study.arms.values()]


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_study_keeps_its_arms_methods_and_networks_and_loses_its_length(path):
    whole, found = read_study(path), small(path, rows=96)
    assert list(found.arms) == list(whole.arms)
    assert method_names(found) == method_names(whole)
    for arm, before in zip(found.arms.values(), whole.arms.values(), strict=True):
        assert type(arm.model) is type(before.model)
        assert arm.steps == before.steps
        assert arm.recipe.epochs == 1
        assert arm.recipe.batch <= 24
        assert arm.recipe.learning_rate <= 1e-3
        taught, teacher = arm.taught_by(found), before.taught_by(whole)
        assert taught.recipe.epochs == 1
        assert taught.recipe.batch <= 24
        assert taught.recipe.smoothing == teacher.recipe.smoothing
        assert (arm.teacher is None) == (before.teacher is None)
        assert not getattr(arm.model, "weights", "")
        assert not getattr(taught.model, "weights", "")
        assert all(getattr(arm.method, name) == 1 for name in vars(arm.method) if name.endswith("_epochs"))
        assert getattr(arm.method, "passes", 2) == 2
    assert found.run.smoke
    assert found.run.lane == "any"
    if found.confirm is not None:
        assert found.confirm.blocks == (1 if path.stem.startswith(("all_methods", "peng_", "self_distillation_cifar10")) else 2)
        assert found.confirm.against == whole.confirm.against
    if found.search is not None:
        assert trainings(found.search) * found.search.blocks <= 2
        assert list(found.search.spaces) == list(whole.search.spaces)
    assert found.fingerprint != whole.fingerprint


def test_made_small_again_it_is_the_same():
    path = STUDIES[0]
    once = smoke.overrides(read_study(path), {}, None)
    assert read_study(path, [*once, *smoke.overrides(read_study(path, once), {}, None)]).fingerprint == read_study(path, once).fingerprint


def test_what_is_searched_of_the_length_has_one_value():
    text = STUDIES[0].parent / "slam_digits.yaml"
    whole = read_study(text, ["search.space.all.recipe.epochs=[10, 20]", "search.space.slam.recipe.batch=[64, 128]"])
    found = dict(each.partition("=")[::2] for each in smoke.overrides(whole, {}, None))
    assert found["search.space.slam.recipe.epochs"] == "[1]"
    assert found["search.space.vanilla.recipe.epochs"] == "[1]"
    assert found["search.space.slam.recipe.batch"] == "[16]"
    assert "search.space.vanilla.recipe.batch" not in found


def test_what_is_searched_of_a_method_is_left_alone_but_for_its_length():
    more = ["search.space.ups.method.passes=[5, 10]", "search.space.sskd.method.head_epochs=[10, 20]"]
    whole = read_study(STUDIES[0].parent / "all_methods_digits.yaml", more)
    found = dict(each.partition("=")[::2] for each in smoke.overrides(whole, {}, None))
    assert {name: value for name, value in found.items() if name.startswith("search.space.")} == {
        "search.space.ups.method.passes": "[2]",
        "search.space.sskd.method.head_epochs": "[1]",
    }


# The data


@pytest.fixture
def cache(tmp_path, monkeypatch):
    pytest.importorskip("datasets")
    monkeypatch.setenv("KDSWEEP_CACHE", str(tmp_path))
    return tmp_path


def made(source):
    return replace(source, **synthetic.stand_in(source))


@pytest.mark.parametrize(
    ("source", "rows", "side"),
    [(Cifar100(labelled=1), 124, 32), (ImageNet(), 1024, 32), (CelebA(), 32, 32), (Cub200(), 224, 32), (Stl10(), 34, 96)],
    ids=lambda value: name_of(value) if not isinstance(value, int) else "",
)
def test_pictures_are_read_by_the_loader_of_the_source(cache, source, rows, side):
    found = made(source).load(0, opens_test=True)
    joined = synthetic.TESTED if source.joins_more else 0
    assert len(found.inputs) + len(found.holdout_inputs) == rows + joined
    assert len(found.holdout_inputs) == synthetic.HELD
    assert len(found.test_inputs) == synthetic.TESTED
    pictures = found.inputs.fetch(torch.arange(2))
    assert (pictures.shape, pictures.dtype) == ((2, 3, side, side), torch.uint8)
    assert found.classes == source.classes
    assert synthetic.training_rows(source) == rows


def test_texts_are_read_by_the_loader_of_the_source(cache):
    pytest.importorskip("transformers")
    found = made(Imdb()).load(0, opens_test=True)
    assert (found.inputs.shape[1], found.inputs.dtype) == (8, torch.int64)
    assert len(found.inputs) + len(found.holdout_inputs) == 32
    assert len(found.test_inputs) == synthetic.TESTED
    assert int(found.inputs.max()) < 30_000


def test_the_same_source_has_the_same_files_which_are_written_once(cache):
    first = synthetic.stand_in(Cifar100())
    files = {file: file.stat().st_mtime_ns for file in Path(first["path"]).rglob("*")}
    assert synthetic.stand_in(Cifar100(labelled=0.5)) == first | {"labelled": 0.5}
    assert {file: file.stat().st_mtime_ns for file in Path(first["path"]).rglob("*")} == files
    assert synthetic.stand_in(Cifar100(labels="coarse"))["path"] != first["path"]


@pytest.mark.parametrize(
    ("labelled", "share"),
    # Of 124 rows; a share of CIFAR-100's 50,000; at least 8 rows, and at most what V's 8 leave.
    [(25_000.0, 0.5), (0.25, 0.25), (2500.0, 8 / 124), (0.01, 8 / 124), (0.99, 116 / 124), (1.0, 1.0)],
)
def test_the_share_of_labelled_rows_is_kept_where_it_is_enough(cache, labelled, share):
    source = made(Cifar100(labelled=labelled))
    assert source.labelled == pytest.approx(share)
    assert synthetic.stand_in(source)["labelled"] == source.labelled
    found = source.load(0, opens_test=False)
    assert found.labelled == round(min(share, 116 / 124) * 124)
    assert len(found.inputs) == 116


def test_some_texts_are_longer_than_what_is_read_of_them_and_some_shorter(cache):
    pytest.importorskip("transformers")
    found = made(Imdb()).load(0, opens_test=False)
    is_full = found.inputs[:, -1] != 0
    assert 0 < int(is_full.sum()) < len(is_full)


def test_digits_are_used_as_they_are():
    assert synthetic.stand_in(Digits()) == {}
    assert synthetic.training_rows(Digits()) is None


# The verb


def test_the_verb_leaves_results_apart_that_say_what_they_are(tmp_path, capsys, monkeypatch):
    path = tmp_path / "tiny.yaml"
    path.write_text(
        """\
study: tiny
data: {source: digits, labelled: 20, validation: 50, test: 100}
teacher: {model: {family: mlp, width: 8}, recipe: {epochs: 20}}
student: {model: {family: mlp, width: 8}, recipe: {epochs: 20, batch: 512}}
arms: {kd: {method: kd}, vanilla: {method: vanilla}}
confirm: {base: kd, against: [vanilla], blocks: 6}
run: {wandb: offline}
"""
    )
    code, text, _ = kdsweep(
        capsys, monkeypatch, "run", str(path), "--smoke", "--in-process", "--storage", str(tmp_path / "results"), "--json"
    )
    assert code == 0
    told = json.loads(text)
    folder = tmp_path / "results" / "smoke" / "tiny"
    assert told["folder"] == str(folder)
    assert not (folder / "wandb").exists()
    first = next(line for line in (folder / "report.md").read_text().splitlines() if line and not line.startswith("# "))
    assert first == f"**{SMOKE}**"
    assert SMOKE in (folder / "report.html").read_text()
    assert report.frames(folder).facts.is_smoke
    assert not (tmp_path / "results" / "tiny").exists()

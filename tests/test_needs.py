"""What trainings need of a machine, looked for before the first of them: extras, data, tokenizers, weights, and whether it all fits."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from dataclasses import replace
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
import yaml
from rich.console import Console
from typer.testing import CliRunner

from orchestrator import driver, needs
from orchestrator.__main__ import app
from orchestrator.checkneeds import check_needs, judge_needs
from orchestrator.cluster import Machine, connected, holders
from orchestrator.doctor import Findings, Severity
from orchestrator.driver import Launch, drive
from orchestrator.errors import Interrupted, StudyError
from orchestrator.journal import Journal
from orchestrator.placement import Placement
from orchestrator.premises import Premises
from orchestrator.proof import Proof
from orchestrator.reading import study_of
from tests.small_sets import file_of, pictures, write_parquet, write_texts, write_tokenizer
from trainables import glance, nodecache
from trainables.data.celeba import CelebA
from trainables.data.cifar10 import Cifar10
from trainables.data.digits import Digits
from trainables.data.imdb import Imdb
from trainables.extras import absent, lack
from trainables.form import Form
from trainables.inventory import Inventory, Wanted, lacking, taken
from trainables.models.bert import BERT
from trainables.models.cnn import CNN
from trainables.models.imagenet import ImageNet
from trainables.models.mlp import MLP
from trainables.models.resnet import ResNet
from trainables.models.vgg import VGG

CIFAR = "{source: cifar10, path: %s, labelled: 20, validation: 10, draw: stratified}"


@pytest.fixture(autouse=True)
def own_caches(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("caches")
    monkeypatch.setenv("KDSWEEP_CACHE", str(folder / "node"))
    monkeypatch.delenv("KDSWEEP_DATA", raising=False)
    return folder


def of(*sources, networks=()):
    return Wanted(tuple(sources), tuple(networks))


def write_cifar(folder, *, labels=None, test=True, picture="img", **keywords):
    """60 rows to train on and 20 to test; the pictures are no pictures, since nothing may decode them."""
    labels = [index % 10 for index in range(60)] if labels is None else labels
    write_parquet(folder, "train", [b"no picture"] * len(labels), labels, picture=picture, **keywords)
    if test:
        write_parquet(folder, "test", [b"no picture"] * 20, [index % 10 for index in range(20)], picture="img")
    return Cifar10(path=str(folder), labelled=20, validation=10, draw="stratified")


def faults(source):
    return taken(of(source)).faults


# Data


def test_a_set_that_is_there_is_looked_at_without_decoding_or_fetching_it(tmp_path, own_caches):
    assert taken(of(write_cifar(tmp_path))) == Inventory(taken(of()).host, (), ())
    assert not (own_caches / "node").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"picture": "imgs"}, r"The split train of cifar10 in {} needs the column img, but has imgs, label\. Did you mean imgs\?"),
        ({"label": "labels"}, r"needs the column label, but has img, labels\. Did you mean labels\?"),
        (
            {"labels": [index % 9 for index in range(60)]},
            r"Cifar10 needs training rows of all 10 classes, but has none of 1, such as class 9",
        ),
        ({"labels": [10] + [index % 10 for index in range(59)]}, "needs labels from 0 to 9, but got 10 in row 0"),
        ({"labels": ["cat"] * 60}, "needs whole numbers in the column label, but got values such as 'cat'"),
        ({"labels": [index % 10 for index in range(25)]}, "needs labelled \\+ validation to be at most the 25 rows"),
        ({"names": ["a", "b"]}, "needs 10 classes, but the column label has 2: a, b"),
        ({"labels": []}, "The split train of cifar10 in {} needs rows, but has none"),
        ({"test": False}, r"The data set in {} needs the split test, as test-\*\.parquet or as test/<class>/<picture>, but has train"),
    ],
    ids=lambda value: "",
)
def test_what_is_wrong_with_parquet_files(tmp_path, change, message):
    (found,) = faults(write_cifar(tmp_path, **change))
    assert_matches(message.replace("{}", str(tmp_path)), found)


def assert_matches(pattern, text):
    with pytest.raises(ValueError, match=pattern):
        raise ValueError(text)


def test_a_folder_that_is_not_there_and_files_that_are_none(tmp_path):
    (found,) = faults(Cifar10(path=str(tmp_path / "nowhere")))
    assert f"which is {tmp_path}/nowhere. Give the right one, or set KDSWEEP_DATA" in found
    source = write_cifar(tmp_path)
    (tmp_path / "train-00000-of-00001.parquet").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n")
    (found,) = faults(source)
    assert "needs Parquet files that can be read, but got" in found
    assert "train-00000-of-00001.parquet" in found
    assert "Git LFS" in found


def test_all_shards_count_and_first_rows_are_looked_at_in_their_order(tmp_path):
    labels = sorted(index % 10 for index in range(400))
    write_cifar(tmp_path, labels=labels, shards=3, test=False)
    write_parquet(tmp_path, "test", [b"no picture"] * 20, [index % 10 for index in range(20)], picture="img", shards=3)
    assert faults(Cifar10(path=str(tmp_path), labelled=300, validation=100, test=20, draw="stratified")) == ()
    (found,) = faults(Cifar10(path=str(tmp_path), labelled=200, validation=100, draw="first"))
    assert "its first 200 rows have none of 5 classes" in found
    (found,) = faults(Cifar10(path=str(tmp_path), labelled=301, validation=100, draw="stratified"))
    assert "at most the 400 rows" in found


def test_folders_of_pictures(tmp_path):
    for split, classes in (("train", 10), ("test", 10)):
        for label in range(classes):
            for row in range(6):
                file = tmp_path / split / f"class{label}" / f"{row}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(b"no picture")
    source = Cifar10(path=str(tmp_path), labelled=20, validation=10)
    assert faults(source) == ()
    (found,) = faults(replace(source, labelled=55))
    assert "at most the 60 rows" in found
    for file in (tmp_path / "test" / "class3").iterdir():
        file.unlink()
    (found,) = faults(source)
    assert_matches(r"The split test of cifar10 in .* needs a folder with pictures for each of 10 classes, but has 9: class0, class1", found)


def test_yes_and_no_are_classes(tmp_path):
    for split in ("train", "test"):
        cells = [{"bytes": b"no picture", "path": "x"}] * 8
        write_parquet(tmp_path, split, cells, {"Male": [row % 2 == 0 for row in range(8)], "Young": [True] * 8})
    assert faults(CelebA(path=str(tmp_path), labelled=4, validation=2)) == ()
    (found,) = faults(CelebA(path=str(tmp_path), labelled=4, validation=2, attribute="Young"))
    assert "needs training rows of all 2 classes, but has none of 1, such as class 0" in found


class Hub:
    """What the hub says of a set."""

    def __init__(self, monkeypatch, tmp_path, **info):
        import datasets

        features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(num_classes=10)})
        splits = {"train": SimpleNamespace(num_examples=50_000), "test": SimpleNamespace(num_examples=10_000)}
        told = {"features": features, "splits": splits, "download_size": 143_646_105, **info}
        self.asked, self.folder = [], tmp_path / "arrow"

        def builder(path, name, revision):
            self.asked.append((path, name, revision[:4]))
            return SimpleNamespace(info=SimpleNamespace(**told), cache_dir=str(self.folder))

        monkeypatch.setattr(datasets, "load_dataset_builder", builder)


def test_a_set_of_the_hub_is_asked_for_and_not_fetched(monkeypatch, tmp_path):
    hub = Hub(monkeypatch, tmp_path)
    found = taken(of(Cifar10()))
    assert found.faults == ()
    assert found.remarks == (
        "uoft-cs/cifar10 (revision 0b2714987fa478483af9968de7c934580d0bb9a2) will be fetched on every machine that trains: 0.1 GB.",
    )
    assert set(hub.asked) == {("uoft-cs/cifar10", "plain_text", "0b27")}
    hub.folder.mkdir()
    assert taken(of(Cifar10())).remarks == ()


@pytest.mark.parametrize(
    ("info", "message"),
    [
        ({"splits": {"train": SimpleNamespace(num_examples=50_000)}}, "needs the split test, but the set has train"),
        (
            {"splits": {name: SimpleNamespace(num_examples=60) for name in ("train", "test")}},
            "needs the 50000 rows that were published, but has 60",
        ),
        ({"features": {"image": None, "labels": None}}, "needs the column img, but has image, labels"),
        ({"features": {"img": None, "label": SimpleNamespace(names=["a"])}}, "needs 10 classes, but the column label has 1: a"),
    ],
    ids=["split", "rows", "column", "classes"],
)
def test_a_set_of_the_hub_that_is_another_one(monkeypatch, tmp_path, info, message):
    Hub(monkeypatch, tmp_path, **info)
    (found,) = faults(Cifar10())
    assert message in found


def test_a_hub_that_is_out_of_reach(monkeypatch):
    import datasets
    import huggingface_hub

    for module in (datasets.config, huggingface_hub.constants):
        monkeypatch.setattr(module, "HF_HUB_OFFLINE", True)
    (found,) = faults(Cifar10())
    assert_matches(r"uoft-cs/cifar10 .* needs to be on this machine or within reach.*set HF_HOME", found)


def test_what_stands_in_the_cache_of_the_machine_is_not_asked_for_again(monkeypatch, tmp_path):
    write_parquet(tmp_path, "train", [file_of(one) for one in pictures(60)], [row % 10 for row in range(60)], picture="img")
    write_parquet(tmp_path, "test", [file_of(one) for one in pictures(20, seed=1)], [row % 10 for row in range(20)], picture="img")
    source = Cifar10(path=str(tmp_path), labelled=20, validation=10, draw="stratified")
    source.load(0, opens_test=False)
    asked = []
    monkeypatch.setattr(glance, "glance", lambda *_: asked.append(1))
    assert faults(source) == ()
    monkeypatch.setenv("KDSWEEP_DECODED_GIB", "0")  # labels and ids stand, pictures are not needed
    assert faults(source) == ()
    assert faults(replace(source, labelled=55))[0].startswith("Cifar10 needs labelled + validation to be at most the 60 rows")
    assert not asked


def test_a_cut_entry_of_the_cache_does_not_stand():
    folder = nodecache.kept("entry", 0, lambda folder: (folder / "rows").write_bytes(b"four") and None)
    assert nodecache.standing("entry") == folder
    (folder / "rows").write_bytes(b"fou")
    assert nodecache.standing("entry") is None
    assert nodecache.standing("another") is None


# Texts


def test_texts_and_their_tokenizer(tmp_path):
    for split in ("train", "test"):
        write_texts(tmp_path, split, [f"{split} {row}" for row in range(40)], [row % 2 for row in range(40)])
    source = Imdb(path=str(tmp_path), tokenizer=str(tmp_path / "tokenizer"), labelled=8, validation=4, length=8)
    (found,) = faults(source)
    assert "needs tokenizer to be a folder with a tokenizer or a name on the hub" in found
    write_tokenizer(tmp_path / "tokenizer", [f"word{number}" for number in range(46)])
    assert faults(source) == ()
    networks = [(BERT(size="tiny", vocabulary=vocabulary), source) for vocabulary in (50, 49)]
    (found,) = taken(of(source, networks=networks)).faults
    assert found.startswith("BERT needs a vocabulary as large as the tokenizer's, 50, but got vocabulary=49.")
    source.load(0, opens_test=False)
    shutil.rmtree(tmp_path / "tokenizer")
    (found,) = faults(source)  # another tokenizer than the one whose tokens stand
    assert "needs tokenizer" in found


def test_a_column_of_texts_that_is_missing(tmp_path):
    for split in ("train", "test"):
        pq.write_table(pa.table({"review": ["x"] * 8, "label": [0, 1] * 4}), tmp_path / f"{split}.parquet")
    (found,) = faults(Imdb(path=str(tmp_path), labelled=4, validation=2))
    assert "needs the column text, but has review, label" in found


# Extras


def test_an_extra_that_is_missing_is_said_for_source_and_network_with_the_command(monkeypatch):
    wanted = of(Cifar10(), Digits(), networks=[(ImageNet(), Cifar10()), (MLP(), Digits())])
    assert lacking(wanted) == ()
    monkeypatch.setitem(sys.modules, "datasets", None)
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert absent(("datasets", "PIL")) == ("datasets",)
    told = (
        "Data source cifar10 needs the packages datasets and PIL, but datasets is not installed. Run `pip install 'kdsweep[data]'`.",
        "Network family imagenet needs the package transformers, but transformers is not installed. Run `pip install 'kdsweep[models]'`.",
    )
    assert lacking(wanted) == told
    assert taken(wanted).faults == told
    assert lack("It", "data", ("numpy",)) is None


def study_text(tiny_study_text, data=None, teacher=None, student=None, **more):
    found = yaml.safe_load(tiny_study_text)
    if data is not None:
        found["data"] = yaml.safe_load(data)
    for role, model in (("teacher", teacher), ("student", student)):
        if model is not None:
            found[role]["model"] = model
    return yaml.safe_dump({**found, **more}, sort_keys=False)


def test_validate_and_plan_say_what_this_machine_lacks_and_run_ends_before_any_cell(tiny_study_text, tmp_path, monkeypatch):
    (tmp_path / "set").mkdir()
    write_cifar(tmp_path / "set")
    file = tmp_path / "study.yaml"
    file.write_text(study_text(tiny_study_text, CIFAR % (tmp_path / "set")))
    cli, storage = CliRunner(), ["--storage", str(tmp_path / "results")]
    assert "pip install" not in cli.invoke(app, ["validate", str(file)]).stderr
    monkeypatch.setitem(sys.modules, "datasets", None)
    for verb in (["validate", str(file)], ["plan", str(file), *storage]):
        found = cli.invoke(app, verb)
        assert found.exit_code == 0
        assert "note: Data source cifar10 needs the packages datasets and PIL" in found.stderr
        (told,) = json.loads(cli.invoke(app, [*verb, "--json"]).stdout)["lacks"]
        assert "pip install 'kdsweep[data]'" in told
    found = cli.invoke(app, ["run", str(file), *storage, "--in-process"])
    assert isinstance(found.exception, StudyError)
    assert "pip install 'kdsweep[data]'" in str(found.exception)
    assert found.exception.exit_code == 2
    assert Journal(str(tmp_path / "results" / "tiny")).read() == ()


# A launch


def launched(study, tmp_path, **how):
    said = io.StringIO()
    console = Console(file=said, width=400)
    study = replace(study, run=replace(study.run, storage=str(tmp_path / "results")))
    return lambda: drive(study, Launch(**how), console), said


def test_a_launch_without_its_data_ends_before_any_cell_and_names_the_machine(tiny_study_text, tmp_path):
    study = study_of(study_text(tiny_study_text, CIFAR % (tmp_path / "nowhere")))
    go, _ = launched(study, tmp_path, in_process=True)
    with pytest.raises(StudyError, match=rf"\A{taken(of()).host}: A data set needs path to be a folder .*{tmp_path}/nowhere") as raised:
        go()
    assert raised.value.exit_code == 2
    assert Journal(str(tmp_path / "results" / "tiny")).read() == ()


def test_nothing_is_rehearsed_where_the_data_are_missing(tiny_study_text, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(driver, "prover", lambda *_: lambda arm, other: asked.append(arm.name) or Proof(True, "for the test"))
    only = {"search": None, "confirm": {"base": "slam", "leave_one_out": ["method.lower_bound"], "blocks": 1}}
    for data, is_asked in ((CIFAR % (tmp_path / "nowhere"), False), (None, True)):
        go, _ = launched(study_of(study_text(tiny_study_text, data, **only)), tmp_path / str(is_asked), in_process=True)
        monkeypatch.setattr(driver, "_execute", lambda *_: None)
        with pytest.raises((StudyError, Interrupted)):
            go()
        assert bool(asked) == is_asked


def test_a_finished_study_needs_nothing_any_more(tiny_study_text, tmp_path, monkeypatch):
    study = study_of(study_text(tiny_study_text, search=None, confirm={"base": "slam", "against": ["vanilla"], "blocks": 1}))
    go, _ = launched(study, tmp_path, in_process=True)
    assert go().exit_code == 0

    def nothing(*_):
        raise AssertionError("asked")

    monkeypatch.setattr(needs, "check_here", nothing)
    assert go().trained == 0


def test_a_driver_that_does_not_train_only_says_what_it_lacks(tiny_study_text, tmp_path):
    study = study_of(study_text(tiny_study_text, CIFAR % (tmp_path / "nowhere")))
    (told,) = needs.check_here(study, trains=False)
    assert told.startswith(
        "This machine could not rehearse stage two, so that parts without effect are not found out: A data set needs path"
    )
    assert needs.check_here(replace(study, confirm=None), trains=False) == ()
    model = ImageNet(network="resnet18", weights=str(tmp_path / "none"))
    weighted = replace(study_of(study_text(tiny_study_text)), teacher=replace(study.teacher, model=model))
    assert [family for family, _ in needs.wanted_of(weighted).networks].count(model) > 0
    assert {family for family, _ in needs.wanted_of(weighted, trains=False).networks} >= {replace(model, weights="")}
    assert model not in needs.wanted_of(weighted, trains=False).families
    with pytest.raises(StudyError):
        needs.check_here(study, trains=True)


def test_faults_of_several_machines_are_one_message():
    found = [Inventory(f"node-{number}", ("It needs data.", *(["It needs more."] if number == 2 else []))) for number in range(5)]
    assert needs.refusal([*found, Inventory("node-5", ())]).faults == [
        "node-0, node-1, node-2 and 2 more machines: It needs data.",
        "node-2: It needs more.",
    ]


def test_all_that_designs_reach_is_wanted(tiny_study_text):
    confirm = {
        "base": "slam",
        "one_factor": {"data.labelled": [50, 60], "teacher.model.width": [8, 9], "model.width": [8, 10]},
        "against": ["vanilla"],
        "blocks": 2,
    }
    found = needs.wanted_of(study_of(study_text(tiny_study_text, confirm=confirm)))
    assert {source.labelled for source in found.sources} == {50, 60}
    assert {family.width for family in found.families} == {8, 9, 10}


def test_machines_that_may_hold_lanes():
    labels = {"ray.io/tpu-topology": "2x2x1"}
    machines = [
        Machine("a", {"CPU": 4.0}, {}, "head"),
        Machine("b", {"CPU": 4.0, "TPU": 4.0, "accelerator_type:TPU-V4": 1.0}, labels, "host"),
        Machine("c", {}, {}, "idle"),
    ]
    machines.append(replace(machines[1], id="d", host="of another slice", labels={"ray.io/tpu-topology": "2x2x2"}))
    assert holders(Placement(), machines, {"CPU": 1.0}) == {"a": "head", "b": "host", "d": "of another slice"}
    placement = Placement("chip", "2x2x1")
    assert holders(placement, machines, placement.resources) == {"b": "host"}


def test_a_relative_path_leads_nowhere_on_a_machine_of_a_cluster(tmp_path, monkeypatch):
    write_cifar(tmp_path / "set")
    monkeypatch.chdir(tmp_path)
    source = Cifar10(path="set", labelled=20, validation=10, draw="stratified")
    assert taken(of(source)).faults == ()
    (found,) = taken(of(source), is_lane=True).faults
    assert "cifar10 needs KDSWEEP_DATA to be set where Ray is started on this machine, or an absolute path" in found
    monkeypatch.setenv("KDSWEEP_DATA", str(tmp_path))
    assert taken(of(source), is_lane=True).faults == ()


def test_lanes_of_this_machine_find_relative_paths_where_this_process_does(tmp_path, monkeypatch):
    seen = {}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda *_, **__: seen.update(os.environ))
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    with connected(1):
        pass
    assert seen["KDSWEEP_DATA"] == str(tmp_path)
    assert "KDSWEEP_DATA" not in os.environ
    monkeypatch.setenv("KDSWEEP_DATA", "/elsewhere")
    with connected(1):
        pass
    assert seen["KDSWEEP_DATA"] == "/elsewhere"


# Networks


@pytest.mark.parametrize(
    ("family", "form", "message"),
    [
        (VGG(), Form((3, 8, 8), 10), "VGG needs inputs .* at least 16 and multiples of 8"),
        (VGG(), Form((3, 72, 72), 10), "VGG needs inputs .* multiples of 16"),
        (ResNet(), Form((3, 30, 30), 10), "ResNet needs inputs .* multiples of 4"),
        (ImageNet(), Form((3, 225, 225), 1000), "ImageNet needs inputs .* multiples of 32"),
        (ResNet(), Form((256,), 2), "ResNet needs inputs"),
        (MLP(), Form((256,), 2), "MLP needs inputs .* family for texts"),
        (CNN(depth=3), Form((1, 3, 3), 2), "CNN needs inputs .* 4x4 at depth=3"),
        (BERT(), Form((3, 32, 32), 2), "BERT needs inputs"),
        (BERT(), Form((513,), 2), "BERT needs inputs"),
        (BERT(vocabulary=99), Form((8,), 2, 100), "needs a vocabulary as large as the tokenizer's, 100, but got vocabulary=99"),
    ],
)
def test_a_network_says_what_it_cannot_read_without_being_built(family, form, message):
    with pytest.raises(ValueError, match=message):
        family.fits(form)


def test_networks_that_cannot_read_the_data_are_faults_of_the_study(tiny_study_text):
    data = "{source: imagenet, size: 72, labelled: 0.1}"
    with pytest.raises(StudyError) as raised:
        study_of(study_text(tiny_study_text, data, {"family": "vgg"}, {"family": "resnet", "depth": 8}))
    (found,) = raised.value.faults
    assert_matches(
        r"study\.yaml:\d+: teacher\.model: needs to be a network for the rows of imagenet, but got this: VGG needs inputs", found
    )
    text = study_text(tiny_study_text, data, {"family": "resnet"}, {"family": "resnet", "depth": 8})
    study_of(text)
    found = yaml.safe_load(text)
    found["arms"]["slam"]["model"] = {"family": "vgg"}
    found["arms"]["vanilla"]["teacher"] = {"model": {"family": "imagenet"}}
    found["confirm"] = {"base": "vanilla", "against": ["slam"], "blocks": 2}
    with pytest.raises(StudyError) as raised:
        study_of(yaml.safe_dump(found))
    assert [line.split(": ")[1] for line in raised.value.faults] == ["arms.slam.model", "arms.vanilla.teacher.model"]


def test_a_level_that_a_network_cannot_read_is_a_fault(tiny_study_text):
    confirm = {"base": "slam", "one_factor": {"data.size": [64, 66]}, "against": ["vanilla"], "blocks": 2}
    model = {"family": "resnet", "depth": 8}
    with pytest.raises(StudyError, match=r"confirm\.one_factor: .*66.*ResNet needs inputs"):
        study_of(study_text(tiny_study_text, "{source: imagenet, size: 64, labelled: 0.1}", model, model, confirm=confirm))


# Weights


def checkpoint(folder, **settings):
    transformers = pytest.importorskip("transformers")
    found = {"vocab_size": 50, "num_hidden_layers": 2, "hidden_size": 128, "num_attention_heads": 2, "intermediate_size": 512, **settings}
    transformers.BertForSequenceClassification(transformers.BertConfig(**found)).save_pretrained(folder)
    return BERT(size="tiny", vocabulary=50, weights=str(folder))


def weights_faults(family):
    return taken(of(networks=[])).faults + taken(Wanted((Digits(),), ((family, Digits()),))).faults[:1]


def test_weights_that_are_there_not_there_cut_short_or_of_another_network(tmp_path, monkeypatch):
    family = checkpoint(tmp_path / "bert")
    assert family.stocked() == ()
    with pytest.raises(ValueError, match=r"needs weights of a network with vocab_size=60, but got weights=.* with vocab_size=50"):
        replace(family, vocabulary=60).stocked()
    with pytest.raises(ValueError, match=r"ImageNet needs weights of a resnet, but got weights=.* of a bert"):
        ImageNet(weights=family.weights).stocked()
    monkeypatch.setenv("KDSWEEP_DATA", str(tmp_path))
    assert replace(family, weights="bert").stocked() == ()
    assert replace(family, weights="bert").build((6,), 3) is not None
    file = tmp_path / "bert" / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match=r"BERT needs weights to be a folder .*model\.safetensors: "):
        family.stocked()
    file.unlink()
    with pytest.raises(ValueError, match=r"has no model\.safetensors"):
        family.stocked()
    assert weights_faults(family)[0].startswith("BERT needs weights to be a folder with config.json and model.safetensors")


def test_weights_of_the_hub(tmp_path, monkeypatch):
    import huggingface_hub

    family = replace(checkpoint(tmp_path / "bert"), weights="some/bert")
    transformers = pytest.importorskip("transformers")
    configuration = transformers.AutoConfig.from_pretrained(tmp_path / "bert")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"BERT needs weights to be .* but got weights='some/bert'"):
        family.stocked()
    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", lambda *_, **__: configuration)
    with pytest.raises(ValueError, match=r"BERT needs weights to be .* but got weights='some/bert'"):
        family.stocked()
    files = [SimpleNamespace(rfilename="model.safetensors", size=17_000_000), SimpleNamespace(rfilename="pytorch_model.bin", size=1)]
    monkeypatch.setattr(huggingface_hub, "model_info", lambda *_, **__: SimpleNamespace(siblings=files))
    assert family.stocked() == ("Weights some/bert will be fetched on every machine that trains: 17 MB.",)
    files.pop(0)
    with pytest.raises(ValueError, match="it has no safetensors"):
        family.stocked()
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: str(tmp_path / "bert" / "model.safetensors"))
    assert family.stocked() == ()


# Doctor


def test_the_doctor_says_what_is_needed_here_and_on_machines(tiny_study_text, tmp_path):
    study = study_of(study_text(tiny_study_text, CIFAR % (tmp_path / "nowhere")))
    for address, severity in ((None, Severity.ERROR), ("1.2.3.4:6379", Severity.WARNING)):
        findings = Findings()
        check_needs(findings, Premises(study=study, address=address))
        (found,) = findings.found
        assert (found.place.label, found.severity) == ("needs", severity)
        assert "A data set needs path" in found.message
    findings = Findings()
    check_needs(findings, Premises(study=study_of(tiny_study_text)))
    check_needs(findings, Premises())
    assert [found.severity for found in findings.found] == [Severity.OK] * 2
    findings = Findings()
    judge_needs(findings, [{"host": "node-1", "needs": ["No data."]}, {"host": "node-2", "needs": []}, {"host": "head", "needs": None}])
    assert [(found.severity, found.message) for found in findings.found] == [
        (Severity.ERROR, "node-1: No data."),
        (Severity.OK, "node-2 has what the study needs."),
    ]

"""The studies of the package: the README's table is made of them, and no paper is forgotten."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from orchestrator import shelf

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def entries() -> list[shelf.Entry]:
    return shelf.entries()


def test_the_table_of_studies_in_the_readme_is_the_folder(entries, monkeypatch) -> None:
    monkeypatch.setattr(shelf, "entries", lambda: entries)
    found = re.search(r"<!-- studies -->\n(.*?)\n<!-- /studies -->", (ROOT / "README.md").read_text(), re.DOTALL)
    assert found is not None, "the README needs its table of studies between the two comments"
    assert found[1] == "\n".join(shelf.markdown_table()), "run `kdsweep studies --markdown` and paste it"


def test_every_file_is_there_once_with_a_command_that_runs_it(entries) -> None:
    files = {entry.file for entry in entries}
    assert files == {f"search_spaces/studies/{path.name}" for path in (ROOT / "search_spaces/studies").glob("*.yaml")}
    for entry in entries:
        assert entry.command == f"kdsweep run {entry.file}"
        assert (ROOT / entry.file).is_file()


def test_the_papers_and_what_their_studies_need(entries) -> None:
    by_name = {entry.study: entry for entry in entries}
    assert {entry.paper for entry in entries} == {
        "",
        "Kontonis et al., NeurIPS 2023",
        "Borup and Andersen, NeurIPS 2021",
        "Chandrasegaran et al., ICML 2022",
        "Peng et al., ICML 2024",
    }
    assert by_name["slam-digits"].needs == ("no download",)
    assert by_name["peng-resnet56-resnet20"].needs == ("`kdsweep[data]`", "`uoft-cs/cifar100`")
    assert by_name["slam-imdb"].needs[2:] == (
        "tokenizer `albert/albert-base-v2`",
        "weights `albert/albert-large-v2`, `albert/albert-base-v2`",
    )
    # One teacher and six methods on each of eight blocks.
    assert by_name["slam-cifar10"].cells == 8 * 7
    # Two kinds of teachers and eight students on each of three blocks.
    assert by_name["label-smoothing-imagenet-resnet18"].cells == 3 * 10


def test_all_nineteen_baselines_are_in_every_study_of_pairs() -> None:
    from orchestrator.reading import read_study
    from trainables.folder import name_of

    baselines = [
        "kd",
        "dkd",
        "ipwd",
        "wsld",
        "cskd",
        "pskd",
        "nkd",
        "mld",
        "dist",
        "fitnets",
        "crd",
        "wcord",
        "reviewkd",
        "norm",
        "cocord",
        "diffkd",
        "srrl",
        "sskd",
    ]
    forms = {"tfkd_self", "tfkd_virtual"}  # of TF-KD, the nineteenth
    files = sorted((ROOT / "search_spaces/studies").glob("peng_*.yaml"))
    assert len(files) == 6
    for path in files:
        study = read_study(path)
        assert {name_of(arm.method) for arm in study.arms.values()} == {*baselines, *forms, "auxvar"}
        assert study.confirm is not None
        assert {study.confirm.base, *study.confirm.against} == {*study.arms}

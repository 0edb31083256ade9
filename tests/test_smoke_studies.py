"""Every study of the package from end to end, on lanes: made-up data, real networks, every method. Minutes each: make test-smoke.

One of every paper is in make test-slow as well. How long each takes, and what memory: docs/smoke.md, which has a line for each.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.reading import read_study

ROOT = Path(__file__).parent.parent
STUDIES = sorted((ROOT / "search_spaces" / "studies").glob("*.yaml"))
QUICK = ("slam_cifar10", "slam_imdb", "self_distillation_digits", "label_smoothing_cub200_mobilenetv2", "peng_resnet56_resnet20")
"""One of every paper, and of SLaM one with pictures and one with texts: those that take least."""


def marked(path: Path) -> object:
    marks = [pytest.mark.smoke, *([pytest.mark.slow] if path.stem in QUICK else [])]
    return pytest.param(path, marks=marks, id=path.stem)


@pytest.mark.parametrize("path", [marked(path) for path in STUDIES])
def test_a_study_runs_from_end_to_end(path, tmp_path):
    pytest.importorskip("datasets")
    pytest.importorskip("transformers")
    command = [sys.executable, "-m", "orchestrator", "run", str(path), "--smoke", "--lanes", "2", "--workers", "0", "--json"]
    done = subprocess.run([*command, "--storage", str(tmp_path)], capture_output=True, text=True, check=False, timeout=3600)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout)
    assert told["counts"]["failed"] == 0
    assert told["counts"]["ok"] > 0
    found = json.loads((tmp_path / "smoke" / path.stem.replace("_", "-") / "report.json").read_text())
    assert found["is_complete"]
    # Variants that equal another by construction may be left out of a comparison, with a word. No arm is, and none lacks a block.
    confirm = read_study(path).confirm
    assert confirm is not None
    assert set(confirm.arms) <= {each["arm"] for each in found["arms"]}
    assert {each["ok"] for each in found["arms"]} == {1 if len(confirm.arms) > 20 else 2}
    shutil.rmtree(tmp_path)  # networks of every chain: gigabytes, of which pytest would keep three launches


def test_every_study_has_its_line_in_the_docs():
    lines = (ROOT / "docs" / "smoke.md").read_text().splitlines()
    line = re.compile(r"\| \[(\w+)\.yaml\]\(\.\./search_spaces/studies/\1\.yaml\) \|( ((up to )?[\d,.]+|–) \|){4}")
    found = [match[1] for each in lines if (match := line.fullmatch(each))]
    assert sorted(found) == [path.stem for path in STUDIES]


def test_one_study_of_every_paper_is_among_the_quick_ones():
    stems = {path.stem for path in STUDIES}
    assert set(QUICK) <= stems
    papers = {"slam", "self_distillation", "label_smoothing", "peng"}
    assert {paper for paper in papers for stem in QUICK if stem.startswith(paper)} == papers
    assert {"slam_cifar10", "slam_imdb"} <= set(QUICK)

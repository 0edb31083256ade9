"""Machines of a cluster are looked at before they get a cell: real Ray nodes on this machine, each with an environment of its own."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster
from rich.console import Console

from orchestrator.driver import Launch, drive
from orchestrator.errors import StudyError
from orchestrator.journal import Journal
from orchestrator.needs import wanted_of
from orchestrator.placement import Placement
from orchestrator.probes import Newcomers, Probes, checked
from orchestrator.reading import study_of
from tests.test_needs import study_text, write_cifar
from trainables.inventory import Inventory

pytestmark = pytest.mark.slow
DATA = "{source: cifar10, path: set, labelled: 20, validation: 10, draw: stratified}"


def _stocked(wanted):
    """A look that depends on the node, as data on its disk would."""
    has = os.environ.get("KDSWEEP_DATA", "") != ""
    return Inventory("?", () if has else ("No data.",), ("Something will be fetched.",))


def _unheard(wanted):
    raise RuntimeError("no such module\nkdsweep")


@pytest.fixture
def cluster(tmp_path):
    """A head that holds no lanes, a node with the data, and one without."""
    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes = {
        name: found.add_node(num_cpus=1, env_vars={"KDSWEEP_DATA": folder, "KDSWEEP_CACHE": str(tmp_path / "cache")})
        for name, folder in (("rich", str(tmp_path)), ("poor", str(tmp_path / "empty")))
    }
    (tmp_path / "empty").mkdir()
    try:
        yield found, nodes
    finally:
        ray.shutdown()
        found.shutdown()


def test_a_node_without_the_data_ends_the_study_before_any_cell_with_its_name_and_what_it_lacks(
    cluster, tmp_path, tiny_study_text, monkeypatch
):
    found, _ = cluster
    write_cifar(tmp_path / "set")
    monkeypatch.setenv("KDSWEEP_DATA", str(tmp_path))
    run = {"lanes": 1, "workers": 0, "device": "cpu", "wandb": "off", "storage": str(tmp_path / "results")}
    text = study_text(tiny_study_text, DATA, run=run)
    said = io.StringIO()
    with pytest.raises(StudyError, match=rf"A data set needs path to be a folder .*{tmp_path}/empty/set") as raised:
        drive(study_of(text), Launch(address=found.address), Console(file=said, width=400))
    assert raised.value.exit_code == 2
    assert len(raised.value.faults) == 1
    events = Journal(str(tmp_path / "results" / "tiny")).read()
    assert {event["event"] for event in events} <= {"study", "cell", "end", "design"}
    assert events[-1]["event"] == "end"
    file = tmp_path / "study.yaml"
    file.write_text(text)
    command = [sys.executable, "-P", "-m", "orchestrator.rayprobe", "--address", found.address, "--study", str(file)]
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    needs: list[list[str]] = []
    for _ in range(5):  # a busy machine may take longer for its imports than doctor waits
        told = json.loads(subprocess.run(command, env=environ, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
        needs = [machine["needs"] for machine in told["machines"] if machine["needs"] is not None]
        if len(needs) == 2:
            break
    assert sorted(map(bool, needs)) == [False, True]
    # Where nothing is lacked, lanes are handed their cells.
    few = study_text(tiny_study_text, search=None, confirm={"base": "slam", "against": ["vanilla"], "blocks": 1}, run=run)
    assert (
        drive(study_of(few.replace("study: tiny", "study: few")), Launch(address=found.address), Console(file=said, width=400)).exit_code
        == 0
    )


def _released(newcomers):
    found: list[str] = []
    newcomers.release(lambda lane, _: found.append(lane))
    return found


def _wait(newcomers, answer):
    for _ in range(200):
        assert _released(newcomers) in ([], ["three"])
        ray.wait([answer], timeout=0.5)


def test_probes_are_asked_once_and_lanes_of_newcomers_wait_for_them(cluster, tiny_study_text):
    found, nodes = cluster
    ray.init(found.address, log_to_driver=False)
    said: list[str] = []
    wanted = wanted_of(study_of(tiny_study_text))
    with pytest.raises(StudyError, match="A data set needs path to be a folder"):
        checked(wanted_of(study_of(study_text(tiny_study_text, DATA))), Placement(), {"CPU": 1.0}, said.append)
    probes = Probes(wanted, said.append, _stocked)
    rich, poor = (nodes[name].node_id for name in ("rich", "poor"))
    probes.check({rich: "rich", poor: "poor"})  # both have the variable
    assert said[-1] == "note: Something will be fetched."
    newcomers = Newcomers(probes)
    newcomers.add("one", (rich,))
    assert _released(newcomers) == ["one"]
    assert _released(newcomers) == []
    late = found.add_node(num_cpus=1, env_vars={"KDSWEEP_DATA": ""})
    newcomers.add("two", (late.node_id,))
    newcomers.add("three", (rich,))
    with pytest.raises(StudyError, match=r": No data\.\Z"):
        _wait(newcomers, probes._asked[late.node_id])
    broken = Probes(wanted, said.append, _unheard)
    with pytest.raises(StudyError, match=r"\Arich: A machine that holds lanes needs kdsweep as it is here, .* but got: kdsweep\Z"):
        broken.check({rich: "rich"})
    newcomers.drop("two")
    assert _released(newcomers) == []

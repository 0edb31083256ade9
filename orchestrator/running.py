"""The section ``run`` of a study file as it is read: how a study is executed, and on what. Nothing in it changes a number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from orchestrator.fields import MANY, Faults, Need, entries, one_of, positive, several, single, whole, words
from orchestrator.located import Node
from orchestrator.placement import ANY, CHIP, KINDS, SLICE, Placement
from orchestrator.study import WANDB, Run
from trainables.device import NAMES as DEVICES
from trainables.status import FAILURES, LOST

_NEEDS = {
    "lanes": whole(1, MANY),
    "workers": whole(0, MANY),
    "lane": one_of(*KINDS),
    "topology": Need("text, as in 2x2x1", lambda value: isinstance(value, str)),
    "device": one_of(*DEVICES),
    "wandb": one_of(*WANDB),
    "wandb_project": words(),
    "storage": words(),
    "retries": whole(0, MANY),
    "retry_on": one_of(LOST, *FAILURES),
    "cell_seconds": positive(),
    "give_up_after": whole(0, MANY),
    "training_seconds": positive(),
    "smoke": Need("true or false", lambda value: isinstance(value, bool)),
}


def read_run(faults: Faults, node: Node) -> Run:
    """The section; what it leaves out of lanes and workers follows from the place that a lane has."""
    found = entries(faults, node, "run", list(_NEEDS))
    placement = _placement(faults, found)
    default = replace(Run(), lane=placement.kind, topology=placement.topology)
    default = replace(default, lanes=placement.lanes_in_slice or default.lanes, workers=placement.processes or default.workers)
    rest = [key for key in _NEEDS if key not in ("lane", "topology", "retry_on")]
    run = replace(default, **{key: single(faults, found.get(key), f"run.{key}", _NEEDS[key], getattr(default, key)) for key in rest})
    _check_workers(faults, found.get("workers"), run.workers, placement)
    if "retry_on" in found:
        run = replace(run, retry_on=tuple(reason for reason, _ in several(faults, found["retry_on"], "run.retry_on", _NEEDS["retry_on"])))
    return replace(run, training_seconds=_real(run.training_seconds), cell_seconds=_real(run.cell_seconds))


def _real(seconds: float | None) -> float | None:
    return None if seconds is None else float(seconds)


def _placement(faults: Faults, found: Mapping[str, Node]) -> Placement:
    """Any machine where lane or topology is at fault."""
    before = len(faults)
    topology = single(faults, found.get("topology"), "run.topology", _NEEDS["topology"], "")
    if len(faults) > before:
        single(faults, found.get("lane"), "run.lane", _NEEDS["lane"], ANY)
        return Placement()
    # Of a lane that is none, the topology can still be read.
    lane = single(faults, found.get("lane"), "run.lane", _NEEDS["lane"], CHIP if topology and "lane" in found else ANY)
    try:
        return Placement(lane, topology)
    except ValueError as error:
        key = "topology" if topology else "lane"
        faults.add(found[key].place, f"run.{key}", str(error))
        return Placement()


def _check_workers(faults: Faults, node: Node | None, workers: int, placement: Placement) -> None:
    """Keep that the lane has another number of processes than its chips need."""
    if node is None or placement.processes is None:
        return
    if placement.kind == SLICE:
        if workers != placement.processes:
            need = f"{placement.processes} for a slice of {placement.topology}, one for each host, or to be left out"
            faults.need(node, "run.workers", need)
    elif workers > placement.processes:
        faults.need(node, "run.workers", f"0 or 1 for a lane that is a {placement.kind}, all of which one process drives")

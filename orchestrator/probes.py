"""Probes: one look at every machine that may hold lanes, before the first cell, and at those that join later before theirs.

A probe is a Ray task, so that it sees what a lane on that machine would see, whose process ends with it: what it has imported would
otherwise be there before a lane has set up the environment of its chips.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator import cluster
from orchestrator.needs import refusal
from orchestrator.placement import Placement
from trainables.inventory import Inventory, Wanted, taken

_PATIENCE_S = 120.0
"""How long machines have at launch. Importing torch takes a busy one half a minute, and the hub may be asked."""
_SAY_S = 10.0


class Probes:
    """What is known of the machines of a cluster."""

    def __init__(self, wanted: Wanted, say: Callable[[str], None], probe: Callable[[Wanted], Inventory] | None = None) -> None:
        """``probe``: another look, for tests."""
        self._say = say
        self._wanted, self._task = wanted, ray.remote(num_cpus=0, max_retries=2, max_calls=1)(probe or _probed)
        self._asked: dict[str, Any] = {}
        self._hosts: dict[str, str] = {}
        self._told: set[str] = set()
        self.found: dict[str, Inventory] = {}

    def check(self, nodes: Mapping[str, str], patience_s: float = _PATIENCE_S) -> None:
        """Look at all of some machines, node id to host, and wait for what is found.

        Raises:
            StudyError: trainings would fail on one of them.
        """
        left = self.wait(nodes, patience_s)
        if left:
            hosts = ", ".join(nodes[node] for node in left)
            self._say(f"note: {hosts} did not answer within {patience_s:g} s what they have; lanes there wait until they do.")
        self.judge(nodes)

    def wait(self, nodes: Mapping[str, str], patience_s: float) -> list[str]:
        """Look at all of some machines; those that have not answered when the time is over."""
        self.ask(nodes)
        begun, has_said = time.monotonic(), False
        while (left := [node for node in nodes if not self._is_known(node)]) and (passed := time.monotonic() - begun) < patience_s:
            if passed > _SAY_S and not has_said:
                has_said = True
                self._say(f"Looking whether {len(left)} machines have what the study needs...")
            ray.wait([self._asked[node] for node in left], timeout=1.0)
        return left

    def ask(self, nodes: Mapping[str, str]) -> None:
        """Begin to look at machines that were not looked at, node id to host."""
        for node, host in nodes.items():
            if node not in self._asked:
                here = NodeAffinitySchedulingStrategy(node, soft=False)
                self._asked[node] = self._task.options(scheduling_strategy=here).remote(self._wanted)
                self._hosts[node] = host

    def are_known(self, nodes: Iterable[str]) -> bool:
        """Whether machines were looked at, each of them asked before."""
        return all(self._is_known(node) for node in nodes)

    def judge(self, nodes: Iterable[str]) -> None:
        """Raise StudyError where trainings would fail on a machine, as far as is known."""
        found = [self.found[node] for node in nodes if node in self.found]
        if any(each.faults for each in found):
            raise refusal(found)

    def _is_known(self, node: str) -> bool:
        if node not in self.found:
            ready, _ = ray.wait([self._asked[node]], timeout=0)
            if not ready:
                return False
            self.found[node] = self._answer(node)
            for remark in self.found[node].remarks:
                if remark not in self._told:
                    self._told.add(remark)
                    self._say(f"note: {remark}")
        return True

    def _answer(self, node: str) -> Inventory:
        host = self._hosts[node]
        try:
            found: Inventory = ray.get(self._asked[node])
        except ray.exceptions.RayTaskError as error:
            reason = (str(error.cause).strip().splitlines() or [type(error.cause).__name__])[-1]
            fault = (
                f"A machine that holds lanes needs kdsweep as it is here, to look whether it has what the study needs, but got: {reason}"
            )
            return Inventory(host, (fault,))
        except ray.exceptions.RayError:
            return Inventory(host, ())  # the machine is gone, or its process was ended: no fact about what it has
        return replace(found, host=host)


class Newcomers:
    """Lanes that are up, and wait until it is known of their machines, which may have joined a moment ago, that trainings find what they need."""

    def __init__(self, probes: Probes | None) -> None:
        """``probes``: None where nothing is to be looked for."""
        self._probes = probes
        self._waiting: dict[str, tuple[str, ...]] = {}

    def add(self, lane: str, nodes: tuple[str, ...]) -> None:
        """A lane is up, on such nodes."""
        self._waiting[lane] = nodes
        if self._probes is not None:
            hosts = {machine.id: machine.host for machine in cluster.machines()}
            self._probes.ask({node: hosts.get(node, node) for node in nodes})

    def drop(self, lane: str) -> None:
        """A lane is gone."""
        self._waiting.pop(lane, None)

    def release(self, up: Callable[[str, tuple[str, ...]], None]) -> None:
        """Tell ``up`` of the lanes that need not wait any more; StudyError where a machine of theirs lacks something."""
        for lane, nodes in list(self._waiting.items()):
            if self._probes is None or self._probes.are_known(nodes):
                if self._probes is not None:
                    self._probes.judge(nodes)
                del self._waiting[lane]
                up(lane, nodes)


def checked(wanted: Wanted | None, placement: Placement, resources: Mapping[str, float], say: Callable[[str], None]) -> Newcomers:
    """Look at every machine that may hold lanes, whose processes reserve such resources; how those that join later are dealt with.

    Raises:
        StudyError: trainings would fail on one of them.
    """
    if wanted is None:
        return Newcomers(None)
    probes = Probes(wanted, say)
    probes.check(cluster.holders(placement, cluster.machines(), resources))
    return Newcomers(probes)


def _probed(wanted: Wanted) -> Inventory:
    return taken(wanted, is_lane=True)

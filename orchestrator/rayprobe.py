"""Asks Ray, in a process of its own: ``python -m orchestrator.rayprobe [--address ADDR] [--study FILE]`` prints a line of JSON.

Ray may hang, and ends processes that it does not like: whoever asks waits as long as they want, and then ends this process.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from typing import Any

from orchestrator import loopback

_ANSWER_S = 15.0
"""How long machines have for starting a worker each."""
_NEEDS_S = 30.0
"""How long they have for looking at data and weights, which imports packages."""
_PACKAGES = ("ray", "kdsweep", "torch")


def versions_here(names: tuple[str, ...]) -> dict[str, str | None]:
    """Versions of Python and of packages; it travels to machines by value, so it imports what it needs itself."""
    import platform
    from importlib import metadata

    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def main(arguments: list[str] | None = None) -> int:
    """Start Ray, or join the cluster at an address, run a task on every machine, and print what was found."""
    parser = argparse.ArgumentParser(prog="python -m orchestrator.rayprobe", description=__doc__)
    parser.add_argument("--address", help="of a running cluster; without it Ray starts here")
    parser.add_argument("--study", help="a study file: ask machines that may hold its lanes for what it needs")
    given = parser.parse_args(arguments)
    found = _asked(given.address, given.study)
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


def _asked(address: str | None, study: str | None = None) -> dict[str, Any]:
    if address is None:
        loopback.only_here()
    from orchestrator.cluster import connected
    from orchestrator.errors import LaneError

    begun = time.monotonic()
    try:
        with connected(1, address):
            started_s = time.monotonic() - begun
            return {"seconds": started_s, **_cluster(study)}
    except LaneError as fault:
        # Of a version that does not fit, Ray says which only further down.
        cause = " ".join(str(fault.__cause__ or "").split())
        return {"problem": str(fault) if cause.rstrip(".") in str(fault) else f"{fault} ({cause})"}


def _cluster(study: str | None) -> dict[str, Any]:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as Here

    nodes = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call] # of Ray
    task = ray.remote(num_cpus=0, max_retries=0)(versions_here)
    asked = {task.options(scheduling_strategy=Here(node["NodeID"], soft=False)).remote(_PACKAGES): node for node in nodes}
    needs = {} if study is None else _needs(study)
    ready, _ = ray.wait(list(asked), num_returns=len(asked), timeout=_ANSWER_S)
    machines = [
        {
            "host": node["NodeManagerHostname"],
            "address": node["NodeManagerAddress"],
            "resources": {name: node["Resources"].get(name, 0.0) for name in ("CPU", "GPU", "TPU")},
            "versions": ray.get(reference) if reference in ready else None,
            "needs": needs.get(node["NodeID"]),
        }
        for reference, node in asked.items()
    ]
    return {"machines": machines, "here": versions_here(_PACKAGES), "authentication": os.environ.get("RAY_AUTH_MODE", "disabled")}


def _needs(file: str) -> dict[str, list[str]]:
    """Id of each machine that may hold lanes to what it lacks; those that do not answer in time are left out."""
    from orchestrator.cluster import holders, machines
    from orchestrator.needs import wanted_of
    from orchestrator.probes import Probes
    from orchestrator.reading import read_study

    study = read_study(file)
    probes = Probes(wanted_of(study), lambda _: None)
    placement = study.run.placement
    nodes = holders(placement, machines(), placement.resources)
    probes.wait(nodes, _NEEDS_S)
    return {node: list(found.faults) for node, found in probes.found.items()}


if __name__ == "__main__":
    sys.exit(main())

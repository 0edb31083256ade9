"""Pins: whether a cluster file, the constraints and pyproject.toml agree on versions of Ray, torch, torch-xla and Python.

A cluster that installs what the laptop does not have fails late: pickles that do not load, a torch-xla that does not import,
or a resolver that gives up on every host at the end of ``ray up``.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.doctor import Findings
from orchestrator.located import Node, Place
from orchestrator.tpunodes import machine_types

TPU_CONSTRAINTS, CONSTRAINTS, PROJECT = "constraints-tpu.txt", "constraints.txt", "pyproject.toml"

_PIN = re.compile(r"(?<![\w./=-])([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?==([0-9][A-Za-z0-9.+!]*)")
_CONSTRAINED = re.compile(r"(?:^|\s)(?:-c|--constraints?)[\s=]+(\S+)")
_PYTHON = re.compile(r"(?:--python[\s=]+|\bpython={0,2})(\d+\.\d+)")
_COMMANDS = ("initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands")
_IMAGE_PYTHON = "3.10"
"""What tpu-ubuntu2204-base comes with."""


@dataclass(frozen=True)
class Pin:
    """A version that something is pinned to, and where."""

    version: str
    place: Place


def check(findings: Findings, root: Node, folder: Path) -> None:
    """Find where versions disagree. ``folder`` is where the cluster file lies, with the constraints and pyproject.toml beside it."""
    commands = list(commands_of(root))
    files = {name: pinned(folder / name) for name in (TPU_CONSTRAINTS, CONSTRAINTS)}
    used = set()
    for node, key in commands:
        for named in _CONSTRAINED.findall(str(node.value)):
            name = Path(named).name
            used.add(name)
            if not (folder / name).is_file():
                findings.error(node, key, f"needs a file of constraints beside the cluster file, but got {name}, which is not there.")
    installed = {name: pin for node, key in commands for name, pin in _pins(str(node.value), node.place)}
    for node, key in commands:
        for name, pin in _pins(str(node.value), node.place):
            # Ray speaks to Ray; of other packages, only what is installed together has to agree.
            for source in sorted(used | {CONSTRAINTS} if name == "ray" else used):
                other = files.get(source, {}).get(name)
                if other is not None and other.version != pin.version:
                    findings.error(node, key, f"needs {name} {other.version}, as {other.place.label} has it, but got {pin.version}.")
                    break
    has_tpus = any(machine.is_tpu for machine in machine_types(root).values())
    place = root.entries.get("setup_commands", root)
    if has_tpus and not used:
        findings.warn(place, "setup_commands", f"needs to install with constraints (-c {TPU_CONSTRAINTS}), but got none.")
    if has_tpus and "ray" not in installed and not any("ray" in files.get(name, {}) for name in used):
        findings.error(place, "setup_commands", "needs one version of Ray for all machines (ray[default]==...), but got no pin.")
    _check_files(findings, files)
    project = _project(folder / PROJECT)
    _check_project(findings, project, files[TPU_CONSTRAINTS])
    _check_python(findings, commands, project.get("requires-python", ""), place if has_tpus else None)


def commands_of(root: Node) -> Iterator[tuple[Node, str]]:
    """Every set-up command of a cluster file with its dotted name."""
    holders = [(root, "")] + [(machine.node, f"{machine.key}.") for machine in machine_types(root).values()]
    for holder, prefix in holders:
        for name in _COMMANDS:
            listed = holder.entries.get(name)
            if listed is not None and isinstance(listed.value, tuple):
                yield from ((node, f"{prefix}{name}[{index}]") for index, node in enumerate(listed.value))


def _check_files(findings: Findings, files: Mapping[str, Mapping[str, Pin]]) -> None:
    tpu, laptop = files[TPU_CONSTRAINTS], files[CONSTRAINTS]
    if "ray" in tpu and "ray" in laptop and tpu["ray"].version != laptop["ray"].version:
        findings.error(
            tpu["ray"].place, "ray", f"needs {laptop['ray'].version}, as {laptop['ray'].place.label} has it, but got {tpu['ray'].version}."
        )
    if "torch" in tpu and "torch-xla" in tpu:
        torch, xla = tpu["torch"], tpu["torch-xla"]
        if torch.version.split(".")[:2] != xla.version.split(".")[:2]:
            findings.error(
                torch.place,
                "torch",
                f"needs the torch that torch-xla {xla.version} was built for, {'.'.join(xla.version.split('.')[:2])}, but got {torch.version}.",
            )


def _check_project(findings: Findings, project: Mapping[str, Any], tpu: Mapping[str, Pin]) -> None:
    # It comes with Ray, without which no cluster file is examined.
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    for line in [*project.get("dependencies", ()), *project.get("optional-dependencies", {}).get("tpu", ())]:
        wanted = Requirement(line)
        name = canonicalize_name(wanted.name)
        pin = tpu.get(name)
        if pin is not None and not wanted.specifier.contains(pin.version, prereleases=True):
            findings.error(pin.place, name, f"needs {wanted.specifier}, as {PROJECT} has it, but got {pin.version}.")


def _check_python(findings: Findings, commands: list[tuple[Node, str]], wanted: str, place: Node | None) -> None:
    """``place``: of the set-up commands that have to bring a Python; None where the machines may have one."""
    from packaging.specifiers import SpecifierSet

    asked = [(version, node, key) for node, key in commands for version in _PYTHON.findall(str(node.value))]
    if not asked and place is not None:
        need = wanted or "of the driver"
        got = f"no version of it: tpu-ubuntu2204-base has {_IMAGE_PYTHON}"
        findings.error(place, "setup_commands", f"needs to bring Python {need}, but got {got}.")
    for version, node, key in asked:
        if version != asked[0][0]:
            reason = "driver and lanes exchange pickles"
            findings.error(node, key, f"needs one Python on all machines, {asked[0][0]}, but got {version}: {reason}.")
        if not SpecifierSet(wanted).contains(version):
            findings.error(node, key, f"needs Python {wanted}, as {PROJECT} has it, but got {version}.")


def _project(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8")).get("project", {}) if path.is_file() else {}
    return found


def pinned(path: Path) -> dict[str, Pin]:
    """The versions that a file of constraints pins, by normalised name; none where there is no such file."""
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines()
    numbered = ((line.partition("#")[0], Place(number, 0, f"{path.name}:{number}")) for number, line in enumerate(lines, 1))
    return {name: pin for line, place in numbered for name, pin in _pins(line, place)}


def _pins(text: str, place: Place) -> Iterator[tuple[str, Pin]]:
    for name, version in _PIN.findall(text):
        yield re.sub(r"[-_.]+", "-", name).lower(), Pin(version, place)

"""The sections that let a reader run the study again: how it was run, and how to repeat it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.analysis.frames import Frames
from orchestrator.analysis.wording import amount
from orchestrator.sections.forms import Section, Table

_PROPOSALS = {
    "generations": "generation by generation: a function of the study alone",
    "async": "on arrival (--async): the order of arrival mattered",
}


def how_it_was_run(frames: Frames) -> Section:
    """Cells by stage, and everything that is known of where and under what they ran."""
    ran = frames.ran
    said: Mapping[str, Any] = {
        "study fingerprint": ran["fingerprint"],
        "proposals": _PROPOSALS.get(str(ran["mode"]), ran["mode"]) if frames.tunings else None,
        "launches": ran["launches"],
        "first and last cell": f"{_minute(ran['first_cell'])} to {_minute(ran['last_cell'])} UTC" if ran["first_cell"] else None,
        "device-seconds": amount(ran["device_seconds"]),
        "hosts": ", ".join(ran["hosts"]),
        "devices": ", ".join(ran["devices"]),
        "workers a lane": ", ".join(ran["workers"]),
        "lanes": ran["lanes"],
        "machine of the driver": _machine(ran["machine"]),
        "versions": ", ".join(f"{name} {version}" for name, version in ran["versions"].items()),
        "commit of the code": ran["code_commit"],
        "hash of all packages": ran["lock_hash"],
        "space fingerprint": ran["space_fingerprint"],
    }
    facts = tuple((name, str(value)) for name, value in said.items() if value not in (None, ""))
    rows = [
        (str(row["stage"]), *(str(row[name]) for name in ("planned", "ok", "stopped", "failed", "missing")), amount(row["device_seconds"]))
        for row in frames.counts.to_dict("records")
    ]
    columns = ("cells", "planned", "ok", "stopped early", "failed", "missing", "device-seconds")
    return Section("How it was run", tables=(Table(columns, tuple(rows)), Table(("what", "value"), facts, names=2)))


def how_to_reproduce(frames: Frames) -> Section:
    """One command, with the code, packages, seeds and hardware that it needs, what it costs, and the study file itself."""
    ran = frames.ran
    points = [
        f"Code: {_code(ran)}",
        f"Packages: {', '.join(f'{name} {version}' for name, version in ran['versions'].items() if name != 'kdsweep')}"
        + (f"; hash of all packages {ran['lock_hash']}." if ran["lock_hash"] else "."),
        f"Seeds: everything random follows from the study's seed, {ran['seed']}"
        + ("; the seeds of every block are under Block by block." if frames.summaries else "."),
        f"Hardware: {_hardware(ran)}",
        f"Cost: {_cost(frames)}",
        *_agreement(frames),
    ]
    text = str(frames.facts.study.get("text") or "").rstrip()
    mode = " --async" if ran["mode"] == "async" else ""
    again = f"`kdsweep run study.yaml{mode}` with the study file below; the study's fingerprint is {ran['fingerprint']}."
    return Section("How to reproduce it", paragraphs=(again,), points=tuple(points), code=text)


def _code(ran: Mapping[str, Any]) -> str:
    version = f"kdsweep {ran['versions'].get('kdsweep', 'of a version that was not recorded')}"
    commit = str(ran["code_commit"] or "")
    if not commit:
        return f"{version}, installed without a checkout."
    changed = " with changes that were not committed, so that the commit alone does not give it" if commit.endswith("+") else ""
    return f"{version} at commit {commit.rstrip('+')}{changed}; `pip install -c constraints.txt .` in its checkout."


def _hardware(ran: Mapping[str, Any]) -> str:
    hosts, devices, workers = (", ".join(ran[name]) or "not recorded" for name in ("hosts", "devices", "workers"))
    one = len(ran["hosts"]) == 1
    machine = f"; the driver's machine: {_machine(ran['machine'])}" if ran["machine"] else "; cores were not recorded"
    return f"host{'' if one else 's'} {hosts}; device {devices}; workers a lane {workers}; lanes {ran['lanes'] or 'as many as by default'}{machine}."


def _machine(machine: Mapping[str, Any] | None) -> str:
    if not machine:
        return ""
    cores = machine.get("cores")
    parts = [
        f"{cores} core{'' if cores == 1 else 's'}" if cores else "",
        str(machine.get("processor") or ""),
        str(machine.get("system") or ""),
    ]
    return ", ".join(part for part in parts if part)


def _cost(frames: Frames) -> str:
    stages = ", ".join(f"{row['stage']} {amount(row['device_seconds'])}" for row in frames.counts.to_dict("records"))
    so_far = "" if frames.is_complete else " so far"
    return f"{amount(frames.ran['device_seconds'])} device-seconds{so_far} ({stages}), attempts that failed among them."


def _agreement(frames: Frames) -> list[str]:
    if frames.ran["mode"] == "async":
        return ["Proposals depended on the order of arrival (--async): a second run proposes other configurations."]
    same = "On the same code, packages and kind of device the table comes out the same but for times;"
    return [f"{same} others round otherwise, which training amplifies. `kdsweep compare` puts a second run beside this one."]


def _minute(stamp: str) -> str:
    return stamp[:16].replace("T", " ")

"""Check of what a study's trainings need: extras, data, tokenizers and weights, here or on the machines of a cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.doctor import Findings
from orchestrator.needs import wanted_of
from orchestrator.premises import Premises, at
from trainables.inventory import taken

SECONDS = 60.0
"""How long it may take: packages are imported, and the hub may be asked."""


def check_needs(findings: Findings, premises: Premises) -> None:
    """This machine has what a study's trainings need; where lanes are a cluster's, it only rehearses."""
    place, study = at("needs"), premises.study
    if study is None:
        findings.ok(place, "", "no study is named whose data, networks and weights could be looked for.")
        return
    trains = premises.address is None
    found = taken(wanted_of(study, trains))
    for fault in found.faults:
        if trains:
            findings.error(place, "", fault)
        else:
            findings.warn(place, "", f"{fault} This machine does not train, but could not rehearse stage two.")
    for remark in found.remarks:
        findings.ok(place, "", remark)
    if not found.faults and not found.remarks:
        findings.ok(place, "", "extras, data and weights of the study are here, and fit together.")


def judge_needs(findings: Findings, machines: Sequence[Mapping[str, Any]]) -> None:
    """Find what machines of a cluster, as ``orchestrator.rayprobe`` tells of them, lack."""
    place = at("needs")
    for machine in machines:
        told = machine.get("needs")
        if told is None:
            continue
        for fault in told:
            findings.error(place, "", f"{machine['host']}: {fault}")
        if not told:
            findings.ok(place, "", f"{machine['host']} has what the study needs.")

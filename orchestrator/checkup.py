"""Checkup: every check of this machine and of what a study needs, side by side, each with an end in sight.

A check is a function of findings and premises. One that breaks is a finding, and so is one that does not end in time: what
it has found by then counts.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator import checkmachine, checkneeds, checkservices, checkstorage
from orchestrator.doctor import Examination, Finding, Findings
from orchestrator.errors import StudyError
from orchestrator.located import one_line
from orchestrator.premises import Premises, at
from orchestrator.reading import read_study
from trainables.redaction import redacted


@dataclass(frozen=True)
class Check:
    """One thing to look at."""

    name: str
    look: Callable[[Findings, Premises], None]
    seconds: float = 30.0
    """How long it may take, from when all checks begin."""


CHECKS = (
    Check("python", checkmachine.check_python),
    Check("packages", checkmachine.check_packages),
    Check("torch", checkmachine.check_torch),
    Check("ray", checkservices.check_ray, checkservices.RAY_S + 10.0),
    Check("devices", checkmachine.check_devices, 60.0),
    Check("needs", checkneeds.check_needs, checkneeds.SECONDS),
    Check("storage", checkstorage.check_storage),
    Check("results", checkstorage.check_results),
    Check("W&B", checkservices.check_wandb, 10.0),
    Check("open files", checkmachine.check_limits),
    Check("memory", checkmachine.check_memory),
    Check("permissions", checkmachine.check_secrets),
)
"""In the order of their lines."""


def examine_study(path: Path | None, *, address: str | None = None, storage: str | None = None, quick: bool = False) -> Examination:
    """What ``kdsweep doctor`` says: of this machine, and of what a study needs.

    Args:
        path: of a study file; None looks at what any study would need. One with mistakes is a finding, too.
        address: of a running Ray cluster; None starts Ray here.
        storage: where results would go, in place of what the study says.
        quick: start no Ray.
    """
    premises, before = Premises(address=address, quick=quick), Findings()
    if path is not None:
        place = at("study")
        try:
            study = read_study(path, (), {"storage": storage})
        except StudyError as error:
            for fault in error.faults:
                before.error(place, "", fault)
        else:
            premises = replace(premises, name=study.name, run=study.run, study=study, file=path)
            before.ok(place, "", f"{path} is a valid study, {study.name}.")
    if premises.name is None and storage is not None:
        premises = replace(premises, run=replace(premises.run, storage=storage))
    return examine(premises, "this machine" if path is None else one_line(str(path)), before.found)


def examine(premises: Premises, subject: str, before: Sequence[Finding] = (), checks: Sequence[Check] = CHECKS) -> Examination:
    """Everything that is wrong, and what is not.

    Args:
        premises: what is looked at.
        subject: what the last line calls it.
        before: findings that were made already, of the study's file for one.
        checks: each is looked at.
    """
    begun = time.monotonic()
    looks = [_Look(check, premises) for check in checks]
    found = [*before, *(finding for look in looks for finding in look.findings(begun))]
    return Examination(subject, tuple(replace(each, message=redacted(each.message, premises.environ)) for each in found))


class _Look:
    """A check at work, in a thread that nobody waits for for ever: it dies with the process."""

    def __init__(self, check: Check, premises: Premises) -> None:
        self._check, self._premises = check, premises
        self._found = Findings()
        self._thread = threading.Thread(target=self._look, name=f"checkup-{check.name}", daemon=True)
        self._thread.start()

    def findings(self, begun: float) -> list[Finding]:
        """What it has found, when it has ended or its time is over. ``begun``: time.monotonic() when all checks began."""
        self._thread.join(max(0.0, self._check.seconds - (time.monotonic() - begun)))
        found = list(self._found.found)
        if self._thread.is_alive():
            late = Findings()
            message = f"needs an answer within {self._check.seconds:g} s, but got none. Check the network, or whatever else it waits for."
            late.error(at(self._check.name), "", message)
            found += late.found
        return found

    def _look(self) -> None:
        try:
            self._check.look(self._found, self._premises)
        except (Exception, SystemExit) as fault:  # noqa: BLE001 - whatever breaks here is what the user is to be told
            told = one_line(f"{type(fault).__name__}: {fault}")
            self._found.error(at(self._check.name), "", f"needs to be looked at, but got this on the way: {told}")

"""Doctor: what is wrong with a set-up, all of it at once, before it costs anything.

An examination is what was found: ``orchestrator.clusterfile`` examines a cluster file, ``orchestrator.checkup`` this machine
and what a study needs of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from orchestrator.located import Node, Place, printable


class Severity(StrEnum):
    """An error keeps the set-up from working, or makes it unsafe; a warning costs time or money; ok is how it should be."""

    ERROR = "error"
    WARNING = "warning"
    OK = "ok"


@dataclass(frozen=True, order=True)
class Finding:
    """One thing that is wrong, or was looked at and is not. ``key`` is its dotted name; empty where the whole file is at fault."""

    place: Place
    key: str
    message: str
    severity: Severity = Severity.ERROR

    def __str__(self) -> str:
        key = f"{self.key}: " if self.key else ""
        return printable(f"{self.place.label}: {self.severity}: {key}{self.message}")

    def to_json(self) -> dict[str, str]:
        """As ``kdsweep doctor --json`` prints it."""
        return {"severity": self.severity.value, "where": self.key, "place": self.place.label, "message": self.message}


@dataclass
class Findings:
    """Collects what one check finds."""

    found: list[Finding] = field(default_factory=list)

    def error(self, place: Place | Node, key: str, message: str) -> None:
        """Keep an error."""
        self._add(place, key, message, Severity.ERROR)

    def warn(self, place: Place | Node, key: str, message: str) -> None:
        """Keep a warning."""
        self._add(place, key, message, Severity.WARNING)

    def ok(self, place: Place | Node, key: str, message: str) -> None:
        """Keep what is as it should be: the line says what was looked at."""
        self._add(place, key, message, Severity.OK)

    def _add(self, place: Place | Node, key: str, message: str, severity: Severity) -> None:
        self.found.append(Finding(place.place if isinstance(place, Node) else place, key, message, severity))


@dataclass(frozen=True)
class Examination:
    """What was examined, what is wrong with it, and what it will need that no check can see."""

    subject: str
    findings: tuple[Finding, ...]
    needs: tuple[str, ...] = ()

    @property
    def errors(self) -> int:
        """How many of the findings are errors."""
        return sum(finding.severity is Severity.ERROR for finding in self.findings)

    @property
    def warnings(self) -> int:
        """How many of the findings are warnings."""
        return sum(finding.severity is Severity.WARNING for finding in self.findings)

    def lines(self) -> list[str]:
        """As the terminal shows it: findings in the order of the text, how many, then needs."""
        verdict = f"{self.subject}: {_counted(self.errors, 'error')}, {_counted(self.warnings, 'warning')}."
        return [*map(str, self.findings), verdict, *(f"  {need}" for need in self.needs)]

    def to_json(self) -> dict[str, Any]:
        """As ``kdsweep doctor --json`` prints it."""
        return {
            "subject": self.subject,
            "errors": self.errors,
            "warnings": self.warnings,
            "findings": [finding.to_json() for finding in self.findings],
            "needs": list(self.needs),
        }


def _counted(count: int, what: str) -> str:
    return f"{count or 'no'} {what}{'' if count == 1 else 's'}"

"""Premises: what a checkup is asked to look at."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.events import Clock, utc_now
from orchestrator.located import Place
from orchestrator.study import Run, Study


@dataclass(frozen=True)
class Premises:
    """This machine, with or without a study, and what the study would use."""

    name: str | None = None
    """Of the study; None: whatever is run here."""
    run: Run = field(default_factory=Run)
    address: str | None = None
    """Of a running Ray cluster; None: Ray is started here."""
    quick: bool = False
    """Start no Ray."""
    study: Study | None = None
    file: Path | None = None
    """That the study is read from."""
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    clock: Clock = utc_now

    @property
    def root(self) -> str:
        """Where the folders of studies lie."""
        return self.run.storage.rstrip("/") or "/"

    @property
    def folder(self) -> str | None:
        """Where the results of the study lie, or will."""
        return None if self.name is None else f"{self.run.storage.rstrip('/')}/{self.name}"


def at(name: str) -> Place:
    """The place of everything that is found about one thing: lines and JSON call it so."""
    return Place(0, 0, name)

"""The bulletin: a study's report as a W&B run. Its effects and scores as tables, its figures, and the Parquet tables as an artifact.

Everything is read from the files beside the report, so that what W&B shows is what the report says. What is here is plain
data; ``orchestrator.replay``, which knows wandb, sends it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.mirror import JOB_TYPE, REPORT
from orchestrator.storage import folder_at
from orchestrator.table import TABLES

_EFFECTS = (
    *("arm", "base", "n", "planned", "difference", "t_low", "t_high", "bca_low", "bca_high", "p", "p_holm", "better", "better_at_least"),
    *("in_seed_sd", "correlation", "is_shown", "sentence"),
)
_SCORES = ("arm", "planned", "ok", "failed", "missing", "mean", "sd", "iqm", "low", "high", "device_seconds")


@dataclass(frozen=True)
class Rows:
    """A table."""

    columns: tuple[str, ...]
    data: list[list[Any]]


class Bulletin:
    """The report in ``folder``, as its files have it.

    Raises:
        ValueError, StorageError: report.json cannot be read, or is none.
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = folder
        data = folder_at(folder).read(REPORT)
        if data is None:
            raise ValueError(f"A Bulletin needs {REPORT} in folder={str(folder)!r}, but got none. `kdsweep report` writes it.")
        self._content: dict[str, Any] = json.loads(data)

    @property
    def name(self) -> str:
        """Of the run, for people."""
        return f"{self._content['study']} / report{'' if self._content['is_complete'] else ' (interim)'}"

    @property
    def tags(self) -> tuple[str, ...]:
        """Study, job type, and whether the study was complete."""
        return (str(self._content["study"]), JOB_TYPE, "complete" if self._content["is_complete"] else "interim")

    @property
    def config(self) -> dict[str, Any]:
        """What was asked and how it was run."""
        return {name: self._content.get(name) for name in ("study", "question", "metric", "base", "ran", "held")}

    @property
    def tables(self) -> dict[str, Rows]:
        """Effects and scores, unrounded. Without rows there is no table: nothing would tell what its columns hold."""
        found = {"effects": (_EFFECTS, self._content["comparisons"]), "scores": (_SCORES, self._content["arms"])}
        return {
            name: Rows(columns, [[row.get(each) for each in columns] for row in rows]) for name, (columns, rows) in found.items() if rows
        }

    @property
    def figures(self) -> dict[str, tuple[bytes, str]]:
        """Name to PNG and caption."""
        place = folder_at(f"{self._folder}/figures")
        pictures = {str(each["name"]): str(each["caption"]) for each in self._content.get("pictures", ())}
        for name in pictures:
            if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
                raise ValueError(
                    f"A Bulletin needs names of pictures that are no paths, but got name={name!r}. `kdsweep report` writes it anew."
                )
        found = {name: (place.read(f"{name}.png"), caption) for name, caption in pictures.items()}
        return {name: (data, caption) for name, (data, caption) in found.items() if data is not None}

    @property
    def summary(self) -> dict[str, Any]:
        """Which arms were shown to differ, the mean of every arm, and the cost."""
        shown = [each["arm"] for each in self._content["comparisons"] if each["is_shown"]]
        means = {f"mean/{each['arm']}": each["mean"] for each in self._content["arms"] if each["mean"] is not None}
        ran = self._content["ran"]
        return {"is_complete": self._content["is_complete"], "shown": shown, "device_seconds": ran["device_seconds"], **means}

    @property
    def artifact(self) -> str:
        """Name of the artifact, in the letters that W&B allows."""
        return re.sub(r"[^a-zA-Z0-9_.-]", "-", str(self._content["study"]))[:100] + "-table"

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Of the artifact."""
        return {"fingerprint": self._content["ran"]["fingerprint"], "is_complete": self._content["is_complete"]}

    @property
    def files(self) -> dict[str, bytes]:
        """Of the artifact: the Parquet tables and the report for machines."""
        place = folder_at(self._folder)
        found = {name: place.read(name) for name in (*(f"{table}.parquet" for table in TABLES), REPORT)}
        return {name: data for name, data in found.items() if data is not None}

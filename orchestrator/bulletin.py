"""The bulletin: a study's report as a W&B run. Its effects and scores as tables, its figures, and the Parquet tables as an artifact.

Everything is read from the files beside the report, so that what W&B shows is what the report says. Only the mirroring process
imports this, since it needs wandb.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import wandb

from orchestrator.mirror import JOB_TYPE, REPORT
from orchestrator.storage import folder_at
from orchestrator.table import TABLES

_EFFECTS = (
    *("arm", "base", "n", "planned", "difference", "t_low", "t_high", "bca_low", "bca_high", "p", "p_holm", "better", "better_at_least"),
    *("in_seed_sd", "correlation", "is_shown", "sentence"),
)
_SCORES = ("arm", "planned", "ok", "failed", "missing", "mean", "sd", "iqm", "low", "high", "device_seconds")


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
        return (str(self._content["study"]), JOB_TYPE, "complete" if self._content["is_complete"] else "interim")

    @property
    def config(self) -> dict[str, Any]:
        """What was asked and how it was run."""
        return {name: self._content.get(name) for name in ("study", "question", "metric", "base", "ran", "held")}

    def log(self, run: wandb.Run, scratch: Path) -> None:
        """Tables, figures, summary and artifact, in one step. ``scratch`` is a folder for copies, gone afterwards."""
        scratch.mkdir(parents=True, exist_ok=True)
        try:
            # A run that got half-way has its step already; the artifact is known by its content.
            if run.starting_step == 0:
                run.log({**self._tables(), **self._figures(scratch)}, step=0, commit=True)
            run.summary.update(self._summary())
            run.log_artifact(self._artifact(scratch))
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _tables(self) -> dict[str, wandb.Table]:
        """Without rows there is no table: wandb could not tell what its columns hold."""
        found = {"effects": (_EFFECTS, self._content["comparisons"]), "scores": (_SCORES, self._content["arms"])}
        return {
            name: wandb.Table(columns=list(columns), data=[[row.get(column) for column in columns] for row in rows])
            for name, (columns, rows) in found.items()
            if rows
        }

    def _figures(self, scratch: Path) -> dict[str, wandb.Image]:
        place = folder_at(f"{self._folder}/figures")
        found = {}
        for picture in self._content.get("pictures", ()):
            data = place.read(f"{picture['name']}.png")
            if data is not None:
                path = scratch / f"{picture['name']}.png"
                path.write_bytes(data)
                found[f"figures/{picture['name']}"] = wandb.Image(str(path), caption=str(picture["caption"]))
        return found

    def _summary(self) -> dict[str, Any]:
        shown = [each["arm"] for each in self._content["comparisons"] if each["is_shown"]]
        means = {f"mean/{each['arm']}": each["mean"] for each in self._content["arms"] if each["mean"] is not None}
        ran = self._content["ran"]
        return {"is_complete": self._content["is_complete"], "shown": shown, "device_seconds": ran["device_seconds"], **means}

    def _artifact(self, scratch: Path) -> wandb.Artifact:
        study = re.sub(r"[^a-zA-Z0-9_.-]", "-", str(self._content["study"]))[:100]
        metadata = {"fingerprint": self._content["ran"]["fingerprint"], "is_complete": self._content["is_complete"]}
        artifact = wandb.Artifact(f"{study}-table", type="table", description="Tables of a kdsweep study.", metadata=metadata)
        place = folder_at(self._folder)
        for name in (*(f"{table}.parquet" for table in TABLES), REPORT):
            data = place.read(name)
            if data is not None:
                path = scratch / name
                path.write_bytes(data)
                artifact.add_file(str(path), name=name)
        return artifact

"""What verbs of the command line share: arguments that several take, where results lie, and a launch with its summary."""

from __future__ import annotations

import json
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from orchestrator.driver import Launch, Outcome
    from orchestrator.study import Study


class Wandb(StrEnum):
    """Where the W&B mirror goes."""

    ONLINE = "online"
    OFFLINE = "offline"
    OFF = "off"


StudyFile = Annotated[Path, typer.Argument(metavar="STUDY", help="the study file (YAML)")]
Results = Annotated[str, typer.Argument(metavar="STUDY", help="the study file, or the folder of its results")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="override a key of the study file; repeatable")]
Storage = Annotated[str | None, typer.Option(metavar="URL", help="where results go: a folder, gs://... or s3://...")]
Json = Annotated[bool, typer.Option("--json", help="print JSON")]
Address = Annotated[str | None, typer.Option(metavar="ADDR", help="a running Ray cluster; without it Ray starts here")]
Lanes = Annotated[int | None, typer.Option(help="trainings at a time; where a lane is part of a TPU slice, as many as one slice holds")]
Workers = Annotated[int | None, typer.Option(help="Ray Train workers a lane; 0 trains in the lane's own process")]
Lane = Annotated[str | None, typer.Option(metavar="any|chip|host|slice", help="what a lane is: any machine, or so much of a TPU v4 slice")]
Topology = Annotated[str | None, typer.Option(metavar="AxBxC", help="chips along the axes of the TPU slices: a v4-8 is 2x2x1")]
DeviceName = Annotated[
    str | None, typer.Option(metavar="auto|cpu|cuda|xla", help="auto is xla on a TPU lane, else a GPU where there is one")
]
Mirrored = Annotated[Wandb | None, typer.Option(help="the W&B mirror")]
InProcess = Annotated[bool, typer.Option("--in-process", help="one cell after another in this process, without Ray")]


def console(*, on_stderr: bool = False) -> Console:
    """The terminal."""
    from rich.console import Console

    return Console(highlight=False, stderr=on_stderr)


def read(path: Path, overrides: Sequence[str] | None, **options: Any) -> Study:  # keys of the study's run section
    """The study of a file."""
    from orchestrator.reading import read_study

    return read_study(path, overrides or (), options)


def smoked(path: Path, study: Study, changes: Sequence[str] | None, **options: Any) -> Study:  # keys of the study's run section
    """A study made small for ``--smoke``, its made-up data written; see ``orchestrator.smoke``."""
    from orchestrator import smoke
    from trainables.synthetic import stand_in, training_rows

    small = smoke.overrides(study, stand_in(study.data), training_rows(study.data))
    storage = f"{study.run.storage.rstrip('/')}/{smoke.FOLDER}"
    return read(path, [*(changes or ()), *small], **{**options, "storage": storage, "wandb": Wandb.OFF.value})


def folder(study: str, storage: str | None) -> str:
    """The folder of results that a study file, or the folder itself, names."""
    if not study.endswith((".yaml", ".yml")):
        return study
    from orchestrator.standing import folder_named

    found = folder_named(study, storage)
    if found is not None:
        return found
    # The whole reader of study files loads torch, which takes longer than all the rest.
    from orchestrator.driver import folder_of

    return folder_of(read(Path(study), None, storage=storage))


def warn(study: Study, *, lacks: bool = False) -> None:
    """Say what is valid but unlikely to be meant and, if asked, what this machine lacks for running it."""
    for warning in (*study.warnings, *(lacking(study) if lacks else ())):
        typer.echo(f"note: {warning}", err=True)


def lacking(study: Study) -> list[str]:
    """What this machine lacks of what the study's trainings need: looked at in moments, so that the hub is not asked."""
    from orchestrator.needs import wanted_of
    from trainables import inventory

    return [f"{fault} Machines that train need it." for fault in inventory.lacking(wanted_of(study))]


def launched(study: Study, launch: Launch, as_json: bool) -> None:
    """Run a study to its end, then its report; leave with the exit code that tells how it went."""
    from orchestrator.driver import drive

    warn(study)
    if launch.address is None and not launch.in_process:
        from orchestrator.loopback import only_here

        only_here()
    shown = console(on_stderr=as_json)
    outcome = drive(study, launch, shown)
    files, mirrored = _reported(outcome, study, shown, is_short=as_json)
    if as_json:
        told = {**asdict(outcome), "mirrored": mirrored, "exit_code": outcome.exit_code, "files": files}
        typer.echo(json.dumps(told, indent=2))
    for problem in outcome.problems:
        typer.echo(problem, err=True)
    raise typer.Exit(outcome.exit_code)


def _reported(outcome: Outcome, study: Study, shown: Console, *, is_short: bool) -> tuple[dict[str, str], str]:
    """Write the report and print its main table; where the files are, and how far the mirror got."""
    from orchestrator import report as reports
    from orchestrator.mirror import mirror_report

    found = reports.frames(outcome.folder)
    paths = reports.write(outcome.folder, found)
    files = {"table": f"{outcome.folder}/trials.parquet", **{form: str(paths[form]) for form in ("md", "html", "json")}}
    if not is_short:
        if outcome.trained == 0:
            shown.print("Nothing to train: every cell of this study is finished. The report is made from the table.")
        shown.print(reports.effect_table(found))
        for what, path in files.items():
            shown.print(f"  {what:<8} {path}", soft_wrap=True)
    mirrored = mirror_report(outcome.folder, study.run.wandb, study.run.wandb_project) or outcome.mirrored
    if mirrored and not is_short:
        shown.print(mirrored, soft_wrap=True)
    return files, mirrored

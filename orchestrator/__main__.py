"""The command line: parses, calls, prints. Nothing heavy is imported before a verb needs it."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.errors import KdsweepError

if TYPE_CHECKING:
    from rich.console import Console

    from orchestrator.driver import Outcome
    from orchestrator.outline import Outline
    from orchestrator.record import Record
    from orchestrator.study import Run, Study

app = typer.Typer(
    name="kdsweep",
    help="Tuned, paired and replicated knowledge-distillation studies on Ray.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    # Without markup typer does not load rich, and --help answers at once.
    rich_markup_mode=None,
)


class Wandb(StrEnum):
    """Where the W&B mirror goes."""

    ONLINE = "online"
    OFFLINE = "offline"
    OFF = "off"


class ReportFormat(StrEnum):
    """Forms of the report."""

    MD = "md"
    HTML = "html"
    LATEX = "latex"
    JSON = "json"


class ExportFormat(StrEnum):
    """Forms of the exported tables."""

    PARQUET = "parquet"
    CSV = "csv"


StudyFile = Annotated[Path, typer.Argument(metavar="STUDY", help="the study file (YAML)")]
Results = Annotated[str, typer.Argument(metavar="STUDY", help="the study file, or the folder of its results")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="override a key of the study file; repeatable")]
Storage = Annotated[str | None, typer.Option(metavar="URL", help="where results go: a folder, gs://... or s3://...")]
Json = Annotated[bool, typer.Option("--json", help="print JSON")]
Lanes = Annotated[int | None, typer.Option(help="trainings at a time; where a lane is part of a TPU slice, as many as one slice holds")]
Workers = Annotated[int | None, typer.Option(help="Ray Train workers a lane; 0 trains in the lane's own process")]
Lane = Annotated[str | None, typer.Option(metavar="any|chip|host|slice", help="what a lane is: any machine, or so much of a TPU v4 slice")]
Topology = Annotated[str | None, typer.Option(metavar="AxBxC", help="chips along the axes of the TPU slices: a v4-8 is 2x2x1")]
DeviceName = Annotated[
    str | None, typer.Option(metavar="auto|cpu|cuda|xla", help="auto is xla on a TPU lane, else a GPU where there is one")
]


@app.command()
def validate(study: StudyFile, set_: Set = None, as_json: Json = False) -> None:
    """Check a study file and say everything that is wrong with it; start nothing."""
    found = _read(study, set_)
    if as_json:
        typer.echo(json.dumps(found.skeleton_json(), indent=2))
        return
    _warn(found)
    typer.echo(f"{study}: a valid study, {found.name}, fingerprint {found.fingerprint}.")


@app.command()
def plan(
    study: StudyFile,
    set_: Set = None,
    storage: Storage = None,
    lane: Lane = None,
    topology: Topology = None,
    lanes: Lanes = None,
    workers: Workers = None,
    device: DeviceName = None,
    effect: Annotated[
        str | None, typer.Option(metavar="SIZE", help="tell the power for this effect: 1.0 (seed sd) or '0.5 points'; as confirm.effect")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what a study comes to: cells, lanes, graphs to compile, time, what is done already, the smallest p; start nothing."""
    from orchestrator import outline
    from orchestrator.costs import costs
    from orchestrator.driver import folder_of
    from orchestrator.journal import Journal
    from orchestrator.record import record_of

    overrides = [*(set_ or ()), *([] if effect is None else [f"confirm.effect={effect}"])]
    found = _read(study, overrides, storage=storage, lane=lane, topology=topology, lanes=lanes, workers=workers, device=device)
    folder = folder_of(found)
    record = record_of(Journal(folder).read())
    if record.study is not None and not found.is_that_of(record.study):
        typer.echo(f"note: {folder} holds the results of another study of this name, which count for nothing here.", err=True)
        record = record_of([])
    counts, spent, finished = outline.outline(found), costs(found, record), len(record.finished)
    power, lines = _power(found, counts, record)
    if as_json:
        typer.echo(json.dumps({**outline.outline_json(found, counts, spent, finished), "power": power}, indent=2))
        return
    _warn(found)
    typer.echo("\n".join([*outline.outline_lines(found, counts, spent, finished), *lines, *outline.standing_lines(found, record)]))


@app.command()
def run(
    study: StudyFile,
    set_: Set = None,
    storage: Storage = None,
    address: Annotated[str | None, typer.Option(metavar="ADDR", help="a running Ray cluster; without it Ray starts here")] = None,
    lane: Lane = None,
    topology: Topology = None,
    lanes: Lanes = None,
    workers: Workers = None,
    device: DeviceName = None,
    wandb: Annotated[Wandb | None, typer.Option(help="the W&B mirror")] = None,
    in_process: Annotated[bool, typer.Option("--in-process", help="one cell after another in this process, without Ray")] = False,
    asynchronous: Annotated[
        bool, typer.Option("--async", help="propose and promote on arrival (ASHA): no lane waits, and the order of arrival matters")
    ] = False,
) -> None:
    """Run what a study still lacks, then write its table and report. Stopped at any point, it goes on from there."""
    from orchestrator.driver import Launch, drive

    options = {"lane": lane, "topology": topology, "lanes": lanes, "workers": workers, "device": device}
    found = _read(study, set_, storage=storage, wandb=None if wandb is None else wandb.value, **options)
    _warn(found)
    if address is None and not in_process:
        from orchestrator.loopback import only_here

        only_here()
    console = _console()
    outcome = drive(found, Launch(in_process=in_process, address=address, asynchronous=asynchronous), console)
    _summarise(outcome, found.run, console)
    for problem in outcome.problems:
        typer.echo(problem, err=True)
    raise typer.Exit(outcome.exit_code)


@app.command()
def status(
    study: Results,
    storage: Storage = None,
    watch: Annotated[bool, typer.Option("--watch", help="go on until the launch ends, or Ctrl-C")] = False,
    as_json: Json = False,
) -> None:
    """Show where a study stands: every cell, best scores, lanes, failures, cost and time left. Reads journal and lock only."""
    from orchestrator.board import board
    from orchestrator.journal import Journal
    from orchestrator.standing import folder_named, standing_of
    from orchestrator.watching import looks, show, stream

    # The whole reader of study files loads torch, which takes longer than all the rest.
    folder = (folder_named(study, storage) if study.endswith((".yaml", ".yml")) else None) or _folder(study, storage)
    journal = Journal(folder)
    if watch:
        seen = looks(lambda: standing_of(folder, journal))
        if as_json:
            stream(seen, typer.echo)
        else:
            show(seen, _console())
        return
    standing = standing_of(folder, journal)
    if as_json:
        typer.echo(json.dumps(standing.to_json(), indent=2))
        return
    console = _console()
    console.print(board(standing, console.width), soft_wrap=True)


@app.command()
def report(
    study: Results,
    storage: Storage = None,
    format: Annotated[ReportFormat, typer.Option(help="what to print; the files of all forms are written in any case")] = ReportFormat.MD,
    bib: Annotated[bool, typer.Option("--bib", help="print the papers of the study's methods as BibTeX instead")] = False,
) -> None:
    """Write the report from the table, and print it (for html: print where it is)."""
    from orchestrator import report as reports

    folder = _folder(study, storage)
    found = reports.frames(folder)
    if bib:
        from orchestrator import catalogue
        from orchestrator.citations import bibtex

        names = {cell["method"] for cell in found.facts.cells if cell["method"] is not None}
        typer.echo(bibtex(catalogue.method(name) for name in sorted(names)))
        return
    paths = reports.write(folder, found)
    if format is ReportFormat.HTML:
        typer.echo(paths["html"])
        return
    printed = {ReportFormat.MD: reports.markdown, ReportFormat.LATEX: reports.tables_in_latex, ReportFormat.JSON: reports.to_json}
    typer.echo(printed[format](found))


@app.command()
def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="a study file, or the folder of its results")],
    b: Annotated[str, typer.Argument(metavar="B", help="another one")],
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Put two studies side by side: what differs in what was asked and how it was run, and the scores of arms both have."""
    from orchestrator import compare as comparing
    from orchestrator import report as reports

    folders = _folder(a, storage), _folder(b, storage)
    found = comparing.read(folders, (reports.frames(folders[0]), reports.frames(folders[1])))
    typer.echo(comparing.to_json(found) if as_json else comparing.markdown(found))


@app.command()
def export(
    study: Results,
    format: Annotated[ExportFormat, typer.Option(help="form of the files")] = ExportFormat.PARQUET,
    to: Annotated[Path, typer.Option(metavar="FOLDER", help="where to")] = Path("export"),
    storage: Storage = None,
) -> None:
    """Write the tables (trials, reports, studies) to a folder."""
    from orchestrator import table

    for path in table.export(_folder(study, storage), format.value, to):
        typer.echo(path)


@app.command()
def mirror(
    study: Results,
    storage: Storage = None,
    wandb: Annotated[Wandb, typer.Option(help="where to")] = Wandb.ONLINE,
    project: Annotated[str, typer.Option(help="W&B project")] = "kdsweep",
) -> None:
    """Bring W&B up to date with the journal: what is there already is not sent again."""
    from orchestrator.mirror import mirror_all

    typer.echo(mirror_all(_folder(study, storage), wandb.value, project))


@app.command()
def methods(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="one method")] = None,
    as_json: Json = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="print the README's table")] = False,
) -> None:
    """List the distillation methods, or show the fields, domains and citation of one."""
    from orchestrator import catalogue

    if as_json:
        shown = catalogue.all_methods() if name is None else [catalogue.method(name)]
        typer.echo(json.dumps([entry.to_json() for entry in shown], indent=2))
    elif markdown:
        typer.echo("\n".join(catalogue.markdown_table()))
    elif name is None:
        for entry in catalogue.all_methods():
            typer.echo(f"{entry.name:<12} {entry.summary}")
    else:
        typer.echo("\n".join(catalogue.lines(catalogue.method(name))))


@app.command()
def doctor(
    study: Annotated[Path | None, typer.Argument(metavar="[STUDY]", help="a study file, for its storage, device and W&B")] = None,
    cluster: Annotated[
        Path | None, typer.Option("--cluster", metavar="FILE", help="look at a file for Ray's cluster launcher, as cluster.yaml, instead")
    ] = None,
    address: Annotated[str | None, typer.Option(metavar="ADDR", help="a running Ray cluster; without it Ray is started here")] = None,
    storage: Storage = None,
    quick: Annotated[bool, typer.Option("--quick", help="start no Ray, which takes seconds")] = False,
    as_json: Json = False,
) -> None:
    """Say what is wrong with this machine, its Ray, storage, W&B and logins, or with a cluster file, and what to do; leave nothing behind."""
    from orchestrator import checkup, clusterfile

    if cluster is not None:
        examination = clusterfile.examine_file(cluster)
    else:
        examination = checkup.examine_study(study, address=address, storage=storage, quick=quick)
    typer.echo(json.dumps(examination.to_json(), indent=2) if as_json else "\n".join(examination.lines()))
    raise typer.Exit(2 if examination.errors else 0)


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False)


def _read(path: Path, overrides: list[str] | None, **options: Any) -> Study:  # keys of the study's run section
    from orchestrator.reading import read_study

    return read_study(path, overrides or (), options)


def _power(study: Study, counts: Outline, record: Record) -> tuple[list[dict[str, Any]], list[str]]:
    """Of the stated effect, as data and for the terminal; nothing where none is stated, for it needs scipy."""
    if study.confirm is None or study.confirm.effect is None:
        return [], []
    from orchestrator.analysis.power import power_lines
    from orchestrator.prospects import prospects

    found = prospects(study, counts, record)
    return [asdict(each) for each in found], [f"  {line}" for each in found for line in power_lines(each)]


def _warn(study: Study) -> None:
    for warning in study.warnings:
        typer.echo(f"note: {warning}", err=True)


def _folder(study: str, storage: str | None) -> str:
    """The folder of results that a study file, or the folder itself, names."""
    if study.endswith((".yaml", ".yml")):
        from orchestrator.driver import folder_of

        return folder_of(_read(Path(study), None, storage=storage))
    return study


def _summarise(outcome: Outcome, run: Run, console: Console) -> None:
    from orchestrator import report as reports
    from orchestrator.mirror import mirror_report

    found = reports.frames(outcome.folder)
    paths = reports.write(outcome.folder, found)
    if outcome.trained == 0:
        console.print("Nothing to train: every cell of this study is finished. The report is made from the table.")
    console.print(reports.effect_table(found))
    for what, path in {"table": f"{outcome.folder}/trials.parquet", **{form: paths[form] for form in ("md", "html", "json")}}.items():
        console.print(f"  {what:<8} {path}", soft_wrap=True)
    mirrored = mirror_report(outcome.folder, run.wandb, run.wandb_project) or outcome.mirrored
    if mirrored:
        console.print(mirrored, soft_wrap=True)


def main() -> None:
    """The ``kdsweep`` command. Exit codes: 0 ok, 2 invalid, 3 some cells failed, 4 interrupted and resumable."""
    try:
        app()
    except KdsweepError as error:
        typer.echo(str(error), err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()

"""The command line: parses, calls, prints. Nothing heavy is imported before a verb needs it."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator import terminal, verbs
from orchestrator.errors import KdsweepError
from orchestrator.terminal import (
    Address,
    DeviceName,
    InProcess,
    Json,
    Lane,
    Lanes,
    Mirrored,
    Results,
    Set,
    Storage,
    StudyFile,
    Topology,
    Wandb,
    Workers,
)

if TYPE_CHECKING:
    from orchestrator.outline import Outline
    from orchestrator.record import Record
    from orchestrator.study import Study

app = typer.Typer(
    name="kdsweep",
    help="Tuned, paired and replicated knowledge-distillation studies on Ray.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    # Without markup typer does not load rich, and --help answers at once.
    rich_markup_mode=None,
)


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


@app.command()
def validate(study: StudyFile, set_: Set = None, as_json: Json = False) -> None:
    """Check a study file and say everything that is wrong with it; start nothing."""
    found = terminal.read(study, set_)
    if as_json:
        typer.echo(json.dumps({**found.skeleton_json(), "lacks": terminal.lacking(found)}, indent=2))
        return
    terminal.warn(found, lacks=True)
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
    price: Annotated[
        float | None, typer.Option(min=0.0, help="of a TPU chip-hour, in any currency: tell the money as well as the hours")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what a study comes to: cells, lanes, graphs to compile, time, what is done already, the smallest p; start nothing."""
    from orchestrator import bill, outline
    from orchestrator.costs import costs
    from orchestrator.driver import folder_of
    from orchestrator.journal import Journal
    from orchestrator.record import record_of
    from orchestrator.workload import Workload, workload

    overrides = [*(set_ or ()), *([] if effect is None else [f"confirm.effect={effect}"])]
    found = terminal.read(study, overrides, storage=storage, lane=lane, topology=topology, lanes=lanes, workers=workers, device=device)
    folder = folder_of(found)
    record = record_of(Journal(folder).read())
    if record.study is not None and not found.is_that_of(record.study):
        typer.echo(f"note: {folder} holds the results of another study of this name, which count for nothing here.", err=True)
        record = record_of([])
    counts, spent, finished = outline.outline(found), costs(found, record), len(record.finished)
    power, lines = _power(found, counts, record)
    # Counting builds every network, if on shapes alone: only where nothing better is known.
    work = Workload(None) if bill.obstacle(spent, record) is None else workload(found, record)
    if as_json:
        billed = [asdict(each) for each in bill.bills(found, spent, record, work, price)]
        more = {"power": power, "bills": billed, "lacks": terminal.lacking(found)}
        typer.echo(json.dumps({**outline.outline_json(found, counts, spent, finished), **more}, indent=2))
        return
    terminal.warn(found, lacks=True)
    told = [*outline.outline_lines(found, counts, spent, finished), *bill.bill_lines(found, spent, record, work, price), *lines]
    typer.echo("\n".join([*told, *outline.standing_lines(found, record)]))


@app.command()
def run(
    study: StudyFile,
    set_: Set = None,
    storage: Storage = None,
    address: Address = None,
    lane: Lane = None,
    topology: Topology = None,
    lanes: Lanes = None,
    workers: Workers = None,
    device: DeviceName = None,
    wandb: Mirrored = None,
    in_process: InProcess = False,
    asynchronous: Annotated[
        bool, typer.Option("--async", help="propose and promote on arrival (ASHA): no lane waits, and the order of arrival matters")
    ] = False,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="everything end to end in minutes: made-up data, a few steps; its numbers mean nothing")
    ] = False,
    as_json: Json = False,
) -> None:
    """Run what a study still lacks, then write its table and report. Stopped at any point, it goes on from there."""
    from orchestrator.driver import Launch

    options = {"lane": lane, "topology": topology, "lanes": lanes, "workers": workers, "device": device}
    found = terminal.read(study, set_, storage=storage, wandb=None if wandb is None else wandb.value, **options)
    if smoke:
        found = terminal.smoked(study, found, set_, **options)
    terminal.launched(found, Launch(in_process=in_process, address=address, asynchronous=asynchronous), as_json)


for verb in verbs.VERBS:
    app.command()(verb)


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
    from orchestrator.standing import standing_of
    from orchestrator.watching import looks, show, stream

    folder = terminal.folder(study, storage)
    journal = Journal(folder)
    if watch:
        seen = looks(lambda: standing_of(folder, journal))
        if as_json:
            stream(seen, typer.echo)
        else:
            show(seen, terminal.console())
        return
    standing = standing_of(folder, journal)
    if as_json:
        typer.echo(json.dumps(standing.to_json(), indent=2))
        return
    console = terminal.console()
    console.print(board(standing, console.width), soft_wrap=True)


@app.command()
def report(
    study: Results,
    storage: Storage = None,
    format: Annotated[ReportFormat, typer.Option(help="what to print; the files of all forms are written in any case")] = ReportFormat.MD,
    as_json: Annotated[bool, typer.Option("--json", help="as --format json")] = False,
    bib: Annotated[bool, typer.Option("--bib", help="print the papers of the study's methods as BibTeX instead")] = False,
) -> None:
    """Write the report from the table, and print it (for html: print where it is)."""
    from orchestrator import report as reports

    folder, format = terminal.folder(study, storage), ReportFormat.JSON if as_json else format
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

    folders = terminal.folder(a, storage), terminal.folder(b, storage)
    found = comparing.read(folders, (reports.frames(folders[0]), reports.frames(folders[1])))
    typer.echo(comparing.to_json(found) if as_json else comparing.markdown(found))


@app.command()
def export(
    study: Results,
    format: Annotated[ExportFormat, typer.Option(help="form of the files")] = ExportFormat.PARQUET,
    to: Annotated[Path, typer.Option(metavar="FOLDER", help="where to")] = Path("export"),
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Write the tables (trials, reports, studies) to a folder."""
    from orchestrator import table

    paths = table.export(terminal.folder(study, storage), format.value, to)
    typer.echo(json.dumps([str(path) for path in paths], indent=2) if as_json else "\n".join(map(str, paths)))


@app.command()
def mirror(
    study: Results,
    storage: Storage = None,
    wandb: Annotated[Wandb, typer.Option(help="where to")] = Wandb.ONLINE,
    project: Annotated[str, typer.Option(help="W&B project")] = "kdsweep",
    as_json: Json = False,
) -> None:
    """Bring W&B up to date with the journal: what is there already is not sent again."""
    from orchestrator.mirror import mirror_all

    folder = terminal.folder(study, storage)
    told = mirror_all(folder, wandb.value, project)
    typer.echo(json.dumps({"folder": folder, "project": project, "mode": wandb.value, "told": told}, indent=2) if as_json else told)


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
def studies(as_json: Json = False, markdown: Annotated[bool, typer.Option("--markdown", help="print the README's table")] = False) -> None:
    """List the studies that come with kdsweep: which paper's table each follows, its size, and what it needs."""
    from orchestrator import shelf

    if markdown:
        typer.echo("\n".join(shelf.markdown_table()))
        return
    found = shelf.entries()
    if as_json:
        typer.echo(json.dumps([asdict(entry) for entry in found], indent=2))
        return
    for entry in found:
        of = f"{entry.paper}, {entry.table}{f': {entry.setting}' if entry.setting else ''}" if entry.paper else "no paper's table"
        typer.echo(f"{entry.command}\n  {of}; {entry.cells:,} cells at most; {'; '.join(entry.needs)}")


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


def _power(study: Study, counts: Outline, record: Record) -> tuple[list[dict[str, Any]], list[str]]:
    """Of the stated effect, as data and for the terminal; nothing where none is stated, for it needs scipy."""
    if study.confirm is None or study.confirm.effect is None:
        return [], []
    from orchestrator.analysis.power import power_lines
    from orchestrator.prospects import prospects

    found = prospects(study, counts, record)
    return [asdict(each) for each in found], [f"  {line}" for each in found for line in power_lines(each)]


def main() -> None:
    """The ``kdsweep`` command. Exit codes: 0 ok, 2 invalid, 3 some cells failed, 4 interrupted and resumable."""
    try:
        app()
    except KdsweepError as error:
        typer.echo(str(error), err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()

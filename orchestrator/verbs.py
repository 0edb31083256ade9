"""Verbs for a study that was launched: they tell its driver what to do, go on with it, or tidy up behind it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator import terminal
from orchestrator.terminal import Address, DeviceName, InProcess, Json, Lane, Lanes, Mirrored, Results, Storage, Topology, Workers

if TYPE_CHECKING:
    from orchestrator.record import Record
    from orchestrator.telling import Told

_MEANING = {
    "pause": "Trainings in flight go on to their next rung; then its lanes wait. `kdsweep resume` lets them go on.",
    "resume": "It goes on.",
    "stop": "Cells in flight are finished, then the launch ends. `kdsweep resume` goes on from there.",
    "cancel": "What is in flight is saved, and the launch ends. `kdsweep resume` goes on from there.",
    "retry": "It takes the failed cells again.",
}


def pause(study: Results, storage: Storage = None, as_json: Json = False) -> None:
    """Have the driver at work hand out nothing more until `resume`: trainings in flight run to their rung, and lanes wait."""
    from orchestrator.telling import driver_of, is_paused, known

    folder = terminal.folder(study, storage)
    driver = driver_of(folder, "pause")
    if is_paused(known(folder)):
        _say_so(as_json, folder, "pause", driver, f"{driver} is paused already. `kdsweep resume` lets it go on.")
        return
    _order(folder, "pause", as_json)


def stop(study: Results, storage: Storage = None, as_json: Json = False) -> None:
    """Have the driver at work finish the cells in flight, and then end. `resume` goes on from there."""
    _order(terminal.folder(study, storage), "stop", as_json)


def cancel(study: Results, storage: Storage = None, as_json: Json = False) -> None:
    """Have the driver at work save what is in flight and end, as Ctrl-C does. `resume` goes on from there."""
    _order(terminal.folder(study, storage), "cancel", as_json)


def resume(
    study: Results,
    storage: Storage = None,
    address: Address = None,
    lane: Lane = None,
    topology: Topology = None,
    lanes: Lanes = None,
    workers: Workers = None,
    device: DeviceName = None,
    wandb: Mirrored = None,
    in_process: InProcess = False,
    as_json: Json = False,
) -> None:
    """Let a paused driver go on; where none is at work, run the study again as it was launched. Needs no study file."""
    from orchestrator.storage import holder_of
    from orchestrator.telling import is_paused, known

    folder = terminal.folder(study, storage)
    driver = holder_of(folder)
    events = known(folder)
    if driver is not None:
        if is_paused(events):
            _order(folder, "resume", as_json)
        else:
            _say_so(as_json, folder, "resume", driver, f"{driver} is at work on {folder}, and not paused. There is nothing to resume.")
        return
    options = {"lane": lane, "topology": topology, "lanes": lanes, "workers": workers, "device": device}
    _go_on(folder, None, {**options, "wandb": None if wandb is None else wandb.value}, address, in_process, as_json)


def extend(
    study: Results,
    blocks: Annotated[int, typer.Option(metavar="N", help="blocks of stage two, in all")],
    storage: Storage = None,
    address: Address = None,
    lanes: Lanes = None,
    workers: Workers = None,
    in_process: InProcess = False,
    as_json: Json = False,
) -> None:
    """Go on, as `resume` does, with more blocks of stage two. The journal keeps it as an extension of the fixed design."""
    from orchestrator.errors import Refused
    from orchestrator.storage import holder_of

    folder = terminal.folder(study, storage)
    driver = holder_of(folder)
    if driver is not None:
        raise Refused(
            f"`kdsweep extend` needs a study that nobody works on, but got {driver} at work on {folder}. `kdsweep stop` it first."
        )
    _go_on(folder, blocks, {"lanes": lanes, "workers": workers}, address, in_process, as_json)


def retry(
    study: Results,
    failed: Annotated[bool, typer.Option("--failed", help="every cell that failed")] = False,
    cell: Annotated[list[str] | None, typer.Option(metavar="ID", help="a cell, by its content id; repeatable")] = None,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Take failed cells again, with what they need. Their earlier attempts stay in the table."""
    from orchestrator.errors import Refused
    from orchestrator.record import record_of
    from orchestrator.retrying import of_driver, retrying, write_down
    from orchestrator.storage import holder_of
    from orchestrator.telling import known

    if failed == bool(cell):
        raise Refused(f"`kdsweep retry` needs either --failed or --cell, but got {'both' if failed else 'neither'}.")
    folder = terminal.folder(study, storage)
    driver = holder_of(folder)
    record = record_of(known(folder))
    found = retrying(record, None if failed else cell)
    if driver is not None:
        found = of_driver(found)
    faults = [name for name in cell or () if name in found.refused]
    if faults:
        raise Refused("\n".join(f"Cell {name} cannot be taken again: {found.refused[name]}" for name in faults))
    for name, why in found.refused.items():
        typer.echo(f"note: cell {name} stays failed: {why}", err=True)
    told: dict[str, Any] = {"folder": folder, "cells": list(found.cells), "along": dict(found.along), "refused": dict(found.refused)}
    if not found.events:
        if as_json:
            typer.echo(json.dumps({**told, "driver": driver}, indent=2))
        else:
            typer.echo("No cell that failed can be taken again." if found.refused else "No cell of this study failed.")
        raise typer.Exit(2 if found.refused else 0)
    if driver is not None:
        _order(folder, "retry", as_json, found.cells, told)
        return
    found = write_down(folder, None if failed else cell)
    told |= {"cells": list(found.cells), "driver": None}
    if as_json:
        typer.echo(json.dumps(told, indent=2))
        return
    typer.echo("\n".join(_lines(record, found.cells, found.along)))
    typer.echo(f"`kdsweep resume {folder}` trains {'them' if len(found.cells) > 1 else 'it'}.")


def clean(
    study: Results,
    yes: Annotated[bool, typer.Option("--yes", help="remove what is listed")] = False,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """List what nothing needs any more, with sizes and reasons; with --yes, remove it. Never journal, tables or report."""
    from orchestrator.cleaning import clean as cleaned
    from orchestrator.cleaning import lines

    folder = terminal.folder(study, storage)
    found = cleaned(folder, is_real=yes)
    if as_json:
        items = [item.to_json() for item in found]
        typer.echo(json.dumps({"folder": folder, "removed": yes, "bytes": sum(item.size for item in found), "items": items}, indent=2))
        return
    typer.echo("\n".join(lines(found, is_real=yes)))


VERBS: tuple[Callable[..., None], ...] = (pause, stop, cancel, resume, retry, extend, clean)
"""In the order of the help."""


def _order(folder: str, kind: str, as_json: bool, cells: tuple[str, ...] = (), more: dict[str, Any] | None = None) -> None:
    from orchestrator.telling import tell

    told = tell(folder, kind, cells, say=lambda line: typer.echo(line, err=True))
    if as_json:
        found = {"folder": folder, "order": kind, "token": told.order.token, "driver": told.driver, "acknowledged": told.event is not None}
        typer.echo(json.dumps({**(more or {}), **found}, indent=2))
    else:
        typer.echo(_outcome(told))
    if told.event is None:
        raise typer.Exit(3)


def _outcome(told: Told) -> str:
    if told.event is not None:
        return f"{told.driver} has taken the order in ({told.order.kind}). {_MEANING[told.order.kind]}"
    if told.is_driver_gone:
        return f"{told.driver} ended before it took the order in, which is taken back. `kdsweep status` shows where the study stands."
    return (
        f"{told.driver} has not taken the order in ({told.order.kind}) yet. It stays: `kdsweep status` shows whether it does. A driver "
        "that is writing, or whose storage is away, comes to it later."
    )


def _say_so(as_json: bool, folder: str, kind: str, driver: str, line: str) -> None:
    """Nothing was to do."""
    if as_json:
        typer.echo(json.dumps({"folder": folder, "order": None, "asked": kind, "driver": driver, "acknowledged": True}, indent=2))
    else:
        typer.echo(line)


def _lines(record: Record, cells: tuple[str, ...], along: Any) -> list[str]:
    found = [f"{len(cells)} cell{'s' if len(cells) > 1 else ''} will be trained again:"]
    for name in cells:
        plan = record.cells[name].plan
        number = "" if plan["number"] is None else f" #{plan['number']}"
        why = f" ({along[name]})" if name in along else ""
        found.append(f"  {name}  {plan['stage']:<8} {plan['arm']}{number}, block {plan['block']}{why}")
    return found


def _go_on(
    folder: str, blocks: int | None, options: dict[str, str | int | None], address: str | None, in_process: bool, as_json: bool
) -> None:
    """Run a study again as it was launched, but for ``options`` and, where they are given, ``blocks``."""
    from orchestrator.driver import Launch
    from orchestrator.record import record_of
    from orchestrator.relaunch import check_extension, is_asynchronous, study_again
    from orchestrator.telling import known

    record = record_of(known(folder))
    found = study_again(folder, record, (), options)
    if blocks is not None:
        check_extension(folder, found, record, blocks)
        found = study_again(folder, record, [f"confirm.blocks={blocks}"], options)
    terminal.launched(found, Launch(in_process=in_process, address=address, asynchronous=is_asynchronous(record)), as_json)

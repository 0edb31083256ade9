"""A fixed design is fixed: it stands in the journal before its first cell, and blocks that are added later are an extension with a name."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.errors import StorageError
from orchestrator.events import CONFIRM, Event, extension_event
from orchestrator.record import Record
from orchestrator.study import Confirm, Study
from orchestrator.variants import Variants


def fixing(study: Study, confirm: Confirm, found: Variants, record: Record) -> list[Event]:
    """What the journal lacks, when stage two opens: the design, or an extension where the one that stands there has fewer blocks.

    Raises:
        StorageError: the design that stands there is another one, or has more blocks.
    """
    design = found.event(study, confirm, late=any(attempt.plan["stage"] == CONFIRM for attempt in record.cells.values()))
    fixed, before = record.design, record.blocks
    if fixed is None or before is None:
        return [design]
    alike = found.event(study, replace(confirm, blocks=fixed["blocks"]))
    if alike["hash"] != fixed["hash"]:
        raise StorageError(
            f"A study needs the design that it was begun with, but got another one: hash {alike['hash'][:16]} instead of "
            f"{fixed['hash'][:16]}. Was it begun with another version of kdsweep? Go on with that one, or give the study another name."
        )
    if confirm.blocks < before:
        raise StorageError(
            f"A study needs confirm.blocks of at least {before}, which its design was fixed or extended to, but got {confirm.blocks}: "
            "what was planned is not taken back. Give the study another name to plan less."
        )
    if confirm.blocks == before:
        return []
    number = len(record.extensions) + 1
    return [extension_event(number=number, before=before, blocks=confirm.blocks, digest=design["hash"], design=fixed["hash"])]

"""Events: what a journal is made of, as plain dictionaries. Arguments have the names and the form that they have in the journal.

Importing this does not import torch, so status, table and report start without it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from trainables.redaction import redacted

if TYPE_CHECKING:
    from search_spaces import Value
    from trainables.trial import Row

Event = dict[str, Any]
Role = tuple[bool, int, str]
Clock = Callable[[], datetime]

TEACHER, SEARCH, PATH, CONFIRM = STAGES = ("teacher", "search", "path", "confirm")
"""Stages of a study, in the order of every table."""

SCHEMA_VERSION = 1
"""Of the tables that are made from a journal; written into every study event."""


def utc_now() -> datetime:
    """The time; tests give another clock."""
    return datetime.now(UTC)


def stamp(clock: Clock) -> str:
    """The clock's time as events tell it: UTC, ISO-8601, microseconds."""
    return clock().astimezone(UTC).isoformat(timespec="microseconds")


def role_of(stage: str, arm: str, number: int | None) -> Role:
    """What a cell is in the plan, the weightier the smaller, and whatever came first.

    Several arms may come to one training. Its place in the table is that of the smallest role, an arm's own cell before one
    that exists for the sake of others: so it does not hang on the order in which they came to it.
    """
    return stage == TEACHER, -1 if number is None else number, arm


def finite(value: Any) -> Any:
    """The value with every number that JSON has no word for as an object: ``{"nonfinite": "nan"}``, ``"inf"`` or ``"-inf"``."""
    if isinstance(value, float) and not math.isfinite(value):
        return {"nonfinite": str(float(value))}
    if isinstance(value, Mapping):
        return {name: finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return value


def study_event(
    *,
    study: str,
    fingerprint: str,
    text: str,
    seed: int,
    question: str,
    metric: Mapping[str, str],
    base: str | None,
    versions: Mapping[str, str],
    code_commit: str | None,
    lock_hash: str | None,
    space_fingerprint: str,
    parameters: Sequence[Mapping[str, str]],
    metrics: Sequence[str],
    mode: str = "generations",
    blocks: int | None = None,
    lanes: int = 1,
    machine: Mapping[str, Any] | None = None,
    clock: Clock = utc_now,
) -> Event:
    """A launch. The first one of a journal fixes the columns of its tables.

    ``metric`` has select, report and goal. ``parameters`` has a name and a column (float64, int64, string or bool) for
    every hyper-parameter that gets one; ``metrics`` names every metric that a cell may end with. ``blocks`` are those of
    stage two, all that a later launch may have changed in the fingerprint. ``lanes`` is how many trainings it runs at a time;
    ``machine`` is the driver's: cores, processor, system.
    """
    return {
        "event": "study",
        "time": stamp(clock),
        "study": study,
        "fingerprint": fingerprint,
        "text": text,
        "seed": seed,
        "question": question,
        "metric": dict(metric),
        "base": base,
        "versions": dict(versions),
        "code_commit": code_commit,
        "lock_hash": lock_hash,
        "schema_version": SCHEMA_VERSION,
        "space_fingerprint": space_fingerprint,
        "parameters": [dict(parameter) for parameter in parameters],
        "metrics": list(metrics),
        "mode": mode,
        "blocks": blocks,
        "lanes": lanes,
        "machine": None if machine is None else dict(machine),
    }


def cell_event(
    *,
    cell: str,
    attempt: int,
    stage: str,
    arm: str,
    method: str | None,
    block: int,
    seeds: Mapping[str, int],
    generation: int | None,
    number: int | None,
    proposed_by: str,
    needs: Sequence[str],
    config: Mapping[str, Value],
    point: Mapping[str, Value] | None = None,
    clock: Clock = utc_now,
) -> Event:
    """A cell enters the plan, turns out to have a weightier role in it, or is taken again with the next attempt number.

    ``needs`` are the cells that must be finished first, its teacher's before others; ``point`` is a proposal. The order in which arms first enter the plan is the order of arms in every table, so cells enter in plan order.
    """
    return {
        "event": "cell",
        "time": stamp(clock),
        "cell": cell,
        "attempt": attempt,
        "stage": stage,
        "arm": arm,
        "method": method,
        "block": block,
        "seeds": dict(seeds),
        "generation": generation,
        "number": number,
        "proposed_by": proposed_by,
        "needs": list(needs),
        "config": dict(config),
        **({} if point is None else {"point": dict(point)}),
    }


def leg_event(*, cell: str, attempt: int, until: float, lane: str, clock: Clock = utc_now) -> Event:
    """A lane is handed a cell, which it trains up to there. What counts is the row that comes of it; this says who is at work."""
    return {"event": "leg", "time": stamp(clock), "cell": cell, "attempt": attempt, "until": float(until), "lane": lane}


def row_event(cell: str, attempt: int, row: Row, clock: Clock = utc_now) -> Event:
    """A leg came back, or the driver stopped a cell."""
    return {
        "event": "row",
        "time": stamp(clock),
        "cell": cell,
        "attempt": attempt,
        "status": row.status,
        "progress": float(row.progress),
        "steps": int(row.steps),
        "metrics": _numbers(row.metrics),
        "reports": [
            {"step": int(report.step), "progress": float(report.progress), "metrics": _numbers(report.metrics)} for report in row.reports
        ],
        "seconds": float(row.seconds),
        "device_seconds": float(row.device_seconds),
        # Lanes have done this with the secrets of their machines; what tells of a lane that died comes from this one.
        "message": _text(redacted(row.message)),
        "trace": _text(redacted(row.trace)),
        "where": {name: str(value) for name, value in row.where.items()},
    }


def choice_event(
    *, arm: str, number: int, score: float, config: Mapping[str, Value], skipped: Sequence[Sequence[str]] = (), clock: Clock = utc_now
) -> Event:
    """The search of an arm ended with this point. ``skipped`` has label and reason of variants that would equal the base."""
    return {
        "event": "choice",
        "time": stamp(clock),
        "arm": arm,
        "number": number,
        "score": float(score),
        "config": dict(config),
        "skipped": [list(pair) for pair in skipped],
    }


def design_event(
    *,
    blocks: int,
    base: str,
    arms: Sequence[Mapping[str, Any]],
    comparisons: Sequence[Mapping[str, str]],
    factorial: Mapping[str, Any] | None = None,
    skipped: Sequence[Sequence[str]] = (),
    late: bool = False,
    proofs: Sequence[Mapping[str, Any]] = (),
    path: Mapping[str, Any] | None = None,
    clock: Clock = utc_now,
) -> Event:
    """The design of stage two is fixed, before its first cell enters the plan.

    Args:
        blocks: how many.
        base: the arm that tuning was for.
        arms: each with ``arm``, its label, ``kinds``, what it is in the design, and ``cell``, its content id in the first block.
        comparisons: each with ``arm``, ``against`` and ``kind``: all pairs that are compared, in the family of Holm's correction.
        factorial: ``Factorial.to_json`` of the two-level factorial among the arms; None where there is none.
        skipped: label and reason of variants and comparisons that would tell nothing.
        late: whether rows of stage two stood in the journal before.
        proofs: whether arms are different trainings at all, each with ``arm``, ``against``, ``differs`` and ``reason``: of the pairs
            that are compared, and of every arm that is another one under another name. No part of the hash.
        path: ``Course.to_json`` of the ablation path that chose some of the arms; None where there is none. No part of the hash.
    """
    return {
        "event": "design",
        "time": stamp(clock),
        "hash": design_hash(blocks, base, arms, comparisons, factorial),
        "blocks": blocks,
        "base": base,
        "arms": [dict(arm) for arm in arms],
        "comparisons": [dict(pair) for pair in comparisons],
        "factorial": None if factorial is None else dict(factorial),
        "skipped": [list(pair) for pair in skipped],
        "late": late,
        "proofs": [dict(proof) for proof in proofs],
        "path": None if path is None else dict(path),
    }


def design_hash(
    blocks: int, base: str, arms: Sequence[Mapping[str, Any]], comparisons: Sequence[Mapping[str, str]], factorial: Mapping[str, Any] | None
) -> str:
    """SHA-256 of a design's content, spelled with sorted keys and without blanks; arguments as ``design_event``."""
    content = {"blocks": blocks, "base": base, "arms": list(arms), "comparisons": list(comparisons), "factorial": factorial}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def extension_event(*, number: int, before: int, blocks: int, digest: str, design: str, clock: Clock = utc_now) -> Event:
    """A fixed design got more blocks, ``before`` to ``blocks``. ``digest`` is the new design's hash, ``design`` that of the fixed one."""
    return {
        "event": "extension",
        "time": stamp(clock),
        "name": f"extension {number}",
        "before": before,
        "blocks": blocks,
        "hash": digest,
        "design": design,
    }


def order_event(*, order: str, token: str, by: str, cells: Sequence[str] = (), clock: Clock = utc_now) -> Event:
    """The driver took in an order that was given elsewhere: pause, resume, stop, cancel or retry. ``by`` is user@host."""
    return {"event": "order", "time": stamp(clock), "order": order, "token": token, "by": by, "cells": list(cells)}


def end_event(*, status: str, counts: Mapping[str, int], clock: Clock = utc_now) -> Event:
    """A launch ended: ``status`` is complete or interrupted. A launch that was killed has no such event."""
    return {"event": "end", "time": stamp(clock), "status": status, "counts": dict(counts)}


def _numbers(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items()}


def _text(text: str) -> str:
    """Without the lone surrogates that file names and terminal output can bring along and that Parquet refuses."""
    return text.encode("utf-8", "replace").decode()

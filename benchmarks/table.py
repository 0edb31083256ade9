"""2,000 finished cells: what the table costs to keep and to ask, beside the two layouts that sweeps usually leave behind.

    python -m benchmarks.table

Each layout holds the same rows. To ask is to read everything from disk into pandas and take the mean accuracy by arm. The
three take turns within each of five repeats; what counts is the ratio to ours, as median and range over the repeats.
"""

from __future__ import annotations

import functools
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from orchestrator.journal import Journal, cell_event, record_of, row_event, study_event
from orchestrator.table import read_trials, write
from trainables.trial import Report, Row

CELLS = 2_000
REPEATS = 5
DURABLE = 200
"""Cells whose events are made durable one by one, to see what that costs; the rest come in one batch."""
ARMS = ("vanilla", "kd", "slam", "slam, mixing=normalised")
METRICS = ("validation.accuracy", "validation.nll", "validation.ece", "test.accuracy", "test.nll")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        compare(Path(folder), CELLS, REPEATS)


def compare(folder: Path, cells: int, repeats: int) -> None:
    """Write the same cells in the three layouts, then ask each of them in turn."""
    launch, batches = events_of(cells)
    journal = Journal(folder / "ours")
    journal.append([launch])
    alone, together = batches[:DURABLE], batches[DURABLE:]
    appended = seconds(lambda: [journal.append(batch) for batch in alone])
    journal.append([event for batch in together for event in batch])
    replayed = seconds(lambda: record_of(journal.read()))
    record = record_of(journal.read())
    written = seconds(lambda: write(record, folder / "ours"))
    spread_out(folder)

    layouts = {
        "ours: one table": (folder / "ours" / "trials.parquet", pd.read_parquet),
        "one Parquet file per trial": (folder / "files", pd.read_parquet),
        "one JSON line per trial": (folder / "trials.jsonl", functools.partial(pd.read_json, lines=True)),
    }
    asked: dict[str, list[float]] = {name: [] for name in layouts}
    answers: dict[str, dict[str, float]] = {}
    pd.read_parquet(layouts["ours: one table"][0])  # what pandas imports at first use is nobody's cost
    for _ in range(repeats):
        for name, (path, read) in layouts.items():
            start = time.perf_counter()
            answer = read(path).groupby("arm")["metric.validation.accuracy"].mean()
            asked[name].append(time.perf_counter() - start)
            answers[name] = {arm: round(value, 9) for arm, value in answer.items()}
    first, *others = answers.values()
    if any(other != first for other in others):
        raise SystemExit(f"The layouts disagree: {answers}")

    print(f"{cells} finished cells, {repeats} repeats, layouts in turn; median (range)")
    print(f"{'layout':28} {'bytes':>12} {'x ours':>8}   {'read and group':>28}   {'x ours':>22}")
    ours = next(iter(layouts))
    base = size(layouts[ours][0])
    for name, (path, _) in layouts.items():
        ratios = [mine / other for mine, other in zip(asked[name], asked[ours], strict=True)]
        took = spread([1000 * value for value in asked[name]], "ms")
        print(f"{name:28} {size(path):12,} {size(path) / base:8.1f}   {took:>28}   {spread(ratios, 'x'):>22}")
    print()
    print(f"journal: {appended / len(alone) * 1000:.2f} ms per durable batch of {len(batches[0])} events (one fsync each), ", end="")
    print(f"{size(folder / 'ours' / 'journal.jsonl'):,} bytes; replayed in {replayed:.2f} s; the three tables written in {written:.2f} s")


def events_of(cells: int) -> tuple[dict[str, object], list[list[dict[str, object]]]]:
    """A launch, and per cell a batch of what one finished training adds to a journal: 40 columns, and random digits that do not compress."""
    rng = random.Random(0)
    names = {f"method.weight_{index}": "float64" for index in range(6)} | {"recipe.learning_rate": "float64", "method.mixing": "string"}
    launch = study_event(
        study="bench",
        fingerprint="0" * 16,
        text="",
        seed=0,
        question="",
        metric={"select": METRICS[0], "report": METRICS[3], "goal": "maximise"},
        base="slam",
        versions={"kdsweep": "0.1.0"},
        code_commit="0" * 40,
        lock_hash="0" * 16,
        space_fingerprint="0" * 16,
        parameters=[{"name": name, "column": column} for name, column in names.items()],
        metrics=METRICS,
    )
    batches = []
    for index in range(cells):
        cell, arm = f"{rng.getrandbits(64):016x}", ARMS[index % len(ARMS)]
        config = {name: rng.random() if column == "float64" else rng.choice(("soft", "hard")) for name, column in names.items()}
        planned = cell_event(
            cell=cell,
            attempt=1,
            stage="search",
            arm=arm,
            method=arm.partition(",")[0],
            block=index % 10,
            seeds={"split": index % 10, "teacher": index % 10, "init": index % 10, "order": index % 10},
            generation=index // 80,
            number=index // 40,
            proposed_by="tpe",
            needs=(),
            config=config,
        )
        metrics = {name: rng.random() for name in METRICS}
        reports = tuple(Report(step, step / 100, {name: rng.random() for name in METRICS[:3]}) for step in range(20, 101, 20))
        where = {"host": "bench", "pid": "1", "device": "cpu", "workers": "1"}
        row = Row(cell, "ok", 1.0, 100, metrics, reports, rng.random(), rng.random(), where=where)
        batches.append([planned, row_event(cell, 1, row)])
    return launch, batches


def spread_out(folder: Path) -> None:
    """The rows of our table as one Parquet file per trial, and as JSON lines."""
    frame = read_trials(folder / "ours")
    (folder / "files").mkdir()
    for index in range(frame.num_rows):
        pq.write_table(frame.slice(index, 1), folder / "files" / f"{index:05d}.parquet")
    with (folder / "trials.jsonl").open("w") as lines:
        for row in frame.to_pylist():
            lines.write(json.dumps(row, default=str) + "\n")


def size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.iterdir()) if path.is_dir() else path.stat().st_size


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def spread(values: list[float], unit: str) -> str:
    return f"{statistics.median(values):.1f} ({min(values):.1f}-{max(values):.1f}) {unit}"


if __name__ == "__main__":
    main()

"""``python -m benchmarks.published`` makes docs/published.md and docs/published.parquet of orchestrator/published.csv."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.citations import paper_of
from orchestrator.published import COLUMNS, PAPERS, SURE, Number, numbers

DOCS = Path(__file__).parents[1] / "docs"
PAGE, TABLE = DOCS / "published.md", DOCS / "published.parquet"
_FLOATS = ("labelled", "temperature", "smoothing", "value", "spread")
SCHEMA = pa.schema([(name, pa.float64() if name in _FLOATS else pa.int64() if name == "n" else pa.string()) for name in COLUMNS])


def table(found: Sequence[Number]) -> pa.Table:
    """The Parquet file's content."""
    return pa.Table.from_pylist([asdict(each) for each in found], schema=SCHEMA)


def page(found: Sequence[Number]) -> str:
    """The readable page: a table for each table, data set, teacher and who reports it."""
    return "\n".join(_page(found)) + "\n"


def _page(found: Sequence[Number]) -> Iterator[str]:
    valued = [each for each in found if each.value is not None]
    yield "# Published numbers"
    yield ""
    yield (
        f"{len(valued)} numbers that papers and their repositories report, and {len(found) - len(valued)} that are known to exist or were "
        "looked for, and could not be read. `kdsweep report` puts them beside the arms of a study that names its table (`published:` in "
        "the study file). This page and [published.parquet](published.parquet) are made of "
        "[published.csv](../orchestrator/published.csv) by `python -m benchmarks.published`: change that file, not these."
    )
    yield ""
    yield "How sure a number is:"
    yield ""
    for sure, meaning in SURE.items():
        yield f"* **{sure}**: {meaning} ({sum(each.sure == sure for each in found)})."
    yield ""
    yield (
        "The full texts of the four papers whose tables the studies follow were not available: numbers are those of repositories, of a "
        "rebuttal and of second hands, under the name of whoever reports them. Nearly all are the best epoch on the test split, where "
        "kdsweep reports the last; few say over how many trainings. A budget names what a number had beyond the common one."
    )
    for paper, of_paper in groupby(sorted(found, key=lambda each: list(PAPERS).index(each.paper)), key=lambda each: each.paper):
        yield ""
        yield f"## {paper}"
        yield ""
        cited = paper_of(PAPERS[paper]) if PAPERS[paper] else None
        yield (
            cited.words()
            if cited is not None
            else "torchdistill, https://github.com/yoshitomo-matsubara/torchdistill: runs of others' methods."
        )
        for table_name, rows in groupby(of_paper, key=lambda each: each.table):
            yield ""
            yield f"### {table_name}"
            yield ""
            yield from _rows(list(rows))


def _rows(found: Sequence[Number]) -> Iterator[str]:
    columns = ("data", "teacher", "student", "row", "method", "setting", "metric", "value", "n", "budget", "how sure", "read from", "note")
    lines = [_cells(each) for each in found]
    shown = [place for place in range(len(columns)) if any(line[place] for line in lines)]
    yield f"| {' | '.join(columns[place] for place in shown)} |"
    yield f"|{'---|' * len(shown)}"
    for line in lines:
        yield f"| {' | '.join(line[place] for place in shown)} |"


def _cells(each: Number) -> tuple[str, ...]:
    settings = [] if each.labelled is None else [f"{100 * each.labelled:g} % labelled"]
    settings += [] if each.temperature is None else [f"T {each.temperature:g}"]
    settings += [] if each.smoothing is None else [f"smoothing {each.smoothing:g}"]
    settings += [] if each.fields is None else [each.fields]
    spread = "" if each.spread is None else f" ± {_plain(each.spread)}"
    value = "–" if each.value is None else f"{_plain(each.value)}{spread}{f' {each.unit}' if each.unit else ''}"
    return (
        each.dataset,
        each.teacher or "",
        each.student or "",
        each.label,
        "" if each.method is None else f"`{each.method}`",
        ", ".join(settings),
        each.metric,
        value,
        "" if each.n is None else str(each.n),
        each.budget or "",
        each.sure,
        each.read_from,
        each.note or "",
    )


def _plain(value: float) -> str:
    return f"{value:g}"


def main() -> None:
    """Write both."""
    found = numbers()
    PAGE.write_text(page(found), encoding="utf-8")
    pq.write_table(table(found), TABLE, compression="zstd")
    print(f"{len(found)} rows: {PAGE.name}, {TABLE.name}")


if __name__ == "__main__":
    main()

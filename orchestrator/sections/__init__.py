"""Sections: the report as words and tables, once, so that Markdown and HTML say the same to the letter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from orchestrator.analysis.effects import CONFIDENCE, ENUMERATED, MISSING
from orchestrator.analysis.frames import SOURCES, Frames
from orchestrator.analysis.ranking import Place, Ranking
from orchestrator.analysis.wording import NOTHING, amount, equals, name_of, number, p_value, setting
from orchestrator.figures.effects import effects, is_sorted
from orchestrator.sections.blocks import absences
from orchestrator.sections.digest import in_full, in_short
from orchestrator.sections.extensions import extended
from orchestrator.sections.factorial import claims, main_effects
from orchestrator.sections.forms import Picture, Section, Table
from orchestrator.sections.importance import importances
from orchestrator.sections.lanes import lanes
from orchestrator.sections.learning import learning_curves
from orchestrator.sections.path import ablation_path
from orchestrator.sections.profiles import over_settings
from orchestrator.sections.proofs import proofs
from orchestrator.sections.published import beside_published
from orchestrator.sections.references import references
from orchestrator.sections.reproduce import how_it_was_run, how_to_reproduce
from orchestrator.sections.tuning import another_search, compute_matched, tuning


def sections(frames: Frames) -> tuple[Section, ...]:
    """The report after its title, in reading order."""
    return tuple(_sections(frames))


def _sections(frames: Frames) -> Iterator[Section]:
    if frames.notices:
        yield Section("Before you read", points=frames.notices, kind="notices")
    metric, crossed = frames.facts.metric, frames.factorial
    of_factors = () if crossed is None else claims(crossed, frames.unit, metric["report"])
    if frames.claims:
        short = in_short(frames)
        yield replace(short, points=(*short.points, *of_factors))
    elif of_factors:
        yield Section("In short", points=of_factors, kind="claims")
    elif frames.facts.base is None:
        yield Section(
            "In short", paragraphs=("No arms were compared: this study has no confirm stage. What follows is tuning alone.",), kind="claims"
        )
    yield _asked(frames)
    if frames.comparisons:
        yield _effects(frames)
    if (added := extended(frames)) is not None:
        yield added
    if crossed is not None:
        yield main_effects(crossed, frames.unit, metric["report"], metric["goal"])
    if frames.path is not None:
        yield ablation_path(frames, frames.path)
    if frames.summaries:
        yield _scores(frames)
    if (others := beside_published(frames.published)) is not None:
        yield others
    if frames.ranking is not None:
        yield _ranked(frames, frames.ranking)
    if frames.profiles is not None:
        yield over_settings(frames.profiles, frames.unit, metric["report"])
    if frames.learning:
        yield learning_curves(frames)
    if (proven := proofs(frames)) is not None:
        yield proven
    if frames.tunings:
        yield tuning(frames)
        yield from (section for section in (compute_matched(frames), another_search(frames), importances(frames)) if section is not None)
    if frames.occupancy is not None:
        yield lanes(frames.occupancy)
    if len(frames.failures):
        yield _failures(frames)
    if frames.limits:
        held = ", ".join(f"{name}={setting(value)}" for name, value in frames.held.items())
        notes = (f"Settings with one value in every reported cell: {held}.",) if held else ()
        yield Section("What was not varied", points=frames.limits, notes=notes)
    yield how_it_was_run(frames)
    if frames.summaries:
        yield _by_block(frames)
    for section in (in_full(frames), references(frames)):
        if section is not None:
            yield section
    yield how_to_reproduce(frames)


def _asked(frames: Frames) -> Section:
    facts, planned = frames.facts, frames.facts.planned_blocks
    metric = facts.metric
    points = []
    if planned:
        blocks = {block for each in planned.values() for block in each}
        rivals = [arm for arm in planned if arm != facts.base]
        points.append(f"Arms: {facts.base} (the base){''.join(f'; {arm}' for arm in rivals)}.")
        teacher = "seed of teachers" if frames.several_teachers else "teacher"
        points.append(
            f"Blocks: {len(blocks)}. Every arm is trained once in each, with the data split, {teacher}, initialisation and order of that block."
        )
        if frames.several_teachers:
            points.append("Arms differ in how their teacher was made; the block tables show that of the base.")
        points.append(f"Reported: {metric['report']}, to {metric['goal']}, measured once per cell at the end of training.")
    if frames.tunings:
        tuned = [each.arm for each in frames.tunings]
        names = f"all {len(tuned)} arms" if len(tuned) > 2 and set(tuned) == set(planned) else ", ".join(tuned)
        points.append(f"Tuned beforehand, on other blocks, by {metric['select']}: {names}.")
    points.append(f"Seed of the study: {facts.study['seed']}.")
    return Section("What was asked", points=tuple(points))


def _effects(frames: Frames) -> Section:
    unit = frames.unit
    bases = list(dict.fromkeys(each.base for each in frames.comparisons))
    base = bases[0] if len(bases) == 1 else "the arm that it is compared with"
    drawn = max(each.draws for each in frames.comparisons)
    rows = []
    for each in frames.comparisons:
        rows.append(
            (
                each.arm,
                *([] if len(bases) == 1 else [each.base]),
                f"{each.n} of {each.planned}",
                unit.number(each.difference, signed=True),
                unit.interval(each.t_low, each.t_high),
                unit.interval(each.bca_low, each.bca_high),
                p_value(each.p),
                p_value(each.p_holm),
                number(each.better, 2),
                number(each.better_at_least, 2),
                number(each.in_seed_sd, 2, signed=True),
                number(each.correlation, 2),
            )
        )
    level = f"{frames.comparisons[0].confidence * 100:g} %"
    measured = f"difference{f', {unit.difference.strip()}' if unit.points else ''}"
    columns = (
        "arm",
        *([] if len(bases) == 1 else ["compared with"]),
        "blocks",
        measured,
        f"{level} interval (t)",
        f"{level} interval (BCa)",
        "p" if drawn else "exact p",
        "Holm p",
        "P(better)",
        "at least",
        "seed sd",
        "r",
    )
    notes = [
        f"Differences are arm minus {base}, paired by block. Intervals are not widened for the number of comparisons.",
        "The headline interval is Student's (t); the bias-corrected and accelerated bootstrap (BCa) stands beside it.",
        f"p: two-sided sign-flip test over all 2ⁿ sign patterns{f', above {ENUMERATED} blocks over {drawn:,} random ones' if drawn else ''}.",
        f"Holm p: corrected for {len(rows)} planned comparisons. A difference is called shown below {frames.comparisons[0].alpha:g}.",
        f"P(better): share of paired blocks in which the arm is better than {base}, ties half.",
        "At least: the same over all planned blocks, where a cell that failed loses, two that failed tie, and a block still to come is lost.",
        f"Seed sd: the difference in standard deviations of {base} over blocks. r: correlation of arm and {base} over blocks.",
    ]
    if any(each.t_low is None or each.bca_low is None for each in frames.comparisons):
        notes.append(f"An interval is undefined ({NOTHING}) with fewer than two blocks, and where all differences are equal.")
    title = f"Differences to {base}" if len(bases) == 1 else "Differences between arms"
    within = f" in {unit.difference.strip()}" if unit.points else ""
    caption = (
        f"Mean difference in {name_of(frames.facts.metric['report'])} to {base}{within}, with its interval; every faint dot is one block."
    )
    if is_sorted(frames.comparisons):
        caption += " The best stands on top."
    picture = Picture("effects", caption, partial(effects, frames.comparisons, unit))
    return Section(title, pictures=(picture,), tables=(Table(columns, tuple(rows), names=min(2, len(bases))),), notes=tuple(notes))


def _scores(frames: Frames) -> Section:
    unit, metric = frames.unit, frames.facts.metric["report"]
    rows, absent = [], {}
    for each in frames.summaries:
        spread = unit.interval(each.low, each.high)
        numbers = (unit.number(each.mean), unit.number(each.sd), unit.number(each.iqm), spread, amount(each.device_seconds))
        rows.append((each.arm, str(each.ok), str(each.failed), str(each.missing), *numbers))
        absent[each.arm] = [*each.failed_blocks, *((block, MISSING) for block in each.missing_blocks)]
    columns = ("arm", "ok", "failed", "missing", "mean", "sd", "IQM", "range", "device-seconds")
    known = frames.teachers["accuracy"].dropna()
    whose = f" of {frames.facts.base}" if frames.several_teachers else ""
    paragraphs: tuple[str, ...] = ()
    if len(known):
        low, mean, high = (number(100 * value, 1) for value in (known.min(), known.mean(), known.max()))
        paragraphs = (
            f"Teachers{whose}: mean test accuracy {mean} %, from {low} % to {high} %, over {len(known)} of {len(frames.teachers)} blocks.",
        )
    notes = [f"{arms}: {what}." for arms, what in absences(absent)]
    notes.append("sd is over blocks (n − 1); IQM is the mean of the middle half.")
    return Section(
        f"Scores: {name_of(metric)}{unit.score}", paragraphs=paragraphs, tables=(Table(columns, tuple(rows)),), notes=tuple(notes)
    )


def _ranked(frames: Frames, ranking: Ranking) -> Section:
    unit = frames.unit
    rows = []
    for each in ranking.places:
        rank = NOTHING if each.rank_low is None else f"{number(each.rank_low, 1)} to {number(each.rank_high, 1)}"
        scores = (unit.number(each.mean), unit.interval(each.mean_low, each.mean_high))
        rows.append((each.arm, number(each.rank, 1), rank, *scores, number(each.seconds, 2), _count(each.student), _extra(each)))
    interval = f"{CONFIDENCE * 100:g} % interval (t)"
    columns = ("arm", "mean rank", interval, f"mean{unit.score}", interval, "device-seconds a cell", "student's parameters", "beside it")
    blocks = "the one block" if len(ranking.blocks) == 1 else f"the {len(ranking.blocks)} blocks"
    together = f"Ranks among {len(rows)} arms, 1 the best, over {blocks} in which all of them came to an end"
    notes = [
        f"{together}; a cell that failed shares the last place.",
        "Intervals are of each mean alone: arms whose intervals overlap may still differ, since blocks are shared. The differences above say so.",
        "Beside it: parameters that the method trains together with the student, and their share of the student's; no memories, no copies.",
        "Device-seconds are of the cell alone, without the time of teachers and of networks that a chain or a method needs first.",
    ]
    if ranking.p is not None:
        notes.insert(1, f"That all arms are alike: p {equals(ranking.p)} (Friedman's test).")
    return Section("Ranking", tables=(Table(columns, tuple(rows)),), notes=tuple(notes))


def _count(value: int | None) -> str:
    return NOTHING if value is None else f"{value:,}"


def _extra(place: Place) -> str:
    if place.extra is None or not place.student:
        return NOTHING
    return f"{place.extra:,} ({number(100 * place.extra / place.student, 0)} %)" if place.extra else "0"


def _by_block(frames: Frames) -> Section:
    known = frames.teachers["accuracy"].dropna()
    columns = {str(arm): [frames.unit.number(float(value)) for value in frames.scores[arm]] for arm in frames.scores.columns}
    if len(known):
        teacher = dict(zip(frames.teachers["block"], frames.teachers["accuracy"], strict=True))
        columns["teacher's accuracy (%)"] = [number(100 * teacher[block], 1) for block in frames.scores.index]
    blocks = [str(block) for block in frames.scores.index]
    # The longer side goes down the page.
    if len(columns) > len(blocks):
        scores = Table(("block", *blocks), tuple((name, *values) for name, values in columns.items()))
    else:
        scores = Table(
            ("block", *columns), tuple((block, *row) for block, row in zip(blocks, zip(*columns.values(), strict=True), strict=True))
        )
    seeds = [tuple(str(row[name]) for name in ("block", *SOURCES)) for row in frames.teachers.to_dict("records")]
    return Section("Block by block", tables=(scores, Table(("block", *(f"{source} seed" for source in SOURCES)), tuple(seeds))))


def _failures(frames: Frames) -> Section:
    rows = [
        (
            str(row["stage"]),
            str(row["arm"]),
            str(row["block"]),
            str(row["cell"]),
            str(row["attempt"]),
            str(row["status"]),
            _first_line(row["message"]),
        )
        for row in frames.failures.to_dict("records")
    ]
    columns = ("stage", "arm", "block", "cell", "attempt", "status", "message")
    return Section("Attempts that failed", tables=(Table(columns, tuple(rows), names=7),))


def _first_line(message: Any) -> str:
    lines: Sequence[str] = str(message).strip().splitlines()
    return lines[0] if lines else ""

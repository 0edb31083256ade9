"""The section of a factorial design: its contrasts in sentences, as a table, and drawn."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from orchestrator.analysis.effects import MISSING
from orchestrator.analysis.factorial import TIMES, Alias, Effect, Factor, Factorial
from orchestrator.analysis.reach import blocks_needed, smallest_p
from orchestrator.analysis.wording import NOTHING, Unit, equals, name_of, p_value
from orchestrator.figures.interactions import MOST, contrasts, interactions, pairs
from orchestrator.sections.forms import Picture, Section, Table


def main_effects(found: Factorial, unit: Unit, metric: str, goal: str) -> Section:
    """Main effects and interactions."""
    measured = f"contrast{f', {unit.difference.strip()}' if unit.points else ''}"
    level = f"{found.effects[0].confidence * 100:g} % interval"
    columns: tuple[str, ...] = ("effect", "also estimates", "blocks", measured, f"{level} (t)", f"{level} (BCa)", "exact p", "Holm p")
    if any(each.draws for each in found.effects):
        columns = (*columns[:-2], "p", "Holm p")
    rows: list[tuple[str, ...]] = [
        (
            TIMES.join(each.factors),
            _aliases(each.aliases),
            f"{each.n} of {found.planned}",
            unit.number(each.effect, signed=True),
            unit.interval(each.t_low, each.t_high),
            unit.interval(each.bca_low, each.bca_high),
            p_value(each.p),
            p_value(each.p_holm),
        )
        for each in found.effects
    ]
    if not any(each.aliases for each in found.effects):
        columns, rows = _without_second(columns), [_without_second(row) for row in rows]
    design = Table(
        ("run", *(factor.name for factor in found.factors)),
        tuple((run.arm, *(factor.high if run.levels[factor.name] > 0 else factor.low for factor in found.factors)) for run in found.runs),
        names=1 + len(found.factors),
    )
    caption = f"Contrasts in {name_of(metric)}, high minus low level, with their intervals; every faint dot is one block."
    pictures = [Picture("main_effects", caption, partial(contrasts, found, unit, metric, goal))]
    drawn = pairs(found)
    if drawn:
        shown = f" The {MOST} largest of {sum(not each.is_main for each in found.effects)}." if len(drawn) == MOST else ""
        caption = f"Mean {name_of(metric)} at the levels of two factors; lines that are parallel are no interaction.{shown}"
        pictures.append(Picture("interactions", caption, partial(interactions, found, unit, metric)))
    return Section(
        "Main effects and interactions",
        paragraphs=(_asked(found),),
        pictures=tuple(pictures),
        tables=(Table(columns, tuple(rows), names=2 if "also estimates" in columns else 1), design),
        notes=_notes(found),
    )


def claims(found: Factorial, unit: Unit, metric: str) -> tuple[str, ...]:
    """A sentence for each contrast that was shown, and one for all others."""
    if not found.blocks:
        names = ", ".join(each.name for each in found.effects)
        return (f"Nothing can be said of {names}: no block has a score for each of {len(found.arms)} runs.",)
    factors = {factor.name: factor for factor in found.factors}
    said = [_shown(each, factors, unit, metric) for each in found.effects if each.is_shown]
    rest = [each for each in found.effects if not each.is_shown]
    if rest:
        said.append(_not_shown(rest, unit))
    if any(status == MISSING for _, holes in found.left_out for _, status in holes):
        said = [f"Interim, {len(found.blocks)} of {found.planned} blocks: {each}" for each in said]
    return tuple(said)


def _asked(found: Factorial) -> str:
    size = f"{len(found.runs)} runs of {len(found.factors)} factors at two levels"
    if found.resolution is None:
        return f"Every combination: {size}, trained once in every block."
    resolution = {3: "III", 4: "IV", 5: "V", 6: "VI", 7: "VII", 8: "VIII"}.get(found.resolution, str(found.resolution))
    return (
        f"A fraction of resolution {resolution}: {size}, trained once in every block; effects that share a contrast cannot be told apart."
    )


def _shown(each: Effect, factors: dict[str, Factor], unit: Unit, metric: str) -> str:
    value = each.effect or 0.0
    evidence, measured = _evidence(each, unit), name_of(metric)
    if each.is_main:
        factor = factors[each.factors[0]]
        others = len(factors) - 1
        averaged = f", averaged over the other {'factor' if others == 1 else f'{others} factors'}" if others else ""
        moved = f"{'falls' if value < 0 else 'rises'} by {unit.number(abs(value))}{unit.difference}"
        said = f"{factor.name}: {measured} {moved} from {factor.low} to {factor.high}{averaged} ({evidence})"
    else:
        of = f"{unit.difference} of {measured}" if unit.points else f" in {measured}"
        said = f"{TIMES.join(each.factors)}: {unit.number(value, signed=True)}{of} ({evidence})"
        if len(each.factors) == 2:
            first, second = (factors[name] for name in each.factors)
            change = f"{unit.number(2 * abs(value))}{unit.difference} {'less' if value < 0 else 'more'}"
            said += f": going from {first.name}={first.low} to {first.name}={first.high} does {change} with "
            said += f"{second.name}={second.high} than with {second.name}={second.low}"
    near = [alias for alias in each.aliases if len(alias.factors) <= 2]
    return said + (f"; this design cannot tell it from {_aliases(near)}." if near else ".")


def _not_shown(rest: Sequence[Effect], unit: Unit) -> str:
    said = f"Not shown to differ from nought: {', '.join(each.name for each in rest)}"
    one = rest[0]
    notes = []
    if smallest_p(one.n) * one.family >= one.alpha:
        several = f"{one.family} contrasts need" if one.family > 1 else "a contrast needs"
        notes.append(f"with {one.n} blocks none could be: {several} {blocks_needed(one.family, one.alpha)}")
    bounds = [max(abs(each.t_low), abs(each.t_high)) for each in rest if each.t_low is not None and each.t_high is not None]
    if bounds:
        it = "any of them" if len(bounds) > 1 else "it"
        notes.append(f"the intervals leave room for up to about {unit.number(max(bounds))}{unit.difference} either way in {it}")
    return "; ".join([said, *notes]) + "."


def _evidence(each: Effect, unit: Unit) -> str:
    low, high = each.t_low, each.t_high
    if low is None or high is None:
        interval = "all blocks equal, so that no interval can be estimated"
    else:
        if each.is_main and (each.effect or 0.0) < 0:
            low, high = -high, -low
        interval = f"{each.confidence * 100:g} % interval {unit.interval(low, high)}"
    p = f"exact p {equals(each.p)}" if each.draws == 0 else f"p {equals(each.p)} over {each.draws:,} random sign flips"
    return f"{interval}, n = {each.n} blocks, {p}" + (f", Holm p {equals(each.p_holm)}" if each.family > 1 else "")


def _notes(found: Factorial) -> tuple[str, ...]:
    family = found.effects[0].family
    notes = [
        "A contrast is, in each block, the mean score where the product of its factors' levels is +1 minus the mean where it is −1.",
        "Of two factors it is half of what one changes in the effect of the other.",
        f"Holm p: corrected for the {family} contrasts of this design; comparisons of single arms are a family of their own.",
    ]
    if any(each.aliases for each in found.effects):
        notes.append(
            "Also estimates: effects with the same contrast. Those of three factors are taken to be nought where an effect is named."
        )
    same = [factor.name for factor in found.factors if not factor.differs]
    if same:
        notes.append(
            f"Both levels came to the same training: {', '.join(same)}. Contrasts with it are of what else they estimate, or nought."
        )
    if found.left_out:
        told = "; ".join(f"block {block} ({', '.join(f'{arm}: {why}' for arm, why in holes)})" for block, holes in found.left_out)
        notes.append(f"A contrast needs every run, so left out: {told}.")
    for factor in found.factors:
        if factor.failed_low != factor.failed_high:
            at = f"{factor.failed_high} failed with {factor.name}={factor.high} and {factor.failed_low} with {factor.name}={factor.low}"
            notes.append(f"Of the cells of these runs {at}: contrasts do not hold that.")
    return tuple(notes)


def _aliases(aliases: Sequence[Alias]) -> str:
    if not aliases:
        return NOTHING
    return ", ".join(("" if alias.sign > 0 else "−") + TIMES.join(alias.factors) for alias in aliases)


def _without_second(row: tuple[str, ...]) -> tuple[str, ...]:
    return (row[0], *row[2:])

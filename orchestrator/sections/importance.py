"""The section on importance: which searched parameters the validation score hangs on, beside what noise gives."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from orchestrator.analysis.frames import Frames
from orchestrator.analysis.importance import BEST, FEWEST, FOREST_SHUFFLES, SHUFFLES, ArmImportance, Importance
from orchestrator.analysis.reach import ALPHA
from orchestrator.analysis.wording import NOTHING, equals, number, p_value
from orchestrator.figures.importance import importance
from orchestrator.sections.forms import Picture, Section, Table

MOST_ARMS = 4
"""That the figure shows; the table has all."""


def importances(frames: Frames) -> Section | None:
    """What can be told from noise, arm by arm; None where nothing was searched."""
    found, metric = frames.exploration.importances, frames.facts.metric["select"]
    if not found:
        return None
    judged = [each for each in found if not each.refused]
    refused = [each for each in found if each.refused]
    if not judged:
        return Section("Importance of parameters", paragraphs=(_nothing(refused),))
    points = [_said(each, metric) for each in judged]
    points += [f"{each.arm}: nothing was computed: {each.refused}." for each in refused]
    rows = [(each.arm, *_row(parameter)) for each in judged for parameter in each.parameters]
    has_forest = any(parameter.forest is not None for each in judged for parameter in each.parameters)
    columns = ("arm", "parameter", "trials", "share", "PED-ANOVA", "95 % interval", "its p", "fANOVA (%)", "fANOVA", "its p", "p")
    level = f"{100 * ALPHA / (2 if has_forest else 1):g} %"
    notes = [
        f"Over finished trials alone, by {metric}: what early stopping gave up is not in it, so that what makes trials bad shows too little.",
        (
            f"PED-ANOVA: how far the best {number(100 * BEST, 0)} % of trials differ from all, parameter by parameter, in limits of noise. A "
            f"limit is what the largest value of any parameter exceeds in {level} of {SHUFFLES} shuffles of scores against configurations. "
            "p is corrected for the parameters of the arm, not for the number of arms."
        ),
        "Shares of PED-ANOVA, which are what Optuna shows, add up to 1 whatever the data, on noise too. The interval is a percentile bootstrap over trials; it leans upward.",
    ]
    if has_forest:
        notes.append(
            f"fANOVA: a random forest's share of variance, in percent and in limits of noise ({FOREST_SHUFFLES} shuffles). It leaves out "
            f"({NOTHING}) parameters that some trials do not have. The last p is the smaller one, twice, for there are two."
        )
    if any(parameter.trials < each.trials for each in judged for parameter in each.parameters):
        notes.append("A parameter that exists only under a condition is judged among the trials that have it.")
    if any(each.random < each.trials for each in judged):
        notes.append(
            "Trials that the sampler modelled crowd where scores were good: importance is that among the configurations tried, not over "
            "the whole space."
        )
    few = [f"{each.arm}: {', '.join(each.few)}" for each in judged if each.few]
    if few:
        notes.append(f"In fewer than {FEWEST} finished trials, so not judged: {'; '.join(few)}.")
    held = [f"{each.arm}: {', '.join(each.held)}" for each in judged if each.held]
    if held:
        notes.append(f"One value in all finished trials, so not judged: {'; '.join(held)}.")
    pictured = judged[:MOST_ARMS]
    more = f" The first {len(pictured)} of {len(judged)} arms." if len(pictured) < len(judged) else ""
    caption = (
        "Importance of every parameter in units of its limit of noise, with a bootstrap interval; filled marks right of the line at 1 are "
        f"beyond it.{more}"
    )
    picture = Picture("importance", caption, partial(importance, pictured))
    return Section(
        "Importance of parameters",
        points=tuple(points),
        pictures=(picture,),
        tables=(Table(columns, tuple(rows), names=2),),
        notes=tuple(notes),
    )


def _nothing(refused: Sequence[ArmImportance]) -> str:
    least, most = (pick(each.trials for each in refused) for pick in (min, max))
    if most >= FEWEST:
        return "Nothing was computed. " + " ".join(f"{each.arm}: {each.refused}." for each in refused)
    counts = str(most) if least == most else f"{least} to {most}"
    arms = f"each of {len(refused)} arms has" if len(refused) > 1 else f"{refused[0].arm} has"
    return (
        f"Nothing was computed: {arms} {counts} finished trials, and with fewer than {FEWEST} importance cannot be told from noise. "
        "Any method would name a leading parameter all the same."
    )


def _said(each: ArmImportance, metric: str) -> str:
    important = [parameter for parameter in each.parameters if parameter.is_important]
    many = f"{each.trials} finished trials"
    if not important:
        first = each.parameters[0]
        return (
            f"{each.arm}: with {many}, no parameter's importance can be told from noise (the leading one, {first.name}: "
            f"corrected p {equals(first.p)})."
        )
    names = ", ".join(f"{parameter.name} (corrected p {equals(parameter.p)})" for parameter in important)
    rest = len(each.parameters) - len(important)
    other = f"; of {rest} others it cannot be told" if rest else ""
    return f"{each.arm}: {metric} hangs on {names}, over {many}{other}."


def _row(parameter: Importance) -> tuple[str, ...]:
    value, low, high = (part / parameter.limit for part in (parameter.value, parameter.low, parameter.high))
    forest, limit = parameter.forest, parameter.forest_limit
    return (
        parameter.name,
        str(parameter.trials),
        number(parameter.share, 2),
        number(value, 2),
        f"{number(low, 2)} to {number(high, 2)}",
        p_value(parameter.ped_p),
        number(None if forest is None else 100 * forest, 0),
        number(None if forest is None or limit is None else forest / limit, 2),
        p_value(parameter.forest_p),
        p_value(parameter.p),
    )

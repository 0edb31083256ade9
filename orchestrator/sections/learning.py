"""The section of learning curves."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from orchestrator.analysis.effects import CONFIDENCE
from orchestrator.analysis.frames import Frames
from orchestrator.analysis.learning import Curve
from orchestrator.analysis.wording import NOTHING, Unit, name_of
from orchestrator.figures.learning import hidden, learning, parts
from orchestrator.sections.blocks import absences
from orchestrator.sections.forms import Picture, Section, Table

_STAGES = ((0.25, "at ¼"), (0.5, "at ½"), (0.75, "at ¾"), (1.0, "at the end"))


def learning_curves(frames: Frames) -> Section:
    """Curves of every arm, with the numbers behind them at four stages of the training."""
    curves, base = frames.learning, frames.facts.base
    unit = _unit(curves)
    metric = curves[0].metric
    rows = tuple((each.arm, _blocks(each), *(_point(each, share, unit) for share, _ in _STAGES)) for each in curves)
    level = f"{CONFIDENCE * 100:g} %"
    compared = f"; the dashed line and its band are {base}, the same in every panel" if any(each.arm == base for each in curves) else ""
    cut = " The steep start of some curves lies below the axis." if hidden(curves, unit) else ""
    caption = (
        f"{name_of(metric).capitalize()} on the validation rows against progress of training{unit.score}, one panel per arm: "
        f"mean over blocks with its pointwise {level} interval{compared}.{cut}"
    )
    notes = [
        f"Mean of {metric} over the blocks whose cell finished ± half of Student's {level} interval, at the last evaluation up to there.",
        "Intervals are pointwise, each for its own point: a whole curve leaves its band more often than one point does.",
        "Methods may calibrate on the validation rows; the test rows are opened once, at the end.",
        "Arms are compared by their paired differences, not by whether bands overlap here.",
        *(f"Not in the curve of {arms}: {what}." for arms, what in absences({each.arm: each.left_out for each in curves})),
    ]
    pages = parts(curves, base)
    pictures = tuple(
        Picture(
            "learning" if part == 0 else f"learning-{part + 1}",
            caption if part == 0 else f"The same for {', '.join(each.arm for each in page)}.",
            partial(learning, curves, base, unit, part),
        )
        for part, page in enumerate(pages)
    )
    columns = ("arm", "n", *(name for _, name in _STAGES))
    return Section(f"Learning curves: {name_of(metric)}{unit.score}", pictures=pictures, tables=(Table(columns, rows),), notes=tuple(notes))


def _unit(curves: Sequence[Curve]) -> Unit:
    is_share = "accuracy" in curves[0].metric and all(0.0 <= value <= 1.0 for each in curves for value in each.mean)
    return Unit(100.0, 1) if is_share else Unit()


def _blocks(curve: Curve) -> str:
    least, most = min(curve.n), max(curve.n)
    return str(most) if least == most else f"{least} to {most}"


def _point(curve: Curve, share: float, unit: Unit) -> str:
    place = curve.at(share)
    if place is None:
        return NOTHING
    low, high = curve.low[place], curve.high[place]
    mean = unit.number(curve.mean[place])
    return mean if low is None or high is None else f"{mean} ± {unit.number((high - low) / 2)}"

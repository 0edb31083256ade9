"""The bill: what a study comes to on whole TPU v4 slices, in hours and money. Pure functions of its costs.

It is an estimate, and says of what. How long a training takes on a chip is known where cells have finished on one, or where the
study declares it (``run.training_seconds``); seconds of another device say nothing of it. Every chip is taken to be a lane's, or part
of one's, all the time: compiling, starting and waiting come on top.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.costs import Costs
from orchestrator.placement import ANY
from orchestrator.record import Record
from orchestrator.study import Study

SLICES = {"v4-8": 4, "v4-32": 16}
"""Names of slices, which count cores, and their chips."""
_XLA = "xla"


@dataclass(frozen=True)
class Bill:
    """What is still to come of a study, on one slice."""

    slice: str
    chips: int
    hours: float
    chip_hours: float
    money: float | None
    """In the currency of the price; None without one."""


def bills(study: Study, costs: Costs, record: Record, price: float | None) -> tuple[Bill, ...]:
    """One for each of ``SLICES``; none where nothing tells how long a training takes on a chip. ``price``: of a chip-hour."""
    if costs.seconds_missing is None or obstacle(study, costs, record) is not None:
        return ()
    chips_of_lane = costs.devices if study.run.lane != ANY else 1
    chip_hours = costs.seconds_missing * chips_of_lane / 3600.0
    money = None if price is None else chip_hours * price
    return tuple(Bill(name, chips, chip_hours / chips, chip_hours, money) for name, chips in SLICES.items())


def obstacle(study: Study, costs: Costs, record: Record) -> str | None:
    """Why there is no bill; None where there is one."""
    if costs.seconds is None:
        return "no measured throughput yet"
    seen = {str(cell.where.get("device", "")).partition(":")[0] for cell in record.cells.values() if cell.is_finished and cell.where}
    if not seen <= {_XLA}:
        return f"no measured throughput on a TPU yet: what has finished ran on {', '.join(sorted(seen - {_XLA}))}"
    return None


def bill_lines(study: Study, costs: Costs, record: Record, price: float | None) -> list[str]:
    """The bill for the terminal."""
    why = obstacle(study, costs, record)
    if why is not None:
        return [
            f"  on {' or '.join(SLICES)}: {why}. Declare run.training_seconds, which is one training on one lane there, or run a part of it there"
        ]
    lines = []
    for each in bills(study, costs, record, price):
        what = "no money without --price, of a chip-hour" if each.money is None else f"{each.money:,.0f} at {price:g} a chip-hour"
        lines.append(
            f"  on a {each.slice} ({each.chips} chips): {_hours(each.hours)} to come, {_hours(each.chip_hours, 'chip-hour')}, {what}; "
            f"an estimate, training times {costs.source}"
        )
    return lines


def _hours(hours: float, unit: str = "hour") -> str:
    return f"{hours:,.1f} {unit}s"

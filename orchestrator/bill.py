"""The bill: what a study comes to on whole TPU v4 slices, in hours and money. Pure functions of its costs and its workload.

It is an estimate, and says of what. How long a training takes on a chip is known where cells have finished on one, or where the
study declares it (``run.training_seconds``); seconds of another device say nothing of it. Where it is not known, the operations
of the networks are held against the peak of a chip, from a large share of it to a small one: no more than an order of magnitude.
Every chip is taken to be a lane's, or part of one's, all the time: compiling, starting and waiting come on top.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.costs import Costs
from orchestrator.placement import ANY
from orchestrator.record import Record
from orchestrator.study import Study
from orchestrator.workload import Workload

SLICES = {"v4-8": 4, "v4-32": 16}
"""Names of slices, which count cores, and their chips."""
PEAK = 275e12
"""bfloat16 operations a second of a TPU v4 chip: Jouppi et al. 2023 (arXiv:2304.01433)."""
MOST, LEAST = 0.4, 0.04
"""Shares of the peak that are taken for an estimate without measurement. Assumed: large networks in large batches come to the one,
small pictures in small batches to the other, or to less."""
_XLA = "xla"


@dataclass(frozen=True)
class Price:
    """What a slice takes."""

    hours: float
    chip_hours: float
    money: float | None
    """In the currency of the price; None without one."""


@dataclass(frozen=True)
class Bill:
    """What is still to come of a study, on one slice."""

    slice: str
    chips: int
    least: Price
    most: Price
    """The same as ``least`` where training times are known."""
    source: str
    """How this is known."""

    @property
    def is_counted(self) -> bool:
        """Whether operations were counted, for want of a measurement."""
        return self.least != self.most


def bills(study: Study, costs: Costs, record: Record, work: Workload, price: float | None) -> tuple[Bill, ...]:
    """One for each of ``SLICES``; none where nothing tells how long a training takes on a chip. ``price``: of a chip-hour."""
    if costs.seconds_missing is not None and obstacle(costs, record) is None:
        chips_of_lane = costs.devices if study.run.lane != ANY else 1
        least = most = costs.seconds_missing * chips_of_lane / 3600.0
        source = f"training times {costs.source}"
    elif work.operations is not None:
        least, most = (work.operations / (PEAK * share) / 3600.0 for share in (MOST, LEAST))
        source = (
            f"{work.operations:.1e} operations of the networks forward and backward, without what methods add, "
            f"at {MOST:.0%} to {LEAST:.0%} of a chip's peak ({obstacle(costs, record)})"
        )
    else:
        return ()
    return tuple(Bill(name, chips, _price(least, chips, price), _price(most, chips, price), source) for name, chips in SLICES.items())


def obstacle(costs: Costs, record: Record) -> str | None:
    """Why training times are not known; None where they are."""
    if costs.seconds is None:
        return "no measured throughput yet"
    seen = {str(cell.where.get("device", "")).partition(":")[0] for cell in record.cells.values() if cell.is_finished and cell.where}
    if not seen <= {_XLA}:
        return f"no measured throughput on a TPU yet: what has finished ran on {', '.join(sorted(seen - {_XLA}))}"
    return None


def bill_lines(study: Study, costs: Costs, record: Record, work: Workload, price: float | None) -> list[str]:
    """The bill for the terminal."""
    found = bills(study, costs, record, work, price)
    if not found:
        names = " or ".join(SLICES)
        return [f"  on {names}: {obstacle(costs, record)}, and no operations counted ({work.obstacle}). Declare run.training_seconds"]
    lines = []
    for each in found:
        if each.least.money is None or each.most.money is None:
            money = "no money without --price, of a chip-hour"
        else:
            money = f"{_span(each.least.money, each.most.money, 0)} at {price:g} a chip-hour"
        hours = _span(each.least.hours, each.most.hours, 1), _span(each.least.chip_hours, each.most.chip_hours, 1)
        lines.append(f"  on a {each.slice} ({each.chips} chips): {hours[0]} hours to come, {hours[1]} chip-hours, {money}")
    lines.append(f"    an estimate, from {found[0].source}")
    if found[0].is_counted:
        lines.append("    run a part of it on a TPU, or declare run.training_seconds, which is one training on one lane there")
    return lines


def _price(chip_hours: float, chips: int, price: float | None) -> Price:
    return Price(chip_hours / chips, chip_hours, None if price is None else chip_hours * price)


def _span(least: float, most: float, digits: int) -> str:
    smallest = 10.0**-digits
    if most < smallest:
        return f"less than {smallest:g}"
    ends = f"{least:,.{digits}f}", f"{most:,.{digits}f}"
    return ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"

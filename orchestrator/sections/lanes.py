"""The section on lanes: how much of their time went into training, and what generations that wait for their slowest cell cost."""

from __future__ import annotations

from orchestrator.analysis.occupancy import Occupancy, Replay, Spell
from orchestrator.analysis.wording import amount, number
from orchestrator.sections.forms import Section, Table

_MOST = 8
"""Launches that are told one by one."""


def lanes(found: Occupancy) -> Section:
    """Shares of lane-time by launch, and the replay of tuning."""
    columns = ("launch", "began (UTC)", "lanes", "lane-seconds", "training (%)", "start-up (%)", "idle (%)")
    shown = found.spells if len(found.spells) <= _MOST else found.spells[-_MOST:]
    rows = [(str(each.launch), each.began[:16].replace("T", " "), str(each.lanes), *_shares(each)) for each in shown]
    before = found.spells[: -len(shown)] if len(shown) < len(found.spells) else ()
    paragraphs, notes = [], []
    if found.spells:
        whole = {name: found.total(name) for name in ("lane_seconds", "training", "start_up", "idle")}
        training, start_up, idle = (_percent(whole[name], whole["lane_seconds"]) for name in ("training", "start_up", "idle"))
        paragraphs.append(
            f"Of {amount(whole['lane_seconds'])} lane-seconds {training} % went into training and {start_up} % into starting up; "
            f"{idle} % were idle."
        )
        if len(found.spells) > 1:
            rows.append(("all", "", "", amount(whole["lane_seconds"]), training, start_up, idle))
        if before:
            earlier = "One earlier launch is" if len(before) == 1 else f"{len(before)} earlier launches are"
            notes.append(f"{earlier} in the last line alone.")
        notes += [
            (
                "Lane-time is lanes times the time from the start of a launch to the last row that it brought. Training is what legs say "
                "they took; start-up is of all lanes, until the first leg began."
            ),
            "Idle is the rest: waiting for other cells, handing out and writing, lanes that came up later, and what died with a lane.",
        ]
    if found.replay is not None:
        paragraphs.append(_replayed(found.replay))
        notes.append(
            "Replayed: every leg of tuning, and every teacher, takes the seconds that it took; a free lane takes the first in the order of "
            "the plan that may run; nothing else takes time. It is no forecast of `--async`, which trains other configurations: which of "
            "these go on was decided by waiting."
        )
    for reason in dict.fromkeys(reason for _, reason in found.passed_over):
        which = [str(launch) for launch, each in found.passed_over if each == reason]
        notes.append(f"Not told of launch{'' if len(which) == 1 else 'es'} {', '.join(which)}: {reason}.")
    tables = (Table(columns, tuple(rows), names=2),) if rows else ()
    return Section("How lanes were used", paragraphs=tuple(paragraphs), tables=tables, notes=tuple(notes))


def _shares(spell: Spell) -> tuple[str, ...]:
    return (amount(spell.lane_seconds), *(_percent(part, spell.lane_seconds) for part in (spell.training, spell.start_up, spell.idle)))


def _percent(part: float, whole: float) -> str:
    return number(100.0 * part / whole, 1)


def _replayed(replay: Replay) -> str:
    many = f"{replay.lanes} lane{'' if replay.lanes == 1 else 's'}"
    took = f"Replayed on {many}, tuning takes {amount(replay.waiting)} s where each generation waits for its slowest cell, as here"
    if replay.held == 0.0:
        return f"{took}, and no lane is ever idle for that reason alone."
    return (
        f"{took}; lanes are idle for that reason alone in {_percent(replay.held, replay.lanes * replay.waiting)} % of that time. The same "
        f"legs without that wait take {amount(replay.free)} s, and in no order less than {amount(replay.least)} s."
    )

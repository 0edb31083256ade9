"""The board: a study's standing as a picture of characters, readable without colour and in 80 columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from textwrap import wrap

from rich.text import Text

from orchestrator.events import CONFIRM, PATH, SEARCH, TEACHER
from orchestrator.located import printable
from orchestrator.progress import clock
from orchestrator.standing import BEGUN, MISSING, OPEN, Place, Standing
from trainables.status import DIVERGED, FAILED, FAILURES, OK, OUT_OF_MEMORY, RUNNING, STOPPED, TIMED_OUT

_SIGNS = {
    OK: "#",
    STOPPED: "s",
    RUNNING: ">",
    BEGUN: "~",
    OPEN: ".",
    MISSING: "?",
    FAILED: "F",
    DIVERGED: "D",
    OUT_OF_MEMORY: "M",
    TIMED_OUT: "T",
}
_STYLES = {OK: "green", STOPPED: "cyan", RUNNING: "bold yellow", BEGUN: "yellow", OPEN: "dim", MISSING: "magenta"}
_WORDS = {
    OK: "done",
    STOPPED: "stopped early",
    RUNNING: "running",
    BEGUN: "begun",
    OPEN: "open: no row yet",
    MISSING: "in the design, not yet in the plan",
    FAILED: "failed",
    DIVERGED: "diverged",
    OUT_OF_MEMORY: "out of memory",
    TIMED_OUT: "timed out",
}
_LABEL = 30
"""Columns that the name of an arm may take before it goes on in the next line."""
_FEW = 5
"""Failures and messages that are told one by one."""
_LANES = 16
_GROUP = 5
"""Blocks between two gaps."""


def board(standing: Standing, width: int = 80, height: int | None = None, now: datetime | None = None) -> Text:
    """The picture, no wider than ``width`` (40 at least).

    ``height``: lines that there are; where they do not do, arms that are through are counted instead of drawn.
    """
    width = max(40, width)
    lines = _lines(standing, width, now or datetime.now(UTC), is_short=False)
    if height is not None and len(lines) > height:
        lines = _lines(standing, width, now or datetime.now(UTC), is_short=True)
    return Text("\n").join(lines)


def headline(standing: Standing) -> str:
    """Where it stands, in one line."""
    parts = [f"cells {standing.count(OK, STOPPED, *FAILURES)}/{sum(place.status != MISSING for place in standing.places)} of the plan done"]
    counts = {
        "failed": standing.count(*FAILURES),
        "running": standing.count(RUNNING),
        "begun": standing.count(BEGUN),
        "open": standing.count(OPEN),
    }
    parts += [f"{count} {what}" for what, count in counts.items() if count or what == "failed"]
    if standing.again:
        parts.append(f"{standing.again} taken again")
    return " · ".join(parts)


def _lines(standing: Standing, width: int, now: datetime, *, is_short: bool) -> list[Text]:
    pictures: list[Text] = []
    for stage, title, draw in (
        (TEACHER, "teachers and what others learn from", _strips),
        (SEARCH, "search: arms by generation" if standing.mode != "async" else "search: arms", _generations),
        (PATH, "path", _strips),
        (CONFIRM, "stage two: arms by block", _blocks),
    ):
        places = [place for place in standing.places if place.stage == stage]
        if places:
            pictures += [Text(), Text(title, "bold"), *_arms(standing, places, draw, width, is_short=is_short)]
    legend = [Text(), *_legend(standing, width)]
    rest = [*_held(standing, width, now), *_seen(standing, width, now), *_failures(standing, width)]
    # Where not all of it is seen, what is at the bottom is not.
    return [*_head(standing, width), *([*legend, *rest, *pictures] if is_short else [*pictures, *legend, *rest])]


def _head(standing: Standing, width: int) -> Iterator[Text]:
    if standing.driver is not None:
        now = f"{standing.driver} is at work"
    elif standing.end is None:
        now = f"killed; `kdsweep run` goes on from {_second(standing.last)}"
    else:
        now = f"{standing.end}, {_second(standing.last)}"
    yield from _wrapped(f"{standing.study}: {now}", width, "bold")
    yield from _wrapped(headline(standing), width)
    if standing.asked is not None:
        what = {"pause": "paused: lanes wait", "stop": "stopping: what is in flight is finished"}.get(standing.asked, "ending now")
        yield from _wrapped(f"{what}, as told by {standing.asked_by} at {_second(standing.asked_at)}", width, "bold yellow")
    if standing.waiting:
        many = f"{len(standing.waiting)} order{'' if len(standing.waiting) == 1 else 's'}"
        yield from _wrapped(f"{many} not taken in yet, the first given at {_second(standing.waiting[0])}", width, "yellow")
    if standing.trainings_left or standing.blocks_to_come:
        yield from _wrapped(_left(standing), width)
    stages = ", ".join(f"{stage} {seconds:,.0f}" for stage, seconds in (standing.by_stage or {}).items())
    yield from _wrapped(f"cost so far {standing.device_seconds:,.0f} device-seconds{f' ({stages})' if stages else ''}", width)
    if standing.design is not None:
        design = standing.design
        added = "".join(f"; {each['name']}: blocks {each['before']} to {each['blocks'] - 1}" for each in design["extensions"])
        said = f"design fixed: {len(design['arms'])} arms x {design['blocks']} blocks, hash {design['hash'][:12]}{added}"
        yield from _wrapped(said, width)


def _left(standing: Standing) -> str:
    many = standing.lanes
    lanes = "" if many is None else f" on {many} lane{' that never waits' if many == 1 else 's that never wait'}"
    more = (
        f"; stage two ({standing.blocks_to_come} blocks) comes on top, its arms are not fixed yet (`kdsweep plan` estimates the whole)"
        if standing.blocks_to_come
        else ""
    )
    if standing.left_s is None:
        return f"time left: nothing tells yet how long a training is{more}"
    return f"time left: at most {clock(standing.left_s)}{lanes} ({standing.trainings_left:,.1f} trainings by the pace so far){more}"


_Drawing = Iterator[tuple[Text, dict[str, Text]]]
"""Strip by strip, a heading and the line of each arm."""
_Draw = Callable[[Standing, dict[str, list[Place]], int], _Drawing]
"""Draws cells by arm on as many columns."""


def _arms(standing: Standing, places: Sequence[Place], draw: _Draw, width: int, *, is_short: bool) -> Iterator[Text]:
    """Arm by arm, in as many strips as the width makes of them."""
    arms: dict[str, list[Place]] = {}
    for place in places:
        arms.setdefault(place.arm, []).append(place)
    if is_short:
        over = [arm for arm, cells in arms.items() if all(place.status in (OK, STOPPED) for place in cells)]
        if len(over) > 1:
            yield Text(f"  {len(over)} arms are through", "green")
            arms = {arm: cells for arm, cells in arms.items() if arm not in over}
    label = min(_LABEL, max((len(printable(arm)) for arm in arms), default=0))
    for heading, drawn in draw(standing, arms, width - label - 4):
        if heading.plain.strip():
            yield Text.assemble(" " * (label + 4), heading)
        for arm, line in drawn.items():
            first, *rest = wrap(printable(arm), label) or [""]
            yield Text.assemble(f"  {first:<{label}}  ", line)
            yield from (Text(f"    {more}") for more in rest)


def _strips(standing: Standing, arms: dict[str, list[Place]], room: int) -> _Drawing:
    """One character a cell, in the order of the plan; the blocks of tuning and of stage two are not the same."""
    yield from _folded({arm: dict(enumerate(cells)) for arm, cells in arms.items()}, room, has_heading=False)


def _blocks(standing: Standing, arms: dict[str, list[Place]], room: int) -> _Drawing:
    yield from _folded({arm: {place.block: place for place in cells} for arm, cells in arms.items()}, room, has_heading=True)


def _folded(arms: dict[str, dict[int, Place]], room: int, *, has_heading: bool) -> _Drawing:
    count = 1 + max((column for cells in arms.values() for column in cells), default=-1)
    fit = max(1, (room + 1) // (_GROUP + 1)) * _GROUP
    for start in range(0, count, fit):
        columns = range(start, min(start + fit, count))
        heading = "".join(f"{column:<{_GROUP + 1}}" for column in columns[::_GROUP]) if has_heading else ""
        drawn = {}
        for arm, cells in arms.items():
            line = Text()
            for column in columns:
                place = cells.get(column)
                line.append(" " if place is None else _sign(place), None if place is None else _style(place.status))
                if (column + 1) % _GROUP == 0 and column != columns[-1]:
                    line.append(" ")
            line.rstrip()
            if line.plain:
                drawn[arm] = line
        yield Text(heading.rstrip(), "dim"), drawn


def _generations(standing: Standing, arms: dict[str, list[Place]], room: int) -> _Drawing:
    """Counts, by generation; with --async, where every proposal is one of its own, by arm alone."""
    is_one = standing.mode == "async"
    counted = {
        arm: {
            g: Counter(p.status for p in cells if is_one or p.generation == g)
            for g in ({0} if is_one else {p.generation or 0 for p in cells})
        }
        for arm, cells in arms.items()
    }
    best = {arm: f"best {standing.best[arm]:.4f}" if arm in standing.best else "" for arm in arms}
    lead = max((len(text) for text in best.values()), default=0)
    wide = max((len(_tally(found).plain) for by in counted.values() for found in by.values()), default=1)
    columns = sorted({g for by in counted.values() for g in by})
    fit = max(1, (room - lead) // (wide + 2))
    for start in range(0, len(columns), fit):
        chunk = columns[start : start + fit]
        heading = " " * lead + "".join(f"  {f'g{g}':<{wide}}" for g in chunk)
        drawn = {}
        for arm, by in counted.items():
            line = Text(f"{best[arm] if start == 0 else '':<{lead}}")
            for g in chunk:
                tally = _tally(by.get(g, Counter()))
                line.append_text(Text("  ") + tally + Text(" " * (wide - len(tally))))
            line.rstrip()
            drawn[arm] = line
        yield Text("" if is_one else heading.rstrip(), "dim"), drawn


def _tally(found: Counter[str]) -> Text:
    parts = [Text(f"{found[status]}{sign}", _style(status)) for status, sign in _SIGNS.items() if found[status]]
    other = sum(count for status, count in found.items() if status not in _SIGNS)
    return Text(" ").join([*parts, *([Text(f"{other}{_SIGNS[FAILED]}", _style(FAILED))] if other else [])])


def _sign(place: Place) -> str:
    if place.status == BEGUN:
        return str(min(9, int(10 * place.progress)))
    return _SIGNS.get(place.status, _SIGNS[FAILED])


def _style(status: str) -> str:
    return _STYLES.get(status, "bold red")


def _legend(standing: Standing, width: int) -> Iterator[Text]:
    met = {place.status for place in standing.places}
    is_drawn = any(place.status == BEGUN and place.stage != SEARCH for place in standing.places)
    is_counted = any(place.status == BEGUN and place.stage == SEARCH for place in standing.places)
    begun = " or ".join([*(["0-9"] if is_drawn else []), *(["~"] if is_counted else [])])
    said = [f"{begun if status == BEGUN else sign} {_WORDS[status]}" for status, sign in _SIGNS.items() if status in met]
    if is_drawn:
        said.append("a digit: tenths of the way to which it was saved")
    yield from _wrapped(";  ".join(said), width, "dim")


def _held(standing: Standing, width: int, now: datetime) -> Iterator[Text]:
    if not standing.held:
        return
    yield Text()
    yield from _wrapped("in flight", width, "bold")
    for held in standing.held[:_LANES]:
        what = f"{held.stage} {held.arm} block {held.block}, to {held.until:.0%}, for {_age(held.at, now)}"
        yield from _wrapped(f"  lane {held.lane}  {what}", width, hanging=4)
    if len(standing.held) > _LANES:
        yield Text(f"  and {len(standing.held) - _LANES} more")


def _seen(standing: Standing, width: int, now: datetime) -> Iterator[Text]:
    if not standing.seen:
        return
    declared = "" if standing.lanes is None else f", of {standing.lanes}"
    yield Text()
    yield from _wrapped(f"lanes that brought a row since {_second(standing.launched)}{declared}", width, "bold")
    latest = sorted(standing.seen, key=lambda lane: lane.at, reverse=True)
    for lane in latest[:_LANES]:
        what = f"{lane.stage} {lane.arm} block {lane.block}: {_reached(lane.status, lane.progress)}"
        legs = f"{lane.legs} leg{'' if lane.legs == 1 else 's'}"
        yield from _wrapped(f"  {lane.host} {lane.pid} {lane.device}  {legs}, the last {_age(lane.at, now)} ago, {what}", width, hanging=4)
    if len(latest) > _LANES:
        yield Text(f"  and {len(latest) - _LANES} more")


def _reached(status: str, progress: float) -> str:
    return f"{status} at {progress:.0%}" if status not in (OK, STOPPED) else status


def _failures(standing: Standing, width: int) -> Iterator[Text]:
    if not standing.failures:
        return
    yield Text()
    kept = len(standing.failures)
    yield Text(f"attempts that failed: {kept}", "bold red")
    messages = standing.messages()
    for status, said, count in messages[:_FEW]:
        yield from _wrapped(f"  {count} x {status}: {said or 'no message'}", width, hanging=4)
    if len(messages) > _FEW:
        yield Text(f"  and {len(messages) - _FEW} other messages")
    yield Text("the last of them", "bold")
    for each in standing.failures[-_FEW:][::-1]:
        attempt = f", attempt {each.attempt}" if each.attempt > 1 else ""
        again = ", taken again" if each.taken_again else ""
        said = f"  {_second(each.at)} {each.stage} {each.arm} block {each.block}{attempt} {each.status}{again}  {each.cell}"
        yield from _wrapped(said, width, hanging=4)


def _wrapped(text: str, width: int, style: str = "", hanging: int = 2) -> Iterable[Text]:
    indent = " " * (len(text) - len(text.lstrip()))
    lines = wrap(printable(text.strip()), width, initial_indent=indent, subsequent_indent=" " * hanging)
    return [Text(line, style) for line in lines]


def _second(stamp: str) -> str:
    return f"{stamp[:19].replace('T', ' ')} UTC"


def _age(stamp: str, now: datetime) -> str:
    try:
        return clock((now - datetime.fromisoformat(stamp)).total_seconds())
    except (TypeError, ValueError):
        return "some time"

"""The mirror, the process that talks to W&B: reads a study's journal as it grows and brings one run after another up to date.

``orchestrator.mirror`` starts and ends it. One cell attempt is one run, with an id that follows from study, cell and
attempt. A visit to a run is short: start or resume it, log the reports that are missing, finish it. Nothing is kept open
between visits, so it does not matter when this process dies.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import math
import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import wandb

from orchestrator.errors import StorageError, StudyLocked
from orchestrator.events import SEARCH
from orchestrator.journal import Attempt, Event, Journal, StudyLock, record_of
from orchestrator.mirror import BUSY, JOB_TYPE, OFFLINE, ONLINE, STATE, is_mirrored, key_of, load, report_id, signature, target_of
from trainables.redaction import redacted
from trainables.status import OK, RUNNING, STOPPED

_POLL_S = 0.2
_LONGEST_PAUSE_S = 300.0
"""Between two calls on a W&B that does not answer."""
_ORPHAN_S = 60.0
"""What a mirror whose driver died allows itself."""
_PLAN = ("arm", "method", "block", "stage", "generation", "number", "proposed_by", "cell", "attempt", "seeds")
"""Keys of a cell event that go into the config of its run, beside its own config."""


class Orders:
    """What the driver says on standard input: nothing while the study runs, then until when this may take."""

    def __init__(self) -> None:
        self._deadline = math.inf
        threading.Thread(target=self._listen, daemon=True).start()

    @property
    def left(self) -> float:
        """Seconds until this process is to be gone."""
        return self._deadline - time.monotonic()

    @property
    def is_last(self) -> bool:
        """Whether the study is over: the journal does not grow any more."""
        return self._deadline < math.inf

    def _listen(self) -> None:
        said = sys.stdin.readline().strip()
        self._deadline = float(said) if said else time.monotonic() + _ORPHAN_S
        time.sleep(max(0.0, self.left) + 5.0)
        os._exit(1)  # the main thread hangs in wandb, and there is no driver to end this process


class Replay:
    """Everything that is missing, cell by cell, until there is no more to do or no more time."""

    def __init__(
        self, study: str, directory: Path, mode: str, project: str, answer_s: float, orders: Orders, *, with_report: bool = False
    ) -> None:
        self._folder, self._journal, self._with_report = study, Journal(study), with_report
        self._directory, self._mode, self._project, self._answer_s, self._orders = directory, mode, project, answer_s, orders
        self._targets = load(directory)
        self._state = self._targets.setdefault(target_of(mode, project), {})
        self._state["problem"] = ""
        self._cells = self._state.setdefault("cells", {})
        self._study: Event = {}
        self._queue: list[Attempt] = []
        self._failures: dict[str, int] = {}
        self._running_failures = 0
        self._next_read = self._next_visit = self._next_save = 0.0

    def run(self) -> None:
        """Follow the journal until the driver gives its last order; then see to what is left, each cell once."""
        is_last = False
        while not (is_last and (self._orders.left <= 0 or self._running_failures >= 2)):
            if self._orders.is_last and not is_last:
                is_last = True
                self._next_read, self._next_visit, self._running_failures = 0.0, 0.0, 0
            if time.monotonic() >= self._next_read:
                self._read()
            if self._queue and time.monotonic() >= self._next_visit:
                self._visit(self._queue.pop(0))
            elif is_last:
                break
            else:
                time.sleep(_POLL_S)
            if time.monotonic() >= self._next_save:
                self._save()
        if self._with_report and self._study and self._orders.left > 0 and self._running_failures < 2:
            self._visit_report()
        self._save()

    def _save(self) -> None:
        self._next_save = time.monotonic() + (0.2 if self._orders.is_last else 1.0)
        half_done = self._directory / f".{STATE}.tmp"
        with half_done.open("w") as file:
            json.dump({"version": 1, "targets": self._targets}, file, indent=1, sort_keys=True)
            file.flush()
            os.fsync(file.fileno())
        os.replace(half_done, self._directory / STATE)

    def _read(self) -> None:
        start = time.monotonic()
        try:
            record = record_of(self._journal.read())
        except StorageError:
            self._state["problem"] = "the journal could not be read"
        else:
            self._study = record.study or {}
            missing = [attempt for attempt in record.attempts if self._study and self._is_due(attempt)]
            self._queue = sorted(missing, key=lambda attempt: (not attempt.is_finished, self._failures.get(key_of(attempt), 0)))
        # A long journal is read seldom: for a twentieth of the time at most. After the last order it stays as it is.
        now = time.monotonic()
        self._next_read = math.inf if self._orders.is_last else now + max(1.0, 20 * (now - start))

    def _is_due(self, attempt: Attempt) -> bool:
        """Finished cells; online also those that stand at a rung, since a run on the server can be taken up again."""
        is_wanted = attempt.is_finished or (self._mode == ONLINE and bool(attempt.rows))
        return is_wanted and not is_mirrored(attempt, self._cells)

    def _visit(self, attempt: Attempt) -> None:
        """Bring one run up to date. What goes wrong is said in mirror.json, and the cell waits for the next time."""
        run_id = self._run_id(attempt.cell, attempt.attempt)
        if self._is_done(run_id, key_of(attempt), lambda: self._replay(attempt, run_id)):
            step = attempt.reports[-1]["step"] if attempt.reports else 0
            self._cells[key_of(attempt)] = {"run": run_id, "step": step, **signature(attempt)}

    def _visit_report(self) -> None:
        """The report as it stands, once for each content."""
        content = report_id(self._folder)
        if content is not None and self._state.get("report") != content:
            run_id = self._run_id(JOB_TYPE, content)
            if self._is_done(run_id, JOB_TYPE, lambda: self._publish(run_id)):
                self._state["report"] = content

    def _run_id(self, *of: object) -> str:
        content = json.dumps([self._study["study"], self._study["fingerprint"], *of])
        return hashlib.sha256(content.encode()).hexdigest()[:20]

    def _is_done(self, run_id: str, key: str, bring: Callable[[], None]) -> bool:
        """Whether a run was brought up to date; if not, mirror.json says why."""
        self._sweep(run_id)
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said):
                bring()
            # Of a history that the server refuses, wandb says nothing but this, and goes on as if it had arrived.
            if "fatal error while uploading" in said.getvalue().lower():
                raise ConnectionError
        except Exception as fault:  # noqa: BLE001  # the mirror outlives whatever wandb, disk and network come up with
            self._running_failures += 1
            self._failures[key] = self._failures.get(key, 0) + 1
            self._state["problem"] = in_our_words(fault)
            self._next_visit = 0.0 if self._orders.is_last else time.monotonic() + min(_LONGEST_PAUSE_S, 2.0**self._running_failures)
            # wandb's service calls a run whose start failed "in use", until the service itself is gone.
            with contextlib.suppress(Exception):
                wandb.teardown()
            return False
        self._running_failures = 0
        self._state["problem"] = ""
        if self._mode == ONLINE:
            self._sweep(run_id)
        return True

    def _sweep(self, run_id: str) -> None:
        """Remove the local files of a run: what a mirror that was killed left half done, or what the server has by now."""
        prefix = "offline-" if self._mode == OFFLINE else ""
        for left in self._directory.glob(f"{prefix}run-*-{run_id}*"):
            shutil.rmtree(left, ignore_errors=True)

    def _replay(self, attempt: Attempt, run_id: str) -> None:
        plan, study = attempt.plan, self._study["study"]
        tags = (study, plan["method"], plan["stage"], attempt.status, f"block-{plan['block']}")
        config = {**plan["config"], **{name: plan[name] for name in _PLAN}, "study": study}
        run = self._started(run_id, name_of(attempt), plan["arm"], plan["stage"], tags, config)
        for report in attempt.reports:
            # The server knows better than mirror.json what of this run arrived. (run.step lags right after a resume.)
            if report["step"] >= run.starting_step:
                run.log({**report["metrics"], "progress": report["progress"]}, step=report["step"], commit=True)
        totals = {name: attempt.total(name) for name in ("seconds", "device_seconds")}
        facts = {"status": attempt.status, "progress": attempt.progress, "steps": attempt.steps, "message": attempt.rows[-1]["message"]}
        run.summary.update({**attempt.metrics, **totals, **facts})
        self._finish(run, 0 if attempt.status in (OK, STOPPED, RUNNING) else 1)

    def _publish(self, run_id: str) -> None:
        from orchestrator.bulletin import Bulletin  # with pyarrow, which cells do without

        bulletin = Bulletin(self._folder)
        run = self._started(run_id, bulletin.name, JOB_TYPE, JOB_TYPE, bulletin.tags, bulletin.config)
        scratch = self._directory / f"report-{run_id}"
        scratch.mkdir(parents=True, exist_ok=True)
        try:
            # A run that got half-way has its step already; the artifact is known by its content.
            if run.starting_step == 0:
                logged: dict[str, Any] = {
                    name: wandb.Table(columns=list(rows.columns), data=rows.data) for name, rows in bulletin.tables.items()
                }
                for name, (data, caption) in bulletin.figures.items():
                    (scratch / f"{name}.png").write_bytes(data)
                    logged[f"figures/{name}"] = wandb.Image(str(scratch / f"{name}.png"), caption=caption)
                run.log(logged, step=0, commit=True)
            run.summary.update(bulletin.summary)
            artifact = wandb.Artifact(bulletin.artifact, type="table", metadata=dict(bulletin.metadata))
            for name, data in bulletin.files.items():
                (scratch / name).write_bytes(data)
                artifact.add_file(str(scratch / name), name=name)
            run.log_artifact(artifact)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        self._finish(run, 0)
        if self._mode == ONLINE:
            shutil.rmtree(self._directory / "data", ignore_errors=True)  # offline, copies wait here for `wandb sync`

    def _started(
        self, run_id: str, name: str, group: str, job_type: str, tags: Sequence[str | None], config: Mapping[str, Any]
    ) -> wandb.Run:
        is_online = self._mode == ONLINE
        return wandb.init(
            project=self._project,
            id=run_id,
            name=name,
            group=group,
            job_type=job_type,
            tags=list(dict.fromkeys(tag[:64] for tag in tags if tag)),
            config=dict(config),
            dir=str(self._directory.parent),
            mode="online" if is_online else "offline",
            resume="allow" if is_online else None,
            reinit="create_new",
            settings=self._settings(),
        )

    def _finish(self, run: wandb.Run, exit_code: int) -> None:
        run.finish(exit_code=exit_code)
        if self._mode == ONLINE and run.project_url:
            self._state["url"] = run.project_url

    def _settings(self) -> wandb.Settings:
        left = max(1.0, self._orders.left)
        return wandb.Settings(
            console="off",
            silent=True,  # less talk also means that a login is not looked up; warnings come all the same
            symlink=False,
            use_dot_wandb=False,
            allow_val_change=True,
            disable_git=True,
            disable_code=True,
            save_code=False,
            disable_job_creation=True,
            label_disable=True,
            x_disable_stats=True,
            x_disable_meta=True,
            x_disable_machine_info=True,
            x_save_requirements=False,
            x_skip_transaction_log=self._mode == ONLINE,  # the journal is what a later mirror goes on from
            init_timeout=min(self._answer_s, left),
            finish_timeout=min(3 * self._answer_s, left),
            finish_timeout_raises=True,
        )


def name_of(attempt: Attempt) -> str:
    """Of a run, for people: "slam #12 / block 0" of a search, "slam, mixing=normalised / block 3" of a confirmation."""
    plan = attempt.plan
    number = f" #{plan['number']}" if plan["stage"] == SEARCH and plan["number"] is not None else ""
    again = f" / attempt {attempt.attempt}" if attempt.attempt > 1 else ""
    return f"{plan['arm']}{number} / block {plan['block']}{again}"


def in_our_words(fault: Exception) -> str:
    """What went wrong. Words of a server are not repeated: they may hold what belongs into no file."""
    kind = type(fault).__name__
    if kind in ("UsageError", "AuthenticationError"):
        return f"wandb refused to start a run ({redacted(str(fault))})"
    if status := re.search(r"\b(?:error|HTTP) ([45][0-9][0-9])\b", str(fault)):
        hint = " (may this API key write to this project?)" if status[1] in ("401", "403") else ""
        return f"the server answered with HTTP {status[1]}{hint}"
    if isinstance(fault, TimeoutError) or kind == "CommError":
        return "the server did not answer in time"
    if isinstance(fault, ConnectionError):
        return "the server refused the history of a run"
    return f"{kind} while a run was written, see the logs under wandb/"


def main(arguments: Sequence[str] | None = None) -> int:
    """Mirror until the driver says that it is enough; BUSY where another mirror of the study did not come to its end."""
    parser = argparse.ArgumentParser(prog="python -m orchestrator.replay", description="Mirror a study to W&B as its journal grows.")
    parser.add_argument("--study", required=True, help="folder of the study, a path or an fsspec URL")
    parser.add_argument("--into", required=True, type=Path, help="folder named wandb for W&B's files and mirror.json")
    parser.add_argument("--mode", required=True, choices=(ONLINE, OFFLINE))
    parser.add_argument("--project", required=True)
    parser.add_argument("--answer", type=float, default=10.0, help="seconds that W&B may take to start a run")
    parser.add_argument("--report", action="store_true", help="mirror the report as well, once the last order came")
    given = parser.parse_args(arguments)
    orders = Orders()
    while orders.left > 0:
        try:
            with StudyLock(given.into):
                where = (given.study, given.into, given.mode, given.project)
                Replay(*where, given.answer, orders, with_report=given.report).run()
                return 0
        except StudyLocked:
            time.sleep(_POLL_S)
    return BUSY


if __name__ == "__main__":
    sys.exit(main())

"""The mirror, the driver's end: finished cells as W&B runs, and the report as one more. W&B is never the truth, and can neither block nor fail a study.

``Mirror`` starts a process of its own, ``orchestrator.replay``, which reads the journal as it grows and replays each cell
attempt into a run whose id follows from its content. So a mirror that was killed, or that found W&B down, goes on later
with what is missing: ``wandb/mirror.json`` says what is done, and of a run that got half-way the server itself says from
which step to go on.

Only the standard library is imported here at the top, and wandb only in that process: drivers and the command line start
quickly, and whatever W&B prints, waits for or crashes on stays over there.
"""

from __future__ import annotations

import configparser
import contextlib
import hashlib
import json
import netrc
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from orchestrator.record import Attempt, Record

ONLINE, OFFLINE, OFF = "online", "offline", "off"
STATE = "mirror.json"
"""Per target, what is mirrored there: read by the driver, written by the mirroring process alone."""
REPORT = "report.json"
"""The report, for machines: what the run of job type ``report`` shows, and what its id follows from."""
JOB_TYPE = "report"
"""Of the report's run, and its group: the other runs are grouped by arm, so that W&B shows mean and range of one."""
BUSY = 3
"""Exit code of a mirroring process that waited in vain for another one of the same study."""
Entry = dict[str, Any]
"""What mirror.json knows of a cell attempt: run, step, status, progress, reports."""

_LOG = "mirror.log"
_FOREIGN = (
    *("WANDB_RUN_ID", "WANDB_RUN_GROUP", "WANDB_RUN_DIR", "WANDB_RESUME", "WANDB_NAME", "WANDB_NOTES", "WANDB_TAGS", "WANDB_JOB_TYPE"),
    *("WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH", "WANDB_SERVICE", "WANDB_MODE", "WANDB_DIR", "WANDB_PROJECT", "WANDB_CONFIG_PATHS"),
    *("WANDB_SILENT", "WANDB_QUIET"),
)
"""Variables that mean another run, or would silence what the mirroring process listens for."""


class Mirror:
    """Starts the process that mirrors the study at ``folder`` and, in the end, waits for it, but not long.

    With ``report`` it mirrors the report, too, as it stands in the folder by then: one run for each content, of job type ``report``.
    ``answer_s`` is how long W&B may take to start a run, in seconds, before the cell is put back; an upload may take thrice that.
    ``environ`` says which server and which login, as for wandb itself.

    Raises:
        ValueError: there is no such mode. W&B, the disk and the system cannot make it fail: ``finish`` then says why nothing is mirrored.
    """

    def __init__(
        self,
        folder: str | Path,
        mode: str,
        project: str,
        *,
        report: bool = False,
        answer_s: float = 10.0,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        if mode not in (ONLINE, OFFLINE, OFF):
            raise ValueError(f"A Mirror needs mode to be online, offline or off, but got mode={mode!r}.")
        self._folder, self._mode, self._with_report = folder, mode, report
        self._target = target_of(mode, project, environ)
        self._directory = directory_of(folder)
        self._child: subprocess.Popen[bytes] | None = None
        self._sentence = "W&B: off." if mode == OFF else ""
        if mode == OFF:
            return
        study = folder if "://" in str(folder) else Path(folder).expanduser().absolute()
        command = [sys.executable, "-P", "-m", "orchestrator.replay", "--study", str(study), "--into", str(self._directory)]
        command += ["--mode", mode, "--project", project, "--answer", str(answer_s)]
        command += ["--report"] if report else []
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            with (self._directory / _LOG).open("ab") as log:
                self._child = subprocess.Popen(
                    command,
                    env=_environment(self._directory, environ),
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # a Ctrl-C in the terminal is for the driver, which then calls finish
                )
        except OSError as fault:
            self._sentence = f"W&B: nothing is mirrored, for the mirror could not be started ({type(fault).__name__}: {fault})."

    @property
    def pid(self) -> int | None:
        """Of the mirroring process, if one was started."""
        return None if self._child is None else self._child.pid

    def finish(self, timeout_s: float = 10.0) -> str:
        """Let it mirror what is still missing for at most ``timeout_s``, end it, and say in a sentence how far it got."""
        if self._child is not None and not self._sentence:
            died = self._child.poll()
            try:
                is_late = not _drained(self._child, timeout_s)
            finally:
                _end(self._child)
            code = self._child.returncode if is_late or died is None else died
            self._sentence = self._outcome(timeout_s, is_late, died is not None, code)
        return self._sentence

    def _outcome(self, timeout_s: float, is_late: bool, has_died: bool, code: int) -> str:
        from orchestrator.errors import StorageError
        from orchestrator.journal import Journal, record_of

        state = load(self._directory).get(self._target, {})
        try:
            finished = record_of(Journal(self._folder).read()).finished
        except StorageError as fault:
            return f"W&B: how far the mirror is cannot be told without the journal. {fault}"
        done = sum(is_mirrored(attempt, state.get("cells", {})) for attempt in finished)
        content = report_id(self._folder) if self._with_report else None
        has_report = content is not None and state.get("report") == content
        is_all = done == len(finished) and (content is None or has_report)
        cells = f"{done} of {len(finished)} cells{' and the report' if has_report else ''} mirrored"
        if content is not None and not has_report:
            cells += ", the report is not"
        if is_all and self._mode == OFFLINE:
            return f"W&B: {cells} offline in {self._directory}; upload with `wandb sync {shlex.quote(str(self._directory))}/offline-run-*`"
        if is_all:
            return f"W&B: {cells}" + (f" to {state['url']}" if state.get("url") else "")
        later = f"{cells}; `kdsweep mirror {self._folder}` goes on from there"
        if not is_late and code == BUSY:
            return f"W&B: another mirror of this study is at work: {later}"
        if not is_late and (has_died or code):
            return f"W&B: the mirror ended early with exit code {code}, see {self._directory / _LOG}: {later}"
        if state.get("problem"):
            return f"W&B: {state['problem']}: {later}"
        return f"W&B did not answer within {timeout_s:g} s: {later}" if self._mode == ONLINE else f"W&B: after {timeout_s:g} s {later}"


def mirror_all(
    folder: str | Path, mode: str, project: str, *, timeout_s: float | None = None, environ: Mapping[str, str] = os.environ
) -> str:
    """Mirror what is missing of the study at ``folder``, its report included, and say in a sentence how far it got.

    Without ``timeout_s`` it may take a minute, and three seconds for every cell that is missing. It ends sooner where W&B
    fails twice running.

    Raises:
        StorageError: there is no study at ``folder``, or its journal cannot be read.
    """
    from orchestrator.errors import StorageError
    from orchestrator.journal import Journal, record_of

    record = record_of(Journal(folder).read())
    if record.study is None:
        raise StorageError(f"Mirroring needs the folder of a study that was launched, but got folder={str(folder)!r} without a journal.")
    allowed_s = 60.0 + 3.0 * missing(record, folder, mode, project, environ=environ) if timeout_s is None else timeout_s
    return Mirror(folder, mode, project, report=True, environ=environ).finish(allowed_s)


def mirror_report(
    folder: str | Path, mode: str, project: str, *, timeout_s: float = 15.0, environ: Mapping[str, str] = os.environ
) -> str | None:
    """Mirror the report at ``folder``, and cells that are missing, for at most ``timeout_s``, and say how far it got.

    None, and nothing is started, where the mirror is off, or the report as it stands was mirrored already. Nothing can make
    it fail: it says why nothing is mirrored.
    """
    from orchestrator.errors import StorageError

    try:
        content = None if mode == OFF else report_id(folder)
    except StorageError as fault:
        return f"W&B: the report is not mirrored. {fault}"
    known = load(directory_of(folder)).get(target_of(mode, project, environ), {}).get("report")
    if content is None or content == known:
        return None
    return Mirror(folder, mode, project, report=True, environ=environ).finish(timeout_s)


def report_id(folder: str | Path) -> str | None:
    """Of the report in the folder, by its content: the same numbers have the same id. None where there is no report.

    Raises:
        StorageError: the folder cannot be read.
    """
    from orchestrator.storage import folder_at

    data = folder_at(folder).read(REPORT)
    return None if data is None else hashlib.sha256(data).hexdigest()[:20]


def missing(record: Record, folder: str | Path, mode: str, project: str, *, environ: Mapping[str, str] = os.environ) -> int:
    """How many finished cell attempts are not mirrored yet; 0 where the mirror is off."""
    if mode == OFF:
        return 0
    cells = load(directory_of(folder)).get(target_of(mode, project, environ), {}).get("cells", {})
    return sum(not is_mirrored(attempt, cells) for attempt in record.finished)


def online_problem(environ: Mapping[str, str] = os.environ) -> str | None:
    """Why W&B cannot be used online, and what to do about it; None where there is a login. Asks no server, imports no wandb."""
    server, key = _server(environ), environ.get("WANDB_API_KEY", "")
    if not server:
        return "W&B needs the address of a server, but got WANDB_BASE_URL without a host: mend or unset it, or use --wandb offline."
    # A token of three parts with dots is a login too; some servers put a prefix and a dash before the key.
    if key and "." not in key and len(key.partition("-")[2] or key) < 40:
        return f"W&B needs an API key of 40 characters or more, but got {len(key)} in WANDB_API_KEY: copy it again, or use --wandb offline."
    has_login = key or environ.get("WANDB_IDENTITY_TOKEN_FILE") or _settings(environ).get("api_key") or _has_netrc_login(server, environ)
    if has_login:
        return None
    return f"W&B needs a login at {server}, but got none: run `wandb login`, set WANDB_API_KEY, or use --wandb offline."


def directory_of(folder: str | Path) -> Path:
    """Where W&B's files of the study at ``folder`` are: inside it. W&B needs a local disk, so those of a study in an object
    store are where a local study of that name would be."""
    from orchestrator.storage import local_path

    local = local_path(folder)
    home = Path("kdsweep-results", str(folder).rstrip("/").rpartition("/")[2]) if local is None else local
    return home.absolute() / "wandb"


def target_of(mode: str, project: str, environ: Mapping[str, str] = os.environ) -> str:
    """Where runs go, as mirror.json has it: what is mirrored offline, or to one project, is not yet mirrored to another."""
    return "/".join([mode, _server(environ), environ.get("WANDB_ENTITY", ""), project] if mode == ONLINE else [mode, project])


def load(directory: Path) -> dict[str, Any]:
    """Targets of mirror.json. What cannot be read counts as nothing: everything is then mirrored again, under the same ids."""
    try:
        targets = json.loads((directory / STATE).read_text())["targets"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return targets if isinstance(targets, dict) else {}


def key_of(attempt: Attempt) -> str:
    """Of a cell attempt in mirror.json."""
    return f"{attempt.cell}/{attempt.attempt}"


def signature(attempt: Attempt) -> Entry:
    """What changes when more of the attempt comes in."""
    return {"status": attempt.status, "progress": attempt.progress, "reports": len(attempt.reports)}


def is_mirrored(attempt: Attempt, cells: Mapping[str, Entry]) -> bool:
    """Whether all there is of the attempt was mirrored."""
    known = cells.get(key_of(attempt), {})
    return all(name in known and known[name] == value for name, value in signature(attempt).items())


def _drained(child: subprocess.Popen[bytes], timeout_s: float) -> bool:
    """Tell it how long it has and wait for it; whether it ended by itself."""
    if child.stdin is not None:
        margin_s = min(1.0, timeout_s / 4)  # in which it writes down how far it got
        deadline = time.monotonic() + timeout_s - margin_s  # on a clock that the processes of a machine share
        with contextlib.suppress(OSError):
            child.stdin.write(f"{deadline}\n".encode())
            child.stdin.flush()
        with contextlib.suppress(OSError):
            child.stdin.close()
    try:
        child.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return False
    return True


def _end(child: subprocess.Popen[bytes]) -> None:
    """End it for certain. wandb's own service watches its parent and is gone two seconds later."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(1.0)
        except subprocess.TimeoutExpired:
            child.kill()
    child.wait()


def _environment(directory: Path, environ: Mapping[str, str]) -> dict[str, str]:
    found = {name: value for name, value in environ.items() if name not in _FOREIGN}
    root = str(Path(__file__).resolve().parents[1])
    found["PYTHONPATH"] = os.pathsep.join(filter(None, [root, found.get("PYTHONPATH")]))
    found["WANDB_CACHE_DIR"] = str(directory / "cache")  # its service logs there
    found["WANDB_DATA_DIR"] = str(directory / "data")  # copies of an artifact's files wait there
    found["WANDB_ERROR_REPORTING"] = "false"  # else it calls home, even for an offline run
    return found


def _settings(environ: Mapping[str, str]) -> dict[str, str]:
    """W&B's settings file of the user and, over it, the one that ``wandb init`` leaves in the working directory."""
    user = Path(environ.get("WANDB_CONFIG_DIR") or _home(environ) / ".config" / "wandb")
    parser = configparser.ConfigParser(interpolation=None)
    with contextlib.suppress(configparser.Error, OSError, UnicodeError):
        parser.read([user / "settings", Path("wandb", "settings")])
    return dict(parser["default"]) if parser.has_section("default") else {}


def _server(environ: Mapping[str, str]) -> str:
    """Host, and port if any, of the W&B server: never the whole URL, which may hold a password."""
    url = environ.get("WANDB_BASE_URL") or _settings(environ).get("base_url") or "https://api.wandb.ai"
    try:
        return urlsplit(url).netloc.rpartition("@")[2]
    except ValueError:
        return ""


def _home(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("HOME") or Path.home())


def _has_netrc_login(server: str, environ: Mapping[str, str]) -> bool:
    named = environ.get("NETRC")
    for path in [Path(named).expanduser()] if named else [_home(environ) / ".netrc", _home(environ) / "_netrc"]:
        with contextlib.suppress(OSError, netrc.NetrcParseError, UnicodeError):
            login = netrc.netrc(path).authenticators(server)
            return login is not None and bool(login[2])
    return False

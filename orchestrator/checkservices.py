"""Checks of services: Ray, here or at an address, and W&B."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from orchestrator import mirror
from orchestrator.checkneeds import judge_needs
from orchestrator.doctor import Findings
from orchestrator.premises import Premises, at

RAY_S = 60.0
"""How long Ray may take to start, or a cluster to answer; some 5 s where nothing is wrong."""
_WANDB_S = 5.0
"""How long W&B may take to answer."""
_REFUSED = re.compile(r"InvalidAuthToken: ([A-Za-z ]+)")
"""What Ray logs, over and over, and does not raise."""
_WORDS = 300
"""Characters of the last words of a Ray that died."""
_PATH = 40
"""Longest folder for temporary files that Ray's sockets, of at most 107 characters with their own folders, fit below."""


def check_ray(findings: Findings, premises: Premises) -> None:
    """Ray starts here and runs a task, or the cluster at the address answers, with the same versions on every machine."""
    if premises.quick and premises.address is None:
        findings.ok(at("ray"), "", f"{metadata.version('ray')} is installed; --quick starts none.")
        return
    file = None if premises.address is None else premises.file  # else the machine of the lanes is this one
    told = ask(premises.address, premises.environ, RAY_S, file=file)
    judge_ray(findings, told, premises.address)
    judge_needs(findings, told.get("machines", ()))


def ask(
    address: str | None, environ: Mapping[str, str], seconds: float, program: str = "orchestrator.rayprobe", file: Path | None = None
) -> dict[str, Any]:
    """What ``orchestrator.rayprobe`` finds, or its ``problem``. It is ended, and what it left removed, when the time is over.

    ``file``: of a study, for whose needs every machine is asked.
    """
    command = [sys.executable, "-P", "-m", program, *(["--address", address] if address else []), *(["--study", str(file)] if file else [])]
    with _workplace() as folder:
        settings = {
            **environ,
            "PYTHONPATH": os.pathsep.join(filter(None, [str(Path(__file__).resolve().parents[1]), environ.get("PYTHONPATH")])),
        }
        if address is None:
            # Ray would leave its logs, and a key in the home folder.
            settings |= {"RAY_TMPDIR": str(folder)}
            settings.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        with (folder / "out").open("w+b") as out, (folder / "err").open("w+b") as err:
            child = subprocess.Popen(command, env=settings, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True)
            try:
                code = child.wait(seconds)
            except subprocess.TimeoutExpired:
                return {"problem": f"needs an answer within {seconds:g} s, but got none."}
            finally:
                if child.poll() is None:
                    os.killpg(child.pid, signal.SIGKILL)
                    child.wait()
            lines = (folder / "out").read_text(errors="replace").splitlines()
            said = " ".join((folder / "err").read_text(errors="replace").split())
    try:
        found = json.loads(lines[-1])
    except (IndexError, ValueError):
        found = None
    if not isinstance(found, dict):
        return {"problem": f"needs Ray to start, but got exit code {code}: {said[-_WORDS:] or 'it said nothing'}"}
    if "problem" in found and (refused := _REFUSED.search(f"{said} {' '.join(lines)}")):
        found["problem"] += f" Ray says: {refused[1].strip()}."
    return found


def judge_ray(findings: Findings, told: Mapping[str, Any], address: str | None) -> None:
    """Find what is wrong with what ``ask`` returned."""
    place, where = at("ray"), f"the cluster at {address}" if address else "Ray, started here,"
    if "problem" in told:
        findings.error(place, "", str(told["problem"]))
        return
    here, machines = told["here"], told["machines"]
    wrong = False
    for machine in machines:
        versions = machine["versions"]
        if versions is None:
            findings.warn(place, "", f"needs every machine to run a task, but got no answer from {machine['host']} in time.")
            wrong = True
            continue
        for name, version in versions.items():
            if version == here[name]:
                continue
            wrong = True
            message = f"needs {name} {here[name]} on {machine['host']}, as here, but got {version or 'none'}"
            if name == "torch" and version is not None:
                findings.warn(place, "", f"{message}: numbers may differ between machines.")
            else:
                findings.error(place, "", f"{message}: driver and lanes exchange pickles. Install from the same constraints everywhere.")
    is_open = not all(ipaddress.ip_address(machine["address"]).is_loopback for machine in machines)
    if told["authentication"] != "token" and is_open:
        wrong = True
        findings.warn(
            place,
            "",
            f"needs RAY_AUTH_MODE=token, but got {told['authentication']}: whoever reaches a port of {where} can run code on every machine.",
        )
    if not wrong:
        sums = {name: sum(machine["resources"][name] for machine in machines) for name in ("CPU", "GPU", "TPU")}
        listed = ", ".join(f"{count:g} {name}s" for name, count in sums.items())
        ran = f"took {told['seconds']:.1f} s and runs tasks: {len(machines)} machine{'' if len(machines) == 1 else 's'}, {listed}"
        findings.ok(place, "", f"{where} {ran}; Ray {here['ray']} and Python {here['python']}; authentication {told['authentication']}.")


def check_wandb(findings: Findings, premises: Premises) -> None:
    """Where the mirror is online there is a login, and the server answers."""
    place, mode = at("W&B"), premises.run.wandb
    if mode == mirror.OFF:
        findings.ok(place, "run.wandb", "off.")
        return
    if mode == mirror.OFFLINE:
        findings.ok(place, "run.wandb", "offline: files are written beside the results, and nothing is sent.")
        return
    problem = mirror.online_problem(premises.environ)
    if problem is not None:
        findings.error(place, "run.wandb", problem)
        return
    server = mirror.target_of(mode, "", premises.environ).split("/")[1]
    scheme = "http" if premises.environ.get("WANDB_BASE_URL", "").startswith("http://") else "https"
    fault = _unanswered(f"{scheme}://{server}/healthz")
    if fault is None:
        findings.ok(place, "run.wandb", f"online: there is a login for {server}, which answers.")
    else:
        findings.warn(
            place,
            "run.wandb",
            f"needs {server} to answer within {_WANDB_S:g} s, but got {fault}. A study runs all the same, and `kdsweep mirror` sends what is "
            "missing later.",
        )


def _unanswered(url: str) -> str | None:
    """Why a server cannot be used; None where it answers anything but a fault of its own. No login is sent."""
    try:
        with urllib.request.urlopen(url, timeout=_WANDB_S):
            return None
    except urllib.error.HTTPError as answer:
        return f"status {answer.code}" if answer.code >= 500 else None
    except (OSError, ValueError) as fault:  # a URLError is an OSError
        return str(getattr(fault, "reason", fault)) or type(fault).__name__


@contextlib.contextmanager
def _workplace() -> Iterator[Path]:
    """A folder for Ray's files, short enough for its sockets, and gone afterwards."""
    usual = tempfile.gettempdir()
    folder = Path(tempfile.mkdtemp(prefix="kdsweep-", dir=usual if len(usual) <= _PATH else "/tmp"))
    try:
        yield folder
    finally:
        # Ray's processes end with their parent, but a moment later, and may write meanwhile.
        for _ in range(20):
            shutil.rmtree(folder, ignore_errors=True)
            if not folder.exists():
                break
            time.sleep(0.1)

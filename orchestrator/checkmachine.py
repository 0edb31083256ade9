"""Checks of this machine: Python, packages, devices, limits, memory, and who can read what is secret."""

from __future__ import annotations

import platform
import resource
import shutil
import stat
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path

from orchestrator import pins, provenance
from orchestrator.doctor import Findings
from orchestrator.premises import Premises, at

_PYTHON = (3, 11)
_GIB = 2**30
_OPEN_FILES = 65_536
"""What Ray asks for; a driver holds several connections to every worker."""
_SHM_BYTES = _GIB
"""Ray's object store wants to lie in /dev/shm, and warns and goes to the disk where it is small. Docker gives 64 MiB."""
_MEMORY_BYTES = 2 * _GIB
_FULL = 0.95
"""The share of memory in use at which Ray begins to kill workers."""
_SHOWN = 6


def check_python(findings: Findings, premises: Premises) -> None:
    """The Python that everything was tested with."""
    judge_python(findings, platform.python_version())


def judge_python(findings: Findings, version: str) -> None:
    """Find whether a version of Python will do. Whether machines of a cluster have the same is for the check of Ray."""
    place, found = at("python"), tuple(int(part) for part in version.split(".")[:2])
    if found < _PYTHON:
        findings.error(place, "", f"needs Python 3.11, but got {version} in {sys.executable}.")
    elif found > _PYTHON:
        findings.warn(
            place, "", f"needs Python 3.11, which the versions in {pins.CONSTRAINTS} are for, but got {version}: nobody has tested it."
        )
    else:
        findings.ok(place, "", f"{version} in {sys.executable}.")


def lock_file(name: str) -> Path | None:
    """The file of constraints of a checkout, or the one that came with the wheel; None where there is neither."""
    beside = Path(__file__).resolve().parents[1] / name
    if beside.is_file():
        return beside
    try:
        listed = metadata.files("kdsweep") or []
    except metadata.PackageNotFoundError:
        return None
    return next((Path(str(file.locate())) for file in listed if file.name == name and Path(str(file.locate())).is_file()), None)


def check_packages(findings: Findings, premises: Premises) -> None:
    """Installed versions are those of the lock, or at least within what kdsweep needs."""
    here = installed()
    name = pins.TPU_CONSTRAINTS if "torch-xla" in here else pins.CONSTRAINTS
    compare(findings, here, lock_file(name), name)


def compare(findings: Findings, present: Mapping[str, str], lock: Path | None, name: str) -> None:
    """Find where ``present`` (normalised names to versions) departs from a lock file and from what kdsweep requires."""
    place, advice = at("packages"), f"`pip install --constraint {name} kdsweep` puts it right."
    required = list(_unmet(present))
    for line in required:
        findings.error(place, "", f"{line} {advice}")
    if lock is None:
        if not required:
            findings.warn(place, "", f"needs {name} to compare with, but got none in this installation: nothing says what was tested.")
        return
    pinned = {package: pin.version for package, pin in pins.pinned(lock).items()}
    others = {package: version for package, version in pinned.items() if package in present and _differs(present[package], version)}
    shown = [f"{package} {present[package]} ({version})" for package, version in sorted(others.items())]
    if others:
        rest = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
        got = ", ".join(shown[:_SHOWN]) + rest
        findings.warn(place, "", f"needs the versions of {name} for numbers to be those that were tested, but got {got}. {advice}")
    elif not required:
        count = sum(package in present for package in pinned)
        told = f"{count} of the {len(pinned)} packages of {name} are installed, at these versions"
        findings.ok(place, "", f"{told}; hash of the environment {provenance.lock_hash()}.")


def installed() -> dict[str, str]:
    """Versions of what can be imported here, by normalised name."""
    from packaging.utils import canonicalize_name

    # The first on the path is the one that is imported.
    found: dict[str, str] = {}
    for each in metadata.distributions():
        if each.metadata["Name"]:
            found.setdefault(canonicalize_name(each.metadata["Name"]), each.version)
    return found


def _unmet(present: Mapping[str, str]) -> Iterator[str]:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    try:
        wanted = [Requirement(line) for line in metadata.requires("kdsweep") or ()]
    except metadata.PackageNotFoundError:  # a checkout that is run in place
        return
    for each in wanted:
        if each.marker is None or each.marker.evaluate({"extra": ""}):
            version = present.get(canonicalize_name(each.name))
            if version is None or not each.specifier.contains(version, prereleases=True):
                yield f"needs {each.name}{each.specifier}, but got {version or 'none'}."


def _differs(version: str, pin: str) -> bool:
    from packaging.version import Version

    # What is behind the plus, as in 2.13.0+cpu, says how it was built.
    return Version(version).public != Version(pin).public


def check_torch(findings: Findings, premises: Premises) -> None:
    """Torch and torch_xla are a pair; with another torch the import of torch_xla fails."""
    here = installed()
    compare_torch(findings, here.get("torch"), here.get("torch-xla"))


def compare_torch(findings: Findings, torch: str | None, xla: str | None) -> None:
    """Find whether versions of torch and torch_xla, None where not installed, fit."""
    place = at("torch")
    if torch is None:
        findings.error(place, "", "needs torch, but got none. `pip install --constraint constraints.txt kdsweep` brings it.")
    elif xla is None:
        findings.ok(place, "", f"{torch}; torch_xla, which only TPUs need, is not installed.")
    elif torch.split(".")[:2] != xla.split(".")[:2]:
        wanted = ".".join(xla.split(".")[:2])
        findings.error(
            place,
            "",
            f"needs torch {wanted}, for which torch_xla {xla} was built, but got {torch}. "
            "`pip install --constraint constraints-tpu.txt 'kdsweep[tpu]'` brings both.",
        )
    else:
        findings.ok(place, "", f"{torch} and torch_xla {xla} are a pair.")


def check_devices(findings: Findings, premises: Premises) -> None:
    """The device that lanes would train on is here, and computes."""
    import torch

    from trainables.device import device_named

    place, wanted = at("devices"), premises.run.lane_device
    if premises.address is not None or premises.run.placement.resources.get("TPU"):
        findings.ok(place, "", f"lanes train on {wanted} of the cluster's machines; this one's are not asked.")
        return
    try:
        device = device_named(wanted)
    except ValueError as fault:
        findings.error(place, "run.device", str(fault))
        return
    if device.name == "xla":
        # To look further would take the chips from whoever trains on them.
        runtime = premises.environ.get("PJRT_DEVICE", "none named in PJRT_DEVICE, so the one that torch_xla finds")
        findings.ok(place, "", f"{wanted} is xla, by torch_xla's runtime: {runtime}.")
        return
    total = float(torch.ones(8, device=device.torch_device).sum())
    if total != 8.0:
        findings.error(place, "", f"needs a device that computes, but got {total:g} for the sum of eight ones on {device.torch_device}.")
    elif device.name == "cuda":
        names = ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
        findings.ok(place, "", f"{wanted} is cuda: {names}.")
    else:
        cores = provenance.machine()["cores"]
        findings.ok(place, "", f"{wanted} is cpu: {cores} cores, each lane uses one.")
        if wanted == "auto" and Path("/proc/driver/nvidia/version").exists():
            findings.warn(place, "", f"needs a torch with CUDA to use this machine's GPU, but got torch {torch.__version__} without.")


def check_limits(findings: Findings, premises: Premises) -> None:
    """Open files: Ray raises the soft limit to the hard one by itself, up to what it wants."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    judge_limits(findings, soft, hard)


def judge_limits(findings: Findings, soft: int, hard: int) -> None:
    """Find whether limits of open files (soft, hard) are enough."""
    place = at("open files")
    most = hard if hard != resource.RLIM_INFINITY else _OPEN_FILES
    if soft == resource.RLIM_INFINITY or max(soft, most) >= _OPEN_FILES:
        findings.ok(place, "", f"{soft} may be open, and Ray may raise it to {_OPEN_FILES}." if 0 <= soft < _OPEN_FILES else "enough.")
    else:
        findings.warn(
            place,
            "",
            f"needs {_OPEN_FILES} for many lanes, but got {max(soft, most)}: raise it with `ulimit -n {_OPEN_FILES}`, or in "
            "/etc/security/limits.conf. A few lanes do with less.",
        )


def check_memory(findings: Findings, premises: Premises) -> None:
    """Memory that is free, and room in /dev/shm for Ray's object store."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines() if Path("/proc/meminfo").exists() else []
    figures = {key: int(rest.split()[0]) * 1024 for key, _, rest in (line.partition(":") for line in lines)}
    judge_memory(findings, figures.get("MemAvailable"), figures.get("MemTotal"))
    judge_shm(findings, shutil.disk_usage("/dev/shm").free if Path("/dev/shm").is_dir() else None)


def judge_memory(findings: Findings, free: int | None, total: int | None) -> None:
    """Find whether so many free bytes of so many are enough; None: the system does not say."""
    place = at("memory")
    if free is None or not total:
        findings.ok(place, "", "the system does not say how much is free.")
    elif free < (1 - _FULL) * total or free < _MEMORY_BYTES:
        findings.warn(
            place,
            "",
            f"needs {_size(_MEMORY_BYTES)} free, and less than {_FULL:.0%} in use, but got {_size(free)} of {_size(total)}: above that Ray "
            "kills lanes. End what you do not need.",
        )
    else:
        findings.ok(place, "", f"{_size(free)} of {_size(total)} are free.")


def judge_shm(findings: Findings, free: int | None) -> None:
    """Find whether so many free bytes in /dev/shm are enough; None: there is none, as on macOS."""
    place = at("/dev/shm")
    if free is None:
        findings.ok(place, "", "this system has none.")
    elif free < _SHM_BYTES:
        findings.warn(
            place,
            "",
            f"needs {_size(_SHM_BYTES)} free for Ray's object store, but got {_size(free)}: it goes to the disk, which is slower. "
            "In Docker, `docker run --shm-size=2g`.",
        )
    else:
        findings.ok(place, "", f"{_size(free)} are free.")


def check_secrets(findings: Findings, premises: Premises) -> None:
    """Files with logins are their owner's alone. What is in them is not read."""
    environ = premises.environ
    home = Path(environ.get("HOME") or Path.home())
    netrc, token = environ.get("NETRC"), environ.get("RAY_AUTH_TOKEN_PATH")
    files = {
        "W&B's login": Path(netrc).expanduser() if netrc else home / ".netrc",
        "Ray's key": Path(token).expanduser() if token else home / ".ray" / "auth_token",
    }
    place = at("permissions")
    found = {what: path for what, path in files.items() if path.exists()}
    for what, path in found.items():
        mode = stat.S_IMODE(path.stat().st_mode)
        if not mode & 0o077:
            findings.ok(place, "", f"{what}, {path}, is yours alone.")
            continue
        message = f"{path}, {what}, needs mode 0600, but got {mode:04o}. `chmod 600 {path}` puts it right"
        if _is_closed(path):
            findings.warn(place, "", f"{message}; for now, only the folders above keep others out.")
        else:
            findings.error(place, "", f"{message}: every user of this machine can read it.")
    if not found:
        findings.ok(place, "", "there are no files with logins of W&B or Ray in your home folder.")


def _is_closed(path: Path) -> bool:
    return any(not stat.S_IMODE(parent.stat().st_mode) & 0o011 for parent in path.resolve().parents)


def _size(count: int) -> str:
    return f"{count / _GIB:.1f} GiB" if count >= _GIB else f"{count / 2**20:.0f} MiB"

"""What a launch ran on: versions, the commit of the code, and one hash over every installed package."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sysconfig
from importlib import metadata
from pathlib import Path

_SHOWN = ("kdsweep", "torch", "ray", "optuna", "wandb", "pyarrow", "numpy", "scipy", "scikit-learn")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that numbers depend on; packages that are not installed are left out."""
    found = {"python": platform.python_version()}
    for name in _SHOWN:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, int | str]:
    """The machine that this runs on: cores that this process may use, processor and system."""
    usable = getattr(os, "sched_getaffinity", None)
    cores = len(usable(0)) if usable is not None else os.cpu_count() or 1
    return {"cores": cores, "processor": platform.machine(), "system": platform.system()}


def code_commit() -> str | None:
    """Commit of the checkout that this package runs from, with ``+`` where it was changed; None outside a checkout."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(here), *arguments], capture_output=True, text=True, timeout=10, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # A checkout of something else may lie around an installed package: the file must be tracked in it.
    if git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None
    commit = git("rev-parse", "HEAD")
    if commit is None:
        return None
    return commit + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")


def lock_hash() -> str:
    """Sixteen hex digits over name and version of every package of this environment.

    Only its own folders count: Ray puts bundled packages on the path as it is imported, which changes no environment.
    """
    folders = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    installed = sorted({f"{d.metadata['Name']}=={d.version}".lower() for d in metadata.distributions(path=folders)})
    return hashlib.sha256("\n".join(installed).encode()).hexdigest()[:16]

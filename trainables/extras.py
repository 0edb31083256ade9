"""Extras: packages that only some sources and networks need, and whether this machine has them. Nothing is imported."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

DATA, MODELS = "data", "models"
"""Extras of kdsweep, as in ``pip install 'kdsweep[data]'``."""


def absent(packages: Sequence[str]) -> tuple[str, ...]:
    """Those that cannot be imported here, by the names that they are imported by."""
    return tuple(name for name in packages if importlib.util.find_spec(name) is None)


def lack(what: str, extra: str, packages: Sequence[str]) -> str | None:
    """What somebody is told who lacks packages of an extra; None where all are there."""
    missing = absent(packages)
    if not missing:
        return None
    plural = "s" if len(packages) > 1 else ""
    return (
        f"{what} needs the package{plural} {' and '.join(packages)}, but {' and '.join(missing)} "
        f"{'is' if len(missing) == 1 else 'are'} not installed. Run `pip install 'kdsweep[{extra}]'`."
    )

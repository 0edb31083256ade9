"""Loopback: a Ray that is started on this machine is reached from this machine alone.

Ray listens on every interface of the machine, for whatever ``_node_ip_address`` it is given: it replaces 127.0.0.1 by an
address that others reach (2.60, ``resolve_ip_for_localhost``). It does without where it is told that it is never to be a
cluster, which it asks an environment variable of, once, as it is imported.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping

SWITCH = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Named after the systems where "0" is the default: there a firewall would ask the user."""


def only_here(environ: MutableMapping[str, str] | None = None) -> None:
    """Have every Ray that this process starts from now on listen on 127.0.0.1. Needs to come before Ray is imported.

    Not for a process that joins a cluster, nor for the parent of ``ray start``. What the user has set stays.
    """
    (os.environ if environ is None else environ).setdefault(SWITCH, "0")

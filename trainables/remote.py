"""Remote storage: the file system behind an fsspec URL, opened only where a URL asks for it and always with an end in sight."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from typing import Any, TypeVar

import fsspec
from fsspec.asyn import AsyncFileSystem

from trainables.redaction import redacted

Answer = TypeVar("Answer")

ANSWER_S = 60.0
"""Seconds that a call may take, all attempts of its backend together, beside what its bytes need."""

_AWAY = 2.5
"""Times ANSWER_S that a store without an answer is waited for by whoever has work to lose."""

_NO_ANSWER = "no answer"

_BYTES_A_SECOND = 1e6
"""What even a slow line carries."""

_EXTRAS = {"gs": "gcs", "gcs": "gcs", "s3": "s3", "s3a": "s3"}
"""Which extra of kdsweep brings the backend of a protocol."""

_S3_ATTEMPTS = 10
"""Of s3fs at one request: with 10 it lasts out 30 s without an endpoint, as gcsfs does; its own 5 give up after 6 s."""

_LOGIN = re.compile(r"(?<=://)([^/@]*|[^/:@]+:[^@]*)@")
"""What stands before the host, a password with a slash in it, too."""


def opened(url: str) -> tuple[Any, str]:
    """The file system behind a URL, and the path in it. One file system serves all URLs of a store, so this is cheap. Asks no server.

    Raises:
        ValueError: nothing here can open it, or there is a login in it; the message says what to do.
    """
    if has_login(url):
        raise ValueError("a login in a URL would end in files and messages: leave it out, and give it as the store's own tools expect it")
    protocol = fsspec.core.split_protocol(url)[0]
    try:
        if protocol in ("gs", "gcs"):
            return _google(url)
        files, path = fsspec.core.url_to_fs(url)
    except ImportError as fault:
        if protocol in _EXTRAS:
            raise ValueError(f"{protocol}:// comes with an extra: run `pip install 'kdsweep[{_EXTRAS[protocol]}]'` ({fault})") from fault
        raise ValueError(str(fault)) from fault
    if protocol in ("s3", "s3a"):
        files.retries = _S3_ATTEMPTS
    return files, str(path)


def has_login(url: str) -> bool:
    """Whether there is a user, a password or a token in a URL."""
    return _LOGIN.search(url) is not None


def without_login(url: str) -> str:
    """A URL as messages may give it."""
    return _LOGIN.sub("***@", url)


def within(files: Any, carried: int = 0) -> dict[str, float]:
    """The keyword that ends a call which carries so many bytes, for file systems that know it; those of buckets do."""
    return {"timeout": ANSWER_S + carried / _BYTES_A_SECOND} if isinstance(files, AsyncFileSystem) else {}


def awaited(call: Callable[[], Answer]) -> Answer:
    """What a call on a store returns. It is repeated while nobody answers, for two minutes and a half from the first time on."""
    until = time.monotonic() + _AWAY * ANSWER_S
    while True:
        try:
            return call()
        except Exception as fault:
            if not told(fault).startswith(_NO_ANSWER) or time.monotonic() >= until:
                raise
        time.sleep(ANSWER_S / 60)


def told(fault: Exception) -> str:
    """What a backend's exception means and what it says. Every backend has exceptions of its own, so their words decide."""
    said = " ".join(redacted(f"{type(fault).__name__}: {fault}").split()).rstrip(":")
    if isinstance(fault, FileNotFoundError):
        return f"no such bucket or folder ({said})"
    if re.search(r"Permission|Forbidden|Credential|Anonymous|RefreshError|\b40[13]\b", said):
        return f"no access with these credentials ({said})"
    if re.search(r"Connect|Timeout|resolve", said):
        return f"{_NO_ANSWER} ({said})"
    return said


def _google(url: str) -> tuple[Any, str]:
    # What gcsfs registers for gs:// asks a second service, over gRPC, what kind of bucket this is, before every request while
    # that service does not answer. Its plain class does without; only zonal buckets need the other one.
    from gcsfs.core import GCSFileSystem

    # Whatever goes wrong is raised as well; without a handler Python would print it, trace and all.
    log = logging.getLogger("gcsfs")
    if not log.handlers:
        log.addHandler(logging.NullHandler())
    return GCSFileSystem(), str(GCSFileSystem._strip_protocol(url))

"""Redaction: what an exception, a log or a URL says, without the secrets of the process that says it.

Rows travel: into the journal, the table, the report, W&B and papers. An exception quotes whatever it was given, and that may be
a key. Known secrets are replaced by the name of where they are kept, as in ``<WANDB_API_KEY>``: environment variables with the
name of a secret, what lies in the files that such variables and the usual places name, and passwords of netrc. Forms that only
secrets have (a login or a signature in a URL, an Authorization header, a PEM key) are replaced wherever they come from.
"""

from __future__ import annotations

import contextlib
import json
import netrc
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

SHORTEST = 8
"""Characters of the shortest value that is taken for a secret: shorter ones are words of any message."""

_SURE = frozenset(
    ("TOKEN", "TOKENS", "SECRET", "SECRETS", "PASSWORD", "PASSWD", "PASSPHRASE", "PWD", "PW", "CREDENTIAL", "CREDENTIALS", "COOKIE")
)
"""Parts of a name whose value is a secret, whatever it looks like, unless it is a path, a number or an address."""
_LIKELY = frozenset(("KEY", "KEYS", "APIKEY", "AUTH", "AUTHORIZATION", "PASS", "PRIVATE", "SESSION", "SIGNATURE", "PAT"))
"""Parts of a name whose value is a secret where it is no ordinary word."""
_ELSEWHERE = frozenset(
    (
        "FILE",
        "PATH",
        "DIR",
        "DIRECTORY",
        "SOCK",
        "SOCKET",
        "URL",
        "URI",
        "HOST",
        "PORT",
        "TYPE",
        "MODE",
        "ENDPOINT",
        "ID",
        "TTY",
        "NAME",
        "ADDRESS",
    )
)
"""Last parts of names that say where a secret is, or of which kind, and are none. ``AWS_ACCESS_KEY_ID`` is one all the same."""
_NOT_SECRET = frozenset(("PWD", "OLDPWD"))
_IDS = frozenset(("AWS_ACCESS_KEY_ID",))
_WORDS = re.compile(r"[A-Za-z]+([ _.-][A-Za-z]+)*")
_NUMBER = re.compile(r"[-+]?[0-9]+(\.[0-9]+)?")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_LARGEST_FILE = 65_536
_FILES = (
    (".aws/credentials", "AWS_SHARED_CREDENTIALS_FILE"),
    (".config/gcloud/application_default_credentials.json", "GOOGLE_APPLICATION_CREDENTIALS"),
    (".cache/huggingface/token", "HF_TOKEN"),
    (".ray/auth_token", "RAY_AUTH_TOKEN"),
)
"""Below the home directory, and what their secrets are called."""
_LONGEST_WORD = 16
"""Characters above which a line of a secret of several lines, or the whole of a file, is looked for by itself."""

_FORMS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"-----BEGIN ([A-Z ]*PRIVATE KEY)-----.*?(-----END \1-----|\Z)", re.DOTALL), r"<\1>"),
    (re.compile(r"(?<=://)[^/\s'\"<>]*@"), "<login>@"),
    (re.compile(r"(?<=://)[^/\s'\"<>@:]+:[^\s'\"<>@]+@"), "<login>@"),  # a password with a slash in it
    (
        re.compile(r"(?i)([?&](?:[\w-]*[_-])?(?:signature|sig|token|secret|password|credential|api_?key|access_?key)=)[^&\s'\"<>]+"),
        r"\1<secret>",
    ),
    (re.compile(r"(?i)(authorization['\"]?\s*[:=]\s*(?:b?['\"])?(?:(?:bearer|basic|token)\s+)?+)[^\s'\",<>]{4,}"), r"\1<secret>"),
)


def redacted(text: str, environ: Mapping[str, str] = os.environ) -> str:
    """The text with every secret that this process knows replaced by its name; redacting again changes nothing."""
    if not text:
        return text
    found = {form: name for name, value in _secrets(environ) for form in _forms(value)}
    if found:
        longest_first = sorted(found, key=len, reverse=True)
        text = re.sub("|".join(map(re.escape, longest_first)), lambda match: f"<{found[match[0]]}>", text)
    for form, shown in _FORMS:
        text = form.sub(shown, text)
    return text


def _forms(value: str) -> Iterator[str]:
    """A secret as it is, as Python and JSON quote it, as URLs do, and what of it is likely to stand alone."""
    yield value
    yield repr(value)[1:-1]
    yield json.dumps(value)[1:-1]
    yield quote(value, safe="")
    if "\n" in value:
        yield from (line for line in map(str.strip, value.splitlines()) if len(line) > _LONGEST_WORD and not line.startswith("-----"))


def _secrets(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Name and value of what this process knows. What is told first names it."""
    home = Path(environ.get("HOME") or Path.home())
    files = [(home / inner, name) for inner, name in _FILES]
    # Later ones win, and a variable's own name says more than that of the place where its value is kept too.
    for path in [Path(environ["NETRC"]).expanduser()] if environ.get("NETRC") else [home / ".netrc", home / "_netrc"]:
        with contextlib.suppress(OSError, netrc.NetrcParseError, UnicodeError):
            hosts = netrc.netrc(path).hosts
            yield from ((f"netrc {host}", login[2]) for host, login in hosts.items() if login[2] and len(login[2]) >= SHORTEST)
    files += [(Path(value), name) for name, value in environ.items() if _names_a_secret(name) and _is_file(value)]
    for path, name in files:
        yield from ((name, value) for value in _inside(path) if len(value) >= SHORTEST)
    yield from ((name, value.strip()) for name, value in environ.items() if _is_secret(name, value.strip()))


def _is_secret(name: str, value: str) -> bool:
    parts = _parts(name)
    if len(value) < SHORTEST or name in _NOT_SECRET or not (_names_a_secret(name) or name in _IDS):
        return False
    if name not in _IDS and parts[-1] in _ELSEWHERE and not value.lstrip().startswith(("{", "-----BEGIN")):
        return False
    if _NUMBER.fullmatch(value) or _ADDRESS.match(value) or _is_there(value):
        return False
    return bool(_SURE & set(parts)) or not _WORDS.fullmatch(value)


def _parts(name: str) -> list[str]:
    return re.split(r"[^A-Z0-9]+", name.upper())


def _names_a_secret(name: str) -> bool:
    return bool((_SURE | _LIKELY) & set(_parts(name)))


def _is_there(value: str) -> bool:
    """Whether the value is a path: a secret may begin with a slash, but names nothing."""
    return value.startswith(("/", "~", ".")) and os.path.exists(os.path.expanduser(value))


def _is_file(value: str) -> bool:
    return _is_there(value) and os.path.isfile(value)


def _inside(path: Path) -> Iterator[str]:
    """What is secret in a file of credentials: of JSON and INI, values with the name of a secret; of anything else, the whole."""
    try:
        if path.stat().st_size > _LARGEST_FILE:
            return
        text = path.read_text().strip()
    except (OSError, ValueError):
        return
    try:
        yield from _named(json.loads(text))
        return
    except (ValueError, RecursionError):
        pass
    pairs = re.findall(r"(?m)^\s*([A-Za-z0-9_.-]+)\s*[=:]\s*(.+?)\s*$", text)
    if pairs and not text.startswith("-----"):
        yield from (value for name, value in pairs if _names_a_secret(name))
    elif text:
        yield text


def _named(found: Any) -> Iterator[str]:
    if isinstance(found, dict):
        for name, value in found.items():
            if isinstance(value, str) and _names_a_secret(name):
                yield value
            else:
                yield from _named(value)
    elif isinstance(found, list):
        for value in found:
            yield from _named(value)

"""The folder is the registry: a value class lives in the file of its name, and a file that exists is found."""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
from typing import TypeVar

from search_spaces import nearest

T = TypeVar("T")


@functools.cache
def names(package: str) -> tuple[str, ...]:
    """Names of the files of a package such as ``trainables.methods``, without importing them."""
    path = importlib.import_module(package).__path__
    return tuple(sorted(module.name for module in pkgutil.iter_modules(path) if not module.name.startswith("_")))


def load(package: str, name: str, kind: type[T]) -> type[T]:
    """The one concrete subclass of ``kind`` that the file ``name`` of the package defines.

    Raises:
        KeyError: no such file; the message suggests the nearest name.
        TypeError: the file does not define exactly one.
    """
    known = names(package)
    if name not in known:
        what = package.rpartition(".")[2]
        raise KeyError(f"{name} is not among the {what} ({', '.join(known)}).{nearest(name, known)}")
    module = importlib.import_module(f"{package}.{name}")
    found = [
        value
        for value in vars(module).values()
        if inspect.isclass(value)
        and issubclass(value, kind)
        and not inspect.isabstract(value)
        and value.__module__ == module.__name__
        and not value.__name__.startswith("_")
    ]
    if len(found) != 1:
        raise TypeError(f"{module.__name__} needs exactly one {kind.__name__}, but has {[c.__name__ for c in found]}.")
    return found[0]


def name_of(value: object) -> str:
    """The name under which ``load`` finds the class of a value: that of its file."""
    return type(value).__module__.rpartition(".")[2]

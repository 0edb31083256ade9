"""Relaunch: a study as it was launched last, from its journal alone, and what that needs to be given more blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from orchestrator.errors import Refused, StorageError
from orchestrator.reading import study_of
from orchestrator.record import Record
from orchestrator.storage import local_path
from orchestrator.study import Study
from search_spaces import Value


def is_asynchronous(record: Record) -> bool:
    """Whether it was begun with ``--async``."""
    return record.study is not None and record.study.get("mode") == "async"


def study_again(folder: str, record: Record, overrides: Sequence[str] = (), options: Mapping[str, Value | None] | None = None) -> Study:
    """The study of the last launch: its text holds all that the command line said of it. Its results are those of ``folder``,
    wherever that was when it was launched.

    Args:
        folder: of the results; the journal in it has made ``record``.
        overrides: as of ``study_of``.
        options: keys of ``run``, in place of what the last launch had.

    Raises:
        StorageError: the folder has another name than the study, or its journal holds no text. StudyError: this version of
            kdsweep does not take the text for valid any more.
    """
    storage, name = _split(folder)
    launch = record.launches[-1]
    if name != launch["study"]:
        raise StorageError(
            f"A study needs a folder of its own name, {launch['study']}, but got {folder}. Give the folder its name back, then go on."
        )
    text = launch.get("text")
    if not isinstance(text, str) or not text.strip():
        raise StorageError(f"Going on from {folder} needs the study's text in its journal, but got none. Use `kdsweep run` with the file.")
    return study_of(text, overrides, f"{folder} as it was launched", {**(options or {}), "storage": storage})


def check_extension(folder: str, study: Study, record: Record, blocks: int) -> None:
    """Refuse to extend what cannot be extended.

    Raises:
        Refused: there is no stage two, or it has as many blocks already, or the journal is too old to tell.
    """
    if study.confirm is None:
        raise Refused(f"`kdsweep extend` needs a study with a section confirm, but got {folder} without: there are no blocks to add to.")
    if record.study is None or record.study.get("blocks") is None or record.blocks is None:
        raise Refused(
            f"`kdsweep extend` needs a journal that tells how many blocks were planned, but got {folder}, which was begun with a version "
            "of kdsweep that did not. Give the study another name to plan more."
        )
    if blocks <= record.blocks:
        raise Refused(
            f"`kdsweep extend` needs more blocks than the {record.blocks} that are planned, but got --blocks {blocks}. It is the new "
            "total, and what was planned is not taken back."
        )


def _split(folder: str) -> tuple[str, str]:
    """Storage and name of a folder of results."""
    path = local_path(folder)
    if path is None:
        storage, _, name = folder.rstrip("/").rpartition("/")
        return storage, name
    if path.name in ("", ".."):
        path = Path(path).resolve()
    return str(path.parent), path.name

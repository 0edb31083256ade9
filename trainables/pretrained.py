"""Networks of the ``transformers`` library: imported when one is built, made from a configuration or filled from a checkpoint.

Checkpoints are a folder that ``save_pretrained`` wrote, below KDSWEEP_DATA if relative, or an id of the Hugging Face hub, read as
safetensors: never as pickles.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

_MAIN = "main"
_FILES = ("model.safetensors", "model.safetensors.index.json")
"""Of a checkpoint in one file, and of one in several."""


def library(title: str) -> Any:
    """The ``transformers`` module.

    Raises:
        ImportError: it is not installed, or cannot be imported here; the message names the extra.
    """
    try:
        return importlib.import_module("transformers")
    except ImportError as fault:
        raise ImportError(
            f"{title} needs the package transformers, but got none ({fault}). It comes with an extra: run `pip install 'kdsweep[models]'`."
        ) from fault


def made(title: str, kind: str, task: str, settings: Mapping[str, Any], classes: int, weights: str = "", revision: str = "") -> Any:
    """The library's network ``kind + task`` ("ResNet" + "ForImageClassification") of these settings, its weights drawn, or read where given.

    What is read keeps its own number of classes: see ``fitted``. Of a hub id without a revision it is whatever is newest there.

    Raises:
        ImportError: the library is missing.
        ValueError: the weights are not to be had, are no safetensors, or belong to another network.
    """
    transformers = library(title)
    network = getattr(transformers, kind + task)
    if not weights:
        return network(getattr(transformers, f"{kind}Config")(num_labels=classes, **settings))
    found, place = _configured(title, kind, settings, weights, revision)
    try:
        filled, report = network.from_pretrained(place.name, config=found, use_safetensors=True, output_loading_info=True, **place.options)
    except (OSError, ValueError, RuntimeError) as fault:
        raise _not_to_be_had(title, weights, fault) from fault
    missing = sorted(name for name in report["missing_keys"] if not name.startswith("classifier"))
    if missing:
        raise ValueError(
            f"{title} needs weights for all of its layers, but got weights={weights!r} without {len(missing)}, {missing[0]} among them."
        )
    return filled.float().train()


def stocked(title: str, kind: str, settings: Mapping[str, Any], weights: str, revision: str) -> tuple[str, ...]:
    """Look whether ``made`` would find the weights, and whether they are of such a network, by configuration and headers alone.

    What is going to be fetched is told in a sentence; a configuration is fetched to be looked at.

    Raises:
        ImportError, ValueError: as ``made``.
    """
    if not weights:
        return ()
    _, place = _configured(title, kind, settings, weights, revision)
    if place.folder is not None:
        files = sorted(place.folder.glob("model*.safetensors"))
        if not files:
            raise _not_to_be_had(title, weights, FileNotFoundError(f"{place.folder} has no model.safetensors"))
        _check_headers(title, weights, files)
        return ()
    return _stocked_on_hub(title, weights, place.options["revision"])


def _stocked_on_hub(title: str, weights: str, revision: str) -> tuple[str, ...]:
    import huggingface_hub

    for name in _FILES:
        kept = huggingface_hub.try_to_load_from_cache(weights, name, revision=revision)
        if isinstance(kept, str):
            _check_headers(title, weights, [Path(kept)] if kept.endswith(".safetensors") else [])
            return ()
    try:
        told = huggingface_hub.model_info(weights, revision=revision, files_metadata=True)
    except Exception as fault:  # whatever its HTTP client raises: that was another package in each of three versions
        raise _not_to_be_had(title, weights, fault) from fault
    sizes = [each.size or 0 for each in told.siblings or () if each.rfilename.endswith(".safetensors")]
    if not sizes:
        raise _not_to_be_had(title, weights, FileNotFoundError("it has no safetensors"))
    return (f"Weights {weights} will be fetched on every machine that trains: {sum(sizes) / 1e6:,.0f} MB.",)


def _check_headers(title: str, weights: str, files: Sequence[Path]) -> None:
    """A file that was cut short, or is a pointer of Git LFS, is told by its header, which says how long the file is."""
    from safetensors import SafetensorError, safe_open

    for file in files:
        try:
            with safe_open(file, framework="pt"):
                pass
        except (SafetensorError, OSError) as fault:
            raise _not_to_be_had(title, weights, ValueError(f"{file}: {fault}")) from fault


@dataclass(frozen=True)
class _Place:
    """Where a checkpoint lies."""

    name: str
    """Path or hub id."""
    folder: Path | None
    options: Mapping[str, Any]


def _configured(title: str, kind: str, settings: Mapping[str, Any], weights: str, revision: str) -> tuple[Any, _Place]:
    """The configuration of a checkpoint, which is known to be that of such a network, and where it lies."""
    transformers = library(title)
    folder = Path(os.environ.get("KDSWEEP_DATA", "")) / Path(weights).expanduser()
    is_folder = folder.is_dir()
    place = _Place(
        str(folder) if is_folder else weights, folder if is_folder else None, {"local_files_only": is_folder, "revision": revision or _MAIN}
    )
    try:
        found = transformers.AutoConfig.from_pretrained(place.name, **place.options)
    except (OSError, ValueError) as fault:
        raise _not_to_be_had(title, weights, fault) from fault
    wanted = getattr(transformers, f"{kind}Config")(**settings)
    if found.model_type != wanted.model_type:
        raise ValueError(f"{title} needs weights of a {wanted.model_type}, but got weights={weights!r} of a {found.model_type}.")
    # How much is left out in training is this study's, not the checkpoint's.
    for name in settings:
        if "drop" in name:
            setattr(found, name, getattr(wanted, name))
        elif _plain(getattr(found, name)) != _plain(getattr(wanted, name)):
            raise ValueError(
                f"{title} needs weights of a network with {name}={getattr(wanted, name)}, but got weights={weights!r} with "
                f"{name}={getattr(found, name)}. Change the family's fields to fit the checkpoint."
            )
    return found, place


def fitted(head: nn.Linear, classes: int, has_background: bool = False) -> nn.Linear:
    """A checkpoint's classifier where it has so many classes, and one drawn anew, as torch does it, where it has others.

    ``has_background``: checkpoints may have one class more in front, which is none of the data's; its row is then left out.
    """
    if head.out_features == classes:
        return head
    new = nn.Linear(head.in_features, classes)
    if has_background and head.out_features == classes + 1:
        new.load_state_dict({"weight": head.weight.detach()[1:], "bias": head.bias.detach()[1:]})
    return new


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _not_to_be_had(title: str, weights: str, fault: Exception) -> ValueError:
    first = str(fault).strip().partition("\n")[0]
    return ValueError(
        f"{title} needs weights to be a folder with config.json and model.safetensors, or an id of the hub, but got weights={weights!r} "
        f"({first}). Download it once with `hf download`, or convert it with save_pretrained."
    )

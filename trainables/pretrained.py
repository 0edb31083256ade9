"""Networks of the ``transformers`` library: imported when one is built, made from a configuration or filled from a checkpoint.

Checkpoints are a folder that ``save_pretrained`` wrote or an id of the Hugging Face hub, read as safetensors: never as pickles.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

_MAIN = "main"


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
    network, configuration = getattr(transformers, kind + task), getattr(transformers, f"{kind}Config")
    if not weights:
        return network(configuration(num_labels=classes, **settings))
    is_folder = Path(weights).is_dir()
    place: dict[str, Any] = {"local_files_only": is_folder, "revision": revision or _MAIN}
    try:
        found = transformers.AutoConfig.from_pretrained(weights, **place)
    except (OSError, ValueError) as fault:
        raise _not_to_be_had(title, weights, fault) from fault
    wanted = configuration(**settings)
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
    try:
        filled, report = network.from_pretrained(weights, config=found, use_safetensors=True, output_loading_info=True, **place)
    except (OSError, ValueError, RuntimeError) as fault:
        raise _not_to_be_had(title, weights, fault) from fault
    missing = sorted(name for name in report["missing_keys"] if not name.startswith("classifier"))
    if missing:
        raise ValueError(
            f"{title} needs weights for all of its layers, but got weights={weights!r} without {len(missing)}, {missing[0]} among them."
        )
    return filled.float().train()


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

"""Teachers: kept in the store by the id of the trial that trained them, loaded frozen, and asked only once about a row."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor

from trainables.device import Device
from trainables.distiller import Outputs
from trainables.evaluate import outputs_over
from trainables.network import Network, outputs_of
from trainables.pixels import Inputs, ready
from trainables.recipe import FLOAT32
from trainables.store import Store
from trainables.trial import Trial
from trainables.views import FIXED, PLAIN

OUTPUTS = "outputs/"
"""What names of outputs in the store begin with."""
REMEMBERED_BYTES = 2**28
"""Most that the outputs over one part in one view come to if they are to be kept: logits of 50,000 rows and 100 classes are 20 MB, a
map of 32 channels of 16x16 is 1.6 GB."""
STORED_WORK = 10**9
"""Rows times parameters from which on outputs are worth a file: a multiplication per parameter and row, and of a convolution some
hundred, so that what is not stored takes seconds on a processor and less than reading it on anything faster."""


def name_of_weights(trial_id: str) -> str:
    """Where the store keeps the teacher that a trial trained."""
    return f"teachers/{trial_id}.pt"


def name_of_outputs(trial_id: str, part: str, view: str, precision: str) -> str:
    """Where the store keeps what the teacher that a trial trained says of a part of its data."""
    return f"{OUTPUTS}{trial_id}-{part}-{view}-{precision}.pt"


class FrozenTeacher:
    """A trained network that never changes again, with its outputs over views of the data that do not change either.

    Outputs that fit (``remembers``) are computed once and kept. Where that took more than reading them does, they are also kept
    in the store, for other lanes, arms and launches.
    """

    def __init__(self, network: Network, device: Device, precision: str = FLOAT32, shelf: tuple[Store, str] | None = None) -> None:
        """``precision`` is that of the recipe which trained it. ``shelf``: the store and the id of the trial that trained it."""
        self.network = network.requires_grad_(False).eval()
        self.precision = precision
        self._device = device
        self._shelf = shelf
        self._known: dict[tuple[str, str], Outputs] = {}

    def remembers(self, inputs: Inputs, features: Sequence[str] = (), views: int = 1) -> bool:
        """Whether outputs over all rows of inputs are kept; others are asked for batch by batch."""
        return len(inputs) * views * self._row_bytes(inputs, tuple(features)) <= REMEMBERED_BYTES

    def live(self, inputs: Tensor, features: Sequence[str] = ()) -> Outputs:
        """Outputs for what is shown now: (B, ...) -> (B, K) logits and the named maps."""
        with torch.no_grad():
            return outputs_of(self.network, inputs, features, self.precision)

    def over(self, part: str, inputs: Inputs, features: Sequence[str] = (), view: str = PLAIN) -> Outputs:
        """Outputs over all rows of a part ("train", "holdout", "test") of the one split it was trained on; kept after the first time.

        (N, ...) -> (N, K) logits and exactly the named maps
        """
        known = self._known.get((part, view))
        if known is None or set(features) - set(known.features):
            wanted = tuple(dict.fromkeys((*(known.features if known else ()), *features)))
            known = self._found(part, inputs, wanted, view)
            self._known[part, view] = known
            self._device.boundary()  # no part of the graph of whoever asks first
        return Outputs(known.logits, {name: known.features[name] for name in features})

    def views(self, part: str, inputs: Inputs, kinds: Sequence[str], features: Sequence[str]) -> Outputs:
        """Outputs in every view, one that changes shown plain: (N, ...) for one view, (V, N, ...) for several."""
        return stacked([self.over(part, inputs, features, kind if kind in FIXED else PLAIN) for kind in kinds])

    def _found(self, part: str, inputs: Inputs, features: tuple[str, ...], view: str) -> Outputs:
        if self._shelf is None or len(inputs) * self._parameters < STORED_WORK:
            return outputs_over(self.network, inputs, self._device, features, self.precision, view)
        store, trial = self._shelf
        name = name_of_outputs(trial, part, view, self.precision)
        stored = self._read(store.read(name), len(inputs), features)
        # Together or not at all: where several processes run one program, all of them have to be in it.
        if all(self._device.gathered(int(stored is not None))) and stored is not None:
            return stored
        found = outputs_over(self.network, inputs, self._device, features, self.precision, view)
        content = self._device.to_bytes({"weights": self._digest, "logits": found.logits, "features": dict(found.features)})
        if self._device.is_first:
            store.write(name, content)
        return found

    def _read(self, data: bytes | None, rows: int, features: tuple[str, ...]) -> Outputs | None:
        """Outputs of these very weights; None where anything is missing or damaged, which costs time alone."""
        try:
            content = None if data is None else self._device.from_bytes(data)
            if content is None or content["weights"] != self._digest or len(content["logits"]) != rows or content["logits"].dim() != 2:
                return None
            there = self._device.torch_device
            return Outputs(content["logits"].to(there), {name: content["features"][name].to(there) for name in features})
        except (ValueError, TypeError, KeyError, AttributeError):
            return None

    def _row_bytes(self, inputs: Inputs, features: tuple[str, ...]) -> int:
        found = self.live(ready(inputs, torch.zeros(1, dtype=torch.int64)), features)
        return 4 * (found.logits.numel() + sum(value.numel() for value in found.features.values()))

    @property
    def _parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.network.parameters())

    @cached_property
    def _digest(self) -> str:
        found = hashlib.sha256()
        for name, value in sorted(self.network.state_dict().items()):
            found.update(name.encode())
            found.update(self._device.everywhere(value).cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
        return found.hexdigest()


def stacked(found: Sequence[Outputs]) -> Outputs:
    """One axis V in front of several outputs; a single one as it is."""
    if len(found) == 1:
        return found[0]
    maps = {name: torch.stack([outputs.features[name] for outputs in found]) for name in found[0].features}
    return Outputs(torch.stack([outputs.logits for outputs in found]), maps)


def keep(trial: Trial, weights: Mapping[str, Tensor], shape: tuple[int, ...], classes: int, store: Store, device: Device) -> None:
    """Write what a teacher trial ended with: everything that ``teacher_for`` needs to build it again."""
    content = {"shape": shape, "classes": classes, "weights": dict(weights)}
    store.write(name_of_weights(trial.id), device.to_bytes(content))


def network_of(trial: Trial, store: Store, device: Device) -> FrozenTeacher:
    """The network that a trial trained, for others to learn from.

    Raises:
        FileNotFoundError: it is not in the store: that trial comes first.
        ValueError: what the store holds is not a network.
    """
    name = name_of_weights(trial.id)
    data = store.read(name)
    if data is None:
        raise FileNotFoundError(f"A teacher needs to be in the store, but got no {name} below {store.root}. Finish trial {trial.id} first.")
    try:
        content = device.from_bytes(data)
        with device.generators_kept():  # building draws weights, which are then replaced
            network = trial.model.build(tuple(content["shape"]), content["classes"])
        network.load_state_dict(content["weights"])
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        if device.is_out_of_memory(error):
            raise
        raise ValueError(
            f"A teacher needs the weights that trial {trial.id} ended with, but got something else in {name} below {store.root} ({error}). "
            "Restore it from a copy of the study's folder, or run the study with another --storage: the same weights are then trained again."
        ) from error
    return FrozenTeacher(network.to(device.torch_device), device, trial.recipe.precision, (store, trial.id))

"""Teachers: kept in the store by the id of the trial that trained them, loaded frozen, and asked only once about a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from trainables.device import Device
from trainables.distiller import Outputs
from trainables.evaluate import outputs_over
from trainables.network import Network
from trainables.recipe import FLOAT32
from trainables.store import Store
from trainables.trial import Trial
from trainables.views import FIXED, PLAIN, shown


def name_of_weights(trial_id: str) -> str:
    """Where the store keeps the teacher that a trial trained."""
    return f"teachers/{trial_id}.pt"


class FrozenTeacher:
    """A trained network that never changes again, with its outputs over views of the data that do not change either."""

    def __init__(self, network: Network, device: Device, precision: str = FLOAT32) -> None:
        """``precision`` is that of the recipe which trained it."""
        self.network = network.requires_grad_(False).eval()
        self.precision = precision
        self._device = device
        self._known: dict[tuple[str, str], Outputs] = {}

    def over(self, part: str, inputs: Tensor, features: Sequence[str] = (), view: str = PLAIN) -> Outputs:
        """Outputs over all rows of a part ("train", "holdout", "test") of the one split it was trained on; kept after the first time.

        (N, C, H, W) -> (N, K) logits and exactly the named maps
        """
        known = self._known.get((part, view))
        if known is None or set(features) - set(known.features):
            wanted = dict.fromkeys((*(known.features if known else ()), *features))
            known = outputs_over(self.network, shown(view, inputs), self._device, tuple(wanted), self.precision)
            self._known[part, view] = known
            self._device.boundary()  # no part of the graph of whoever asks first
        return Outputs(known.logits, {name: known.features[name] for name in features})

    def views(self, part: str, inputs: Tensor, kinds: Sequence[str], features: Sequence[str]) -> Outputs:
        """Outputs in every view, one that changes shown plain: (N, ...) for one view, (V, N, ...) for several."""
        found = [self.over(part, inputs, features, kind if kind in FIXED else PLAIN) for kind in kinds]
        if len(found) == 1:
            return found[0]
        maps = {name: torch.stack([outputs.features[name] for outputs in found]) for name in features}
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
    return FrozenTeacher(network.to(device.torch_device), device, trial.recipe.precision)

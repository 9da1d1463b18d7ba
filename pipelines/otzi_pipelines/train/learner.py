"""A network with its optimiser: one step of learning, a test, and a state to go on from."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from otzi.errors import ConfigurationError
from otzi.metrics import Agreement
from otzi.networks.unet import UNet, UNetConfig
from otzi.tiles.infer import choose_device
from otzi_pipelines.train.checkpoint import Checkpoint
from otzi_pipelines.train.losses import cross_entropy

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    from numpy.typing import NDArray

    from otzi.networks.weights import Device
    from otzi_pipelines.train.crops import Crop
    from otzi_pipelines.train.settings import TrainSettings

__all__ = ["Learner", "network_config"]

_HEAD = "head."


def network_config(
    settings: TrainSettings, n_classes: int, origin: UNetConfig | None = None
) -> UNetConfig:
    """Give the network that settings mean, or `origin`, that of the model to start from.

    Raises
    ------
    ConfigurationError
        If the settings ask for another network than `origin`, the crops do not fit the network,
        or the class weights the classes.
    """
    keys = ("width", "levels", "kernel")
    asked = {key: value for key in keys if (value := getattr(settings, key)) is not None}
    if origin is None:
        config = UNetConfig(n_classes, **asked)
    else:
        config = replace(origin, n_classes=n_classes)
        for key, value in asked.items():
            if value != getattr(origin, key):
                raise ConfigurationError(
                    f"{key} = {value}, but the network to start from has {getattr(origin, key)}: "
                    "leave it out"
                )
    if settings.crop_voxels % config.size_multiple:
        raise ConfigurationError(
            f"crop_voxels = {settings.crop_voxels} must be a multiple of {config.size_multiple} "
            f"for {config.levels} levels"
        )
    if settings.class_weights and len(settings.class_weights) != n_classes:
        raise ConfigurationError(
            f"class_weights has {len(settings.class_weights)} values for {n_classes} classes"
        )
    return config


class Learner:
    """A network that learns.

    Parameters
    ----------
    config
        The network to make.
    settings
        Of the training; its seed decides the first weights.
    device, threads
        Where, and on how many processor threads (torch's own choice if None).
    """

    def __init__(
        self,
        config: UNetConfig,
        settings: TrainSettings,
        *,
        device: Device = "auto",
        threads: int | None = None,
    ) -> None:
        if threads:
            torch.set_num_threads(threads)
        self.device = choose_device(device)
        self.network = UNet(config)
        self.network.initialise(torch.Generator().manual_seed(settings.seed))
        # Channels last: on a processor the way back through a narrow network takes half the time.
        self.network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.network.to(self.device).train()
        self.optimiser = torch.optim.Adam(
            self.network.parameters(), betas=(0.9, 0.999), weight_decay=settings.weight_decay
        )
        self.class_weights = (
            torch.tensor(settings.class_weights, device=self.device)
            if settings.class_weights
            else None
        )

    def start_from(self, other: UNet, *, keep_head: bool) -> None:
        """Take over the weights of a network of the same config; without its head, ours is new."""
        taken = other.state_dict()
        if not keep_head:
            taken = {n: tensor for n, tensor in taken.items() if not n.startswith(_HEAD)}
        self.network.load_state_dict(self.network.state_dict() | taken)

    def learn(
        self,
        density: NDArray[np.float32],
        target: NDArray[np.float32],
        learning_rate: float,
    ) -> float:
        """Take one step and give the loss before it.

        Parameters
        ----------
        density
            ``(b, 1, z, y, x)``, normalised.
        target
            ``(b, c, z, y, x)`` in [0, 1]; all zero where nothing is known.
        learning_rate
            Of this step.
        """
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate
        self.optimiser.zero_grad(set_to_none=True)
        logits = self.network(self._on_device(density))
        loss = cross_entropy(logits, self._on_device(target), self.class_weights)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        return float(loss.detach())

    def test(self, crops: Iterable[Crop]) -> Agreement:
        """Give the agreement of the network's probabilities with what is known of the crops."""
        agreement = Agreement.none(self.network.config.n_classes)
        self.network.eval()
        with torch.inference_mode():
            for crop in crops:
                (logits,) = self.network(self._on_device(crop.density[None, None]))
                probabilities = torch.softmax(logits, dim=0).cpu().numpy()
                known = crop.target.any(axis=0)
                agreement += Agreement.measure(probabilities[:, known], crop.target[:, known])
        self.network.train()
        return agreement

    def checkpoint(self, step: int, notes: dict[str, Any]) -> Checkpoint:
        """Give all that learning goes on from after `step` steps."""
        return Checkpoint(step, notes, self.network.state_dict(), self.optimiser.state_dict())

    def take_up(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint of the same network."""
        self.network.load_state_dict(checkpoint.network)
        self.optimiser.load_state_dict(checkpoint.optimiser)

    def _on_device(self, values: NDArray[np.float32]) -> torch.Tensor:
        return torch.from_numpy(values).to(self.device)

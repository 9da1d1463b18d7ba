"""A network with its optimiser: one step of learning, a test, and a state to go on from."""

from __future__ import annotations

import copy
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, pairwise
from math import isfinite
from typing import TYPE_CHECKING, Any

import torch

from otzi.errors import ModelError
from otzi.events import Listener, Warned, ignore
from otzi.metrics import Agreement
from otzi.networks.batch_norm import train_together
from otzi.networks.torch_compile import compiled
from otzi.networks.volume_norm import measure_statistics
from otzi_pipelines.train.augment import Change
from otzi_pipelines.train.batch import density_of, target_of
from otzi_pipelines.train.checkpoint import Checkpoint
from otzi_pipelines.train.losses import known_weight, loss_sum
from otzi_pipelines.train.processes import ALONE, Team
from otzi_pipelines.train.resources import enough_memory, precision_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from torch import Tensor

    from otzi.networks.network import Network
    from otzi_pipelines.train.crops import Crop
    from otzi_pipelines.train.settings import TrainSettings

__all__ = ["Judgement", "Learner"]

_UNCHANGED = Change()


@dataclass(frozen=True, slots=True)
class Judgement:
    """How well a network does on crops that it did not learn from."""

    agreement: Agreement
    loss: float | None
    """Mean over what is known; None if nothing is."""


class Learner:
    """A network that learns.

    Parameters
    ----------
    network
        To begin with; it is moved and changed.
    settings
        Of the training.
    device
        Where.
    team
        The processes that learn the same, of which this is one.
    listen
        Told whether the network is compiled, if it is to be.

    Batch norms of a team see the crops of all its processes.
    """

    def __init__(
        self,
        network: Network,
        settings: TrainSettings,
        device: torch.device,
        team: Team = ALONE,
        listen: Listener = ignore,
    ) -> None:
        self.settings, self.device, self.team = settings, device, team
        # Channels last: on a processor the way back through a narrow network takes half the time.
        network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.network = network.to(device).train()
        self.averaged = copy.deepcopy(network).eval() if settings.ema_decay else None
        self.optimiser = torch.optim.Adam(
            network.parameters(), betas=(0.9, 0.999), weight_decay=settings.weight_decay
        )
        weights = settings.class_weights
        self.class_weights = torch.tensor(weights, device=device) if weights else None
        self._precision = precision_of(settings, device)
        self._forward: Callable[[Tensor], Tensor] = self.network
        waits = team.size > 1 and train_together(network, team) > 0
        if settings.compiled and waits:
            listen(Warned("the network is not compiled: its norms wait for other processes"))
        elif settings.compiled:
            with self._in_precision():
                self._forward = compiled(self.network, self._example(), listen=listen)
        # Gradients in float16 would vanish; bfloat16 has the range of float32.
        self.scaler = torch.amp.GradScaler(device.type, enabled=self._precision == torch.float16)

    @property
    def judged(self) -> Network:
        """The network that is judged and saved."""
        return self.network if self.averaged is None else self.averaged

    def learn(
        self, crops: Sequence[Crop], changes: Sequence[Change], learning_rate: float
    ) -> float:
        """Take one step and give the mean loss before it, over the crops of all processes.

        Parameters
        ----------
        crops, changes
            This process's, and how they are changed.
        learning_rate
            Of this step.

        Raises
        ------
        ModelError
            If the loss is no number; the weights are those before the step.
        MemoryBudgetError
            If it does not fit into memory.
        """
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate
        self.optimiser.zero_grad(set_to_none=True)
        changed = list(zip(crops, changes, strict=True))
        with enough_memory(self.settings, self.device):
            loss = self._gradients(changed)
            if not isfinite(loss):
                raise ModelError(f"the loss is {loss}: {self._culprit(changed)}")
            if not self._may_step():
                raise ModelError(f"the gradient is not finite: {self._culprit(changed)}")
            self.scaler.step(self.optimiser)
            self.scaler.update()
        self._average()
        return loss

    def _gradients(self, changed: Sequence[tuple[Crop, Change]]) -> float:
        """Leave the gradients of the mean loss over all crops, and give that loss."""
        # A sum is divided by how much is known of the whole batch once that has been seen; until
        # then by the number of its voxels, which keeps it within range.
        nominal = float(self.settings.batch * self.settings.crop_voxels**3)
        total, known = torch.zeros((2, 1), device=self.device)
        n_parts = min(self.settings.accumulate, len(changed))
        # In order: part by part, all processes together learn from what one would.
        bounds = [len(changed) * i // n_parts for i in range(n_parts + 1)]
        for part in (changed[i:j] for i, j in pairwise(bounds)):
            density, target = self._batch(part)
            loss = self._loss_sum(density, target) / nominal
            self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
            known += known_weight(target, self.class_weights) / nominal
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        self.team.add([*gradients, total, known])
        known = torch.where(known > 0, known, 1)
        self.scaler.unscale_(self.optimiser)
        for gradient in gradients:
            gradient /= known
        return float(total / known)

    def _may_step(self) -> bool:
        """Tell whether no weight would be lost by this gradient, of all processes."""
        if self.scaler.is_enabled():
            return True  # it leaves out such steps, and scales less from then on
        gradients = (p.grad for p in self.network.parameters() if p.grad is not None)
        return all(bool(gradient.isfinite().all()) for gradient in gradients)

    @torch.no_grad()
    def _culprit(self, changed: Sequence[tuple[Crop, Change]]) -> str:
        """Say which crop, of those of all processes, makes the loss no number, and what to do."""
        remedy = f"take a learning_rate below {self.settings.learning_rate:g}"
        bad_data: list[str] = []
        astray: list[str] = []
        # All are computed, whatever is found: norms wait for those of the other processes.
        for crop, change in changed:
            density, target = self._batch([(crop, change)])
            if not density.isfinite().all():
                bad_data.append(
                    f"the density of {crop} is not finite: ingest it with --preset train "
                    "--nonfinite fill --update"
                )
            elif not target.isfinite().all():
                bad_data.append(f"the labels of {crop} are not finite: label it again")
            if not self._loss_sum(density, target).isfinite():
                astray.append(f"learning went astray in {crop}: {remedy}")
        said = self.team.gather((bad_data, astray))
        return next((one for kind in zip(*said, strict=True) for one in chain(*kind)), remedy)

    @torch.no_grad()
    def _average(self) -> None:
        """Have the processes agree on what norms remember, and the averaged weights follow."""
        buffers = [buffer for buffer in self.network.buffers() if buffer.is_floating_point()]
        if buffers and self.team.size > 1:
            self.team.add(buffers)
            for buffer in buffers:
                buffer /= self.team.size
        if self.averaged is None:
            return
        follow = 1 - self.settings.ema_decay
        for mean, weight in zip(self.averaged.parameters(), self.network.parameters(), strict=True):
            mean.lerp_(weight, follow)
        for kept, buffer in zip(self.averaged.buffers(), self.network.buffers(), strict=True):
            kept.copy_(buffer)

    def settle(self, crops: Callable[[], Iterable[Crop]]) -> None:
        """Measure what norms of whole volumes need, on crops that stand for these."""
        measure_statistics(
            self.judged,
            lambda: (density_of(crop, self.device)[None, None] for crop in crops()),
        )

    def test(self, crops: Iterable[Crop]) -> Judgement:
        """Judge by what is known of crops, this process's share of them, for all processes."""
        agreement = Agreement.none(self.network.config.n_classes)
        total = known = 0.0
        for crop in crops:
            density, target = self._batch([(crop, _UNCHANGED)])
            with self._judging() as network:
                outputs = network(density)
                loss = loss_sum(self.settings.loss, network, outputs, target, self.class_weights)
                (probabilities,) = network.probabilities_of(outputs)
            total += float(loss)
            known += float(known_weight(target, self.class_weights))
            seen = target[0].any(dim=0)
            agreement += Agreement.measure(
                probabilities[:, seen].cpu().numpy(), target[0][:, seen].cpu().numpy()
            )
        said = self.team.gather((agreement, total, known))
        agreement, total, known = said[0]
        for their_agreement, their_total, their_known in said[1:]:
            agreement += their_agreement
            total += their_total
            known += their_known
        return Judgement(agreement, total / known if known else None)

    def predict(self, crop: Crop) -> Tensor:
        """Give ``(c, z, y, x)`` float32, the probabilities of a crop."""
        with self._judging() as network:
            density = density_of(crop, self.device)[None, None]
            return network.probabilities(density)[0].float()

    def checkpoint(self, step: int, notes: dict[str, Any]) -> Checkpoint:
        """Give all that learning goes on from after `step` steps."""
        return Checkpoint(
            step=step,
            notes=notes,
            network=self.network.state_dict(),
            averaged={} if self.averaged is None else self.averaged.state_dict(),
            optimiser=self.optimiser.state_dict(),
            scaler=self.scaler.state_dict(),
        )

    def take_up(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint of the same network."""
        self.network.load_state_dict(checkpoint.network)
        self.optimiser.load_state_dict(checkpoint.optimiser)
        self.scaler.load_state_dict(checkpoint.scaler)
        if self.averaged is not None:
            self.averaged.load_state_dict(checkpoint.averaged)

    def _batch(self, changed: Sequence[tuple[Crop, Change]]) -> tuple[Tensor, Tensor]:
        """Give ``(b, 1, z, y, x)`` density and ``(b, c, z, y, x)`` target, on the device."""
        hard = self.settings.targets == "hard"
        pairs = [
            change(density_of(crop, self.device), target_of(crop, self.device, hard=hard))
            for crop, change in changed
        ]
        densities, targets = zip(*pairs, strict=True)
        return torch.stack(densities)[:, None], torch.stack(targets)

    def _loss_sum(self, density: Tensor, target: Tensor) -> Tensor:
        with self._in_precision():
            outputs = self._forward(density)
        return loss_sum(self.settings.loss, self.network, outputs, target, self.class_weights)

    def _in_precision(self) -> torch.autocast:
        return torch.autocast(
            self.device.type, self._precision, enabled=self._precision != torch.float32
        )

    def _example(self) -> Tensor:
        """Give noise of the shape of what is learnt from at once, where that is done."""
        side, config = self.settings.crop_voxels, self.network.config
        n_crops = -(-self.settings.batch // (self.team.size * self.settings.accumulate))
        shape = (n_crops, config.in_channels, side, side, side)
        return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(self.device)

    @contextmanager
    def _judging(self) -> Iterator[Network]:
        """Give the network to be judged, in evaluation."""
        network = self.judged.eval()
        try:
            with torch.inference_mode():
                yield network
        finally:
            self.network.train()

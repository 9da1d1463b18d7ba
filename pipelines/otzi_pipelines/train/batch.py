"""Crops on the device of the network: normalised density and soft targets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from otzi_pipelines.train.crops import Crop

__all__ = ["density_of", "target_of"]


def density_of(crop: Crop, device: torch.device) -> Tensor:
    """Give ``(z, y, x)`` float32, normalised with its whole volume.

    It is not finite where the data are not. What is copied to the device is as narrow as what is
    stored; the crop stays as it is.
    """
    values = torch.from_numpy(crop.density).to(device).to(torch.float32, copy=True)
    if crop.volume.quantisation != (1.0, 0.0):
        scale, offset = crop.volume.quantisation
        values = values.mul_(scale).add_(offset)
    way = crop.volume.normalisation
    return values.clamp_(way.low, way.high).sub_(way.offset).div_(way.scale or 1.0)


def target_of(crop: Crop, device: torch.device, *, hard: bool = False) -> Tensor:
    """Give ``(c, z, y, x)`` float32 in [0, 1], summing to 1 over c; all 0 where nothing is known.

    With `hard`, all of each known voxel is of its most probable class, the first of several.
    """
    labels = torch.from_numpy(crop.labels).to(device)
    classes = torch.arange(len(crop.volume.classes), device=device)[:, None, None, None]
    if labels.ndim == 3:
        return (labels == classes).float()
    if hard:
        return ((labels.argmax(0) == classes) & (labels > 0).any(0)).float()
    soft = labels.float()
    return soft.div_(255) if labels.dtype == torch.uint8 else soft

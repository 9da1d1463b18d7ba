"""The slow, obvious versions: oracles of the fast ones, one section for each part."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    import torch

# Pyramids: eight voxels at a time


def mean_level(values: np.ndarray) -> np.ndarray:
    """Give the 2×2×2 mean of ``(…, z, y, x)``, rounded for integers, by NumPy alone."""
    z, y, x = (n // 2 for n in values.shape[-3:])
    even = values[..., : 2 * z, : 2 * y, : 2 * x].astype(np.float64)
    blocks = even.reshape(*values.shape[:-3], z, 2, y, 2, x, 2).mean(axis=(-5, -3, -1))
    return (np.rint(blocks) if values.dtype.kind in "iu" else blocks).astype(values.dtype)


def mode_level(labels: np.ndarray) -> np.ndarray:
    """Give the most frequent label of 2×2×2 blocks, the smallest of several."""
    z, y, x = (n // 2 for n in labels.shape)
    mode = np.zeros((z, y, x), labels.dtype)
    for i, j, k in np.ndindex(z, y, x):
        block = labels[2 * i : 2 * i + 2, 2 * j : 2 * j + 2, 2 * k : 2 * k + 2]
        mode[i, j, k] = np.bincount(block.ravel()).argmax()
    return mode


# Ramps: the threshold by its definition


def isodata_of_values(values: np.ndarray) -> float:
    """Give the Ridler-Calvard threshold of whole numbers, NaN where all are the same."""
    if len(np.unique(values)) < 2:
        return float("nan")
    threshold = values.mean()
    for _ in range(1000):
        following = (values[values <= threshold].mean() + values[values > threshold].mean()) / 2
        if abs(following - threshold) < 1e-15:
            break
        threshold = following
    return float(threshold)


# Tiles: every weight by its definition, every sum in Python's own order


def tile_starts(n: int, tile: int, overlap: int) -> list[int]:
    """Give where the tiles of an axis of `n` voxels begin nominally."""
    starts = [0]
    while starts[-1] + tile < n:
        starts.append(starts[-1] + tile - overlap)
    return starts


def tile_weight(v: int, start: int, n: int, tile: int, overlap: int) -> int:
    """Give the weight, of 64, of the tile that begins at `start` for voxel `v` of an axis."""
    starts = tile_starts(n, tile, overlap)
    if not start <= v < start + tile:
        return 0
    if start > 0 and v < start + overlap:
        return round(64 * (v - start + 0.5) / overlap)
    following = start + tile - overlap
    if following in starts and v >= following:
        return 64 - round(64 * (v - following + 0.5) / overlap)
    return 64


def steps_of_probabilities(probabilities: np.ndarray, n_steps: int) -> np.ndarray:
    """Give ``(c, z, y, x)`` integers that sum to `n_steps`, by rounding the cumulative sum."""
    upto = np.rint(np.cumsum(probabilities.astype(np.float32), axis=0, dtype=np.float32) * n_steps)
    upto[-1] = n_steps
    return np.diff(upto.astype(np.int64), axis=0, prepend=0)


def blended(volume: np.ndarray, model, tile: int, overlap: int) -> np.ndarray:
    """Give ``(c, z, y, x)`` int64, 16383 · 2¹⁸ times the blended probabilities of a volume."""
    total = np.zeros((len(model.classes), *volume.shape), np.int64)
    axes = [
        [
            (
                min(start, max(0, n - tile)),
                [tile_weight(v, start, n, tile, overlap) for v in range(n)],
            )
            for start in tile_starts(n, tile, overlap)
        ]
        for n in volume.shape
    ]
    for (z, wz), (y, wy), (x, wx) in itertools.product(*axes):
        seen = volume[z : z + tile, y : y + tile, x : x + tile]
        missing = [(0, -n % model.size_multiple) for n in seen.shape]
        inferred = model(np.pad(seen, missing, mode="reflect")[None, None])[0]
        steps = np.zeros_like(total)
        region = np.s_[:, z : z + seen.shape[0], y : y + seen.shape[1], x : x + seen.shape[2]]
        inside = inferred[:, : seen.shape[0], : seen.shape[1], : seen.shape[2]]
        steps[region] = steps_of_probabilities(inside, 16383)
        total += np.einsum("czyx,z,y,x->czyx", steps, wz, wy, wx)
    return total


def blended_uint8(total: np.ndarray) -> np.ndarray:
    """Give what is stored of `blended`: 255 steps, the cumulative sum rounded half up."""
    whole = 16383 * 2**18
    upto = (np.cumsum(total, axis=0) * 255 + whole // 2) // whole
    return np.diff(upto, axis=0, prepend=0).astype(np.uint8)


# Features: ilastik's definition, pass by pass in float64, eigenvalues by LAPACK


def sampled_gaussian(sigma: float, window: float, order: int) -> np.ndarray:
    """Give a kernel that is exact for polynomials of its order; odd ones for correlation."""
    radius = int(window * sigma + 0.5)
    x = np.arange(-radius, radius + 1.0)
    bell = np.exp(-0.5 * (x / sigma) ** 2)
    if order == 0:
        return bell / np.sum(bell)
    if order == 1:
        return x * bell / np.sum(x * x * bell)
    curved = (x**2 - sigma**2) * bell
    curved -= np.mean(curved)
    return curved / np.sum(curved * x**2 / 2)


def mirrored_filter(
    volume: np.ndarray, sigma: float, window: float, orders: tuple[int, ...]
) -> np.ndarray:
    """Filter each axis by its order of derivative, faces mirrored without the face itself."""
    for axis, order in enumerate(orders):
        kernel = sampled_gaussian(sigma, window, order)
        radius, n = len(kernel) // 2, volume.shape[axis]
        widths = [(radius, radius) if a == axis else (0, 0) for a in range(3)]
        padded = np.pad(volume, widths, mode="reflect")
        volume = sum(
            weight * padded.take(range(j, j + n), axis=axis) for j, weight in enumerate(kernel)
        )
    return volume


def eigenvalue_channels(entries: dict[tuple[int, int], np.ndarray]) -> list[np.ndarray]:
    """Give the eigenvalues, largest first, of tensors whose entries (i, j), i ≤ j, are given."""
    matrices = np.array([[entries[min(i, j), max(i, j)] for j in range(3)] for i in range(3)])
    return list(np.moveaxis(np.linalg.eigvalsh(np.moveaxis(matrices, (0, 1), (-2, -1))), -1, 0))[
        ::-1
    ]


def ilastik_features(
    volume: np.ndarray, scale: float, structure_tensor: str = "shipped"
) -> dict[str, list[np.ndarray]]:
    """Give the channels of each feature of one scale, float64."""
    image = mirrored_filter(
        volume.astype(np.float64), scale if scale <= 1 else np.sqrt(scale**2 - 1), 3.5, (0, 0, 0)
    )
    f = min(scale, 1.0)
    if scale < 0.7:
        return {"gaussian_smoothing": [mirrored_filter(image, f, 2, (0, 0, 0))]}
    axes = np.eye(3, dtype=int)
    pairs = [(i, j) for i in range(3) for j in range(i, 3)]
    smoothed = mirrored_filter(image, f, 2, (0, 0, 0))
    gradient = [mirrored_filter(image, f, 2, tuple(axes[i])) for i in range(3)]
    hessian = {(i, j): mirrored_filter(image, f, 2, tuple(axes[i] + axes[j])) for i, j in pairs}
    inner, outer = (0.5 * f, f) if structure_tensor == "shipped" else (f, 0.5 * f)
    steep = [mirrored_filter(image, inner, 2, tuple(axes[i])) for i in range(3)]
    tensor = {(i, j): mirrored_filter(steep[i] * steep[j], outer, 2, (0, 0, 0)) for i, j in pairs}
    return {
        "gaussian_smoothing": [smoothed],
        "laplacian_of_gaussian": [hessian[0, 0] + hessian[1, 1] + hessian[2, 2]],
        "gaussian_gradient_magnitude": [np.sqrt(sum(g**2 for g in gradient))],
        "difference_of_gaussians": [smoothed - mirrored_filter(image, 0.66 * f, 2, (0, 0, 0))],
        "structure_tensor_eigenvalues": eigenvalue_channels(tensor),
        "hessian_of_gaussian_eigenvalues": eigenvalue_channels(hessian),
    }


# Training: the loss, voxel by voxel


def mean_cross_entropy(logits: np.ndarray, target: np.ndarray, weights=None) -> float:
    """Give the weighted mean of ``-log softmax`` over ``(b, c, z, y, x)``, in float64."""
    surprise = total = 0.0
    for b, *voxel in np.ndindex(logits.shape[0], *logits.shape[2:]):
        at = (b, slice(None), *voxel)
        powers = np.exp(logits[at].astype(np.float64))
        for c, probability in enumerate(powers / powers.sum()):
            counted = float(target[at][c]) * (1 if weights is None else weights[c])
            surprise -= counted * np.log(probability)
            total += counted
    return surprise / total


# Strokes: every voxel against every segment, in rational numbers


def distance_squared_to_segment(voxel: tuple, start: tuple, stop: tuple) -> Fraction:
    """Give the squared distance of a point from a segment, exactly."""
    v, a, b = ([Fraction(c) for c in point] for point in (voxel, start, stop))
    along = [q - p for p, q in zip(a, b, strict=True)]
    offset = [q - p for p, q in zip(a, v, strict=True)]
    length_squared = sum(d * d for d in along)
    position = Fraction(0)
    if length_squared:
        dot = sum(o * d for o, d in zip(offset, along, strict=True))
        position = min(max(dot / length_squared, Fraction(0)), Fraction(1))
    return sum((o - position * d) ** 2 for o, d in zip(offset, along, strict=True))


def stroke_labels(
    strokes: list[tuple[int, float, list[tuple[float, float, float]]]], shape: tuple[int, ...]
) -> np.ndarray:
    """Give ``(z, y, x)``: 0, or 1 + class of the last stroke (class, radius, points) there."""
    labels = np.zeros(shape, np.uint8)
    for index, radius, points in strokes:
        segments = list(itertools.pairwise(points)) or [(points[0], points[0])]
        for voxel in np.ndindex(*shape):
            distances = (distance_squared_to_segment(voxel, a, b) for a, b in segments)
            if any(distance <= Fraction(radius) ** 2 for distance in distances):
                labels[voxel] = index + 1
    return labels


# Forests: one tree, one voxel, one step at a time


def forest_probabilities(forest, features: np.ndarray, trees: int | None = None) -> np.ndarray:
    """Give the mean share of each class, ``(class, voxel)`` float64, of the first `trees`."""
    roots = forest.roots[:trees]
    result = np.zeros((len(forest.classes), features.shape[1]))
    for voxel, values in enumerate(features.T):
        if np.isnan(values).any():
            continue
        for root in roots:
            node = root
            while forest.child[node] != node:
                is_right = values[forest.channel[node]] > forest.threshold[node]
                node = forest.child[node] + is_right
            result[:, voxel] += forest.shares[node].astype(np.float64) / len(roots)
    return result


# Compositing of the viewer


def color_of_voxel(values: np.ndarray, style: Any) -> np.ndarray:
    """Give red, green, blue in [0, 1] of one voxel of a slice, class by class over the density."""
    density = (values[0] / 255 - style.density_low) / (style.density_high - style.density_low)
    density = min(max(density, 0), 1)
    color = np.full(3, density if style.shows_density else 0.0)
    for c in style.classes:
        ramped = min(max((values[c.channel] / 255 - c.low) / (1 - c.low), 0), 1)
        alpha = c.opacity * ((1 - style.modulation) + style.modulation * density) * ramped
        if c.shown:
            color = (1 - alpha) * color + alpha * np.array(c.rgb)
    return color


def light_of_ray(samples: list[np.ndarray], step_voxels: float) -> np.ndarray:
    """Give rgb · alpha, alpha of a ray through samples of the same, from the back to the front."""
    light = np.zeros(4)
    for red, green, blue, alpha in np.array(samples[::-1], np.float64):
        opacity = 1 - (1 - alpha) ** step_voxels
        color = np.array([red, green, blue]) / (alpha or 1)
        light = np.array([*(color * opacity), opacity]) + light * (1 - opacity)
    return light


# Phantoms: what a microscope sees, one frequency at a time


def seen_by_microscope(volume: np.ndarray, voxel: float, microscope: Any, exposure: Any) -> Any:
    """Give a volume as a tilt series about y sees it, by the full transform in float64."""
    volts = microscope.voltage_kv * 1e3
    wavelength = 12.2643 / np.sqrt(volts + 0.97845e-6 * volts**2)
    largest = np.radians(microscope.tilt_degrees)
    limit = 1 / max(microscope.low_pass_angstrom, 2 * voxel)
    spectrum = np.fft.fftn(volume)
    grids = [np.fft.fftfreq(n, voxel) for n in volume.shape]
    for i, j, k in np.ndindex(*volume.shape):
        kz, ky, kx = grids[0][i], grids[1][j], grids[2][k]
        length = np.sqrt(kz**2 + ky**2 + kx**2)
        tilt = np.arctan2(kz, kx) if kx >= 0 else np.arctan2(-kz, -kx)
        is_kept = 0 < length < limit and (abs(tilt) <= largest or (kz == 0 and kx == 0))
        if not is_kept:
            spectrum[i, j, k] = 0
            continue
        across = np.hypot(kx, kz) * (1 if kx >= 0 else -1)  # along the image's own x
        angle = np.arctan2(ky, across) - np.radians(exposure.astigmatism_degrees)
        defocus = 1e4 * (exposure.defocus_um + microscope.astigmatism_um / 2 * np.cos(2 * angle))
        phase = np.pi * wavelength * length**2 * defocus
        phase -= np.pi / 2 * 1e7 * microscope.spherical_aberration_mm * wavelength**3 * length**4
        amplitude = microscope.amplitude_contrast
        transfer = -np.sqrt(1 - amplitude**2) * np.sin(phase) - amplitude * np.cos(phase)
        dose = microscope.dose_electrons_per_square_angstrom * abs(tilt) / largest
        transfer *= np.exp(-dose / (2 * (0.245 * length**-1.665 + 2.81)))
        edge = min(1, (limit - length) / (0.6 * limit))
        spectrum[i, j, k] *= transfer * np.sin(np.pi / 2 * edge) ** 2
    return np.fft.ifftn(spectrum).real


# Evaluation: one bin, one pair of voxels at a time


def calibration_error_of_class(probability: np.ndarray, truth: np.ndarray, n_bins: int) -> float:
    """Give the mean distance of probability and share of the truth, bins weighted by voxels."""
    error = 0.0
    for i in range(n_bins):
        low, high = i / n_bins, (i + 1) / n_bins
        inside = (probability > low) & (probability <= high) | ((i == 0) & (probability == 0))
        if inside.any():
            error += inside.mean() * abs(probability[inside].mean() - truth[inside].mean())
    return error


def boundary_of_class(classes: np.ndarray, index: int, unlabelled: int) -> np.ndarray:
    """Give the places, ``(n, 3)``, of voxels of a class with a neighbour of another."""
    places = []
    for place in np.argwhere(classes == index):
        for step in (*np.eye(3, dtype=int), *-np.eye(3, dtype=int)):
            beside = place + step
            is_inside = (beside >= 0).all() and (beside < classes.shape).all()
            if is_inside and classes[tuple(beside)] not in (index, unlabelled):
                places.append(place)
                break
    return np.array(places).reshape(-1, 3)


def distances_between(first: np.ndarray, second: np.ndarray, spacing: Any) -> np.ndarray:
    """Give the distance of each of two sets of places to the nearest of the other, sorted."""
    if not (len(first) and len(second)):
        return np.empty(0)
    pairs = np.linalg.norm((first[:, None] - second[None]) * np.array(spacing), axis=2)
    return np.sort(np.concatenate([pairs.min(axis=1), pairs.min(axis=0)]))


# Published networks


def published_network(state: Mapping[str, torch.Tensor], tile: torch.Tensor) -> torch.Tensor:
    """Compute the published network step by step from the tensors of its checkpoint."""
    import torch
    from torch.nn import functional

    def convolved(x: torch.Tensor, name: str) -> torch.Tensor:
        channels = x.shape[1]
        weight, bias = (state[f"{name}.groupnorm.{part}"] for part in ("weight", "bias"))
        n_groups = 1 if channels == 1 else 2
        groups = []
        for group in torch.chunk(x, n_groups, dim=1):
            mean = group.mean((1, 2, 3, 4), keepdim=True)
            variance = group.var((1, 2, 3, 4), correction=0, keepdim=True)
            groups.append((group - mean) / (variance + 1e-5).sqrt())
        scaled = torch.cat(groups, 1) * weight.reshape(-1, 1, 1, 1) + bias.reshape(-1, 1, 1, 1)
        return functional.conv3d(scaled, state[f"{name}.conv.weight"], padding=1)

    def block(x: torch.Tensor, name: str) -> torch.Tensor:
        r = convolved(x, f"{name}.basic_module.conv1").relu()
        x = convolved(r, f"{name}.basic_module.conv2").relu()
        return (convolved(x, f"{name}.basic_module.conv3") + r).relu()

    features = [block(tile, "model.encoders.0")]
    for i in range(1, 5):
        features.append(block(functional.max_pool3d(features[-1], 2), f"model.encoders.{i}"))
    x = features[4]
    for j in range(4):
        name, skip = f"model.decoders.{j}.upsampling.upsample", features[3 - j]
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        # The size of the skip, whatever that takes.
        more = [n - (2 * m - 1) for n, m in zip(skip.shape[2:], x.shape[2:], strict=True)]
        x = functional.conv_transpose3d(x, weight, bias, stride=2, padding=1, output_padding=more)
        x = block(x + skip, f"model.decoders.{j}")
    return functional.conv3d(x, state["model.final_conv.weight"], state["model.final_conv.bias"])


# Seams


def plane_steps(volume: np.ndarray, axis: int, planes: Collection[int]) -> tuple[float, float]:
    """Give the mean |difference| across the named planes of an axis and across all others."""
    steps = np.abs(np.diff(np.moveaxis(volume.astype(np.int64), axis, 0), axis=0))
    at = [step.mean() for i, step in enumerate(steps, 1) if i in planes]
    others = [step.mean() for i, step in enumerate(steps, 1) if i not in planes]
    return _mean(at), _mean(others)


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


# Our own networks, in evaluation with batch norms


def _normed(state: Mapping[str, torch.Tensor], name: str, x: torch.Tensor) -> torch.Tensor:
    mean, variance, weight, bias = (
        state[f"{name}.{part}"].reshape(-1, 1, 1, 1)
        for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (variance + 1e-5).sqrt() * weight + bias


def _convolved(
    state: Mapping[str, torch.Tensor], name: str, x: torch.Tensor, stride: int = 1
) -> torch.Tensor:
    """Compute a convolution as a sum over the places of its kernel, of the volume in a rim of 0."""
    import torch

    weight = state[f"{name}.weight"]
    rims = [k // 2 for k in weight.shape[2:]]
    padded = torch.nn.functional.pad(x, [rim for rim in reversed(rims) for _ in "ab"])
    total = torch.zeros(())
    for place in np.ndindex(*weight.shape[2:]):
        shifted = padded[(..., *(slice(i, i + n) for i, n in zip(place, x.shape[2:], strict=True)))]
        total = total + torch.einsum("oi,bizyx->bozyx", weight[(..., *place)], shifted)
    if f"{name}.bias" in state:
        total = total + state[f"{name}.bias"].reshape(-1, 1, 1, 1)
    return total[..., ::stride, ::stride, ::stride]


def _upsampled(state: Mapping[str, torch.Tensor], name: str, x: torch.Tensor) -> torch.Tensor:
    """Compute a transposed convolution whose blocks do not overlap: each voxel becomes a block."""
    import torch

    weight = state[f"{name}.weight"]
    n, _, *sides = x.shape
    blocks = torch.einsum("iozyx,niabc->noazbycx", weight, x)
    sides = [side * k for side, k in zip(sides, weight.shape[2:], strict=True)]
    return blocks.reshape(n, -1, *sides) + state[f"{name}.bias"].reshape(-1, 1, 1, 1)


def _pooled(x: torch.Tensor, pool: tuple[int, int, int]) -> torch.Tensor:
    import torch

    corners = np.ndindex(*pool)
    parts = [
        x[(..., *(slice(i, None, k) for i, k in zip(corner, pool, strict=True)))]
        for corner in corners
    ]
    return torch.stack(parts).amax(0)


def residual_unet(
    state: Mapping[str, torch.Tensor], tile: torch.Tensor, pool: tuple[int, int, int]
) -> torch.Tensor:
    """Compute the residual symmetric U-Net step by step from its weights."""
    n_levels = sum(name.endswith("project.weight") for name in state if "encoders" in name)

    def block(x: torch.Tensor, name: str) -> torch.Tensor:
        first = _normed(state, f"{name}.norm1", _convolved(state, f"{name}.project", x)).relu()
        x = _convolved(state, f"{name}.convolution1", first)
        x = _normed(state, f"{name}.norm2", x).relu()
        x = _normed(state, f"{name}.norm3", _convolved(state, f"{name}.convolution2", x))
        return (first + x).relu()

    features = [block(tile, "encoders.0")]
    for i in range(1, n_levels):
        features.append(block(_pooled(features[-1], pool), f"encoders.{i}"))
    x = features[-1]
    for j in range(n_levels - 1):
        x = block(_upsampled(state, f"upsamplers.{j}", x) + features[-2 - j], f"decoders.{j}")
    return _convolved(state, "head", x)


def unet3d(state: Mapping[str, torch.Tensor], tile: torch.Tensor) -> torch.Tensor:
    """Compute the 3-D U-Net step by step from its weights."""
    import torch

    n_levels = sum(name.endswith(".0.weight") for name in state if "encoders" in name)

    def block(x: torch.Tensor, name: str) -> torch.Tensor:
        for i in (0, 3):
            x = _normed(state, f"{name}.{i + 1}", _convolved(state, f"{name}.{i}", x)).relu()
        return x

    features = [block(tile, "encoders.0")]
    for i in range(1, n_levels):
        features.append(block(_pooled(features[-1], (2, 2, 2)), f"encoders.{i}"))
    x = features[-1]
    for j in range(n_levels - 1):
        together = torch.cat([features[-2 - j], _upsampled(state, f"upsamplers.{j}", x)], 1)
        x = block(together, f"decoders.{j}")
    return _convolved(state, "head", x)


def dense_net(state: Mapping[str, torch.Tensor], tile: torch.Tensor) -> torch.Tensor:
    """Compute the skip-connected DenseNet step by step from its weights."""
    import torch

    def unit(x: torch.Tensor, name: str, stride: int = 1) -> torch.Tensor:
        x = _normed(state, f"{name}.norm", x).relu()
        return _convolved(state, f"{name}.convolution", x, stride)

    def magnified(x: torch.Tensor, factor: int) -> torch.Tensor:
        """Interpolate axis by axis between the centres of voxels, clamped at the ends."""
        for axis in (2, 3, 4):
            n = x.shape[axis]
            places = ((np.arange(n * factor) + 0.5) / factor - 0.5).clip(0, n - 1)
            low = np.floor(places).astype(int)
            high = np.minimum(low + 1, n - 1)
            share = torch.from_numpy(places - low).reshape(-1, *[1] * (4 - axis))
            x = (
                x.index_select(axis, torch.from_numpy(low)) * (1 - share)
                + x.index_select(axis, torch.from_numpy(high)) * share
            )
        return x

    x = unit(_convolved(state, "stem.0", tile), "stem.1")
    at_full_size = [x]
    level = 0
    while f"blocks.{level}.enter.norm.weight" in state:
        x = unit(x, f"blocks.{level}.enter", stride=2)
        layer = 0
        while f"blocks.{level}.layers.{layer}.0.norm.weight" in state:
            name = f"blocks.{level}.layers.{layer}"
            x = torch.cat([x, unit(unit(x, f"{name}.0"), f"{name}.1")], 1)
            layer += 1
        at_full_size.append(magnified(unit(x, f"upsamplers.{level}.0"), 2 ** (level + 1)))
        level += 1
    return _convolved(state, "head", _normed(state, "last_norm", torch.cat(at_full_size, 1)).relu())


# Regressions of soft labels


def wing(share: float, target: float) -> float:
    """Compute the adaptive wing loss of one voxel, as Wang et al. 2019 write it."""
    omega, epsilon, alpha, theta = 14.0, 1.0, 2.1, 0.5
    error, power = abs(share - target), alpha - target
    if error < theta:
        return omega * math.log(1 + (error / epsilon) ** power)
    a = omega * (1 / (1 + (theta / epsilon) ** power)) * power
    a *= (theta / epsilon) ** (power - 1) / epsilon
    c = theta * a - omega * math.log(1 + (theta / epsilon) ** power)
    return a * error - c


def mean_regression(
    error: Callable[[float, float], float],
    shares: np.ndarray,
    target: np.ndarray,
    weights: Sequence[float] | None = None,
    voxels: np.ndarray | None = None,
) -> float:
    """Give the mean error over ``(b, c, z, y, x)``: of channels, then of voxels by weight."""
    of_class = np.ones(target.shape[1]) if weights is None else np.array(weights)
    counts = (target * of_class[:, None, None, None]).sum(1) if voxels is None else voxels
    total = 0.0
    for b, *voxel in np.ndindex(counts.shape):
        at = (b, slice(None), *voxel)
        pairs = zip(shares[at].astype(float), target[at].astype(float), strict=True)
        total += float(counts[b, *voxel]) * float(np.mean([error(p, t) for p, t in pairs]))
    return total / float(counts.sum())

"""Rays carried through a volume by the compiled kernel: arrays in, states of rays out."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import numpy as np

from otzi.box import Box
from otzi.events import Listener, ignore
from otzi.parallel import in_threads
from otzi_viewers.render.kernels.build import kernel_library
from otzi_viewers.render.kernels.params import (
    CONES,
    LIGHTINGS,
    LOOKS,
    Params,
    new_rays,
)
from otzi_viewers.render.medium import CHANNELS_PER_PACK

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from otzi_viewers.render.medium import Lamp, Medium, Rules

__all__ = ["Marcher", "kernel_params"]


class Marcher:
    """The kernel, told what to march through; called from any thread, and holds no other up."""

    def __init__(self, medium: Medium, lamp: Lamp, rules: Rules, listen: Listener = ignore) -> None:
        self._library = kernel_library(listen)
        self._medium = medium
        self._held = (
            medium.occluder_bytes,
            np.ascontiguousarray(medium.distances),
            np.ascontiguousarray(lamp.ball, np.float32),
        )
        self.params = kernel_params(medium, lamp, rules)
        if medium.data is not None:
            whole = Box.whole(medium.shape)
            self.hold(medium.lanes, whole, whole)
        occluder, distances, ball = (array.ctypes.data for array in self._held)
        self.params.occluder, self.params.distances, self.params.ball = occluder, distances, ball
        if rules.lighting == "cone":
            self.params.n_cones = CONES
            for level, cone in enumerate(medium.cones):
                self.params.cones[level] = cone.ctypes.data
                self.params.cone_shape[level][:] = list(cone.shape)

    def hold(self, lanes: NDArray[Any], held: Box, own: Box) -> None:
        """March through a part of the volume from now on.

        Parameters
        ----------
        lanes
            ``(z, y, x, lane)`` of the box `held`, from `otzi_viewers.render.medium.in_lanes`.
        held
            `own` and one voxel around it, where the volume has one.
        own
            Which samples are to be taken.
        """
        self._lanes = lanes
        self.params.data[0] = lanes.ctypes.data
        for name, values in (
            ("held_first", held.start),
            ("held_shape", held.shape),
            ("own_first", own.start),
            ("own_last", own.stop),
        ):
            getattr(self.params, name)[:] = list(values)

    def bake(self, listen: Listener = ignore, n_threads: int | None = None) -> NDArray[np.uint8]:
        """Probe the light once for every place of the occluder's grid, and use that from now on.

        Gives ``(z, y, x, 2)`` uint8: occlusion and shadow, 255 being 1.
        """
        light = np.zeros((*self.params.occluder_shape, 2), np.uint8)
        place = ctypes.c_void_p(light.ctypes.data)

        def slab(z: int) -> None:
            self._library.bake(ctypes.byref(self.params), place, z, z + 1)

        for _ in in_threads(slab, range(len(light)), "light", "planes", listen, n_threads):
            pass
        self.use_light(light)
        return light

    def use_light(self, light: NDArray[np.uint8]) -> None:
        """Use light that was baked of the same volume, looks and lamp."""
        self._light = light
        self.params.light = light.ctypes.data

    def march(
        self,
        origins: NDArray[np.float64],
        directions: NDArray[np.float64],
        pixels: NDArray[np.int64],
        sample: int,
        rays: NDArray[np.void] | None = None,
    ) -> NDArray[np.void]:
        """Give the state of rays that have been through what is held: ``(n,)`` of `RAY`.

        Parameters
        ----------
        origins, directions
            ``(n, 3)`` world; directions have length 1.
        pixels
            ``(n,)``: what tells the rays of a picture apart.
        sample
            Which of the rays of each pixel these are.
        rays
            Their state until now, which is changed; new ones if None.
        """
        rays = new_rays(len(pixels)) if rays is None else rays
        params = Params.from_buffer_copy(self.params)
        params.sample = sample
        whole = tuple(
            np.ascontiguousarray(array, kind)
            for array, kind in (
                (origins, np.float32),
                (directions, np.float32),
                (pixels, np.uint32),
            )
        )
        places = (ctypes.c_void_p(array.ctypes.data) for array in (*whole, rays))
        self._library.march(ctypes.byref(params), *places, ctypes.c_size_t(len(pixels)))
        return rays

    def ambient_occlusion(self, point: NDArray[np.float64], key: int) -> float:
        """Give how much of the lifted ball about a point, ``(3,)`` world, is filled."""
        return float(self._library.probe_occlusion(ctypes.byref(self.params), *_probe(point, key)))

    def shadow(self, point: NDArray[np.float64], key: int) -> float:
        """Give how much stands between a point, ``(3,)`` world, and the light."""
        return float(self._library.probe_shadow(ctypes.byref(self.params), *_probe(point, key)))

    def draw(self, key: tuple[int, int, int, int], number: int) -> float:
        """Give a random draw in [0, 1) of a key: seed, sample, step and pixel."""
        made = self._library.key_of(*map(ctypes.c_uint32, key))
        return float(self._library.draw(ctypes.c_uint32(made), ctypes.c_uint32(number)))


def _probe(point: NDArray[np.float64], key: int) -> tuple[Any, Any]:
    return (ctypes.c_float * 3)(*point), ctypes.c_uint32(key)


def kernel_params(medium: Medium, lamp: Lamp, rules: Rules) -> Params:
    """Give what the kernel is told but for addresses: one brick that is the whole volume."""
    n_classes = len(medium.extinction)
    n_channels = n_classes + 1
    params = Params(
        n_packs=-(-n_channels // CHANNELS_PER_PACK),
        is_wide=medium.value_scale < 1 / 256,
        density_lane=n_classes,
        n_ball=len(lamp.ball),
        n_ao=lamp.n_ao,
        n_shadow=lamp.n_shadow,
        value_scale=medium.value_scale,
        lamp_radius=lamp.radius,
        shadow_start=lamp.shadow_start,
        shadow_length=lamp.shadow_length,
        shadow_strength=lamp.shadow_strength,
        ao_radius=lamp.ao_radius,
        ao_strength=lamp.ao_strength,
        step=rules.step,
        gate=rules.gate,
        seed=rules.seed,
        iso=rules.iso,
        look=LOOKS.index(rules.look),
        lighting=LIGHTINGS.index(rules.lighting),
    )
    vectors = {
        "shape": medium.shape,
        "occluder_shape": medium.occluder.shape,
        "brick_shape": medium.distances.shape,
        "extent": medium.extent,
        "texels": medium.texels_per_voxel,
        "occluder_end": medium.extent * medium.texels_per_voxel / 2,
        "low": medium.low,
        "inverse_span": medium.inverse_span,
        "extinction": medium.extinction,
        "lamp": lamp.position,
        "lamp_color": lamp.color,
        "shadow_tint": lamp.shadow_tint,
        "ao_centre": lamp.ao_centre,
        "ao_tint": lamp.ao_tint,
        "shadow_line": lamp.shadow_line,
        "forward": rules.forward,
    }
    for name, values in vectors.items():
        getattr(params, name)[: len(values)] = list(values)
    for row, values in zip(params.color, medium.color.T, strict=True):
        row[:n_classes] = list(values)
    for row, values in zip(params.clip, medium.clip, strict=False):
        row[:] = list(values)
    return params

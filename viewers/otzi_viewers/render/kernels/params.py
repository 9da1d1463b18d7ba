"""What a kernel is told, as ``params.cuh`` declares it, and a ray's state.

`Params` and `RAY` are checked against the compiled kernel's own layout when it is loaded: a field
that is moved in one place alone is an error, not a picture.
"""

from __future__ import annotations

from ctypes import Structure, c_float, c_int, c_uint32, c_uint64, sizeof

import numpy as np

__all__ = [
    "CONES",
    "LANES",
    "LIGHTINGS",
    "LOOKS",
    "RAY",
    "Params",
    "expected_layout",
    "layout_assertions",
    "new_rays",
]

LANES = 16
"""Channels, at most: classes and the density."""

CONES = 5
"""Coarser levels of the occluder, at most."""

LIGHTINGS = ("mc", "baked", "cone")
LOOKS = ("physical", "viewer", "dvr", "mip", "iso")
"""By number, as the kernel counts them."""

_Vector = c_float * 3
_Triple = c_int * 3
_Lanes = c_float * LANES


class Params(Structure):
    """Plain data; see ``params.cuh`` for what each field means."""

    _fields_ = (
        ("data", c_uint64 * (LANES // 4)),
        ("occluder", c_uint64),
        ("cones", c_uint64 * CONES),
        ("light", c_uint64),
        ("distances", c_uint64),
        ("ball", c_uint64),
        ("shape", _Triple),
        ("held_first", _Triple),
        ("held_shape", _Triple),
        ("own_first", _Triple),
        ("own_last", _Triple),
        ("occluder_shape", _Triple),
        ("brick_shape", _Triple),
        ("n_packs", c_int),
        ("is_wide", c_int),
        ("density_lane", c_int),
        ("n_ball", c_int),
        ("n_ao", c_int),
        ("n_shadow", c_int),
        ("lighting", c_int),
        ("look", c_int),
        ("cone_shape", _Triple * CONES),
        ("n_cones", c_int),
        ("value_scale", c_float),
        ("extent", _Vector),
        ("texels", _Vector),
        ("occluder_end", _Vector),
        ("low", _Lanes),
        ("inverse_span", _Lanes),
        ("extinction", _Lanes),
        ("color", _Lanes * 3),
        ("shadow_line", _Vector),
        ("lamp", _Vector),
        ("lamp_radius", c_float),
        ("lamp_color", _Vector),
        ("shadow_start", c_float),
        ("shadow_length", c_float),
        ("shadow_strength", c_float),
        ("shadow_tint", _Vector),
        ("ao_radius", c_float),
        ("ao_centre", _Vector),
        ("ao_strength", c_float),
        ("ao_tint", _Vector),
        ("step", c_float),
        ("gate", c_float),
        ("iso", c_float),
        ("clip", c_float * 4 * LANES),
        ("seed", c_uint32),
        ("sample", c_uint32),
        ("width", c_int),
        ("height", c_int),
        ("perspective", c_int),
        ("eye", _Vector),
        ("right", _Vector),
        ("up", _Vector),
        ("forward", _Vector),
        ("pixel", c_float),
        ("distance", c_float),
        ("offset", c_float * 2),
    )


RAY = np.dtype(
    [
        ("color", np.float32, 3),
        ("transmittance", np.float32),
        ("depth", np.float32),
        ("light", np.float32, 3),
        ("pending", np.float32),
    ]
)
"""The state of a ray between bricks."""


def new_rays(count: int) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    """Give the state of rays that have been through nothing: ``(count,)`` of `RAY`."""
    rays = np.zeros(count, RAY)
    rays["transmittance"] = 1
    rays["depth"] = np.inf
    rays["light"] = 1
    rays["pending"] = -1
    return rays


_CHECKED = (
    *("data", "shape", "n_packs", "value_scale", "low", "color"),
    *("lamp", "step", "width", "clip", "shadow_line", "offset"),
)


def expected_layout() -> list[int]:
    """Give what the kernel's ``layout`` must say: sizes of both structures, offsets of fields."""
    offsets = (getattr(Params, name).offset for name in _CHECKED)
    return [sizeof(Params), RAY.itemsize, *offsets]


def layout_assertions() -> str:
    """Give C++ that compiles only where both structures are laid out as here, field by field."""
    params = {name: getattr(Params, name).offset for name, *_ in Params._fields_}
    ray = {name: offset for name, (_, offset, *_) in (RAY.fields or {}).items()}
    lines = ['#include "layout.cuh"']
    for structure, size, offsets in (
        ("Params", sizeof(Params), params),
        ("Ray", RAY.itemsize, ray),
    ):
        lines.append(f'static_assert(sizeof({structure}) == {size}, "{structure}");')
        lines += [
            f"static_assert(first_word(counted<{structure}>().{name}) == {offset // 4}, "
            f'"{structure}.{name}");'
            for name, offset in offsets.items()
        ]
    return "\n".join(lines) + "\n"

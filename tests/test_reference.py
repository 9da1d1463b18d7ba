"""The kernel in NumPy: what draws small pictures where there is no compiler."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from otzi.errors import NoCompiler
from otzi_viewers.render import march
from otzi_viewers.render.camera import pose
from otzi_viewers.render.cpu import Stage, render
from otzi_viewers.render.reference import MAXIMUM_REFERENCE_PIXELS, reference_march
from otzi_viewers.render.scene import Camera, Density, Light
from pictures import blobs, look, scene_of, uniform_volume

if TYPE_CHECKING:
    from otzi_viewers.render.scene import Scene

LIT = scene_of(
    look("a", color="#c79aab", extinction=0.6, low=0.1, clip=(0.3, 1.0, 0.2, 2.0)),
    look("b", color="#3f6fb5", extinction=0.9, low=0.05),
    light=Light(
        occlusion=1.2, shadow=2.4, occlusion_radius=0.1, shadow_length=0.4, color="#ffb070"
    ),
    density=Density(low=0.2, high=0.9),
    camera=Camera(),
    spp=2,
)


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(listen: object) -> None:
        raise NoCompiler("no C++ compiler: install g++")

    monkeypatch.setattr(march, "kernel_library", missing)


def decibel(found, expected) -> float:
    return float(-10 * np.log10(max(np.mean((found - expected) ** 2), 1e-20)))


@pytest.mark.parametrize("name", ["physical", "dvr", "mip", "iso"])
def test_pictures_without_a_compiler_are_those_with_one(
    name: str, request: pytest.FixtureRequest
) -> None:
    volume = blobs((17, 20, 22))
    scene = replace(LIT, quality=replace(LIT.quality, look=name))
    expected, expected_depth = render(volume, scene)
    told: list[object] = []
    request.getfixturevalue("no_compiler")
    found, depth = Stage(volume).render(scene, told.append)
    assert expected[..., 3].max() > 0.5
    assert decibel(found, expected) > 60
    both = np.isfinite(depth) & np.isfinite(expected_depth)
    assert both.any()
    assert (np.abs(depth[both] - expected_depth[both]) < 0.01).mean() > 0.95
    assert any("drawing slowly: no C++ compiler" in getattr(e, "message", "") for e in told)


def test_a_large_picture_is_refused_and_the_compiler_is_named(no_compiler: None) -> None:
    def sized(width: int, height: int) -> Scene:
        return replace(LIT, output=replace(LIT.output, size=(width, height)))

    volume = blobs((8, 8, 8))
    assert 257 * 256 > MAXIMUM_REFERENCE_PIXELS
    with pytest.raises(NoCompiler, match=r"install g\+\+.*65536 pixels and 257x256 are more"):
        Stage(volume).render(sized(257, 256))


def test_rays_beside_the_box_and_along_its_axes_meet_what_they_meet() -> None:
    scene = scene_of(look(extinction=0.1))
    stage = Stage(uniform_volume(1.0))
    prepared = stage.prepared(scene, pose(scene.camera, (16, 12), stage.volume.extent_voxels))
    origins = np.array(
        [[-50, 0, 0], [0, -50, 0], [0, 0, 50], [-50, 6.5, 0], [-50, 0, 7], [50, 0, 0], [0, 0, 0]]
    )
    directions = np.array(
        [[1, 0, 0], [0, 1, 0], [0, 0, -1], [1, 0, 0], [1, 0, 0], [1, 0, 0], [0, 0, 1]]
    )
    lengths = np.array([10, 12, 14, 0, 0, 0, 7])
    rays = reference_march(*prepared, origins.astype(float), directions, np.arange(7), 0)
    np.testing.assert_allclose(1 - rays["transmittance"], 1 - np.exp(-0.1 * lengths), atol=1e-6)

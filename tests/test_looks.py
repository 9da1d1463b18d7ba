"""Other looks and lightings, each against its statement in NumPy or a law."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from otzi.errors import UsageError
from otzi_viewers.render.camera import pose
from otzi_viewers.render.cpu import Stage, render
from otzi_viewers.render.medium import coarser_occluders, in_lanes
from otzi_viewers.render.reference import reference_march
from otzi_viewers.render.scene import Camera, Density, Light
from otzi_viewers.render.transfer import linear_color
from otzi_viewers.render.volume import packed
from pictures import SEE_THROUGH, blobs, look, scene_of, uniform_volume

RAMP = Density(low=0.2, high=0.9)
TWO = (
    look("a", color="#c79aab", extinction=0.6, low=0.1),
    look("b", color="#3f6fb5", extinction=0.9, low=0.05),
)
LIT = Light(occlusion=1.2, shadow=2.4, occlusion_radius=0.1, shadow_length=0.4)


def decibel(found, expected) -> float:
    """Give the peak signal-to-noise ratio of values in [0, 1]."""
    return float(-10 * np.log10(max(np.mean((found - expected) ** 2), 1e-20)))


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 1.0, 1.3)])
def test_the_viewer_look_is_what_its_statement_says(spacing) -> None:
    volume = blobs((9, 12, 14), spacing=spacing)
    camera = Camera(azimuth=-33, elevation=21, distance=1.6)
    scene = scene_of(*TWO, density=RAMP, camera=camera, look="viewer", size=(12, 9))
    rgba, _ = render(volume, scene)
    view = pose(camera, (12, 9), volume.extent_voxels)
    pixels = np.arange(12 * 9)
    expected = reference_march(
        *Stage(volume).prepared(scene, view), *view.rays(pixels, (0.5, 0.5)), pixels, 0
    )
    assert expected["transmittance"].min() == 0
    assert decibel(rgba[..., :3].reshape(-1, 3), expected["color"]) > 50
    assert decibel(rgba[..., 3].ravel(), 1 - expected["transmittance"]) > 50


@pytest.mark.parametrize("look", ["physical", "dvr", "mip", "iso"])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 1.0, 1.3)])
def test_each_look_is_its_reference(look: str, spacing) -> None:
    volume = blobs((13, 17, 20), spacing=spacing)
    camera = Camera(azimuth=-33, elevation=21, distance=1.4)
    scene = scene_of(*TWO, density=RAMP, camera=camera, light=LIT, look=look, iso=0.6)
    rgba, depth = render(volume, scene)
    view = pose(camera, scene.output.size, volume.extent_voxels)
    pixels = np.arange(16 * 12)
    expected = reference_march(
        *Stage(volume).prepared(scene, view), *view.rays(pixels, (0.5, 0.5)), pixels, 0
    )
    assert rgba[..., 3].max() > 0.5
    assert decibel(rgba[..., :3].reshape(-1, 3), expected["color"]) > 60
    assert decibel(rgba[..., 3].ravel(), 1 - expected["transmittance"]) > 60
    is_there = np.isfinite(depth.ravel())
    assert (is_there == np.isfinite(expected["depth"])).mean() > 0.99
    both = is_there & np.isfinite(expected["depth"])
    apart = np.abs(depth.ravel()[both] - expected["depth"][both])
    assert (apart < 0.01).mean() > 0.95


def test_plain_compositing_is_beer_and_lambert_of_the_density() -> None:
    volume = packed(np.zeros((1, 10, 12, 14), np.float32), np.full((10, 12, 14), 0.5, np.float32))
    scene = scene_of(look(extinction=0.1), density=Density(low=0, high=1), look="dvr")
    rgba, _ = render(volume, scene)
    np.testing.assert_allclose(rgba, 1 - np.exp(-0.1 * 0.5 * 10), atol=2e-3)


def test_the_maximum_is_that_of_the_ray() -> None:
    density = np.zeros((10, 12, 14), np.float32)
    density[3] = 0.25
    density[7] = 0.75
    volume = packed(np.zeros((1, 10, 12, 14), np.float32), density)
    scene = scene_of(look(), density=Density(low=0, high=1), look="mip", step=0.1)
    rgba, depth = render(volume, scene)
    np.testing.assert_allclose(rgba, 191 / 255, atol=0.03)
    eye = pose(scene.camera, (16, 12), volume.extent_voxels).eye[0]
    np.testing.assert_allclose(depth, eye - (7.5 - 5), atol=0.11)


def test_a_surface_is_where_the_density_crosses_and_as_bright_as_it_faces() -> None:
    z, y, x = np.indices((40, 40, 40)) - 19.5
    radius = np.sqrt(z**2 + y**2 + x**2)
    ball = np.clip(1 - (radius - 10) / 10, 0, 1).astype(np.float32)
    volume = packed(np.zeros((1, 40, 40, 40), np.float32), ball)
    scene = scene_of(look(), look="iso", iso=0.5, size=(40, 40), step=0.25)
    scene = replace(scene, camera=replace(scene.camera, distance=0.5 / np.tan(np.radians(17))))
    rgba, depth = render(volume, scene)
    eye = pose(scene.camera, (40, 40), volume.extent_voxels).eye[0]
    rows, columns = np.indices((40, 40)) - 19.5
    across = np.hypot(rows, columns)
    inside = across < 13
    height = np.sqrt(15.0**2 - across[inside] ** 2)
    np.testing.assert_allclose(depth[inside], eye - height, atol=0.3)
    np.testing.assert_allclose(rgba[inside, 0], 0.2 + 0.8 * height / 15, atol=0.05)
    assert not rgba[across > 16].any()


def test_baked_and_cone_light_are_near_that_of_many_probes() -> None:
    volume = blobs((40, 44, 48), share=0.2)
    exact = scene_of(
        *TWO, light=LIT, density=RAMP, camera=Camera(), size=(64, 48), ao=128, shadow=128, gate=0.0
    )
    reference, _ = render(volume, exact)
    dark, _ = render(volume, replace(exact, light=Light(occlusion=0, shadow=0)))
    found = {}
    for lighting in ("baked", "cone"):
        scene = replace(exact, quality=replace(exact.quality, lighting=lighting))
        found[lighting] = decibel(render(volume, scene)[0], reference)
    assert found["baked"] > 38
    assert found["cone"] > 26
    assert found["cone"] > decibel(dark, reference) + 3


@pytest.mark.parametrize("lighting", ["mc", "baked", "cone"])
def test_a_coloured_lamp_colours_what_it_lights_and_not_its_shadow(lighting: str) -> None:
    volume = blobs()
    color = linear_color("#ff8040")
    bare = Light(occlusion=0, shadow=0)
    lit, tinted = (
        render(volume, scene_of(*TWO, light=light, density=RAMP, lighting=lighting))[0]
        for light in (bare, replace(bare, color="#ff8040"))
    )
    assert lit[..., 3].max() > 0.5
    np.testing.assert_allclose(tinted[..., :3], lit[..., :3] * color, atol=1e-6)
    np.testing.assert_array_equal(tinted[..., 3], lit[..., 3])
    shadow = replace(LIT, shadow=1e4)
    shaded, both = (
        render(volume, scene_of(*TWO, light=light, density=RAMP, lighting=lighting))[0]
        for light in (shadow, replace(shadow, color="#ff8040"))
    )
    seen = lit[..., 3] > 0.1
    share = both[seen][:, :3] / shaded[seen][:, :3]
    assert (share >= color - 1e-3).all()
    assert (share <= 1 + 1e-3).all()
    assert share[:, 2].max() > color[2] + 0.3


def test_light_is_baked_once_for_all_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    baked = []
    from otzi_viewers.render.march import Marcher

    bake = Marcher.bake
    monkeypatch.setattr(Marcher, "bake", lambda *a: (baked.append(1), bake(*a))[1])
    stage = Stage(blobs())
    scene = scene_of(*TWO, light=LIT, density=RAMP, lighting="baked")
    first, _ = stage.render(replace(scene, camera=Camera(azimuth=10)))
    stage.render(replace(scene, camera=Camera(azimuth=50)))
    assert len(baked) == 1
    again, _ = Stage(blobs()).render(replace(scene, camera=Camera(azimuth=10)))
    np.testing.assert_array_equal(first, again)
    stage.render(replace(scene, light=replace(LIT, position=(0.0, 1.0, 0.0))))
    assert len(baked) == 3


def test_a_plane_cuts_a_class_off_and_no_other() -> None:
    volume = uniform_volume(0.5, 0.5)
    cut = look("a", color="#ff0000", clip=(0.0, 0.0, 1.0, 0.0))
    scene = scene_of(cut, look("b", color="#0000ff"), size=(32, 24))
    rgba, _ = render(volume, scene)
    # x runs to the right, from its middle on
    assert (rgba[:, :15, 0] == 0).all()
    assert (rgba[:, 17:, 0] > 0.05).all()
    assert (rgba[..., 2] > 0.05).all()


@pytest.mark.parametrize("n_classes", [1, 3, 4, 7, 15])
def test_as_many_classes_as_there_are_lanes(n_classes: int) -> None:
    volume = uniform_volume(*[1 / 255 * (k + 1) for k in range(n_classes)])
    scene = scene_of(*[look(f"c{k}", extinction=1.0) for k in range(n_classes)])
    rgba, _ = render(volume, scene)
    total = sum(range(1, n_classes + 1)) / 255
    np.testing.assert_allclose(rgba[..., 3], 1 - np.exp(-10 * total), atol=1e-5)


def test_more_classes_than_lanes_are_refused() -> None:
    with pytest.raises(UsageError, match="16 classes are more than the 15"):
        in_lanes(np.zeros((1, 1, 1, 17), np.uint8))


def test_coarser_occluders_are_means() -> None:
    occluder = np.random.default_rng(0).integers(0, 256, (16, 8, 24)).astype(np.uint8)
    one, two = coarser_occluders(occluder, 2)
    assert (one.shape, two.shape) == ((8, 4, 12), (4, 2, 6))
    block = occluder[:4, :4, :4]
    assert abs(float(two[0, 0, 0]) - block.mean()) <= 1
    assert SEE_THROUGH.high == 0

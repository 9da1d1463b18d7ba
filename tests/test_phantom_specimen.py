"""Phantom specimens: the truth is consistent, and things are computed in their boxes only."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from mrc_files import mrc_bytes
from otzi.box import Box
from otzi.errors import NotFoundError, UnsupportedMRC
from otzi_pipelines.phantom.bodies import Body, occupancy
from otzi_pipelines.phantom.envelope import Envelope
from otzi_pipelines.phantom.particles import Particle, read_template
from otzi_pipelines.phantom.scatter import frame_of, keep_apart, random_directions
from otzi_pipelines.phantom.settings import ParticleSettings
from otzi_pipelines.phantom.specimen import Specimen
from otzi_pipelines.phantom.virion import BACKGROUND, LUMEN, MEMBRANE, SPIKES
from phantoms import scene_of, small
from references import distance_squared_to_segment

if TYPE_CHECKING:
    from pathlib import Path

TOUCHING = np.ones((3, 3, 3), bool)


@settings(deadline=None, max_examples=12)
@given(
    seed=st.integers(0, 2**32),
    voxel=st.sampled_from([8.0, 10.0, 13.0, 20.0]),
    extra=st.tuples(*[st.integers(0, 25)] * 3),
)
def test_the_truth_is_consistent(seed: int, voxel: float, extra: tuple[int, int, int]) -> None:
    """Lumen meets nothing but lumen and membrane, and every spike stands on a membrane."""
    least = np.array([500, 460, 460]) / voxel
    z, y, x = (int(n) + 3 + e for n, e in zip(least, extra, strict=True))
    chosen = small(size=(z, y, x), voxel_size_angstrom=voxel)
    scene = scene_of(chosen, seed)
    assert set(np.unique(scene.labels)) == {BACKGROUND, MEMBRANE, SPIKES, LUMEN}
    beside_lumen = ndimage.binary_dilation(scene.labels == LUMEN)
    assert not (beside_lumen & (scene.labels == BACKGROUND)).any()
    assert not (beside_lumen & (scene.labels == SPIKES)).any()
    spikes, n_spikes = ndimage.label(scene.labels == SPIKES, TOUCHING)
    beside_membrane = ndimage.binary_dilation(scene.labels == MEMBRANE, TOUCHING)
    standing = set(np.unique(spikes[beside_membrane]))
    assert set(range(1, n_spikes + 1)) <= standing | _on_sides(spikes)


def _on_sides(labelled: np.ndarray) -> set[int]:
    """Give the labels at the sides of the field of view, where things are cut."""
    sides = (labelled[:, 0], labelled[:, -1], labelled[:, :, 0], labelled[:, :, -1])
    return set().union(*(np.unique(side).tolist() for side in sides))


def test_contents_are_plausible() -> None:
    chosen = small()
    specimen = Specimen.draw(chosen, (), np.random.default_rng(3))
    scene = specimen.render(chosen)
    radius = specimen.virions[0].envelope.radius_angstrom / 10
    assert len(specimen.virions) == 1
    counts = np.bincount(scene.labels.ravel())
    assert counts[MEMBRANE] == pytest.approx(4 * np.pi * radius**2 * 4, rel=0.1)
    assert counts[LUMEN] == pytest.approx(4 / 3 * np.pi * (radius - 2) ** 3, rel=0.15)
    assert counts[SPIKES] > 20 * len(specimen.virions[0].spikes) > 100
    mean = [scene.density[scene.labels == label].mean() for label in range(1, 5)]
    assert abs(mean[0]) < 0.1 < mean[3] < mean[1] < mean[2]
    assert scene.gold.max() > 10 * scene.density.max()
    assert not (scene.gold[scene.labels > BACKGROUND] > 0).any()


def test_a_membrane_has_two_leaflets() -> None:
    chosen = small(size=(110, 100, 100), voxel_size_angstrom=5.0)
    specimen = Specimen.draw(chosen, (), np.random.default_rng(0))
    scene, envelope = specimen.render(chosen), specimen.virions[0].envelope
    whole = Box.whole(chosen.size)
    distance = envelope.distance(whole, 5.0)
    free = scene.labels != SPIKES
    by_depth = [
        np.median(scene.density[free & (np.abs(distance - d) < 1.5)]) for d in (-20, -13, 0, 13)
    ]
    assert by_depth[1] > 0.6 > 3 * by_depth[2] > 0
    assert by_depth[3] > 0.6 > by_depth[0]


def test_every_volume_has_a_whole_virion_off_the_slabs() -> None:
    chosen = small(size=(54, 120, 130), specimen={"virions_per_square_micron": 400.0})
    for seed in range(20):
        virions = Specimen.draw(chosen, (), np.random.default_rng(seed)).virions
        centres = np.array([one.envelope.centre for one in virions])
        reaches = np.array(
            [chosen.specimen.reach_angstrom(one.envelope.radius_angstrom) for one in virions]
        )
        extent = 10.0 * (np.array(chosen.size) - 1)
        assert (centres[0] >= reaches[0]).all()
        assert (centres[0] <= extent - reaches[0]).all()
        assert (centres[:, 0] - reaches >= 20).all()
        assert (centres[:, 0] + reaches <= extent[0] - 20).all()
        between = np.linalg.norm(centres[:, None] - centres, axis=2)
        apart = reaches[:, None] + reaches
        assert (between >= apart)[~np.eye(len(virions), dtype=bool)].all()
        for virion in virions:
            for spike in virion.spikes:
                ends = np.vstack([spike.starts, spike.stops]) - virion.envelope.centre
                far = (np.linalg.norm(ends, axis=1) + np.tile(spike.radii, 2)).max()
                assert far <= chosen.specimen.reach_angstrom(virion.envelope.radius_angstrom)


def test_nothing_else_reaches_into_a_virion(tmp_path: Path) -> None:
    kinds = (ParticleSettings(str(_template(tmp_path)), per_square_micron=3000),)
    chosen = small(size=(60, 120, 120), specimen={"particles": kinds})
    template = read_template(kinds[0].file, 10.0)
    for seed in range(5):
        specimen = Specimen.draw(chosen, (template,), np.random.default_rng(seed))
        clutter = replace(specimen, virions=()).render(chosen)
        inside = specimen.render(chosen).labels > BACKGROUND
        assert (clutter.density != 0).any()
        assert (clutter.gold != 0).any()
        assert not clutter.density[inside].any()
        assert not clutter.gold[inside].any()


def test_a_thin_ice_holds_small_virions_only() -> None:
    chosen = small(specimen={"virion_radius_angstrom": (100.0, 900.0)})
    (virion,) = Specimen.draw(chosen, (), np.random.default_rng(0)).virions
    assert virion.envelope.radius_angstrom < 125


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**32), voxel=st.sampled_from([4.0, 10.0]))
def test_a_body_is_the_same_in_its_boxes_as_in_the_whole(seed: int, voxel: float) -> None:
    rng = np.random.default_rng(seed)
    ends = rng.uniform(-30, 130, (2, 3, 3))
    ends[1, 0] = ends[0, 0]
    body = Body(ends[0], ends[1], rng.uniform(5, 30, 3), density=1.0)
    shape = (13, 12, 11)
    whole = np.zeros(shape, np.float32)
    body.paint(whole, voxel)
    distance = body.distance(Box.whole(shape), voxel)
    np.testing.assert_allclose(whole, occupancy(distance, voxel), atol=1e-6)
    for place in rng.integers(0, shape, (10, 3)):
        true = min(
            float(distance_squared_to_segment(tuple(place * voxel), start, stop)) ** 0.5 - radius
            for start, stop, radius in zip(body.starts, body.stops, body.radii, strict=True)
        )
        assert distance[tuple(place)] == pytest.approx(true, abs=1e-2)


def test_the_share_of_voxels_makes_up_the_volume() -> None:
    volume = np.zeros((40, 40, 40), np.float32)
    Body.spheres(np.full((1, 3), 197.3), np.array([123.4]), density=1.0).paint(volume, 10.0)
    assert volume.sum() == pytest.approx(4 / 3 * np.pi * 12.34**3, rel=0.005)


@given(seed=st.integers(0, 2**32), irregularity=st.floats(0, 0.2))
def test_an_envelope_is_closed_and_its_normals_stand_on_it(seed: int, irregularity: float) -> None:
    rng = np.random.default_rng(seed)
    envelope = Envelope.draw(rng.uniform(-9, 9, 3), 300.0, irregularity, rng)
    directions = random_directions(rng, 20)
    points, normals = envelope.surface(directions)
    np.testing.assert_allclose(envelope.distance_at(points), 0, atol=0.01)
    radii = np.linalg.norm(points - envelope.centre, axis=1)
    assert (np.abs(radii - 300) <= 300 * irregularity + 1e-6).all()
    for direction, point, normal in zip(directions, points, normals, strict=True):
        for across in frame_of(direction, rng)[:2]:
            near = direction + 1e-5 * across
            (beside,), _ = envelope.surface((near / np.linalg.norm(near))[None])
            along = (beside - point) / np.linalg.norm(beside - point)
            assert abs(along @ normal) < 1e-3


@given(seed=st.integers(0, 2**32), n=st.integers(0, 30), most=st.none() | st.integers(0, 9))
def test_spheres_are_kept_apart(seed: int, n: int, most: int | None) -> None:
    """Whatever is kept meets nothing; whatever is not kept meets something that came before."""
    rng = np.random.default_rng(seed)
    centres, radii = rng.random((n, 3)), rng.uniform(0, 0.3, n)
    others = rng.random((2, 3)), np.array([0.1, 0.2])
    kept = keep_apart(centres, radii, most=most, others=others).tolist()
    for i in range(n):
        before = [j for j in kept if j < i]
        reach = np.concatenate([others[1], radii[before]]) + radii[i]
        away = np.linalg.norm(np.vstack([others[0], centres[before]]) - centres[i], axis=1)
        is_full = most is not None and len(before) == most
        assert (i in kept) == (not is_full and bool((away >= reach).all()))


def test_the_same_seed_gives_the_same_and_another_does_not() -> None:
    first, again, other = (scene_of(small(), seed) for seed in (1, 1, 2))
    assert first.density.tobytes() == again.density.tobytes()
    assert first.labels.tobytes() == again.labels.tobytes()
    assert (first.labels != other.labels).any()


def _template(folder: Path, spacing: float = 10.0) -> Path:
    """Write a density that is like none of its mirror images."""
    values = np.zeros((9, 10, 11), np.float32)
    values[2:7, 4:6, 5:7] = values[2:4, 4:9, 5:7] = values[5:7, 4:6, 5:10] = 7.0
    path = folder / "particle.mrc"
    path.write_bytes(mrc_bytes(values, spacing=spacing))
    return path


def test_a_particle_that_is_not_turned_is_its_template(tmp_path: Path) -> None:
    template = read_template(_template(tmp_path), 10.0)
    volume = np.zeros((9, 10, 11), np.float32)
    centre = 10.0 * (np.array(volume.shape) - 1) / 2
    Particle(template, centre, np.eye(3)).paint(volume, 10.0)
    np.testing.assert_allclose(volume, template.density, atol=1e-5)
    assert volume.max() == pytest.approx(0.9)


def test_a_quarter_turn_of_a_particle_turns_its_voxels(tmp_path: Path) -> None:
    template = read_template(_template(tmp_path), 10.0)
    quarter = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])  # (z, y, x) -> (z, -x, y)
    volume = np.zeros((9, 11, 10), np.float32)
    centre = 10.0 * (np.array(volume.shape) - 1) / 2
    Particle(template, centre, quarter).paint(volume, 10.0)
    turned = template.density.transpose(0, 2, 1)[:, ::-1]
    np.testing.assert_allclose(volume, turned, atol=1e-5)


def test_a_turned_particle_of_other_voxels_keeps_its_mass(tmp_path: Path) -> None:
    fine = read_template(_template(tmp_path, spacing=5.0), 5.0)
    rng = np.random.default_rng(0)
    masses = []
    for voxel in (5.0, 3.0):
        volume = np.zeros((50, 50, 50), np.float32)
        Particle.draw(fine, np.full(3, 25 * voxel), rng).paint(volume, voxel)
        masses.append(volume.sum() * voxel**3)
    expected = fine.density.sum() * 125
    assert masses == pytest.approx([expected, expected], rel=0.05)


def test_particles_are_background_beside_the_virions(tmp_path: Path) -> None:
    path = _template(tmp_path)
    kinds = (ParticleSettings(str(path), per_square_micron=3000),)
    chosen = small(size=(54, 90, 90), specimen={"particles": kinds})
    template = read_template(path, 10.0)
    specimen = Specimen.draw(chosen, (template,), np.random.default_rng(0))
    assert len(specimen.particles) > 5
    with_them = specimen.render(chosen)
    without = scene_of(small(size=(54, 90, 90)))
    changed = with_them.density != without.density
    assert changed.any()
    assert (with_them.labels[changed] == BACKGROUND).all()
    assert (with_them.labels == without.labels).all()


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (np.ones((5, 6, 7), np.float32), "nothing that stands out"),
        (np.full((5, 6, 7), np.nan, np.float32), "no numbers"),
        (np.ones((1, 6, 7), np.float32), "single image"),
    ],
)
def test_what_is_no_particle_is_refused(tmp_path: Path, values: np.ndarray, says: str) -> None:
    path = tmp_path / "bad.mrc"
    path.write_bytes(mrc_bytes(values))
    with pytest.raises(UnsupportedMRC, match=says):
        read_template(path, 10.0)
    with pytest.raises(NotFoundError, match=r"particle .* is not there"):
        read_template(tmp_path / "none.mrc", 10.0)

"""Scenes: what is written reads back, and what cannot be meant is refused by name."""

from __future__ import annotations

import math
import tomllib
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otzi.errors import ConfigurationError
from otzi.settings import load_settings, read_settings
from otzi_viewers.render import scene as module
from otzi_viewers.render.scene import (
    Camera,
    ClassLook,
    Density,
    Keyframe,
    Light,
    Movie,
    Output,
    Quality,
    Scene,
    scene_toml,
)

if TYPE_CHECKING:
    from pathlib import Path

numbers = st.floats(-1e6, 1e6)
positive = st.floats(1e-6, 1e6)
vectors = st.tuples(numbers, numbers, numbers)
colors = st.from_regex(r"#[0-9a-fA-F]{6}", fullmatch=True)
looks = st.builds(
    ClassLook,
    name=st.from_regex(r"[a-z][a-z0-9_]{0,31}", fullmatch=True),
    low=st.none() | st.floats(0, 0.5),
    high=st.floats(0.51, 1),
    extinction=st.none() | positive,
    color=st.none() | colors,
    clip=st.none() | st.tuples(numbers, numbers, numbers, numbers),
)
keyframes = st.builds(
    Keyframe,
    at=st.floats(0, 1),
    azimuth=st.none() | numbers,
    distance=st.none() | positive,
    target=st.none() | vectors,
)
scenes = st.builds(
    Scene,
    classes=st.lists(looks, max_size=3).map(tuple),
    density=st.builds(
        Density, invert=st.booleans(), low=st.floats(-1, 0.4), high=st.floats(0.5, 2)
    ),
    light=st.builds(
        Light, position=vectors, radius=positive, attach=st.sampled_from(["scene", "camera"])
    ),
    camera=st.builds(Camera, azimuth=numbers, distance=st.none() | positive, target=vectors),
    quality=st.builds(Quality, spp=st.integers(1, 4096), seed=st.integers(0, 2**32 - 1)),
    output=st.builds(
        Output,
        size=st.tuples(st.integers(1, 16384), st.integers(1, 16384)),
        background=colors,
        scale_bar=st.booleans(),
    ),
    movie=st.builds(Movie, frames=st.integers(1, 1000), ease=st.booleans()),
    keyframes=keyframes.map(lambda keyframe: (keyframe,)) | st.just(()),
)


@settings(deadline=None)
@given(scenes)
def test_a_scene_reads_back_as_it_was_written(scene: Scene) -> None:
    assert read_settings(Scene, tomllib.loads(scene_toml(scene)), "scene") == scene


def test_every_key_of_the_documentation_is_there_with_its_default() -> None:
    """The example in the module's docstring is the default scene, with one class."""
    text = (module.__doc__ or "").split("::\n", 1)[1]
    document = tomllib.loads("\n".join(line.removeprefix("    ") for line in text.splitlines()))
    assert set(document) == {f.name for f in fields(Scene)}
    default = Scene()
    for name, table in document.items():
        part = getattr(default, name)
        if not is_dataclass(part):
            kind = {"classes": ClassLook, "keyframes": Keyframe}[name]
            assert set(table[0]) == {f.name for f in fields(kind)}
            continue
        assert set(table) == {f.name for f in fields(part)}
        open_keys = {k for k in table if getattr(part, k) is None}
        read_settings(Scene, document, "the example")
        given = read_settings(type(part), {k: table[k] for k in set(table) - open_keys}, name)
        assert given == part


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[ligth]\n", "unknown key 'ligth'; did you mean light?"),
        ("[light]\npositon = [0, 0, 0]\n", "unknown key 'light.positon'; did you mean position"),
        ('[[classes]]\nname = "a"\ncolour = "#000000"\n', "did you mean color?"),
        ('[[classes]]\nname = "a"\ncolor = "red"\n', "color = 'red'"),
        ("[[keyframes]]\nat = 0.5\n[[keyframes]]\nat = 0.2\n", "put them in order"),
        ("[[keyframes]]\nat = 0.5\nlow = [0.1]\n", "1 values of low, the scene 0"),
        ("[movie]\nframes = 0\n", "movie.frames = 0"),
        ('[[classes]]\nname = "a"\nlow = 0.5\nhigh = 0.5\n', "low 0.5 < high 0.5"),
        ("[density]\nlow = 0.9\nhigh = 0.1\n", "low 0.9 < high 0.1"),
        ("[density]\nwindow = [99.0, 1.0]\n", "density.window (99.0, 1.0)"),
        ("[output]\nsize = [0, 10]\n", "output.size.0 = 0"),
        ("[output]\nbits = 12\n", "output.bits = 12"),
        ("[quality]\nspp = 0\n", "quality.spp = 0"),
        ("[light]\nposition = [0.0, inf, 0.0]\n", "light.position.1"),
        ("[camera]\ndistance = nan\n", "camera.distance"),
        ('[camera]\nprojection = "fisheye"\n', "camera.projection = 'fisheye'"),
    ],
)
def test_a_scene_that_cannot_be_meant_is_refused(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "scene.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=r"scene\.toml") as caught:
        load_settings(Scene, path)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_whole_numbers_may_be_given_for_lengths() -> None:
    scene = read_settings(Scene, {"light": {"radius": 1}}, "scene")
    assert math.isclose(scene.light.radius, 1.0)
    assert "radius = 1.0" in scene_toml(scene)

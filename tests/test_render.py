"""Verb render: from a collection to a picture on disk, once."""

from __future__ import annotations

import itertools
import json
import tomllib
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from otzi.settings import read_settings
from otzi_pipelines.ramps.estimate import estimate_ramps
from otzi_viewers import render_verb
from otzi_viewers.render import pictures
from otzi_viewers.render.output import read_texts
from otzi_viewers.render.scene import Quality, Scene
from pictures import add_probs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from commands import Otzi
    from otzi.tomogram import Tomogram

CLASSES = ("background", "membrane", "lumen")


@pytest.fixture
def tomo(add_tomogram: Callable[..., Tomogram]) -> Tomogram:
    """A dark ball in noise, of lumen within a membrane."""
    z, y, x = np.indices((16, 30, 32)) - np.array([7.5, 14.5, 15.5])[:, None, None, None]
    radius = np.sqrt((2 * z) ** 2 + y**2 + x**2)
    noise = np.random.default_rng(4).normal(0, 300, radius.shape)
    made = add_tomogram((noise - 1000 * (radius < 12)).astype(np.int16))
    hard = np.stack([(radius > 9) & (radius < 12), radius <= 9]).astype(np.float32)
    soft = ndimage.gaussian_filter(hard, (0, 1, 1, 1))
    add_probs(made, "net", np.floor(soft * 255).astype(np.uint8), CLASSES)
    return made


@pytest.fixture
def ramped(tomo: Tomogram) -> Tomogram:
    estimate_ramps(tomo, "net")
    return tomo


def test_a_picture_is_made_once_and_tells_its_scene(
    ramped: Tomogram, otzi: Otzi, tmp_path: Path
) -> None:
    path = tmp_path / "a.png"
    words = ("render", ramped.collection.path, "ts_001", "-o", path, "--size", "64x48", "--json")
    first = otzi(*words)
    assert first.code == 0, first.err
    document = json.loads(first.out)
    assert document["path"] == str(path)
    assert document["size"] == [64, 48]
    assert document["level"] == 0
    assert document["digests"]["probs/net"] == ramped.digest("probs/net")
    with Image.open(path) as image:
        assert image.size == (64, 48)
        picture = np.asarray(image).astype(int)
    assert picture[20:28, 28:36].mean() > 40
    assert not picture[:8, 50:].any()

    made = path.stat()
    content = path.read_bytes()
    again = otzi(*words)
    assert again.code == 0
    assert "done already" in again.err
    assert json.loads(again.out) == document
    assert path.stat().st_mtime_ns == made.st_mtime_ns

    path.unlink()
    assert otzi(*words).code == 0
    assert path.read_bytes() == content

    smaller = otzi(*words[:-3], "--size", "32x24", "--json")
    assert json.loads(smaller.out)["digest"] != document["digest"]
    assert [p.name for p in tmp_path.glob("*.png")] == ["a.png"]


def test_a_picture_carries_a_scene_file_that_makes_it_again(
    ramped: Tomogram, otzi: Otzi, tmp_path: Path
) -> None:
    scene = tmp_path / "scene.toml"
    scene.write_text(
        "[output]\nsize = [40, 30]\nbits = 16\n[quality]\nspp = 2\n"
        '[[classes]]\nname = "lumen"\nlow = 0.25\ncolor = "#ff8000"\n'
    )
    one, other = tmp_path / "a.png", tmp_path / "b.png"
    start = ("render", ramped.collection.path, "ts_001")
    assert otzi(*start, "-o", one, "--scene", scene).code == 0
    text = read_texts(one)["otzi scene"]
    again = tmp_path / "again.toml"
    again.write_text(text)
    assert otzi(*start, "-o", other, "--scene", again).code == 0
    assert one.read_bytes() == other.read_bytes()
    assert one.read_bytes()[24] == 16
    found = read_settings(Scene, tomllib.loads(text), "text")
    assert [look.name for look in found.classes] == ["lumen"]


def test_ramps_come_first(tomo: Tomogram, otzi: Otzi, tmp_path: Path) -> None:
    run = otzi("render", tomo.collection.path, "ts_001", "-o", tmp_path / "a.png")
    assert run.code == 2
    assert f"run `otzi ramps {tomo.collection.path} ts_001 --probs net`" in run.err
    assert not list(tmp_path.glob("*.png"))


def test_one_of_several_probabilities_has_to_be_chosen(
    ramped: Tomogram, otzi: Otzi, tmp_path: Path
) -> None:
    start = ("render", ramped.collection.path, "ts_001", "-o", tmp_path / "a.png")
    add_probs(ramped, "other", np.zeros((2, 16, 30, 32), np.uint8), CLASSES)
    run = otzi(*start)
    assert run.code == 2
    assert "choose --probs net|other" in run.err
    assert otzi(*start, "--probs", "net", "--size", "8x6").code == 0


def test_probabilities_have_to_be_there(
    add_tomogram: Callable[..., Tomogram], otzi: Otzi, tmp_path: Path
) -> None:
    tomo = add_tomogram(np.zeros((4, 5, 6), np.int16))
    run = otzi("render", tomo.collection.path, "ts_001", "-o", tmp_path / "a.png")
    assert run.code == 2
    assert "run `otzi segment`" in run.err


@pytest.mark.parametrize(
    ("name", "options", "code", "words"),
    [
        ("a.gif", (), 2, "cannot write .gif"),
        ("a.png", ("--turntable", "4"), 2, "name a .mp4 file"),
        ("a.mp4", ("--size", "33x20"), 78, "both sides must be even"),
        ("missing/a.png", (), 73, "missing is not there"),
        ("a.png", ("--device", "cuda"), 69, "--device cpu"),
        ("a.png", ("--size", "wide"), 2, "960x720"),
        ("a.png", ("--size", "20000x10"), 2, "at most 16384"),
        ("a.png", ("--size", "9000x9000"), 2, "--slow"),
        ("a.png", ("--scene", "none.toml"), 2, "none.toml is not there"),
        ("a.png", ("--probs", "unet"), 2, "probs/net"),
        ("a.png", ("--memory", "10"), 2, "allow more with --memory"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    ramped: Tomogram,
    otzi: Otzi,
    tmp_path: Path,
    name: str,
    options: tuple[str, ...],
    code: int,
    words: str,
) -> None:
    run = otzi("render", ramped.collection.path, "ts_001", "-o", tmp_path / name, *options)
    assert run.code == code
    assert words in run.err
    assert run.err.count("\n") == 1
    assert not list(tmp_path.glob("**/*.png"))


def test_a_misspelt_key_of_the_scene_is_named(ramped: Tomogram, otzi: Otzi, tmp_path: Path) -> None:
    scene = tmp_path / "scene.toml"
    scene.write_text("[camera]\nazimut = 10\n")
    output = tmp_path / "a.png"
    run = otzi("render", ramped.collection.path, "ts_001", "-o", output, "--scene", scene)
    assert run.code == 78
    assert "unknown key 'camera.azimut'; did you mean azimuth?" in run.err


def test_a_gpu_that_is_not_used_is_told_of(
    ramped: Tomogram, otzi: Otzi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("render", ramped.collection.path, "ts_001", "-o", tmp_path / "a.png", "--size", "4x3")
    for there, device, is_told in [
        (tmp_path / "none", "auto", False),
        (tmp_path, "cpu", False),
        (tmp_path, "auto", True),
    ]:
        monkeypatch.setattr(render_verb, "_NVIDIA_GPUS", there)
        run = otzi(*words, "--device", device)
        assert (run.code, "drawing on the CPU" in run.err) == (0, is_told)


def test_a_turntable_is_a_movie_that_goes_on_where_it_was_killed(
    ramped: Tomogram, otzi: Otzi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    av = pytest.importorskip("av")
    path = tmp_path / "a.mp4"
    words = ("render", ramped.collection.path, "ts_001", "-o", path, "--size", "48x32")
    words = (*words, "--turntable", "5")
    made: list[Path] = []
    write = pictures.write_picture

    def write_two(path: Path, *rest: object) -> None:
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(path)
        write(path, *rest)

    monkeypatch.setattr(pictures, "write_picture", write_two)
    assert otzi(*words).code == 130
    assert not path.exists()
    monkeypatch.setattr(pictures, "write_picture", lambda *a: (made.append(a[0]), write(*a)))
    assert otzi(*words).code == 0
    assert [p.name for p in made] == [f"{n:06d}.png" for n in range(5)]
    with av.open(str(path)) as movie:
        frames = [f.to_ndarray(format="rgb24").astype(int) for f in movie.decode(video=0)]
    assert [f.shape for f in frames] == [(32, 48, 3)] * 5
    assert all(np.abs(a - b).max() > 20 for a, b in itertools.pairwise(frames))
    assert [p.name for p in tmp_path.glob("*.*")] == ["a.mp4"]
    assert not (tmp_path / ".a.mp4.frames").exists()
    again = otzi(*words)
    assert (again.code, len(made)) == (0, 5)
    assert "done already" in again.err


def test_an_exr_has_light_opacity_depth_and_each_class(
    ramped: Tomogram, otzi: Otzi, tmp_path: Path
) -> None:
    exr = pytest.importorskip("OpenEXR")
    path = tmp_path / "a.exr"
    words = ("render", ramped.collection.path, "ts_001", "-o", path, "--size", "40x30", "--json")
    assert otzi(*words).code == 0
    with exr.File(str(path), separate_channels=True) as file:
        channels = {name: channel.pixels for name, channel in file.channels().items()}
    assert set(channels) == {*"RGBAZ", "membrane.A", "lumen.A"}
    alpha = channels["A"]
    assert alpha.shape == (30, 40)
    assert alpha.max() > 0.2
    assert np.isinf(channels["Z"][alpha < 0.3]).all()
    assert np.isfinite(channels["Z"][alpha > 0.7]).all()
    each = 1 - (1 - channels["membrane.A"]) * (1 - channels["lumen.A"])
    np.testing.assert_allclose(each, alpha, atol=0.02)
    assert "done already" in otzi(*words).err


def test_a_gallery_leaves_out_what_cannot_be_drawn(
    ramped: Tomogram, add_tomogram: Callable[..., Tomogram], otzi: Otzi, tmp_path: Path
) -> None:
    add_tomogram(np.zeros((8, 8, 8), np.int16), "ts_002")
    words = ("render", ramped.collection.path, "ts_*", "--size", "8x6", "--json", "-o")
    assert "write {tomogram} where the id goes" in otzi(*words, tmp_path / "a.png").err
    run = otzi(*words, tmp_path / "{tomogram}.png")
    assert run.code == 5
    assert "ts_002 is left out: ts_002 has no probabilities" in run.err
    assert sorted(p.name for p in tmp_path.glob("*.png")) == ["ts_001.png"]
    document = json.loads(run.out)
    assert document["ts_001"]["path"] == str(tmp_path / "ts_001.png")
    assert "no tomogram" in otzi("render", *words[1:2], "x*", "-o", tmp_path / "a.png").err


def test_slow_lifts_the_limit(
    ramped: Tomogram, otzi: Otzi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(render_verb, "MAXIMUM_RAYS", 4 * 3 * Quality().spp - 1)
    words = ("render", ramped.collection.path, "ts_001", "-o", tmp_path / "a.png", "--size", "4x3")
    refused = otzi(*words)
    assert refused.code == 2
    assert "pass --slow" in refused.err
    assert otzi(*words, "--slow").code == 0

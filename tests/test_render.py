"""Verb render: from a collection to a picture on disk, once."""

from __future__ import annotations

import itertools
import json
import shutil
import sys
import tomllib
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from host_gpu import HostGpu, host_kernels
from otzi.cuda_device import CudaDevice
from otzi.errors import DeviceUnavailable
from otzi.settings import read_settings
from otzi_pipelines.ramps.estimate import estimate_ramps
from otzi_viewers import render_verb
from otzi_viewers.render import cuda, device, frames, pictures
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
        ("a.png", ("--size", "0x10"), 2, "at most 16384"),
        ("folder.png", (), 73, "folder.png is a folder"),
        ("a.png", ("--size", "9000x9000"), 2, "--slow"),
        ("a.png", ("--scene", "none.toml"), 2, "none.toml is not there"),
        ("a.png", ("--probs", "unet"), 2, "probs/net"),
        ("a.png", ("--memory", "10"), 2, "allow more with --memory"),
        ("a.png", ("--gpu-memory", "lots"), 2, "lots"),
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
    (tmp_path / "folder.png").mkdir()
    run = otzi("render", ramped.collection.path, "ts_001", "-o", tmp_path / name, *options)
    assert run.code == code
    assert words in run.err
    assert run.err.count("\n") == 1
    assert not [path for path in tmp_path.glob("**/*.png") if path.is_file()]


def test_a_misspelt_key_of_the_scene_is_named(ramped: Tomogram, otzi: Otzi, tmp_path: Path) -> None:
    scene = tmp_path / "scene.toml"
    scene.write_text("[camera]\nazimut = 10\n")
    output = tmp_path / "a.png"
    run = otzi("render", ramped.collection.path, "ts_001", "-o", output, "--scene", scene)
    assert run.code == 78
    assert "unknown key 'camera.azimut'; did you mean azimuth?" in run.err


def test_the_device_is_told_of_once(
    ramped: Tomogram, otzi: Otzi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none() -> CudaDevice:
        raise DeviceUnavailable("no NVIDIA driver is here: install it where there is a card")

    monkeypatch.setattr(device, "find_cuda_device", none)
    start = ("render", ramped.collection.path, "ts_001", "--size", "4x4", "-o")
    for options, told in (((), "no NVIDIA driver is here"), (("--device", "cpu"), "as asked for")):
        run = otzi(*start, tmp_path / f"{told}.png", *options)
        assert run.code == 0
        assert run.err.count("drawing on the CPU") == 1
        assert told in run.err
        again = otzi(*start, tmp_path / f"{told}.png", *options)
        assert "drawing on" not in again.err
    movie = otzi(*start, tmp_path / "a.mp4", "--turntable", "3")
    assert movie.err.count("drawing on the CPU") == 1


def test_a_card_draws_what_the_cpu_draws(
    ramped: Tomogram,
    otzi: Otzi,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """By the kernels of a GPU on the processor, from the command to the file."""
    library = host_kernels(tmp_path_factory.getbasetemp().parent)
    card = CudaDevice("NVIDIA Test 9000", "sm_90", 8 * 10**9, "CuPy 14.2.0, NVRTC 12.9")
    gpus: list[HostGpu] = []
    monkeypatch.setattr(device, "find_cuda_device", lambda: card)
    monkeypatch.setattr(cuda, "CudaGpu", lambda: gpus.append(HostGpu(library)) or gpus[-1])
    start = ("render", ramped.collection.path, "ts_001", "--size", "48x32", "-o")
    assert otzi(*start, tmp_path / "cpu.png", "--device", "cpu").code == 0
    assert not gpus
    run = otzi(*start, tmp_path / "gpu.png", "--gpu-memory", "1GB")
    assert run.code == 0, run.err
    assert "drawing on NVIDIA Test 9000 (8.0 GB free)" in run.err
    assert any(name == "march" for name, *_ in gpus[0].launched)
    one, other = (
        np.asarray(Image.open(tmp_path / name).convert("RGB")).astype(int)
        for name in ("cpu.png", "gpu.png")
    )
    assert one.max() > 40
    assert np.abs(one - other).max() <= 1
    small = otzi(*start, tmp_path / "b.png", "--device", "cuda", "--gpu-memory", "10kB")
    assert small.code == 2
    assert "are allowed: allow more with --gpu-memory" in small.err
    assert not (tmp_path / "b.png").exists()
    movie = otzi(*start, tmp_path / "a.mp4", "--turntable", "3")
    assert movie.code == 0, movie.err
    assert movie.err.count("drawing on NVIDIA") == 1


def test_a_turntable_is_a_movie_that_goes_on_where_it_was_killed(
    ramped: Tomogram, otzi: Otzi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    av = pytest.importorskip("av")
    path = tmp_path / "a.mp4"
    words = ("render", ramped.collection.path, "ts_001", "-o", path, "--size", "48x32")
    words = (*words, "--turntable", "5")
    made: list[Path] = []
    write = frames.write_picture

    def write_two(path: Path, *rest: object) -> None:
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(path)
        write(path, *rest)

    monkeypatch.setattr(frames, "write_picture", write_two)
    assert otzi(*words).code == 130
    assert not path.exists()
    monkeypatch.setattr(frames, "write_picture", lambda *a: (made.append(a[0]), write(*a)))
    assert otzi(*words).code == 0
    assert [p.name for p in made] == [f"{n:06d}.png" for n in range(5)]
    with av.open(str(path)) as movie:
        shown = [f.to_ndarray(format="rgb24").astype(int) for f in movie.decode(video=0)]
    assert [f.shape for f in shown] == [(32, 48, 3)] * 5
    assert all(np.abs(a - b).max() > 20 for a, b in itertools.pairwise(shown))
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


@pytest.mark.parametrize("kind", ["png", "exr"])
def test_a_still_is_there_ever_better_before_it_is_done(
    ramped: Tomogram, otzi: Otzi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    if kind == "exr":
        pytest.importorskip("OpenEXR")
    whole, grown = tmp_path / f"whole.{kind}", tmp_path / f"grown.{kind}"
    words = ("render", ramped.collection.path, "ts_001", "--size", "24x18", "-o")
    assert otzi(*words, whole).code == 0
    writer = f"write_{'picture' if kind == 'png' else 'exr'}"
    write = getattr(pictures, writer)
    seen: list[dict[str, str]] = []

    def stop_at_last(path: Path, *rest: object) -> None:
        if len(seen) == 2 and "otzi digest" in rest[-1]:
            raise KeyboardInterrupt
        write(path, *rest)
        seen.append(pictures.made_texts(path))

    monkeypatch.setattr(pictures, writer, stop_at_last)
    assert otzi(*words, grown, "--snapshots").code == 130
    assert [texts["otzi rays per pixel"] for texts in seen] == ["1", "2"]
    assert all("otzi digest" not in texts for texts in seen)
    assert otzi(*words, grown, "--snapshots").code == 0
    assert len(seen) == 5
    assert "otzi rays per pixel" not in seen[-1]
    assert grown.read_bytes() == whole.read_bytes()
    assert "done already" in otzi(*words, grown, "--snapshots").err


def test_a_movie_has_no_snapshots(ramped: Tomogram, otzi: Otzi, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    run = otzi("render", ramped.collection.path, "ts_001", "-o", path, "--snapshots")
    assert run.code == 2
    assert "is a movie" in run.err


def test_a_folder_that_nothing_may_be_written_into_is_told_of_at_once(
    ramped: Tomogram, otzi: Otzi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("otzi_viewers.render.output.os.access", lambda *_: False)
    run = otzi("render", ramped.collection.path, "ts_001", "-o", tmp_path / "a.png")
    assert run.code == 77
    assert f"nothing may be written into {tmp_path}" in run.err
    assert "render  " not in run.err


@pytest.mark.parametrize("missing", ["library", "codec"])
def test_a_movie_needs_its_codec_before_anything_is_drawn(
    ramped: Tomogram, otzi: Otzi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    av = pytest.importorskip("av")
    if missing == "library":
        monkeypatch.setitem(sys.modules, "av", None)
    else:
        monkeypatch.setattr(av, "codecs_available", {"mpeg4"})
    words = ("render", ramped.collection.path, "ts_001", "-o", tmp_path / "a.mp4")
    run = otzi(*words, "--size", "8x6", "--turntable", "2")
    assert run.code == 78
    assert "pip install" in run.err
    assert not list(tmp_path.glob("*.mp4*"))
    assert not list(tmp_path.glob(".*"))


def test_an_exr_needs_its_library_before_anything_is_drawn(
    ramped: Tomogram, otzi: Otzi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "OpenEXR", None)
    run = otzi("render", ramped.collection.path, "ts_001", "-o", tmp_path / "a.exr")
    assert (run.code, "pip install 'otzi[exr]'" in run.err) == (78, True)
    assert not list(tmp_path.glob("a*"))


@pytest.mark.parametrize("kind", ["png", "exr"])
def test_a_camera_inside_of_what_is_drawn_is_told_of(
    ramped: Tomogram, otzi: Otzi, tmp_path: Path, kind: str
) -> None:
    if kind == "exr":
        pytest.importorskip("OpenEXR")
    scene, path = tmp_path / "scene.toml", tmp_path / f"a.{kind}"
    solid = (
        '[[classes]]\nname = "lumen"\nlow = 0.1\nhigh = 0.2\nextinction = 50.0\n'
        "[density]\nlow = -1.0\nhigh = 0.0\n[camera]\ntarget = [0.0, 0.0, 0.0]\n"
    )
    words = ("render", ramped.collection.path, "ts_001", "-o", path, "--scene", scene)
    words = (*words, "--size", "24x18")
    scene.write_text(solid + "distance = 0.01\n")
    inside = otzi(*words)
    assert inside.code == 78
    assert "the camera is inside what is drawn: 100% of the picture" in inside.err
    assert not list(tmp_path.glob("a*"))
    scene.write_text(solid + "distance = 2.0\n")
    assert otzi(*words).code == 0


@pytest.mark.parametrize("kind", ["png", "exr", "mp4"])
def test_a_disk_that_is_full_leaves_what_was_there(
    ramped: Tomogram, otzi: Otzi, disk: Path, kind: str
) -> None:
    pytest.importorskip({"exr": "OpenEXR", "mp4": "av", "png": "PIL"}[kind])
    path = disk / f"a.{kind}"
    path.write_bytes(b"what was there")
    (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free - 1024))
    words = ("render", ramped.collection.path, "ts_001", "-o", path, "--size", "64x48")
    run = otzi(*words, *(("--turntable", "2") if kind == "mp4" else ()))
    assert run.code == 75
    assert "No space left" in run.err or "full" in run.err
    assert path.read_bytes() == b"what was there"
    assert not list(disk.glob("*partial*"))
    (disk / "filler").unlink()
    assert otzi(*words, *(("--turntable", "2") if kind == "mp4" else ())).code == 0
    assert path.stat().st_size > 500

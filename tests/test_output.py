"""PNG files: read by others, whole or not there, and telling what they show."""

from __future__ import annotations

import errno
import os
import zlib
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from otzi.errors import AccessDenied, CannotCreate, OutOfSpace, UsageError
from otzi_viewers.render.output import check_output, png_bytes, read_texts, write_picture

if TYPE_CHECKING:
    from pathlib import Path

TEXTS = {"Software": "otzi", "otzi scene": '[light]\nposition = "Å"\n'}
PICTURE = np.random.default_rng(0).random((5, 7, 3)).astype(np.float32)


@pytest.mark.parametrize("bits", [8, 16])
def test_pillow_reads_the_picture_and_its_texts(bits: int, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write_picture(path, PICTURE, bits, TEXTS)
    codes = np.rint(PICTURE.astype(np.float64) * (2**bits - 1)).astype(int)
    with Image.open(path) as image:
        assert (image.mode, image.size) == ("RGB", (7, 5))
        assert image.text == TEXTS
        np.testing.assert_array_equal(np.asarray(image), codes >> (bits - 8))
    assert read_texts(path) == TEXTS


def test_16_bits_are_all_there() -> None:
    data = png_bytes(PICTURE, 16, {})
    start = data.index(b"IDAT") + 4
    length = int.from_bytes(data[start - 8 : start - 4], "big")
    rows = np.frombuffer(zlib.decompress(data[start : start + length]), np.uint8).reshape(5, -1)
    assert (rows[:, 0] == 2).all()
    codes = np.cumsum(rows[:, 1:], axis=0, dtype=np.uint8).view(">u2").reshape(5, 7, 3)
    np.testing.assert_array_equal(codes, np.rint(PICTURE.astype(np.float64) * 65535))


@pytest.mark.parametrize("content", [None, b"", b"no picture", png_bytes(PICTURE, 8, TEXTS)[:60]])
def test_what_is_not_ours_says_nothing(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    if content is not None:
        path.write_bytes(content)
    assert read_texts(path) == {}


def test_a_picture_of_others_is_read_past(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (3, 3)).save(path)
    assert read_texts(path) == {}


@pytest.mark.parametrize(
    ("code", "error"), [(errno.ENOSPC, OutOfSpace), (errno.EACCES, AccessDenied)]
)
def test_a_failed_write_leaves_what_was_there(
    code: int, error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"before")

    def fail(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(error, match=r"a\.png"):
        write_picture(path, PICTURE, 8, {})
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a.png", b"before")]


def test_places_where_no_picture_can_be_are_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    check_output(tmp_path / "A.PNG")
    with pytest.raises(UsageError, match=r"cannot write \.gif .* one of \.png, \.exr, \.mp4"):
        check_output(tmp_path / "a.gif")
    with pytest.raises(UsageError, match="without suffix"):
        check_output(tmp_path / "a")
    with pytest.raises(CannotCreate, match="is a folder"):
        check_output(tmp_path / "folder.png")
    with pytest.raises(CannotCreate, match="missing is not there"):
        check_output(tmp_path / "missing" / "a.png")

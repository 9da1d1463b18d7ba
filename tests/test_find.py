"""Which files are found, and what their tomograms are called."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otzi.errors import NotFoundError, checked_name
from otzi_pipelines.ingest.find import find_sources, tomogram_id


def _write(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def test_sources_are_found_once_whatever_they_are_called(tmp_path: Path) -> None:
    names = ["a.mrc", "B.MRC", "sub/c.rec", "sub/d.map", "e.map.gz", "f.MRC.BZ2"]
    others = [".hidden.mrc", "._a.mrc", ".x/e.mrc", "stack.st", "notes.txt", "g.txt.gz", "h.gz"]
    for name in names + others:
        _write(tmp_path, name, b"")
    found = find_sources([tmp_path, tmp_path / "a.mrc"])
    assert sorted(path.name for path in found) == sorted(Path(name).name for name in names)
    with pytest.raises(NotFoundError, match="no MRC file in"):
        find_sources([_write(tmp_path / "empty", "notes.txt", b"").parent])


@given(st.text(max_size=200).filter(lambda text: "/" not in text and "\0" not in text))
def test_any_file_name_gives_an_id(name: str) -> None:
    found = tomogram_id(Path("x") / (name + ".mrc"))
    assert checked_name(found, "tomogram") == found


@pytest.mark.parametrize("name", ["ts 1.mrc", "ts 1.mrc.gz", "ts 1.MRC.BZ2", "ts 1.rec"])
def test_compression_is_no_part_of_the_id(name: str) -> None:
    assert tomogram_id(Path(name)) == "ts_1"

"""The log of an upload: all that was noted comes back, whatever a kill tore."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otzi.store.objects import StoredObject
from otzi.store.upload_log import UploadLog

UPLOAD = {"manifest": "ab", "pointer": {"e_tag": '"1"'}}
OBJECTS = {f"0/c/0/0/{i}": StoredObject(i, f'"{i}"', str(i)) for i in range(5)}


def _written(folder: Path) -> UploadLog:
    log = UploadLog(folder / "raw.upload")
    log.begin(UPLOAD, "7")
    for name, stored in OBJECTS.items():
        log.add(name, stored)
    return log


def test_it_gives_what_was_noted(tmp_path: Path) -> None:
    assert _written(tmp_path).read(UPLOAD) == ("7", OBJECTS)


@pytest.mark.parametrize("other", [{}, {**UPLOAD, "manifest": "cd"}, {**UPLOAD, "pointer": None}])
def test_it_is_of_one_upload_only(tmp_path: Path, other: dict[str, object]) -> None:
    assert _written(tmp_path).read(other) is None


@given(st.data())
def test_a_torn_line_takes_no_other_with_it(data: st.DataObject) -> None:
    with TemporaryDirectory() as folder:
        log = _written(Path(folder))
        whole = log.path.read_text()
        n_bytes = data.draw(st.integers(0, len(whole)))
        log.path.write_text(whole[:n_bytes])
        log.add("later", StoredObject(9, '"9"'))
        n_whole = sum(whole[:n_bytes].count(f'"version": "{i}"}}') for i in range(5))
        if n_bytes < whole.index("\n"):
            assert log.read(UPLOAD) is None
        else:
            kept = dict(list(OBJECTS.items())[:n_whole])
            assert log.read(UPLOAD) == ("7", {**kept, "later": StoredObject(9, '"9"')})

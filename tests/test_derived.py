"""What follows from a product: kept beside it, made again when in doubt, no part of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from otzi.ledger.audit import audit
from otzi.ledger.sweep import sweep
from otzi.store.derived import DERIVED, derived, outdated

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from otzi.tomogram import Tomogram

VOLUME = np.arange(8 * 9 * 10, dtype=np.int16).reshape(8, 9, 10)


class Maker:
    """Makes what is derived, and counts how often."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> dict[str, NDArray[np.int64]]:
        self.count += 1
        return {"values": np.arange(5), "one": np.array(self.count)}


@pytest.fixture
def tomo(add_tomogram: Callable[..., Tomogram]) -> Tomogram:
    return add_tomogram(VOLUME)


def kept_files(tomo: Tomogram) -> list[Path]:
    return sorted((tomo.folder / "raw" / DERIVED).iterdir())


def test_it_is_made_once_for_each_content_and_name(tomo: Tomogram) -> None:
    make = Maker()
    folder, digest = tomo.folder / "raw", tomo.digest("raw")
    for _ in range(2):
        found = derived(folder, digest, "a", make)
        np.testing.assert_array_equal(found["values"], np.arange(5))
        assert found["one"] == 1
    derived(folder, digest, "b", make)
    derived(folder, "0" * 64, "a", make)
    assert make.count == 3


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped"])
def test_what_is_damaged_is_made_again(tomo: Tomogram, damage: str) -> None:
    make = Maker()
    folder, digest = tomo.folder / "raw", tomo.digest("raw")
    derived(folder, digest, "a", make)
    (file,) = kept_files(tomo)
    data = bytearray(file.read_bytes())
    data[data.index(np.arange(5).tobytes())] ^= 1
    file.write_bytes({"empty": b"", "cut": data[:-90], "flipped": bytes(data)}[damage])
    assert derived(folder, digest, "a", make)["one"] == 2
    assert derived(folder, digest, "a", make)["one"] == 2


def test_where_nothing_can_be_written_it_is_made_and_not_kept(tmp_path: Path) -> None:
    make = Maker()
    nowhere = tmp_path / "file"
    nowhere.write_text("no folder")
    for count in (1, 2):
        assert derived(nowhere, "0" * 64, "a", make)["one"] == count


def test_it_is_no_part_of_the_product_and_goes_with_its_content(tomo: Tomogram) -> None:
    collection, folder = tomo.collection.path, tomo.folder / "raw"
    old = tomo.digest("raw")
    derived(folder, old, "a", Maker())
    assert audit(collection).findings == []
    assert tomo.digest("raw") == old
    assert sweep(collection).litter == ()
    assert outdated(folder) == []
    with tomo.write("raw", dtype=np.int16, shape=VOLUME.shape, recipe={"made": "anew"}) as writer:
        writer[tuple(slice(n) for n in VOLUME.shape)] = VOLUME + 1
    derived(folder, tomo.digest("raw"), "a", Maker())
    assert outdated(folder) == [f for f in kept_files(tomo) if f.name.startswith(old[:32])]
    looked = sweep(collection, dry_run=True)
    assert [item.what for item in looked.litter] == ["outdated"]
    assert len(kept_files(tomo)) == 2
    assert sweep(collection) == looked
    (left,) = kept_files(tomo)
    assert left.name.startswith(tomo.digest("raw")[:32])
    assert sweep(collection).litter == ()


def test_nothing_is_outdated_where_it_is_not_known_what_is_current(tomo: Tomogram) -> None:
    folder = tomo.folder / "raw"
    derived(folder, "0" * 64, "a", Maker())
    (folder / "zarr.json").write_text("{")
    assert outdated(folder) == []

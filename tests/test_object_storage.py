"""Collections in an object store: written whole or not at all, read by ranges, errors by name."""

from __future__ import annotations

import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mrc_files import mrc_bytes
from otzi.collection import create_collection, open_collection
from otzi.errors import (
    CannotCreate,
    ConfigurationError,
    CorruptShard,
    Locked,
    NotFoundError,
    TemporaryFailure,
    UsageError,
)
from otzi.store.crashpoints import UPLOAD_POINTS
from otzi.store.location import as_location, zarr_store
from otzi.store.objects import ObjectPath
from s3_server import BUCKET, S3Server, s3_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from commands import Otzi
    from otzi.collection import Collection
    from otzi.tomogram import Tomogram

CLASSES = ("background", "membrane")
SHAPE = (40, 50, 70)
VOLUME = np.random.default_rng(0).integers(-900, 900, SHAPE).astype(np.int16)


@pytest.fixture(scope="module")
def running() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture
def server(
    running: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[S3Server]:
    """Give the server as the environment names it; what it was asked is counted anew."""
    for name, value in running.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("OTZI_SCRATCH", str(tmp_path / "scratch"))
    running.requests.clear()
    yield running
    running.refuses = running.ignores_conditions = False


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"s3://{BUCKET}/deep/{tmp_path.name}"


@pytest.fixture
def remote(server: S3Server, url: str) -> Collection:
    return create_collection(url, CLASSES)


def write(tomo: Tomogram, volume: np.ndarray = VOLUME, product: str = "raw", **more: Any) -> None:
    """Publish a volume of 16³ chunks, with a recipe that its content decides."""
    shape = volume.shape[-3:]
    options = {"dtype": volume.dtype, "shape": shape, "spacing_angstrom": (10.0,) * 3, **more}
    recipe = {"sum": int(volume.sum(dtype=np.int64))}
    with tomo.write(product, recipe=recipe, chunk_voxels=16, **options) as writer:
        region = tuple(slice(n) for n in volume.shape)
        if not writer.is_done(region):
            writer[region] = volume


def objects(tomo: Tomogram, product: str = "raw") -> set[str]:
    folder = tomo.folder / product
    assert isinstance(folder, ObjectPath)
    return set(folder.objects())


def change(path: Any, damage: Any) -> None:
    """Have other bytes at a key."""
    path.put(damage(path.read_bytes()), replacing=path.state())


# Writing and reading


def test_from_ingest_to_ramps(server: S3Server, url: str, otzi: Otzi, tmp_path: Path) -> None:
    source = tmp_path / "ts_016.mrc"
    source.write_bytes(mrc_bytes(VOLUME))
    assert otzi("ingest", url, source).code == 0
    again = otzi("ingest", url, source, "--json")
    assert json.loads(again.out)["items"][0]["state"] == "done"
    np.testing.assert_array_equal(open_collection(url)["ts_016"].raw.values, VOLUME)

    tomo = open_collection(url, "r+")["ts_016"]
    labels = (VOLUME > 0).astype(np.uint8)
    write(tomo, labels, "labels/hard", downsample="mode", parents=("raw",))
    soft = np.stack([255 - 255 * labels, 255 * labels])
    soft[1, 3] = np.linspace(0, 255, 50 * 70).reshape(50, 70)
    soft[0] = 255 - soft[1]
    write(tomo, soft, "probs/net", channels=CLASSES, parents=("raw",))
    np.testing.assert_array_equal(tomo.labels("hard").values, labels)
    np.testing.assert_allclose(tomo.probs("net").sum("c").values, 1, atol=1e-6)

    ramps = otzi("ramps", url, "--probs", "net", "--json")
    assert ramps.code == 0, ramps.err
    low = json.loads(ramps.out)["ts_016"]["ramps"]["membrane"]["low"]
    assert low == tomo.attributes("ramps/net")["ramps"]["membrane"]["low"]
    assert 0 < low < 1
    rows = json.loads(otzi("ls", url, "--json").out)["tomograms"]
    assert rows[0]["products"] == ["raw", "labels/hard", "probs/net", "ramps/net"]
    assert "40 × 50 × 70" in otzi("info", url, "ts_016").out
    place = otzi("path", url, "ts_016", "raw").out.strip()
    assert place == f"{url}/tomograms/ts_016/raw/1"
    assert not list((tmp_path / "scratch").glob("*/.staging/*raw"))


def test_zarr_python_reads_what_was_published(remote: Collection) -> None:
    tomo = remote.add("ts_001")
    write(tomo)
    group = zarr.open_group(zarr_store(tomo.path("raw")), mode="r")
    np.testing.assert_array_equal(np.asarray(group["0"]), VOLUME)
    assert group.attrs["otzi"]["state"] == "complete"


def test_a_local_collection_has_the_same_bytes(remote: Collection, tmp_path: Path) -> None:
    local = create_collection(tmp_path / "local", CLASSES).add("ts_001")
    write(local)
    write(remote.add("ts_001"))
    assert remote["ts_001"].digest("raw") == local.digest("raw")
    assert remote["ts_001"].manifest("raw") == local.manifest("raw")


@pytest.fixture(scope="module")
def shared(running: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tomogram]:
    """A tomogram that is only read; its environment lasts as long as it does."""
    patch = pytest.MonkeyPatch()
    for name, value in running.environment.items():
        patch.setenv(name, value)
    patch.setenv("OTZI_SCRATCH", str(tmp_path_factory.mktemp("scratch")))
    tomo = create_collection(f"s3://{BUCKET}/shared", CLASSES).add("ts_001")
    write(tomo)
    yield tomo
    patch.undo()


@settings(deadline=None, max_examples=15, suppress_health_check=list(HealthCheck))
@given(
    spans=st.tuples(*[st.tuples(st.integers(0, n), st.integers(0, n)) for n in SHAPE]),
    cache=st.sampled_from([0, 10**6]),
)
def test_any_box_is_what_was_written(
    shared: Tomogram, server: S3Server, spans: tuple[tuple[int, int], ...], cache: int
) -> None:
    array = type(shared.array("raw"))(shared.path("raw"), 0, cache)
    region = tuple(slice(min(span), max(span)) for span in spans)
    for copy in (array, pickle.loads(pickle.dumps(array))):
        np.testing.assert_array_equal(copy[region], VOLUME[region])


def test_a_crop_costs_few_ranges_and_no_whole_shard(remote: Collection, server: S3Server) -> None:
    volume = np.random.default_rng(1).integers(-99, 99, (128, 256, 320)).astype(np.int16)
    tomo = remote.add("ts_001")
    with tomo.write(
        "raw", dtype="int16", shape=volume.shape, spacing_angstrom=(10.0,) * 3, recipe={}
    ) as writer:
        writer[tuple(slice(n) for n in volume.shape)] = volume
    server.requests.clear()
    array = tomo.array("raw")
    assert len(server.requests) == 4  # pointer, manifest, metadata, one listing

    server.requests.clear()
    box = (slice(0, 64), slice(70, 190), slice(200, 300))
    np.testing.assert_array_equal(array[box], volume[box])
    chunks, shards = 2 * 2, 2
    shard_bytes = sum(n for name, (n, _) in tomo.manifest("raw").items() if name.startswith("0/c"))
    asked = server.asked("GET", "/0/c/")
    assert all(request.is_range for request in asked)
    assert shards + 1 < len(asked) <= 2 * shards + chunks
    assert sum(request.n_bytes for request in asked) < shard_bytes / 2

    server.requests.clear()
    array[box]
    assert len(server.requests) == len(asked) - shards  # the indexes are kept

    server.requests.clear()
    pickle.loads(pickle.dumps(array))  # as Dask sends it with every task
    assert not server.requests


def test_a_new_revision_replaces_the_old_one(remote: Collection) -> None:
    tomo = remote.add("ts_001")
    write(tomo)
    write(tomo, VOLUME + 1)
    np.testing.assert_array_equal(tomo.raw.values, VOLUME + 1)
    assert {name.split("/")[0] for name in objects(tomo)} == {"zarr.json", "2"}


@pytest.mark.parametrize("url", ["memory://any/c", "memory://all", f"s3://{BUCKET}/a b/50% ü#1"])
def test_other_places_are_collections_too(server: S3Server, url: str) -> None:
    tomo = create_collection(url, CLASSES).add("ts_001")
    write(tomo)
    write(tomo, (VOLUME > 0).astype(np.uint8), "labels/hard", downsample="mode")
    assert open_collection(url).ids == ("ts_001",)
    assert tomo.products == ("raw", "labels/hard")
    np.testing.assert_array_equal(tomo.raw.values, VOLUME)
    stored = zarr.open_array(zarr_store(tomo.path("raw") / "0"), mode="r")
    np.testing.assert_array_equal(np.asarray(stored), VOLUME)


# Who comes second, and what is interrupted


def test_of_two_writers_the_second_is_refused(
    remote: Collection, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tomo = remote.add("ts_001")
    for first in (None, 1):
        with pytest.raises(Locked, match="somebody else"), ExitStack() as slow:  # noqa: PT012
            writer = slow.enter_context(
                tomo.write("raw", dtype="i2", shape=SHAPE, spacing_angstrom=(1.0,) * 3, recipe={})
            )
            writer[tuple(map(slice, SHAPE))] = VOLUME
            with pytest.raises(Locked):  # on this machine before any work is done
                write(tomo)
            monkeypatch.setenv("OTZI_SCRATCH", str(tmp_path / f"another{first}"))
            write(tomo, VOLUME + (first or 0))
        np.testing.assert_array_equal(tomo.raw.values, VOLUME + (first or 0))
        assert len({name.split("/")[0] for name in objects(tomo)}) == 2
        monkeypatch.setenv("OTZI_SCRATCH", str(tmp_path / f"next{first}"))


def test_of_two_who_create_a_collection_one_does(
    remote: Collection, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CannotCreate, match="a collection already"):
        create_collection(url)
    monkeypatch.setattr(ObjectPath, "exists", lambda self: False)  # as one sees it who is too early
    with pytest.raises(CannotCreate, match="already"):
        create_collection(url)


SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
from otzi.collection import open_collection
from test_object_storage import write
write(open_collection(sys.argv[2], "r+").add("ts_001"))
"""


@pytest.mark.parametrize("point", [*UPLOAD_POINTS, "object-uploaded:4", "manifest-written"])
def test_a_kill_loses_nothing_and_the_upload_goes_on(
    remote: Collection, server: S3Server, url: str, point: str
) -> None:
    command = [sys.executable, "-c", SCRIPT, os.path.dirname(__file__), url]  # noqa: PTH120
    environment = {**os.environ, "OTZI_FAIL_AT": point}
    killed = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert remote.ids == (("ts_001",) if point == "pointer-put" else ())
    sent = {r.path for r in server.asked("PUT", "/raw/1/")}
    server.requests.clear()

    tomo = remote.add("ts_001")
    if not tomo.is_made("raw", {"sum": int(VOLUME.sum(dtype=np.int64))}, ()):
        write(tomo)
    np.testing.assert_array_equal(tomo.raw.values, VOLUME)
    assert {name.split("/")[0] for name in objects(tomo)} == {"zarr.json", "1"}
    n_again = len({r.path for r in server.asked("PUT", "/raw/1/")} & sent)
    # Of those on their way at once, the answers to some were not noted any more.
    assert n_again <= (3 if point.startswith("object-uploaded") else 0)
    if point == "upload-verified":
        assert not server.asked("PUT", "/raw/1/")


def test_an_upload_does_not_go_on_where_another_was_published(
    remote: Collection, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tomo = remote.add("ts_001")
    upload = ObjectPath.upload

    def fail(self: ObjectPath, file: Path) -> Any:
        if self.name == "manifest.json":
            raise TemporaryFailure("the line is down")
        return upload(self, file)

    with monkeypatch.context() as patch:
        patch.setattr(ObjectPath, "upload", fail)
        with pytest.raises(TemporaryFailure, match="line is down"):
            write(tomo, VOLUME + 1)
    orphan = tomo.folder / "raw" / "1"
    assert isinstance(orphan, ObjectPath)
    assert len(orphan.objects()) > 3
    with monkeypatch.context() as patch:
        patch.setenv("OTZI_SCRATCH", str(tmp_path / "another"))
        write(tomo)  # removes what it finds: nobody can publish that any more
    assert not orphan.objects()
    write(tomo, VOLUME + 1)
    np.testing.assert_array_equal(tomo.raw.values, VOLUME + 1)
    assert tomo.path("raw").name == "3"


def test_a_store_that_ignores_conditions_is_refused_and_the_work_kept(
    remote: Collection, server: S3Server, tmp_path: Path
) -> None:
    server.ignores_conditions = True
    with pytest.raises(ConfigurationError, match="conditional writes"):
        write(remote.add("ts_001"))
    assert remote.ids == ()
    (journal,) = (tmp_path / "scratch").glob("*/.staging/*.journal")
    assert len(journal.read_text().splitlines()) > 1
    server.ignores_conditions = False
    write(remote.add("ts_001"))
    np.testing.assert_array_equal(remote["ts_001"].raw.values, VOLUME)


# Damage


def _shard(tomo: Tomogram) -> Any:
    return tomo.path("raw").joinpath("0", "c", "0", "0", "0")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda data: data[:-9], "bytes"),
        (lambda data: data[:99] + bytes([data[99] ^ 4]) + data[100:], "damaged in chunk"),
        (lambda data: data[:-30] + bytes([data[-30] ^ 1]) + data[-29:], "index"),
    ],
)
def test_a_damaged_object_is_named(remote: Collection, damage: Any, says: str) -> None:
    tomo = remote.add("ts_001")
    write(tomo)
    change(_shard(tomo), damage)

    def read() -> None:
        tomo.array("raw")[...]

    with pytest.raises(CorruptShard, match=says) as told:
        read()
    assert str(_shard(tomo)) in str(told.value)


def test_a_missing_object_is_an_error_and_never_zeros(remote: Collection) -> None:
    tomo = remote.add("ts_001")
    write(tomo)
    array = tomo.array("raw")
    _shard(tomo).parent.remove(last="")
    with pytest.raises(CorruptShard, match="missing"):
        array[...]
    with pytest.raises(CorruptShard, match="missing"):
        tomo.array("raw")


# What the user gets to see


def _failed(run: Any, code: int, *parts: str) -> None:
    assert run.code == code, run.err
    assert len(run.err.strip().splitlines()) == 1
    for part in parts:
        assert part in run.err


def test_a_wrong_bucket_is_named(server: S3Server, otzi: Otzi) -> None:
    _failed(otzi("ls", "s3://no-such-bucket/c"), 2, "s3://no-such-bucket")


def test_an_empty_place_is_no_collection(server: S3Server, url: str, otzi: Otzi) -> None:
    _failed(otzi("ls", url), 2, "no collection", url)
    with pytest.raises(NotFoundError, match=f"no collection at {url}"):
        open_collection(url)


def test_without_credentials_it_says_what_to_set(
    remote: Collection, url: str, otzi: Otzi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", f"http://127.0.0.1:{_closed_port()}")
    _failed(otzi("ls", url), 77, "AWS_ACCESS_KEY_ID")


def test_a_refusal_is_no_permission(
    remote: Collection, server: S3Server, url: str, otzi: Otzi
) -> None:
    server.refuses = True
    _failed(otzi("ls", url), 77, url, "credentials")


def test_a_server_that_is_down_is_named_soon(
    remote: Collection, url: str, otzi: Otzi, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = f"http://127.0.0.1:{_closed_port()}"
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    begun = time.monotonic()
    _failed(otzi("ls", url), 75, endpoint, "run it again")
    assert time.monotonic() - begun < 20


def _closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


def test_the_viewer_says_that_it_wants_a_folder(remote: Collection, url: str, otzi: Otzi) -> None:
    _failed(otzi("view", url, "--no-browser"), 78, url, "object store")


@pytest.mark.parametrize("url", ["s3:///c", "s3://b/../c", "s3://b//c", "ftp://host/c"])
def test_urls_that_cannot_be_meant_are_refused(url: str) -> None:
    with pytest.raises(UsageError, match=r"BUCKET|part that|no store"):
        as_location(url)


def test_a_url_without_its_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "otzi.store.objects", raising=False)
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'otzi\[s3\]'"):
        open_collection("s3://bucket/c")

"""Verb view, without a browser: what it makes, prints, and does when it cannot."""

from __future__ import annotations

import json
from contextlib import contextmanager
from threading import Event
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import dask.array as da
import numpy as np
import pytest

from otzi.errors import AccessDenied, CorruptShard, Locked, NotFoundError, UsageError
from otzi_pipelines.view_product import build_view
from otzi_viewers import view
from otzi_viewers.view import check_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from commands import Otzi
    from otzi.collection import Collection
    from otzi.console import Console
    from otzi.tomogram import Tomogram

VOLUME = np.random.default_rng(0).normal(0, 9, (20, 30, 40)).astype(np.float32)


@pytest.fixture
def tomo(add_tomogram: Callable[..., Tomogram]) -> Tomogram:
    return add_tomogram(VOLUME)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Record calls of other verbs, and let the server stop at once."""
    recorded: list[dict[str, Any]] = []

    def call(name: str, console: Console, **arguments: Any) -> int:
        recorded.append({"verb": name} | arguments)
        return 0

    @contextmanager
    def stopped() -> Iterator[Event]:
        event = Event()
        event.set()
        yield event

    monkeypatch.setattr(view, "call", call)
    monkeypatch.setattr(view, "_terminated", stopped)
    return recorded


def test_it_has_the_product_made_and_prints_the_address(
    tomo: Tomogram, calls: list[dict[str, Any]], otzi: Otzi
) -> None:
    run = otzi("view", tomo.collection.path, "--no-browser")
    assert run.code == 0
    assert run.out.startswith("http://127.0.0.1:")
    assert len(run.out.splitlines()) == 1
    assert calls == [
        {
            "verb": "view-product",
            "collection": tomo.collection.path,
            "tomograms": ["ts_001"],
            "probs": None,
        }
    ]


def test_of_several_tomograms_the_list_is_shown(
    add_tomogram: Callable[..., Tomogram], calls: list[dict[str, Any]], otzi: Otzi
) -> None:
    folder = add_tomogram(VOLUME, "b").collection.path
    add_tomogram(VOLUME, "a")
    document = json.loads(otzi("view", folder, "--no-browser", "--json").out)
    assert document["tomograms"] == ["a", "b"]
    assert urlsplit(document["url"]).path.endswith("/")
    assert calls == []
    document = json.loads(otzi("view", folder, "b", "--no-browser", "--json").out)
    assert document["tomograms"] == ["b"]
    assert document["url"].endswith("/show/b?layout=4panel")
    assert len(calls) == 1
    run = otzi("view", folder, "--probs", "net")
    assert (run.code, "name it after the collection" in run.err) == (2, True)


def test_what_is_compared_is_looked_for_first(
    tomo: Tomogram, calls: list[dict[str, Any]], otzi: Otzi
) -> None:
    for name in ("net", "other"):
        product = f"probs/{name}"
        with tomo.write(product, dtype="u1", recipe={}, channels=tomo.classes.names) as writer:
            blocks = da.zeros((3, *VOLUME.shape), dtype="u1", chunks=(3, 64, 64, 64))
            da.store(blocks, writer, lock=False)
    folder = tomo.collection.path
    run = otzi("view", folder, "--probs", "net", "--compare", "other", "--no-browser")
    wish = parse_qs(urlsplit(run.out.strip()).query)
    assert wish == {"layout": ["4panel"], "segmentation": ["probs/net"], "beside": ["probs/other"]}
    assert "no labels/x" in otzi("view", folder, "--probs", "net", "--compare", "labels/x").err


def test_other_machines_are_let_in_with_a_warning(
    tomo: Tomogram, calls: list[dict[str, Any]], otzi: Otzi
) -> None:
    run = otzi("view", tomo.collection.path, "--no-browser", "--host", "127.0.0.2")
    assert run.out.startswith("http://127.0.0.2:")
    assert "whoever listens to the network" in run.err
    assert otzi("view", tomo.collection.path, "--host", "0.0.0.0").code == 2


def test_a_browser_is_opened_unless_told_not_to(
    tomo: Tomogram, calls: list[dict[str, Any]], otzi: Otzi, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    folder = tomo.collection.path
    otzi("view", folder, "--no-browser")
    assert opened == []
    run = otzi("view", folder)
    assert opened == [run.out.strip()]


def test_errors_name_the_remedy(
    collection: Collection,
    add_tomogram: Callable[..., Tomogram],
    calls: list[dict[str, Any]],
    otzi: Otzi,
) -> None:
    empty = otzi("view", collection.path)
    assert (empty.code, "run `otzi ingest" in empty.err) == (2, True)
    add_tomogram(VOLUME)
    assert "no tomogram 'x'" in otzi("view", collection.path, "x").err
    assert "no probs/x" in otzi("view", collection.path, "--probs", "x").err
    assert otzi("view", collection.path, "--port", "70000").code == 2
    half = add_tomogram(VOLUME.astype(np.float16), "half")
    run = otzi("view", collection.path, half.id)
    assert run.code == 78
    assert "float16, which no browser can show: run `otzi view-product" in run.err


@pytest.mark.parametrize("error", [AccessDenied, Locked, NotFoundError])
def test_what_cannot_be_made_is_done_without(
    error: type[Exception],
    tomo: Tomogram,
    calls: list[dict[str, Any]],
    otzi: Otzi,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise error("not today")

    monkeypatch.setattr(view, "call", refuse)
    run = otzi("view", tomo.collection.path, "--no-browser")
    assert run.code == 0
    assert "showing the raw density alone: not today" in run.err
    build_view(tomo)
    assert "showing an older view" in otzi("view", tomo.collection.path, "--no-browser").err


def test_several_probabilities_are_a_question(
    tomo: Tomogram, calls: list[dict[str, Any]], otzi: Otzi, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(*_: object, **__: object) -> int:
        raise UsageError("choose --probs a|b")

    monkeypatch.setattr(view, "call", ask)
    assert otzi("view", tomo.collection.path).code == 2


def test_every_file_is_looked_at_first(tomo: Tomogram) -> None:
    with tomo.write("probs/net", dtype="u1", recipe={}, channels=tomo.classes.names) as writer:
        blocks = da.zeros((3, *VOLUME.shape), dtype="u1", chunks=(3, 64, 64, 64))
        da.store(blocks, writer, lock=False)
    build_view(tomo, "net")
    check_files(tomo)
    overview = tomo.path("view") / "overview" / "0" / "c" / "0" / "0" / "0" / "0"
    content = overview.read_bytes()
    overview.write_bytes(content[:-1])
    with pytest.raises(CorruptShard, match=f"has {len(content) - 1} bytes, not {len(content)}"):
        check_files(tomo)
    overview.unlink()
    with pytest.raises(CorruptShard, match="is missing: make view of ts_001 again"):
        check_files(tomo)

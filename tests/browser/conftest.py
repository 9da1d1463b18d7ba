"""A synthetic virion in a collection, a server and a browser, shared by the tests of a module."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from browser.driver import Browser, browser
from browser.virion import make_virion
from otzi_viewers.server import ViewServer, view_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from otzi.tomogram import Tomogram


@pytest.fixture(scope="module")
def virion_tomogram(tmp_path_factory: pytest.TempPathFactory) -> Tomogram:
    with pytest.MonkeyPatch.context() as patch:
        return make_virion(tmp_path_factory.mktemp("viewer") / "collection", patch)


@pytest.fixture(scope="module")
def server() -> Iterator[ViewServer]:
    with view_server() as running:
        yield running


@pytest.fixture(scope="module")
def page(require: Callable[[str, str], None]) -> Iterator[Browser]:
    with browser(require, (900, 700)) as running:
        yield running

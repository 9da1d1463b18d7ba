"""Settings files: what is written is meant, and what cannot be meant is named."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from otzi.errors import ConfigurationError, NotFoundError
from otzi.settings import STRICT, load_settings, read_settings

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Oven:
    __pydantic_config__ = STRICT

    minutes: int = 40
    celsius: float = 180.0
    racks: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.minutes < 1:
            raise ConfigurationError(f"minutes = {self.minutes} must be at least 1")


def test_a_file_becomes_settings(tmp_path: Path) -> None:
    path = tmp_path / "oven.toml"
    path.write_text("minutes = 25\nracks = [1, 3]\n")
    assert load_settings(Oven, path) == Oven(minutes=25, racks=(1, 3))
    path.write_text("")
    assert load_settings(Oven, path) == Oven()


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("minuts = 3", "unknown key 'minuts'; did you mean minutes"),
        ("zzz = 3", r"unknown key 'zzz'; did you mean celsius, minutes, racks\?"),
        ("minutes = 'long'", "minutes = 'long': input should be a valid integer"),
        ("racks = [1, 'top']", r"racks.1 = 'top': input should be"),
        ("minutes = 0", "oven.toml: minutes = 0 must be at least 1$"),
        ("minutes", "is not TOML"),
    ],
)
def test_the_key_and_its_value_are_named(tmp_path: Path, text: str, names: str) -> None:
    path = tmp_path / "oven.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=names):
        load_settings(Oven, path)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "oven.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="is not TOML"):
        load_settings(Oven, tmp_path / "oven.toml")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"oven\.toml is not there"):
        load_settings(Oven, tmp_path / "oven.toml")


def test_a_document_is_named_by_its_source() -> None:
    with pytest.raises(ConfigurationError, match=r"^the card: unknown key 'heat'"):
        read_settings(Oven, {"heat": 3}, "the card")

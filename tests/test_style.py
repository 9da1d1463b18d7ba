"""Styles: what enters a shader is checked, what is the same has the same digest."""

from __future__ import annotations

from dataclasses import replace

import pytest

from otzi.errors import ConfigurationError
from otzi_viewers.style import ClassStyle, Style

MEMBRANE = ClassStyle("membrane", 1, "#c79aab", low=0.25)


@pytest.mark.parametrize(
    "name", ["", "Membrane", "1st", "a b", "a-b", "a__b", "é", "m;discard", "x\n#define x", "_x"]
)
def test_names_cannot_carry_code(name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be named in a shader"):
        replace(MEMBRANE, name=name)


@pytest.mark.parametrize("color", ["", "red", "#fff", "#12345g", '#123456") //', "#1234567"])
def test_colours_cannot_carry_code(color: str) -> None:
    with pytest.raises(ConfigurationError, match="write it as '#rrggbb'"):
        replace(MEMBRANE, color=color)


@pytest.mark.parametrize("field", ["low", "opacity"])
@pytest.mark.parametrize("value", [-0.1, 1.01, float("nan"), float("inf")])
def test_numbers_of_a_class_have_a_range(field: str, value: float) -> None:
    with pytest.raises(ConfigurationError, match="must lie in 0 to"):
        replace(MEMBRANE, **{field: value})


@pytest.mark.parametrize("field", ["modulation", "density_low", "density_high"])
def test_numbers_of_a_style_have_a_range(field: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{field} is 2"):
        replace(Style(), **{field: 2.0})


def test_channels_and_names_are_checked() -> None:
    with pytest.raises(ConfigurationError, match="0 is the first"):
        replace(MEMBRANE, channel=-1)
    with pytest.raises(ConfigurationError, match="membrane, membrane"):
        Style((MEMBRANE, MEMBRANE))


def test_the_digest_is_that_of_the_table() -> None:
    style = Style((MEMBRANE,))
    assert style.digest == Style((replace(MEMBRANE),)).digest
    others = [
        Style(),
        Style((MEMBRANE,), modulation=0.5),
        Style((replace(MEMBRANE, low=0.26),)),
        Style((replace(MEMBRANE, shown=False),)),
    ]
    assert len({style.digest, *(other.digest for other in others)}) == 5


def test_colours_are_read_as_written() -> None:
    assert MEMBRANE.rgb == (199 / 255, 154 / 255, 171 / 255)

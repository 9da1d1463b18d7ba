"""The class table: names that may stand anywhere, and the table that belongs to some channels."""

from __future__ import annotations

from itertools import permutations

import pytest

from otzi.classes import DEFAULT_CLASSES, ClassTable, SegmentClass, rgb_of
from otzi.errors import UsageError


@pytest.mark.parametrize("name", ["a", "inner_membrane", "b2", "a_", "x" * 32])
def test_names_that_may_stand_in_paths_and_shaders(name: str) -> None:
    assert SegmentClass(name, "#000000").name == name


@pytest.mark.parametrize("name", ["", "A", "1a", "_a", "a-b", "é", "a__b", "a__", "x" * 33, "a\n"])
def test_other_names_are_refused_when_a_table_is_made(name: str) -> None:
    with pytest.raises(UsageError, match="lower-case letters, digits or single '_'"):
        ClassTable.named(("background", name))


def test_the_tomogram_itself_is_no_class() -> None:
    with pytest.raises(UsageError, match="'density' is that of the tomogram's own channel"):
        ClassTable.named(("background", "density"))


def test_the_table_of_some_channels() -> None:
    merged = DEFAULT_CLASSES.merged
    for names in permutations(DEFAULT_CLASSES.names):
        assert DEFAULT_CLASSES.having(names) == DEFAULT_CLASSES
    assert DEFAULT_CLASSES.having(("foreground", "background")) == merged
    assert merged.having(merged.names) == merged
    for others in [(), ("background",), ("background", "ice"), (*DEFAULT_CLASSES.names, "ice")]:
        assert DEFAULT_CLASSES.having(others) is None


def test_colours_are_read_as_written() -> None:
    assert rgb_of("#c79aAB") == (199 / 255, 154 / 255, 171 / 255)

"""Classes by the names that people give them."""

from __future__ import annotations

import pytest

from otzi.classes import ClassTable
from otzi.stroke_files.class_names import class_named

CLASSES = ClassTable.named(("background", "inner_membrane"))


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("inner_membrane", "inner_membrane"),
        (" Inner  Membrane\n", "inner_membrane"),
        ("INNER-membrane", "inner_membrane"),
        ("membrane", None),
        ("", None),
        ("2", None),
    ],
)
def test_a_label_means_a_class_however_it_is_written(label: str, name: str | None) -> None:
    assert class_named(label, CLASSES) == name

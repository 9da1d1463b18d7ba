"""The public names: sorted, importable, and complete."""

from __future__ import annotations

import otzi


def test_all_is_the_sorted_truth() -> None:
    assert otzi.__all__ == sorted(otzi.__all__)
    assert set(otzi.__all__) == set(otzi._HOMES)
    for name in otzi.__all__:
        assert getattr(otzi, name).__name__ == name
    assert set(otzi.__all__) <= set(dir(otzi))


def test_what_is_not_public_is_not_there() -> None:
    assert not hasattr(otzi, "Otzi")

"""What verbs do where an argument is left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from labelled import add_labels, one_hot
from otzi.arguments import chosen_tomograms, only_probs
from otzi.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from otzi.collection import Collection
    from otzi.tomogram import Tomogram

VOLUME = np.zeros((4, 5, 6), np.int16)


def test_all_tomograms_are_chosen_unless_some_are_named(
    collection: Collection, add_tomogram: Callable[..., Tomogram]
) -> None:
    with pytest.raises(NotFoundError, match=r"has no tomograms: run `otzi ingest \S+ FILE.mrc`"):
        chosen_tomograms(collection, None)
    for name in ("b", "a"):
        add_tomogram(VOLUME, name)
    assert [tomo.id for tomo in chosen_tomograms(collection, [])] == ["a", "b"]
    assert [tomo.id for tomo in chosen_tomograms(collection, ["b"])] == ["b"]
    with pytest.raises(NotFoundError, match="'c'"):
        chosen_tomograms(collection, ["a", "c"])


def test_probabilities_are_chosen_where_there_is_one(add_tomogram: Callable[..., Tomogram]) -> None:
    tomo = add_tomogram(VOLUME)
    add_labels(tomo, one_hot(VOLUME))
    assert only_probs(tomo) is None
    for name, found in [("unet", "unet"), ("forest", None)]:
        names = tomo.classes.names
        with tomo.write(f"probs/{name}", dtype="u1", recipe={}, channels=names) as writer:
            writer[0:3, 0:4, 0:5, 0:6] = np.zeros((3, *VOLUME.shape), np.uint8)
        if found:
            assert only_probs(tomo) == found
    with pytest.raises(UsageError, match=r"ts_001 has several .*: choose --probs forest\|unet"):
        only_probs(tomo)

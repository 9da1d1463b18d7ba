"""Ramps, extinctions and colours: taken from the collection where the scene leaves them open."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from otzi.errors import ConfigurationError, NotFoundError, UsageError
from otzi_pipelines.ramps.estimate import estimate_ramps
from otzi_viewers.render.scene import ClassLook, Density, Scene
from otzi_viewers.render.transfer import complete_scene, linear_color, transfer_of
from pictures import add_probs, look

if TYPE_CHECKING:
    from collections.abc import Callable

    from otzi.tomogram import Tomogram

CLASSES = ("background", "membrane", "lumen")


@pytest.fixture
def tomo(add_tomogram: Callable[..., Tomogram]) -> Tomogram:
    made = add_tomogram(np.zeros((6, 7, 8), np.int16))
    values = np.random.default_rng(1).integers(0, 128, (2, 6, 7, 8)).astype(np.uint8)
    add_probs(made, "net", values, CLASSES)
    return made


def test_what_is_open_is_filled_in_from_the_collection(tomo: Tomogram) -> None:
    estimate_ramps(tomo, "net")
    scene = complete_scene(Scene(), tomo, "net")
    assert [look.name for look in scene.classes] == ["membrane", "lumen"]
    ramps = tomo.attributes("ramps/net")["ramps"]
    for one in scene.classes:
        assert one.low == pytest.approx(ramps[one.name]["low"], abs=1e-4)
        assert one.color == tomo.classes[tomo.classes.index(one.name)].color
    assert scene.classes[0].extinction > scene.classes[1].extinction
    assert complete_scene(scene, tomo, "net") == scene


def test_a_foreground_of_all_classes_has_its_colour(tomo: Tomogram) -> None:
    merged = tomo.classes.merged
    add_probs(tomo, "two", np.ones((1, 6, 7, 8), np.uint8), merged.names)
    estimate_ramps(tomo, "two")
    (look,) = complete_scene(Scene(), tomo, "two").classes
    assert (look.name, look.color) == ("foreground", merged[1].color)


def test_what_is_given_stays(tomo: Tomogram) -> None:
    given = ClassLook("lumen", low=0.5, high=0.75, extinction=3.0, color="#010203")
    assert complete_scene(Scene(classes=(given,)), tomo, "net").classes == (given,)


def test_missing_ramps_name_the_command_that_makes_them(tomo: Tomogram) -> None:
    with pytest.raises(NotFoundError, match=r"run `otzi ramps \S+ ts_001 --probs net`"):
        complete_scene(Scene(), tomo, "net")


def test_a_class_that_is_not_there_is_named_with_those_that_are(tomo: Tomogram) -> None:
    with pytest.raises(NotFoundError, match=r"'spikes'.*background, membrane, lumen"):
        complete_scene(Scene(classes=(look("spikes"),)), tomo, "net")


def test_a_stored_limit_above_the_given_one_is_refused(tomo: Tomogram) -> None:
    estimate_ramps(tomo, "net")
    with pytest.raises(ConfigurationError, match=r"class lumen needs low .* < high 0.01"):
        complete_scene(Scene(classes=(ClassLook("lumen", high=0.01),)), tomo, "net")


def test_a_transfer_of_open_looks_is_refused() -> None:
    with pytest.raises(UsageError, match="not complete"):
        transfer_of((ClassLook("a"),), Density(), 1.0)


def test_a_transfer_has_the_density_last() -> None:
    found = transfer_of((look(low=0.2, high=0.6),), Density(low=0.5, high=0.75), 1 / 255)
    np.testing.assert_allclose(found.low, [0.2, 0.5])
    np.testing.assert_allclose(found.inverse_span, [2.5, 4.0])
    np.testing.assert_allclose(found.color, [[1, 0, 0]])


def test_colours_are_made_linear_by_the_srgb_curve() -> None:
    np.testing.assert_allclose(linear_color("#00ff80"), [0, 1, 0.2158605], atol=1e-6)
    np.testing.assert_allclose(linear_color("#0A0a01"), np.array([10, 10, 1]) / 255 / 12.92)

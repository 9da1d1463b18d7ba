"""What was set in the page is kept, comes back, and is what pictures are made with."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import pytest

from otzi.errors import ConfigurationError
from otzi_viewers.layers import overview_style, slice_style
from otzi_viewers.render.scene import ClassLook, Density, Scene
from otzi_viewers.render.transfer import complete_scene
from otzi_viewers.saved_style import save_styles, with_controls, with_saved_style
from otzi_viewers.segmentation import Segmentation
from otzi_viewers.shader import controls
from otzi_viewers.style import ClassStyle, Style

if TYPE_CHECKING:
    from collections.abc import Callable

    from commands import Otzi
    from otzi.tomogram import Tomogram

SHAPE = (8, 10, 12)
STYLE = Style((ClassStyle("background", 1, "#102030"), ClassStyle("membrane", 2, "#a0b0c0")))
CHANGED = Style(
    (
        ClassStyle("background", 1, "#000000", low=0.5, opacity=0.25, shown=False),
        ClassStyle("membrane", 2, "#00ff40", low=0.125, opacity=1.0),
    ),
    shows_density=False,
    density_low=0.25,
    density_high=0.75,
    modulation=0.5,
    interpolates=True,
)


@pytest.fixture
def tomo(add_tomogram: Callable[..., Tomogram]) -> Tomogram:
    tomo = add_tomogram(np.random.default_rng(0).normal(0, 9, SHAPE).astype(np.float32))
    with tomo.write("probs/net", dtype="u1", recipe={}, channels=tomo.classes.names) as writer:
        codes = np.zeros((3, *SHAPE), np.uint8)
        codes[0] = 255
        da.store(da.from_array(codes, chunks=(1, 64, 64, 64)), writer, lock=False)
    with tomo.stage("ramps/net", recipe={}, parents=("probs/net",)) as staging:
        staging.attributes["ramps"] = {name: {"low": 0.3} for name in tomo.classes.names}
    return tomo


def test_controls_and_styles_say_the_same() -> None:
    assert with_controls(STYLE, controls(CHANGED)) == CHANGED
    assert with_controls(STYLE, {}) == STYLE
    assert with_controls(STYLE, {"a_none": 0.3, "unknown": []}) == STYLE
    assert with_controls(STYLE, {"opacity_membrane": 1}).classes[1].opacity == 1.0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("a_membrane", "0.3"),
        ("a_membrane", True),
        ("a_membrane", 1.0),
        ("show_membrane", 1),
        ("color_membrane", "green"),
        ("color_membrane", 3),
        ("density_low", -1),
    ],
)
def test_values_that_a_control_cannot_have_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError):
        with_controls(STYLE, {name: value})


def _saved(tomo: Tomogram) -> tuple[Style, Style]:
    shown = Segmentation.of(tomo, "probs/net")
    slices, volume = slice_style(tomo, shown), overview_style(tomo, shown)
    membrane = replace(slices.classes[1], low=0.125, color="#00ff40")
    slices = replace(slices, classes=(slices.classes[0], membrane, slices.classes[2]))
    lumen = replace(volume.classes[2], shown=False)
    membrane = replace(membrane, opacity=0.75)
    volume = replace(
        volume, classes=(volume.classes[0], membrane, lumen), density_low=0.2, density_high=0.9
    )
    assert save_styles(tomo, "probs/net", {"slices": slices, "volume": volume})
    return slices, volume


def test_what_was_saved_comes_back(tomo: Tomogram) -> None:
    slices, volume = _saved(tomo)
    shown = Segmentation.of(tomo, "probs/net")
    assert slice_style(tomo, shown) == slices
    assert overview_style(tomo, shown) == volume
    assert tomo.attributes("styles/probs.net")["tables"]["slices"] == slices.digest
    assert not save_styles(tomo, "probs/net", {"slices": slices, "volume": volume})


def test_pictures_are_made_with_what_was_saved(tomo: Tomogram) -> None:
    before = complete_scene(with_saved_style(Scene(), tomo, "net"), tomo, "net")
    assert [look.name for look in before.classes] == ["membrane", "lumen"]
    assert with_saved_style(Scene(), tomo, "net") == Scene()
    _saved(tomo)
    scene = complete_scene(with_saved_style(Scene(), tomo, "net"), tomo, "net")
    assert scene.classes == (ClassLook("membrane", low=0.125, extinction=0.75, color="#00ff40"),)
    assert (scene.density.low, scene.density.high) == (0.2, 0.9)


def test_what_a_scene_says_itself_counts(tomo: Tomogram) -> None:
    _saved(tomo)
    own = Scene(
        classes=(ClassLook("membrane", low=0.4, color="#111111"), ClassLook("lumen", high=0.2)),
        density=Density(low=0.1),
    )
    scene = with_saved_style(own, tomo, "net")
    membrane, lumen = scene.classes
    assert membrane == ClassLook("membrane", low=0.4, extinction=0.75, color="#111111")
    assert lumen.low is None  # what was saved is above the right limit
    assert scene.density == own.density


def test_what_was_saved_is_a_product_like_others(tomo: Tomogram, otzi: Otzi) -> None:
    _saved(tomo)
    folder = tomo.collection.path
    assert otzi("verify", folder).code == 0
    assert otzi("ledger", "rebuild", folder).code == 0
    run = otzi("path", folder, tomo.id, "styles/probs.net")
    assert run.out.strip() == str(tomo.folder / "styles" / "probs.net" / "1")
    assert "styles/probs.net" in otzi("ls", folder).out

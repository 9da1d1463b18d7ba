"""The shader's text; that it compiles and draws what it should is tested in a real browser."""

from __future__ import annotations

from pathlib import Path

import pytest

from otzi_viewers.shader import (
    APPROXIMATE,
    Mode3d,
    controls,
    density_shader,
    label_shader,
    shader,
    uncertainty_shader,
)
from otzi_viewers.style import ClassStyle, Style

GOLDEN = Path(__file__).parent / "data" / "shader"
STYLE = Style(
    classes=(
        ClassStyle("background", 1, "#0c967b", low=0.5, shown=False),
        ClassStyle("membrane", 2, "#c79aab", low=0.2459, opacity=0.6),
        ClassStyle("spikes", 4, "#cf1f61", low=0.1),
    ),
    modulation=0.5,
    density_low=0.55,
)


@pytest.mark.parametrize("mode3d", ["over", "stock", "none"])
def test_the_text_is_the_golden_one(mode3d: Mode3d) -> None:
    assert shader(STYLE, mode3d) == (GOLDEN / f"{mode3d}.glsl").read_text()


def test_density_alone_has_no_controls_of_classes() -> None:
    text = shader(Style())
    assert text == (GOLDEN / "density.glsl").read_text()
    assert list(controls(Style())) == [
        "density_shown",
        "density_low",
        "density_high",
        "interpolate",
    ]


def test_every_control_is_declared_once_with_its_value() -> None:
    lines = [line for line in shader(STYLE).splitlines() if line.startswith("#uicontrol")]
    declared = {line.split()[2]: line for line in lines}
    assert list(declared) == list(controls(STYLE))
    assert len(lines) == len(declared)
    assert 'default="#cf1f61"' in declared["color_spikes"]
    assert "default=0.2459" in declared["a_membrane"]
    assert "max=0.99" in declared["a_membrane"]
    assert "default=false" in declared["show_background"]
    assert "default=0.55" in declared["density_low"]


def test_names_of_controls_never_meet() -> None:
    names = ("density", "a", "a_a", "opacity_a", "low", "show_a")
    style = Style(tuple(ClassStyle(name, i + 1, "#000000") for i, name in enumerate(names)))
    assert len(controls(style)) == 5 + 4 * len(names)


def test_only_the_true_mode_needs_undocumented_names() -> None:
    for name in ("outputColor", "revealage", "uBrightnessFactor", "uMaxSteps"):
        assert name in shader(STYLE, "over")
        assert name not in shader(STYLE, "stock")
        assert name not in shader(STYLE, "none")
    assert APPROXIMATE in shader(STYLE, "stock")


def test_the_overview_draws_nothing_in_slices() -> None:
    text = shader(STYLE, "over", slices=False)
    assert "emitRGB" not in text
    assert "emitTransparent" in text


def test_a_density_is_grey_between_two_values() -> None:
    assert "range=[-12.5, 1000000]" in density_shader(-12.5, 1e6)


def test_uncertainty_looks_at_every_class_and_not_at_the_density() -> None:
    text = uncertainty_shader(3, "#ffd23f", 0.8)
    assert [f"getDataValue({i})" in text for i in range(5)] == [False, True, True, True, False]
    assert "entropy / 1.098612289" in text
    assert text.count("#uicontrol") == 4


def test_a_label_has_its_colour_and_others_none() -> None:
    text = label_shader({1: "#ff0080", 3: "#000000"}, 0.5)
    assert "if (label == 1) {\n    emitRGBA(vec4(1.000000, 0.000000, 0.501961, opacity));" in text
    assert "label == 2" not in text
    assert text.rstrip().endswith("emitTransparent();\n}")

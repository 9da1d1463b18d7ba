"""The shader of the `view` product: GLSL for Neuroglancer, generated from a style.  Pure.

Slices: the classes over each other in their order, on top of the density (`compose.slice_image`).
In 3-D they are combined in the same way within a sample; the samples of a ray follow front to back
(`compose.project`). For that the text writes the globals of Neuroglancer's volume-rendering shader,
``outputColor`` and ``revealage``, which are no documented interface: it stands on release 2.41.2.
`emitRGBA` there is an order-independent blend, in which what lies behind shines through.
"""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING, Literal

from otzi.classes import rgb_of
from otzi_viewers.style import LARGEST_LOW

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otzi_viewers.style import ClassStyle, Style

__all__ = [
    "APPROXIMATE",
    "Mode3d",
    "controls",
    "density_shader",
    "label_shader",
    "shader",
    "uncertainty_shader",
]

Mode3d = Literal["over", "stock", "none"]
"""True compositing, Neuroglancer's own approximate one, or slices only."""

APPROXIMATE = "approximate (order-independent)"
"""What a 3-D picture of mode ``stock`` is to be labelled with."""

_SAMPLE = """\
float probability(int channel) {
  return interpolate
    ? toNormalized(getInterpolatedDataValue(channel)) : toNormalized(getDataValue(channel));
}
float windowed(float density) {
  return clamp((density - density_low) / max(density_high - density_low, 1e-3), 0.0, 1.0);
}
// color over sum; rgb of both is multiplied by alpha
vec4 over(vec4 sum, vec3 color, float low, float alpha, int channel) {
  alpha *= clamp((probability(channel) - low) / max(1.0 - low, 1e-3), 0.0, 1.0);
  return sum * (1.0 - alpha) + vec4(color, 1.0) * alpha;
}
"""

# VOLUME_RENDERING is defined as true or false, which #if cannot test.
_WHICH_SHADER = """\
#define true 1
#define false 0
#if VOLUME_RENDERING
#define IN_3D
#endif
#undef true
#undef false
"""

_SLICE = """\
  if (density_shown) {
    emitRGB(sum.rgb + density * (1.0 - sum.a));
  } else {
    emitRGBA(vec4(sum.rgb / max(sum.a, 1e-6), sum.a));
  }
"""

# Opacity is that of one voxel of the array, its length along the ray in voxels the exponent:
# uBrightnessFactor relates the step to the depth of the whole view, of which the volume is a part.
_OVER = """\
  float steps = uBrightnessFactor * uGain * (uFarLimitFraction - uNearLimitFraction)
    * float(uMaxSteps) / float(uMaxSteps - 1);
  float alpha = 1.0 - pow(max(1.0 - sum.a, 0.0), steps);
  outputColor += vec4(sum.rgb / max(sum.a, 1e-6), 1.0) * alpha * revealage;
  revealage *= 1.0 - alpha;
  emitIntensity(sum.a);
"""

_STOCK = f"""\
  // {APPROXIMATE}
  emitRGBA(vec4(sum.rgb / max(sum.a, 1e-6), sum.a));
  emitIntensity(sum.a);
"""


def shader(style: Style, mode3d: Mode3d = "none", *, slices: bool = True) -> str:
    """Give the GLSL text, the style's values being the defaults of its controls.

    Parameters
    ----------
    style
        What is drawn, and how.
    mode3d
        How a 3-D panel is drawn.
    slices
        Whether anything is drawn in slices.
    """
    names = " ".join(c.name for c in style.classes)
    lines = [f"// otzi classes {style.digest}: {names}".rstrip(" :")]
    lines += _declared(style)
    body = [
        "void main() {",
        "  float density = windowed(probability(0));",
        *(["  float strength = 1.0 - modulation * (1.0 - density);"] if style.classes else []),
        "  vec4 sum = vec4(0.0);",
        *(_class_lines(c) for c in style.classes),
        "#ifdef IN_3D",
        *_branch({"over": _OVER, "stock": _STOCK, "none": "  emitTransparent();\n"}[mode3d]),
        "#else",
        *_branch(_SLICE if slices else "  emitTransparent();\n"),
        "#endif",
        "}",
    ]
    return "\n".join([*lines, _WHICH_SHADER + _SAMPLE + "\n".join(body)]) + "\n"


def controls(style: Style) -> dict[str, bool | float | str]:
    """Give the controls of `shader` by name, at the values of this style."""
    values: dict[str, bool | float | str] = {
        "density_shown": style.shows_density,
        "density_low": style.density_low,
        "density_high": style.density_high,
        "interpolate": style.interpolates,
    }
    if style.classes:
        values["modulation"] = style.modulation
    for c in style.classes:
        values[f"show_{c.name}"] = c.shown
        values[f"color_{c.name}"] = c.color
        values[f"a_{c.name}"] = c.low
        values[f"opacity_{c.name}"] = c.opacity
    return values


_UNCERTAINTY = """\
  float unsure = margin ? 1.0 - (first - second) : entropy / {log_n};
  emitRGBA(vec4(color, opacity * clamp((unsure - a) / max(1.0 - a, 1e-3), 0.0, 1.0)));
}}
"""


def uncertainty_shader(n_classes: int, color: str, opacity: float) -> str:
    """Give the shader of how unsure the classes of an image are (`compose.uncertainty_color`).

    Their entropy, or how little the most probable exceeds the next: 0 where one is certain, 1 where
    all, or two, are alike. The image's channels are the density and the classes.
    """
    lines = [
        f'#uicontrol vec3 color color(default="{color}")',
        f"#uicontrol float opacity slider(min=0, max=1, default={opacity:.6g}, step=0.005)",
        f"#uicontrol float a slider(min=0, max={LARGEST_LOW}, default=0, step=0.005)",
        "#uicontrol bool margin checkbox(default=false)",
        "float entropy = 0.0, first = 0.0, second = 0.0;",
        "void add(float p) {",
        "  entropy -= p * log(max(p, 1e-9));",
        "  second = max(second, min(first, p));",
        "  first = max(first, p);",
        "}",
        "void main() {",
        "  entropy = first = second = 0.0;",
        *(f"  add(toNormalized(getDataValue({i})));" for i in range(1, n_classes + 1)),
    ]
    return "\n".join(lines) + "\n" + _UNCERTAINTY.format(log_n=f"{log(n_classes):.9f}")


def label_shader(colors: Mapping[int, str], opacity: float) -> str:
    """Give the shader of a label image: a colour for each value, all others transparent."""
    lines = [
        f"#uicontrol float opacity slider(min=0, max=1, default={opacity:.6g}, step=0.005)",
        "void main() {",
        "  int label = int(toRaw(getDataValue()));",
    ]
    for value, color in colors.items():
        red, green, blue = (f"{part:.6f}" for part in rgb_of(color))
        lines += [
            f"  if (label == {value}) {{",
            f"    emitRGBA(vec4({red}, {green}, {blue}, opacity));",
            "    return;",
            "  }",
        ]
    return "\n".join([*lines, "  emitTransparent();", "}"]) + "\n"


def density_shader(low: float, high: float) -> str:
    """Give the shader of a density in its own units, grey between two values."""
    return (
        f"#uicontrol invlerp normalized(range=[{low:.9g}, {high:.9g}])\n"
        "void main() {\n  emitGrayscale(normalized());\n}\n"
    )


def _declared(style: Style) -> list[str]:
    lines = []
    for name, value in controls(style).items():
        if isinstance(value, bool):
            kind = f"bool {name} checkbox(default={str(value).lower()})"
        elif isinstance(value, str):
            kind = f'vec3 {name} color(default="{value}")'
        else:
            largest = LARGEST_LOW if name.startswith("a_") else 1
            kind = f"float {name} slider(min=0, max={largest}, default={value:.6g}, step=0.005)"
        lines.append(f"#uicontrol {kind}")
    return lines


def _class_lines(c: ClassStyle) -> str:
    name = c.name
    return (
        f"  if (show_{name}) {{\n"
        f"    sum = over(sum, color_{name}, a_{name}, opacity_{name} * strength, {c.channel});\n"
        "  }"
    )


def _branch(text: str) -> list[str]:
    return text.rstrip("\n").split("\n")

"""How a segmentation was last drawn: kept in the collection, for the next view and for pictures."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from otzi.errors import ConfigurationError
from otzi_viewers.render.scene import ClassLook, Density
from otzi_viewers.shader import controls

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otzi.tomogram import Tomogram
    from otzi_viewers.render.scene import Scene
    from otzi_viewers.style import Style

__all__ = [
    "SLICES",
    "VOLUME",
    "save_styles",
    "saved_style",
    "style_product",
    "with_controls",
    "with_saved_style",
]

SLICES, VOLUME = "slices", "volume"
"""What a style is for: slices, or 3-D panels and pictures."""
_SCHEMA = 1


def style_product(product: str) -> str:
    """Give the product that keeps how another one is drawn: ``styles/probs.net``."""
    return f"styles/{product.replace('/', '.')}"


def with_controls(style: Style, values: Mapping[str, Any]) -> Style:
    """Give a style with the values of a shader's controls, as `shader.controls` names them.

    Controls that a style does not have are left out.

    Raises
    ------
    ConfigurationError
        If a value is none that the control can have.
    """
    known = controls(style)
    new: dict[str, Any] = dict(known)
    for name in known.keys() & values.keys():
        new[name] = _like(known[name], values[name], name)
    return replace(
        style,
        shows_density=new["density_shown"],
        density_low=new["density_low"],
        density_high=new["density_high"],
        interpolates=new["interpolate"],
        modulation=new.get("modulation", style.modulation),
        classes=tuple(
            replace(
                c,
                shown=new[f"show_{c.name}"],
                color=new[f"color_{c.name}"],
                low=new[f"a_{c.name}"],
                opacity=new[f"opacity_{c.name}"],
            )
            for c in style.classes
        ),
    )


def save_styles(tomo: Tomogram, product: str, styles: Mapping[str, Style]) -> bool:
    """Publish how a product is drawn; tell whether that is another way than before.

    Parameters
    ----------
    tomo
        In a collection that is open for writing.
    product
        ``probs/NAME`` or ``labels/NAME``.
    styles
        For `SLICES` and `VOLUME`.
    """
    saved = {use: controls(style) for use, style in styles.items()}
    digests = {use: style.digest for use, style in styles.items()}
    recipe = {"verb": "view", "schema": _SCHEMA, "styles": saved}
    target = style_product(product)
    if tomo.has(target) and tomo.attributes(target)["recipe"] == recipe:
        return False
    with tomo.stage(target, recipe=recipe, parents=(product,)) as staging:
        staging.attributes["styles"] = saved
        staging.attributes["tables"] = digests
    return True


def saved_style(tomo: Tomogram, product: str | None, use: str, style: Style) -> Style:
    """Give a style with what was saved of a product's; as it is where nothing was.

    What was saved of classes that the product does not have any more is left out.
    """
    if product is None or not tomo.has(target := style_product(product)):
        return style
    return with_controls(style, tomo.attributes(target)["styles"].get(use, {}))


def with_saved_style(scene: Scene, tomo: Tomogram, probs: str) -> Scene:
    """Give a scene in which what was saved stands for what is left open.

    Left limits, colours, opacities and which classes are drawn; the ramp over the density where
    the scene has the usual one.
    """
    target = style_product(f"probs/{probs}")
    if not tomo.has(target):
        return scene
    values = tomo.attributes(target)["styles"].get(VOLUME, {})
    names = [n for n in tomo.image(f"probs/{probs}").channels or () if f"a_{n}" in values]
    looks = scene.classes or tuple(ClassLook(n) for n in names if values[f"show_{n}"])
    classes = tuple(_completed(look, values) for look in looks)
    density = scene.density
    if density == Density():
        low, high = values["density_low"], values["density_high"]
        density = replace(density, low=low, high=high) if low < high else density
    return replace(scene, classes=classes, density=density)


def _like(expected: bool | float | str, value: Any, name: str) -> Any:
    """Give a value as what is expected is: a truth value, a number or a colour."""
    if isinstance(expected, bool) or isinstance(expected, str):
        if type(value) is type(expected):
            return value
    elif isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    raise ConfigurationError(f"control {name} is {value!r}: it must be as {expected!r} is")


def _completed(look: ClassLook, values: Mapping[str, Any]) -> ClassLook:
    if f"a_{look.name}" not in values:
        return look
    low, color = values[f"a_{look.name}"], values[f"color_{look.name}"]
    extinction = values[f"opacity_{look.name}"]
    return replace(
        look,
        low=look.low if look.low is not None or low >= look.high else low,
        color=look.color or color,
        extinction=extinction if look.extinction is None else look.extinction,
    )

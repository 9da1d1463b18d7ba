"""What each frame of a movie shows: a turn about the upright axis, and keyframes.  Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.interpolate import PchipInterpolator

from otzi.classes import rgb_of
from otzi.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from otzi_viewers.render.scene import ClassLook, Keyframe, Scene

__all__ = ["frame_scene"]

_CAMERA_KEYS = ("azimuth", "elevation", "roll", "distance", "target", "fov_degrees")


def frame_scene(scene: Scene, frame: int) -> Scene:
    """Give the scene of a frame, counted from 0: itself without movie and keyframes.

    Between keyframes every number follows a smooth curve that never overshoots them (Fritsch and
    Carlson 1980); before the first and after the last it stands still. The turn is added to that.

    Raises
    ------
    ConfigurationError
        If a keyframe has a distance and the scene's camera has none, or a plane and its class none:
        there is nothing to come from.
    """
    movie = scene.movie
    time = frame / max(1, movie.frames - 1)
    turned = frame / movie.frames
    if movie.ease:
        time, turned = _eased(time), _eased(turned)
    camera = scene.camera
    changes: dict[str, Any] = {}
    for key in _CAMERA_KEYS:
        if any(getattr(keyframe, key) is not None for keyframe in scene.keyframes):
            start = getattr(camera, key)
            if start is None:
                raise ConfigurationError(
                    f"keyframes with a {key}: give the scene's [camera] one, too"
                )
            changes[key] = _curve(scene.keyframes, key, start, np.atleast_1d)(time)
    changes |= {key: float(value[0]) for key, value in changes.items() if key != "target"}
    if "target" in changes:
        changes["target"] = tuple(map(float, changes["target"]))
    azimuth = changes.get("azimuth", camera.azimuth) + turned * movie.turn_degrees
    quality = scene.quality
    if quality.lighting == "auto" and scene.light.attach == "scene":
        quality = replace(quality, lighting="baked")
    return replace(
        scene,
        quality=quality,
        camera=replace(camera, **(changes | {"azimuth": float(azimuth)})),
        classes=tuple(_look(scene, index, time) for index in range(len(scene.classes))),
        movie=replace(movie, frames=1, turn_degrees=0.0, ease=False),
        keyframes=(),
    )


def _eased(time: float) -> float:
    """Give time that begins and ends slowly: ``3 t² − 2 t³``."""
    return time * time * (3 - 2 * time)


def _look(scene: Scene, index: int, time: float) -> ClassLook:
    look = scene.classes[index]
    changes: dict[str, Any] = {}
    for key in ("low", "color", "clip"):
        if not any(getattr(keyframe, key) is not None for keyframe in scene.keyframes):
            continue
        start = getattr(look, key)
        if start is None:
            raise ConfigurationError(
                f"keyframes with {key}: give class {look.name} of the scene one, too"
            )

        def number(value: Any, key: str = key) -> NDArray[np.float64]:
            return np.array(rgb_of(value)) if key == "color" else np.atleast_1d(value)

        found = _curve(scene.keyframes, key, start, number, index)(time)
        if key == "low":
            changes[key] = float(found[0])
        elif key == "clip":
            changes[key] = tuple(map(float, found))
        else:
            levels = np.rint(np.clip(found, 0, 1) * 255).astype(int)
            changes[key] = "#" + "".join(f"{level:02x}" for level in levels)
    return replace(look, **changes)


def _curve(
    keyframes: Sequence[Keyframe],
    key: str,
    start: Any,
    number: Callable[[Any], NDArray[Any]],
    index: int | None = None,
) -> Callable[[float], NDArray[np.float64]]:
    """Give a value as a function of time: that of the scene at 0, unless a keyframe says."""
    points = {0.0: start}
    for keyframe in keyframes:
        if (value := getattr(keyframe, key)) is not None:
            points[keyframe.at] = value if index is None else value[index]
    times = np.array(sorted(points))
    values = np.array([number(points[time]) for time in times], np.float64)
    if len(times) == 1:
        return lambda time: values[0]
    curve = PchipInterpolator(times, values)
    return lambda time: np.asarray(curve(np.clip(time, times[0], times[-1])))

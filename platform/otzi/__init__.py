"""otzi: cryo-electron tomograms of any size into soft segmentations you can look at.

The names below are the public ones; each is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from otzi.classes import ClassTable
    from otzi.collection import Collection, create_collection, open_collection
    from otzi.errors import OtziError
    from otzi.networks.weights import load_model
    from otzi.pseudo.bank import FeatureBank
    from otzi.pseudo.forest import StrokeForest
    from otzi.pseudo.lazy import features, pseudo_labels
    from otzi.pseudo.uncertainty import uncertainty
    from otzi.tiles.graph import predict_tiles
    from otzi.tomogram import Tomogram

__version__ = "0.1.0"

__all__ = [
    "ClassTable",
    "Collection",
    "FeatureBank",
    "OtziError",
    "StrokeForest",
    "Tomogram",
    "create_collection",
    "features",
    "load_model",
    "open_collection",
    "predict_tiles",
    "pseudo_labels",
    "uncertainty",
]

_HOMES = {
    "ClassTable": "otzi.classes",
    "Collection": "otzi.collection",
    "FeatureBank": "otzi.pseudo.bank",
    "OtziError": "otzi.errors",
    "StrokeForest": "otzi.pseudo.forest",
    "Tomogram": "otzi.tomogram",
    "create_collection": "otzi.collection",
    "features": "otzi.pseudo.lazy",
    "load_model": "otzi.networks.weights",
    "open_collection": "otzi.collection",
    "predict_tiles": "otzi.tiles.graph",
    "pseudo_labels": "otzi.pseudo.lazy",
    "uncertainty": "otzi.pseudo.uncertainty",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'otzi' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

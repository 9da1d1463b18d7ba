"""Groups of Zarr v3: attributes, and the pointer to a product's published generation."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from otzi.errors import VerificationError
from otzi.files import writing_whole

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from otzi.store.location import Place, PlaceT

__all__ = [
    "GROUP",
    "current_generation",
    "exact_group",
    "generations",
    "group_text",
    "pointer_attributes",
    "read_group",
    "write_group",
]

GROUP = "zarr.json"


def group_text(attributes: Mapping[str, Any]) -> str:
    """Give a Zarr v3 group's ``zarr.json``, as it is written, to the byte."""
    document = {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}
    return json.dumps(document, indent=2)


def pointer_attributes(generation: str) -> dict[str, Any]:
    """Give the attributes of a product's own group, which point at a generation."""
    return {"otzi": {"kind": "product", "current": generation}}


def write_group(folder: Path, attributes: Mapping[str, Any]) -> None:
    """Write a Zarr v3 group's metadata by one atomic rename, synced."""
    folder.mkdir(parents=True, exist_ok=True)
    with writing_whole(folder / GROUP) as file:
        file.write(group_text(attributes).encode())


def read_group(folder: Place) -> dict[str, Any] | None:
    """Give the attributes of a Zarr v3 group, or None where there is none.

    Raises
    ------
    VerificationError
        If its metadata are damaged.
    """
    try:
        text = (folder / GROUP).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return dict(json.loads(text).get("attributes", {}))
    except (ValueError, TypeError, AttributeError) as error:
        raise VerificationError(f"{folder / GROUP} is damaged: {error}") from error


def exact_group(folder: Path) -> dict[str, Any] | None:
    """Give the attributes of a group that is, to the byte, as `write_group` wrote it, or None."""
    try:
        text = (folder / GROUP).read_bytes()
        attributes = dict(json.loads(text)["attributes"])
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return None
    return attributes if text == group_text(attributes).encode() else None


def current_generation(product: PlaceT) -> PlaceT | None:
    """Give the folder of the published generation of a product, or None.

    Raises
    ------
    VerificationError
        If the pointer is damaged.
    """
    attributes = read_group(product)
    current = (attributes or {}).get("otzi", {}).get("current")
    if current is not None and not str(current).isdecimal():
        raise VerificationError(
            f"{product / GROUP} points at {current!r}, which is no generation: "
            "`otzi verify --repair` mends it"
        )
    return None if current is None else product / str(current)


def generations(product: Path) -> list[Path]:
    """Give the folders of all generations of a product, pointed at or not, oldest first."""
    folders = product.iterdir() if product.is_dir() else ()
    return sorted((p for p in folders if p.name.isdecimal()), key=lambda p: int(p.name))

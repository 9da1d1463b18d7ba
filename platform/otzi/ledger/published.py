"""What a published product is, read from its folder: all that the catalog knows of it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from otzi.errors import ConfigurationError, VerificationError
from otzi.ome import Multiscale
from otzi.store.groups import current_generation
from otzi.store.manifest import MANIFEST, parse_manifest

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Published", "read_published"]

_TEXT_BYTES = 1 << 20


@dataclass(frozen=True)
class Published:
    """The current generation of a product."""

    tomogram: str
    product: str
    generation: int
    digest: str
    """SHA-256 of the manifest."""
    files: dict[str, tuple[int, int]]
    """Size in bytes and CRC-32C, by path within the generation."""
    texts: dict[str, str]
    """Content of the JSON files among them, up to 1 MB each."""

    @cached_property
    def attributes(self) -> dict[str, Any]:
        """What the product says of itself."""
        return dict(self._group.get("otzi", {}))

    @cached_property
    def image(self) -> Multiscale | None:
        """Its OME-Zarr description, if it is an image."""
        return Multiscale.from_json(self._group) if "ome" in self._group else None

    @property
    def shape(self) -> list[int] | None:
        """Shape of level 0, channels first where there are any."""
        return self.level_0.get("shape")

    @cached_property
    def level_0(self) -> dict[str, Any]:
        """Zarr's metadata of level 0, empty for what is no image."""
        return self._json("0/zarr.json") if self.image else {}

    @cached_property
    def _group(self) -> dict[str, Any]:
        return dict(self._json("zarr.json").get("attributes", {}))

    def _json(self, name: str) -> dict[str, Any]:
        return dict(json.loads(self.texts[name]))


def read_published(folder: Path, tomogram: str, product: str) -> Published | None:
    """Give what is published at a product's folder, or None.

    Raises
    ------
    VerificationError
        If it cannot be told, because the metadata are damaged.
    """
    while True:
        generation = current_generation(folder)
        if generation is None:
            return None
        try:
            published = _read(generation, tomogram, product)
        except (OSError, ValueError, KeyError, TypeError) as error:
            if current_generation(folder) != generation:
                continue  # it was replaced while it was read
            raise VerificationError(
                f"the metadata of {generation} cannot be read: {error}"
            ) from error
        return published


def _read(generation: Path, tomogram: str, product: str) -> Published:
    manifest = (generation / MANIFEST).read_bytes()
    files = parse_manifest(manifest)
    texts = {
        name: (generation / name).read_text("utf-8")
        for name, (n_bytes, _) in files.items()
        if name.endswith(".json") and n_bytes <= _TEXT_BYTES
    }
    published = Published(
        tomogram=tomogram,
        product=product,
        generation=int(generation.name),
        digest=hashlib.sha256(manifest).hexdigest(),
        files=files,
        texts=texts,
    )
    # Whatever the rows need is looked at now, while a failure still names the product.
    if not {"kind", "recipe", "parents"} <= published.attributes.keys():
        raise ConfigurationError("it does not say how it was made")
    if published.image and not {"shape", "data_type"} <= published.level_0.keys():
        raise ConfigurationError("level 0 is no array")
    return published

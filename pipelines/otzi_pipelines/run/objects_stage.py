"""The stage objects: connected voxels of a class, as a table and as labels."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from otzi.errors import checked_name
from otzi.settings import STRICT
from otzi_pipelines.objects.plan import least_voxels
from otzi_pipelines.objects.selection import checked_selection

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otzi_pipelines.run.stages import Work
    from otzi_pipelines.run.volume import Volume

__all__ = ["ObjectsStage"]

_VERSION = 1
_LABEL_BYTES = 4
_WITH_LEVELS = 8 / 7


@dataclass(frozen=True)
class ObjectsStage:
    """Connected voxels of classes, ``objects/NAME``. See `otzi objects`."""

    __pydantic_config__ = STRICT

    of: str
    """``probs/NAME`` or ``labels/NAME``."""
    classes: tuple[str, ...]
    name: str
    """Of the objects."""
    threshold: float | None = None
    """The left limits of the ramps, where they are made, otherwise 0.5, if left out."""
    connectivity: Literal[6, 18, 26] = 26
    min_volume_nm3: float = 0.0
    labels: bool = False
    """Whether the object of every voxel is published, too."""

    def __post_init__(self) -> None:
        checked_name(self.name, "objects name")
        checked_selection(self.of, self.classes, self.threshold)
        least_voxels(self.min_volume_nm3, (1.0, 1.0, 1.0))

    @property
    def key(self) -> str:
        """What the ledger knows it by."""
        return f"objects/{self.name}"

    @property
    def makes(self) -> str:
        """The product."""
        return f"objects/{self.name}"

    @property
    def needs(self) -> tuple[str, ...]:
        """What has the classes."""
        return (self.of,)

    @property
    def may_use(self) -> tuple[str, ...]:
        """The ramps, where they say what the classes are."""
        kind, _, name = self.of.partition("/")
        return (f"ramps/{name}",) if kind == "probs" and self.threshold is None else ()

    def recipe(self, volume: Volume) -> Mapping[str, Any]:
        """Give all settings."""
        return {"version": _VERSION, **asdict(self)}

    def made_digest(self, volume: Volume) -> str | None:
        """Give the digest of what is published."""
        return volume.digests.get(self.makes)

    def n_bytes(self, volume: Volume, n_classes: int) -> int:
        """Give the size of the labels with their pyramid, before compression.

        Nothing is known of how many objects there are: a table counts as nothing.
        """
        return int(volume.n_voxels * _LABEL_BYTES * _WITH_LEVELS) if self.labels else 0

    def run(self, volume: Volume, work: Work) -> bool:
        """Publish the objects."""
        from otzi_pipelines.objects.find import find_objects

        return find_objects(
            volume.tomogram,
            self.name,
            of=self.of,
            classes=self.classes,
            threshold=self.threshold,
            connectivity=self.connectivity,
            min_volume_nm3=self.min_volume_nm3,
            with_labels=self.labels,
            workers=work.workers,
            executor=work.executor,
            priority=work.priority,
            memory_bytes=work.memory_bytes,
            listen=work.listen,
        )

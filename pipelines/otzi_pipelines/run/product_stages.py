"""The stages that publish a product: pseudolabel, segment, ramps and view."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path  # noqa: TC003  settings are read by their annotations
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal

from otzi.errors import checked_name
from otzi.files import sha256_of_file
from otzi.networks.weights import CARD_FILE, Device, load_card
from otzi.settings import STRICT
from otzi.tiles.blend import ProbabilityType  # noqa: TC001  likewise

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otzi.pseudo.bank import FeatureBank
    from otzi.tiles.infer import TorchModel
    from otzi_pipelines.run.stages import Work
    from otzi_pipelines.run.volume import Volume

__all__ = ["PseudolabelStage", "RampsStage", "SegmentStage", "ViewStage"]

_VERSION = 1
_ITEM_BYTES = {"uint8": 1, "float16": 2, "float32": 4}

_loading = Lock()


@dataclass(frozen=True)
class PseudolabelStage:
    """Strokes into dense labels, ``labels/NAME``, where there are strokes; `otzi pseudolabel`."""

    __pydantic_config__ = STRICT

    name: str
    """Of the labels."""
    soft: bool = True
    classes: Literal["all", "2"] = "all"
    features: tuple[str, ...] | None = None
    scales: tuple[float, ...] | None = None
    trees: int = 100
    seed: int = 0
    device: Device = "cpu"

    needs = ("raw", "strokes")
    may_use = ()

    def __post_init__(self) -> None:
        checked_name(self.name, "labels name")
        if self.features is not None or self.scales is not None:
            self._bank()

    @property
    def key(self) -> str:
        """What the ledger knows it by."""
        return f"pseudolabel/{self.name}"

    @property
    def makes(self) -> str:
        """The product."""
        return f"labels/{self.name}"

    def recipe(self, volume: Volume) -> Mapping[str, Any]:
        """Give what decides the labels, beside raw and strokes."""
        return _recipe(self, without=("device",))

    def made_digest(self, volume: Volume) -> str | None:
        """Give the digest of what is published."""
        return volume.digests.get(self.makes)

    def n_bytes(self, volume: Volume, n_classes: int) -> int:
        """Give the size with the pyramid, before compression."""
        n_channels = (n_classes if self.classes == "all" else 2) if self.soft else 1
        return _bytes(volume, n_channels)

    def run(self, volume: Volume, work: Work) -> bool:
        """Publish the labels."""
        from otzi_pipelines.label.pseudolabel import pseudolabel

        return pseudolabel(
            volume.tomogram,
            self.name,
            bank=self._bank(),
            soft=self.soft,
            classes=self.classes,
            n_trees=self.trees,
            seed=self.seed,
            workers=work.workers,
            executor=work.executor,
            device=self.device,
            memory_bytes=work.memory_bytes,
            listen=work.listen,
        )

    def _bank(self) -> FeatureBank:
        from otzi.pseudo.bank import FEATURES, SCALES, FeatureBank

        return FeatureBank(scales=self.scales or SCALES, features=self.features or FEATURES)


@dataclass(frozen=True)
class SegmentStage:
    """A network's class probabilities, ``probs/NAME``. See `otzi segment`."""

    __pydantic_config__ = STRICT

    model: Path
    """A model folder, or a Nano-Ötzi checkpoint."""
    name: str
    """Of the probabilities."""
    tile: int = 128
    overlap: int = 32
    dtype: ProbabilityType = "uint8"
    device: Device = "auto"

    needs = ("raw",)
    may_use = ()

    def __post_init__(self) -> None:
        checked_name(self.name, "probabilities name")

    @property
    def key(self) -> str:
        """What the ledger knows it by."""
        return f"segment/{self.name}"

    @property
    def makes(self) -> str:
        """The product."""
        return f"probs/{self.name}"

    def recipe(self, volume: Volume) -> Mapping[str, Any]:
        """Give what decides the probabilities, beside raw: the weights, whatever their path."""
        return _recipe(self, without=("device", "model")) | {"model": _weights_digest(self.model)}

    def made_digest(self, volume: Volume) -> str | None:
        """Give the digest of what is published."""
        return volume.digests.get(self.makes)

    def n_bytes(self, volume: Volume, n_classes: int) -> int:
        """Give the size with the pyramid, before compression."""
        return _bytes(volume, n_classes) * _ITEM_BYTES[self.dtype]

    def run(self, volume: Volume, work: Work) -> bool:
        """Publish the probabilities."""
        from otzi_pipelines.segment.segmentation import segment

        with _loading:
            model = _loaded(self.model, self.device, _weights_digest(self.model))
        return segment(
            volume.tomogram,
            model,
            name=self.name,
            tile=self.tile,
            overlap=self.overlap,
            dtype=self.dtype,
            workers=work.workers,
            executor=work.executor,
            priority=work.priority,
            memory_bytes=work.memory_bytes,
            listen=work.listen,
        )


@dataclass(frozen=True)
class RampsStage:
    """The left limit of every class, ``ramps/PROBS``. See `otzi ramps`."""

    __pydantic_config__ = STRICT

    probs: str

    may_use = ()

    @property
    def key(self) -> str:
        """What the ledger knows it by."""
        return f"ramps/{self.probs}"

    @property
    def needs(self) -> tuple[str, ...]:
        """The probabilities."""
        return (f"probs/{self.probs}",)

    @property
    def makes(self) -> str:
        """The product."""
        return f"ramps/{self.probs}"

    def recipe(self, volume: Volume) -> Mapping[str, Any]:
        """Give the version of the rules: the probabilities decide all else."""
        return _recipe(self)

    def made_digest(self, volume: Volume) -> str | None:
        """Give the digest of what is published."""
        return volume.digests.get(self.makes)

    def n_bytes(self, volume: Volume, n_classes: int) -> int:
        """Give the size of the curves."""
        return volume.shape[0] * n_classes * _ITEM_BYTES["float32"]

    def run(self, volume: Volume, work: Work) -> bool:
        """Publish the ramps."""
        from otzi_pipelines.ramps.estimate import estimate_ramps

        return estimate_ramps(volume.tomogram, self.probs, work.listen)


@dataclass(frozen=True)
class ViewStage:
    """What the viewer reads: density and, where named, probabilities. See `otzi view-product`."""

    __pydantic_config__ = STRICT

    probs: str | None = None

    key = "view"
    makes = "view"

    @property
    def needs(self) -> tuple[str, ...]:
        """Raw, and the probabilities that are named."""
        return ("raw", *([f"probs/{self.probs}"] if self.probs else []))

    @property
    def may_use(self) -> tuple[str, ...]:
        """Their ramps."""
        return (f"ramps/{self.probs}",) if self.probs else ()

    def recipe(self, volume: Volume) -> Mapping[str, Any]:
        """Give which probabilities are shown."""
        return _recipe(self)

    def made_digest(self, volume: Volume) -> str | None:
        """Give the digest of what is published."""
        return volume.digests.get(self.makes)

    def n_bytes(self, volume: Volume, n_classes: int) -> int:
        """Give the size with the pyramid, before compression."""
        return _bytes(volume, 1 + (n_classes if self.probs else 0))

    def run(self, volume: Volume, work: Work) -> bool:
        """Publish the view."""
        from otzi_pipelines.view_product import build_view

        return build_view(volume.tomogram, self.probs, work.listen)


def _recipe(
    stage: PseudolabelStage | SegmentStage | RampsStage | ViewStage, without: tuple[str, ...] = ()
) -> dict[str, Any]:
    settings = {key: value for key, value in asdict(stage).items() if key not in without}
    return {"version": _VERSION, **settings}


def _bytes(volume: Volume, n_channels: int) -> int:
    """Give the size of uint8 ``(c, z, y, x)`` and of all its coarser levels."""
    return volume.n_voxels * n_channels * 8 // 7


def _weights_digest(path: Path) -> str:
    file = path if path.suffix == ".ckpt" else path / CARD_FILE
    try:
        changed = file.stat().st_mtime_ns
    except OSError:
        changed = 0  # what is wrong with it is said by whoever reads it
    return _digest_of(path, changed)


@lru_cache(maxsize=8)
def _digest_of(path: Path, changed: int) -> str:
    return sha256_of_file(path) if path.suffix == ".ckpt" else load_card(path).sha256


@lru_cache(maxsize=1)
def _loaded(path: Path, device: Device, digest: str) -> TorchModel:
    """Give a model once for all tomograms; another one once its weights are others."""
    from otzi.networks.weights import load_model

    return load_model(path, device=device)

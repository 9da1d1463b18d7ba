"""Repair: what can be derived again is put back, byte for byte as it was written.

A file of a published generation is only ever replaced by the bytes that its manifest names, so the
digest of a mended product is the one it had. Metadata come from the catalog, coarser levels from
level 0, and ``raw`` from its source file.
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import zarr

from otzi.errors import CorruptShard, Locked, VerificationError
from otzi.events import Listener, Noted, Warned
from otzi.files import writing_whole
from otzi.ledger.rebuild import rebuild
from otzi.ledger.sqlite import Catalog, ledger_path, read_catalog
from otzi.ome import Multiscale
from otzi.store.groups import exact_group, generations, pointer_attributes, read_group, write_group
from otzi.store.journal import Journal, ShardRecord
from otzi.store.locks import lock_file, locked
from otzi.store.manifest import MANIFEST, file_record, parse_manifest, read_manifest
from otzi.store.product import Layout, ProductWriter
from otzi.store.publish import Staging, staging_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from otzi.ledger.audit import Finding

    Reingest = Callable[[Path, str, dict[str, Any]], list[Path]]

__all__ = ["repair"]


def repair(
    collection: Path, findings: Sequence[Finding], *, reingest: Reingest, listen: Listener
) -> None:
    """Put back what can be derived again of what an audit found.

    What lies hidden behind damaged metadata shows only in the next audit.

    Parameters
    ----------
    collection
        Its folder.
    findings
        Of the audit.
    reingest
        Given a new folder, a tomogram and the attributes of its ``raw``: makes that again from its
        source, and gives the generations that came of it; none where the source is not at hand.
    listen
        Told of what was mended, and of what somebody is writing.
    """
    by_product: dict[tuple[str, str], list[Finding]] = defaultdict(list)
    for finding in findings:
        by_product[finding.tomogram, finding.product].append(finding)
    catalog_file = _shown(ledger_path(collection), collection)
    with _sound_catalog(collection) as catalog:
        _mend_groups(collection, by_product.pop(("", ""), []), catalog)
        for (tomogram, product), found in by_product.items():
            folder = collection / "tomograms" / tomogram / product
            names = [collection / f.path for f in found if f.path != catalog_file]
            if not names:
                continue
            work = _Product(collection, folder, tomogram, product, catalog, reingest, listen)
            try:
                with locked(lock_file(staging_folder(collection, folder))):
                    work.mend(names)
            except Locked as error:
                listen(Warned(str(error)))
    if any(finding.path == catalog_file for finding in findings):
        rebuild(collection)


def _shown(path: Path, collection: Path) -> str:
    return (path.relative_to(collection) if path.is_relative_to(collection) else path).as_posix()


@contextmanager
def _sound_catalog(collection: Path) -> Iterator[Catalog | None]:
    """Open the catalog, if there is one to be trusted."""
    try:
        with read_catalog(collection) as catalog:
            is_sound = catalog is not None and not catalog.problems()
    except VerificationError:
        is_sound = False
    if not is_sound:
        yield None
        return
    with read_catalog(collection) as catalog:
        yield catalog


def _mend_groups(collection: Path, findings: Sequence[Finding], catalog: Catalog | None) -> None:
    for finding in findings:
        path = collection / finding.path
        if path.name != "zarr.json":
            continue
        if path.parent != collection:
            write_group(path.parent, {})
        elif catalog is not None and catalog.attributes and not _is_legible(collection):
            write_group(collection, {"otzi": catalog.attributes})


def _is_legible(collection: Path) -> bool:
    """Tell whether the collection says what it is: then only its user knows what was meant."""
    said: dict[str, Any] = (exact_group(collection) or {}).get("otzi", {})
    return {"format", "classes"} <= said.keys()


@dataclass(frozen=True, slots=True)
class _Product:
    """The repair of one product, whose lock is held."""

    collection: Path
    folder: Path
    tomogram: str
    product: str
    catalog: Catalog | None
    reingest: Reingest
    listen: Listener

    def mend(self, damaged: Sequence[Path]) -> None:
        """Put back what can be: the pointer, else the manifest, else the other files."""
        by_generation: dict[str, list[str]] = defaultdict(list)
        for path in damaged:
            number, *parts = path.relative_to(self.folder).parts
            by_generation[number].append("/".join(parts))
        if "zarr.json" in by_generation:
            self._pointer()
            return
        for number, names in by_generation.items():
            generation = self.folder / number
            if MANIFEST in names:
                self._manifest(generation)
            else:
                self._files(generation, names)

    def _pointer(self) -> None:
        whole = [path for path in generations(self.folder) if (path / MANIFEST).is_file()]
        if len(whole) == 1:
            write_group(self.folder, pointer_attributes(whole[0].name))
            self._tell(self.folder / "zarr.json", "the only generation there is")

    def _manifest(self, generation: Path) -> None:
        if self.catalog is None:
            return
        text = self.catalog.manifest(self.tomogram, self.product, int(generation.name))
        if text is None or not _has_sizes(generation, parse_manifest(text.encode())):
            return
        with writing_whole(generation / MANIFEST) as whole:
            whole.write(text.encode())
        self._tell(generation / MANIFEST, "the catalog")

    def _files(self, generation: Path, names: Sequence[str]) -> None:
        manifest = read_manifest(generation)
        left = self._from_catalog(generation, [name for name in names if name in manifest])
        if left and all("/c/" in name and not name.startswith("0/") for name in left):
            left = self._from_level_0(generation, left)
        if left and self.product == "raw" and "zarr.json" not in left:
            self._from_source(generation, left)

    def _from_catalog(self, generation: Path, names: Sequence[str]) -> list[str]:
        """Put back metadata, and give the names of what is still damaged."""
        left = []
        with self._scratch() as scratch:
            for name in names:
                text = self.catalog and self.catalog.text(self.tomogram, self.product, name)
                copy = scratch / "text"
                copy.write_text(text or "", encoding="utf-8")
                if not self._put_back(generation, name, copy, "the catalog"):
                    left.append(name)
        return left

    def _from_level_0(self, generation: Path, names: Sequence[str]) -> list[str]:
        """Make the coarser levels again, and give the names of what is still damaged."""
        with self._scratch() as scratch:
            try:
                derive_levels(generation, scratch)
            except VerificationError as error:
                self.listen(Warned(str(error)))
                return list(names)
            return [
                name
                for name in names
                if not self._put_back(generation, name, scratch / name, "level 0")
            ]

    def _from_source(self, generation: Path, names: Sequence[str]) -> None:
        attributes = (read_group(generation) or {}).get("otzi", {})
        with self._scratch() as scratch:
            for made in self.reingest(scratch / "collection", self.tomogram, attributes):
                for name in names:
                    self._put_back(generation, name, made / name, "the source")

    def _put_back(self, generation: Path, name: str, source: Path, origin: str) -> bool:
        record = read_manifest(generation).get(name)
        if record is None or not source.is_file() or file_record(source) != record:
            return False
        _replace(generation / name, source)
        self._tell(generation / name, origin)
        return True

    def _tell(self, path: Path, origin: str) -> None:
        self.listen(Noted(f"mended {path.relative_to(self.collection)} from {origin}"))

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        """Give an empty folder in staging, which `otzi gc` leaves alone while it is used."""
        staging = staging_folder(self.collection, self.folder)
        folder = staging.with_name(f"repair.{staging.name}")
        with locked(lock_file(folder)):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
                folder.with_name(f"{folder.name}.journal").unlink(missing_ok=True)


def _replace(path: Path, source: Path) -> None:
    """Have a copy of `source` at a path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as content, writing_whole(path) as whole:
        shutil.copyfileobj(content, whole)


def _has_sizes(generation: Path, files: Mapping[str, tuple[int, int]]) -> bool:
    """Tell whether the files that are there are as long as these."""
    there = ((generation / name, n_bytes) for name, (n_bytes, _) in files.items())
    return all(path.stat().st_size == n_bytes for path, n_bytes in there if path.is_file())


def derive_levels(generation: Path, scratch: Path) -> None:
    """Make all levels of an image again in an empty folder, from the level 0 of a generation.

    Raises
    ------
    CorruptShard
        If level 0 itself is damaged.
    """
    attributes = read_group(generation) or {}
    level_0: zarr.Array[Any] = zarr.open_array(generation / "0", mode="r")
    *channels, z, y, x = level_0.shape
    layout = Layout(
        kind=attributes["otzi"]["kind"],
        shape=(z, y, x),
        dtype=level_0.dtype,
        n_channels=channels[0] if channels else None,
        chunk_voxels=level_0.chunks[-1],
        channels_per_chunk=level_0.chunks[0] if channels else 1,
    )
    # As if a run had been interrupted that had written level 0 and nothing else.
    journal = Journal(scratch, {"repair": str(generation)})
    for name, (n_bytes, crc) in read_manifest(generation).items():
        if name.startswith("0/c/"):
            link = scratch / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to((generation / name).resolve())
            journal.records[name] = ShardRecord(name, n_bytes, crc)
    try:
        writer = ProductWriter(Staging(scratch, journal), layout, Multiscale.from_json(attributes))
    except (ValueError, RuntimeError) as error:
        raise CorruptShard(f"level 0 of {generation} is damaged too: {error}") from error
    writer.finish()

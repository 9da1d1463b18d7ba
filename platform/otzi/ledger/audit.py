"""The audit of a collection: every published byte is what was written, or is named."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from otzi.errors import NotFoundError, VerificationError
from otzi.events import Listener, ignore, step
from otzi.ledger.generation import GenerationAudit
from otzi.ledger.published import read_published
from otzi.ledger.sqlite import Catalog, ledger_path, read_catalog, scratch_catalog
from otzi.store.folders import product_folders, tomogram_folders
from otzi.store.groups import exact_group, pointer_attributes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

__all__ = ["Audit", "Finding", "audit"]

_ROW_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it was written."""

    path: str
    """The file, relative to the collection."""
    problem: str
    tomogram: str = ""
    product: str = ""
    """Whose file it is; empty for what belongs to the whole collection."""

    def to_json(self) -> dict[str, str]:
        """Give the finding as plain JSON."""
        return asdict(self)


@dataclass(slots=True)
class Audit:
    """What was looked at and what was found."""

    n_products: int = 0
    n_files: int = 0
    n_bytes: int = 0
    findings: list[Finding] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Give the audit as plain JSON."""
        return {
            "products": self.n_products,
            "files": self.n_files,
            "bytes": self.n_bytes,
            "findings": [finding.to_json() for finding in self.findings],
        }


def audit(
    collection: Path,
    tomograms: Sequence[str] = (),
    *,
    is_fast: bool = False,
    listen: Listener = ignore,
) -> Audit:
    """Give what is wrong with the published products, the groups above them and the catalog.

    Parameters
    ----------
    collection
        Its folder; it need not be one that can be opened.
    tomograms
        Which ones; all where it is empty.
    is_fast
        Whether to look only at sizes, shard indexes and metadata, not at the voxels.
    listen
        Told of the progress.

    Raises
    ------
    NotFoundError
        If one of the tomograms is not there.
    """
    folders = {folder.name: folder for folder in tomogram_folders(collection)}
    for name in tomograms:
        if name not in folders:
            there = ", ".join(list(folders)[:8]) or "none"
            raise NotFoundError(f"no tomogram {name!r} in {collection}: there are {there}")
    chosen = {name: product_folders(folders[name]) for name in tomograms or folders}
    places = [
        (name, product, folder)
        for name, products in chosen.items()
        for product, folder in products.items()
    ]
    work = _Auditor(collection, is_fast)
    work.open_catalog()
    work.collection_group()
    with step(listen, "verify", len(places), "products") as progress:
        for place in places:
            work.product(*place)
            progress.advance()
    work.groups()
    work.catalog(set(tomograms))
    return work.result


class _Auditor:
    """An audit under way."""

    def __init__(self, collection: Path, is_fast: bool) -> None:
        self.collection = collection
        self.is_fast = is_fast
        self.result = Audit()
        self._known: dict[tuple[str, str], str] = {}
        self._attributes: dict[str, Any] | None = None
        self._published: list[tuple[str, str, Path]] = []
        self._above: set[Path] = set()
        self._is_catalog_readable = False

    def found(self, path: Path, problem: str, tomogram: str = "", product: str = "") -> None:
        """Keep a finding."""
        if path.is_relative_to(self.collection):
            path = path.relative_to(self.collection)
        self.result.findings.append(Finding(path.as_posix(), problem, tomogram, product))

    def open_catalog(self) -> None:
        """Learn what the catalog knows, where there is one."""
        try:
            with read_catalog(self.collection) as catalog:
                if catalog is None:
                    return
                if problems := catalog.problems():
                    raise VerificationError(problems[0])
                self._attributes, self._known = catalog.attributes, catalog.digests()
                self._is_catalog_readable = True
        except (VerificationError, ValueError) as error:
            self.found(ledger_path(self.collection), f"is damaged: {error}")

    def collection_group(self) -> None:
        """Compare the collection's own group with how it was written, and with the catalog."""
        attributes = self._group(self.collection)
        if attributes is None:
            return
        said = attributes.get("otzi", {})
        if self._attributes not in (None, said):
            problem = "says other than the catalog of format, date or classes"
            self.found(self.collection / "zarr.json", problem)
        self._attributes = self._attributes or said

    def product(self, tomogram: str, product: str, folder: Path) -> None:
        """Look at one product."""
        pointer = folder / "zarr.json"
        n_before = len(self.result.findings)
        while (text := _bytes(pointer)) is not None:
            del self.result.findings[n_before:]
            self._generation(tomogram, product, folder)
            is_sound = len(self.result.findings) == n_before
            if is_sound or _bytes(pointer) == text:
                break  # else it was replaced while it was read
        else:
            if (tomogram, product) in self._known:
                self.found(pointer, "is missing", tomogram, product)
            return
        self.result.n_products += 1
        self._above |= set(folder.parents) - set(self.collection.parents) - {self.collection}
        if is_sound:
            self._published.append((tomogram, product, folder))

    def _generation(self, tomogram: str, product: str, folder: Path) -> None:
        pointer = exact_group(folder)
        number = str((pointer or {}).get("otzi", {}).get("current"))
        if pointer != pointer_attributes(number):
            self.found(folder / "zarr.json", "is not as it was written", tomogram, product)
            return
        generation = folder / number
        if not (number.isdecimal() and generation.is_dir()):
            problem = f"points at generation {number}, which is not there"
            self.found(folder / "zarr.json", problem, tomogram, product)
            return
        kind = product.partition("/")[0]
        problems = GenerationAudit(
            generation, tomogram, kind, self._n_classes, self.is_fast, self._count
        )
        try:
            for name, problem in problems:
                self.found(generation / name, problem, tomogram, product)
        except FileNotFoundError as error:
            self.found(generation, f"changes while it is read: {error}", tomogram, product)

    def groups(self) -> None:
        """Look at the groups above what is published."""
        for folder in sorted({self.collection / "tomograms"} | self._above):
            self._group(folder)

    def catalog(self, tomograms: set[str]) -> None:
        """Compare the catalog with what is published and sound; of all tomograms without names."""
        if not self._is_catalog_readable:
            return
        path = ledger_path(self.collection)
        wrong = self._wrong_rows(tomograms)
        if wrong:  # a row comes a moment after what it is about
            time.sleep(_ROW_SECONDS)
            wrong = self._wrong_rows(tomograms)
        for tomogram, product, problem in wrong:
            self.found(path, f"{problem} {tomogram} {product}".rstrip(), tomogram, product)

    def _wrong_rows(self, tomograms: set[str]) -> list[tuple[str, str, str]]:
        try:
            with read_catalog(self.collection) as catalog, scratch_catalog() as expected:
                return [] if catalog is None else list(self._rows(catalog, expected, tomograms))
        except VerificationError:
            return [("", "", "has rows that cannot be read")]

    def _rows(
        self, catalog: Catalog, expected: Catalog, tomograms: set[str]
    ) -> Iterator[tuple[str, str, str]]:
        known = {key for key in catalog.digests() if not tomograms or key[0] in tomograms}
        damaged = {(finding.tomogram, finding.product) for finding in self.result.findings}
        for tomogram, product, folder in self._published:
            published = read_published(folder, tomogram, product)
            if published is None:
                continue
            known.discard((tomogram, product))
            expected.put(published)
            if catalog.rows(tomogram, product) != expected.rows(tomogram, product):
                yield tomogram, product, "has other rows than follow from"
        for tomogram, product in sorted(known - damaged):
            yield tomogram, product, "has rows of what is not published:"

    @property
    def _n_classes(self) -> int | None:
        classes = (self._attributes or {}).get("classes")
        return len(classes) if isinstance(classes, list) else None

    def _count(self, n_bytes: int) -> None:
        self.result.n_files += 1
        self.result.n_bytes += n_bytes

    def _group(self, folder: Path) -> dict[str, Any] | None:
        """Give the attributes of a group that is as it was written."""
        attributes = exact_group(folder)
        if attributes is None:
            is_there = (folder / "zarr.json").is_file()
            problem = "is not as it was written" if is_there else "is missing"
            self.found(folder / "zarr.json", problem)
        return attributes


def _bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None

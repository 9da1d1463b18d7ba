"""What holds after any fault, whoever was killed and whatever was full, gone or hung.

1. No published product is partial: each is what its manifest says, to the byte.
2. A committed stage has an output of that digest.
3. What is published is what an undisturbed run publishes; in the end all of it is.
4. Every source comes to an end: a tomogram, a duplicate, superseded, or left out with a reason.
5. Only bytes that lay in a source at rest are published.
6. Nobody writes to the sources.

And when all is over, nobody holds a lease and nothing half made lies about.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from otzi.collection import open_collection
from otzi.ledger.audit import audit
from otzi.ledger.quarantine import read_reports
from otzi.ledger.sources import OPEN_STATES, read_source_rows
from otzi.ledger.stages import read_stages

__all__ = ["Undisturbed", "broken", "content", "published"]

_MADE_BY = {
    "ingest": "raw",
    "pseudolabel": "labels",
    "ramps": "ramps",
    "segment": "probs",
    "times": "labels",
    "view": "view",
}
"""Kind of product by kind of stage; what others make lies outside of the collection."""


def published(collection: Path) -> dict[str, str]:
    """Give the digest of each product that a reader sees."""
    if not (collection / "zarr.json").exists():
        return {}
    return {
        f"{tomo.id}/{product}": tomo.digest(product)
        for tomo in open_collection(collection)
        for product in tomo.products
    }


def content(folder: Path) -> dict[str, tuple[str, int]]:
    """Give the SHA-256 of each file below a folder and the time of its last change, in ns."""
    return {
        path.relative_to(folder).as_posix(): (
            hashlib.sha256(path.read_bytes()).hexdigest(),
            path.stat().st_mtime_ns,
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def broken(collection: Path, *, is_over: bool = False) -> list[str]:
    """Give what is wrong with a collection by itself: the first two invariants.

    Parameters
    ----------
    collection
        Its folder, which need not have come to be.
    is_over
        Whether all has ended. Until then rows may be behind the tree, which the next run makes up
        for, work may be half made, and a lease is that of whoever was killed.
    """
    digests = published(collection)
    if not (collection / "zarr.json").exists():
        return []
    wrong = [
        f"{finding.path} {finding.problem}"
        for finding in audit(collection).findings
        if is_over or finding.path != "catalog.sqlite"
    ]
    rows = read_stages(collection)
    for row in rows:
        kind, _, name = row.stage.partition("/")
        if row.state == "committed" and row.output_digest and kind in _MADE_BY:
            key = "/".join(filter(None, (row.tomogram, _MADE_BY[kind], name)))
            if digests.get(key) != row.output_digest:
                wrong.append(f"{key} is committed as {row.output_digest}")
    if is_over:
        wrong += [f"{row.tomogram} {row.stage} is leased" for row in rows if row.state == "leased"]
        staging = (collection / ".staging").glob("*")
        wrong += [f"{path.name} lies about" for path in staging if path.suffix != ".lock"]
    return wrong


@dataclass(frozen=True)
class Undisturbed:
    """A folder of sources, and what becomes of it where nothing disturbs."""

    sources: Path
    content: dict[str, tuple[str, int]]
    """What lay there, as `content` gives it."""
    digests: dict[str, str]
    """What is published of it, as `published` gives it."""

    @classmethod
    def of(cls, sources: Path, collection: Path) -> Undisturbed:
        """Take a collection into which the sources went undisturbed; it holds them itself."""
        undisturbed = cls(sources, content(sources), published(collection))
        undisturbed.holds(collection)
        return undisturbed

    def holds(self, collection: Path, *, is_over: bool = True) -> None:
        """Check every invariant of a collection; those of the end only where all has ended."""
        wrong = broken(collection, is_over=is_over)
        assert wrong == [], wrong
        digests = published(collection)
        assert digests.items() <= self.digests.items()
        rested = {sha256 for sha256, _ in self.content.values()}
        assert _taken(collection) <= rested
        assert content(self.sources) == self.content
        if is_over:
            assert digests == self.digests
            lost = _without_end(collection, self.content)
            assert lost == [], lost


def _taken(collection: Path) -> set[str]:
    """Give the SHA-256 of each source that a published tomogram was made of."""
    if not (collection / "zarr.json").exists():
        return set()
    tomograms = [tomo for tomo in open_collection(collection) if tomo.has("raw")]
    return {str(tomo.attributes("raw")["source"]["sha256"]) for tomo in tomograms}


def _without_end(collection: Path, there: dict[str, tuple[str, int]]) -> list[str]:
    """Give the sources that are neither published, under whatever name, nor left out."""
    taken = _taken(collection)
    rows = read_source_rows(collection)
    ended = {row.path.name for row in rows if row.state not in OPEN_STATES}
    ended |= {Path(report["source"]).name for report in read_reports(collection)}
    waiting = {row.path.name for row in rows if row.state in OPEN_STATES}
    return [
        name
        for name, (sha256, _) in there.items()
        if Path(name).name in waiting or (sha256 not in taken and Path(name).name not in ended)
    ]

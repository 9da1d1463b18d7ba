"""What `otzi ramps` says, as JSON and as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from otzi.ramps import quadratic

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otzi_pipelines.ramps.together import CollectionRamps

__all__ = ["ramps_document", "ramps_text"]


def ramps_document(
    found: CollectionRamps, spacing_angstrom: Mapping[str, float]
) -> dict[str, dict[str, Any]]:
    """Give, by tomogram, the ``ramps`` of every class with their curve, and the ``slab``.

    `spacing_angstrom` is that of z, by tomogram.
    """
    return {
        id_: {
            "ramps": {
                kind: {
                    **stored.entries[kind],
                    "curve": [
                        None if np.isnan(value) else round(float(value), 4) for value in own.curve
                    ],
                    "collection": found.priors[kind].to_json() if kind in found.priors else None,
                    "stands_out": found.objections[id_].get(kind),
                }
                for kind, own in stored.thresholds.items()
            },
            "slab": stored.slab.to_json(spacing_angstrom[id_]),
        }
        for id_, stored in found.ramps.items()
    }


def ramps_text(
    found: CollectionRamps, spacing_angstrom: Mapping[str, float], *, with_quadratic: bool = False
) -> str:
    """Give left limits, slab and curve of every tomogram, then what the collection says.

    With `with_quadratic` the limit that follows z stands in brackets behind the threshold.
    """
    lines = []
    for id_, stored in found.ramps.items():
        lows = "  ".join(f"{name} {entry['low']:.3f}" for name, entry in stored.entries.items())
        slab = stored.slab.to_json(spacing_angstrom[id_])
        top, bottom = slab["margin_angstrom"]
        lines += [
            f"{id_}  left limits: {lows}",
            f"{id_}  slab: slices {slab['start']} to {slab['stop'] - 1}, margins {top:.0f} Å and "
            f"{bottom:.0f} Å",
            "z  " + "  ".join(stored.entries),
        ]
        curves = [own.curve for own in stored.thresholds.values()]
        fits = [
            quadratic(entry["quadratic"], stored.slab.depth) for entry in stored.entries.values()
        ]
        for z, row in enumerate(zip(*curves, strict=True)):
            cells = ["-".center(6) if np.isnan(value) else f"{value:.4f}" for value in row]
            if with_quadratic:
                cells = [f"{cell} ({fit[z]:.4f})" for cell, fit in zip(cells, fits, strict=True)]
            lines.append(f"{z}  " + "  ".join(cells))
    lines += [
        f"collection  {name}: {prior.median:.3f} ± {prior.mad:.3f}, median ± MAD of "
        f"{prior.n_tomograms} tomograms"
        for name, prior in found.priors.items()
        if prior.n_tomograms > 1
    ]
    return "\n".join(lines)

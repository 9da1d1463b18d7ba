"""Arguments that many verbs take."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["CollectionArgument", "TomogramArgument"]

CollectionArgument = Annotated[
    str,
    typer.Argument(
        metavar="COLLECTION", help="The collection: a folder, or a URL as s3://BUCKET/NAME."
    ),
]
"""As typed: a path would lose a slash of ``s3://``."""
TomogramArgument = Annotated[str, typer.Argument(metavar="TOMO", help="The tomogram's id.")]

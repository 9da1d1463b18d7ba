"""What pages may load, and who may show them in a frame, as HTTP headers.  Pure."""

from __future__ import annotations

__all__ = ["DATA_HEADERS", "PAGE_HEADERS", "VIEWER_HEADERS", "VIEWER_POLICY"]

_ALWAYS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
"""Addresses hold tokens, and must not reach other pages."""

VIEWER_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-eval' 'wasm-unsafe-eval' blob:; "
    "worker-src 'self' blob:; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self' data: blob:; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'self'"
)
"""Of Neuroglancer: its decoder of zstd needs ``unsafe-eval``; a state that somebody shares can make
it talk to this origin only."""

_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)

DATA_HEADERS = _ALWAYS | {
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
"""Of files and all that is no page."""

PAGE_HEADERS = _ALWAYS | {"X-Frame-Options": "DENY", "Content-Security-Policy": _PAGE_POLICY}
"""Of otzi's own pages."""

VIEWER_HEADERS = _ALWAYS | {
    "X-Frame-Options": "SAMEORIGIN",
    "Content-Security-Policy": VIEWER_POLICY,
}
"""Of Neuroglancer's page, which otzi's has in a frame."""

"""The configuration of nginx for an exported viewer and its collection.  Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from otzi.errors import ConfigurationError
from otzi_viewers.policy import DATA_HEADERS, PAGE_HEADERS, VIEWER_HEADERS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["NGINX_FILE", "nginx_configuration"]

NGINX_FILE = "nginx.conf"
_PATH = re.compile(r"[\w/.+@ -]+")


def nginx_configuration(viewer: Path, collection: Path, port: int = 8471) -> str:
    """Give the text: ``nginx -c FILE`` serves the viewer, and the collection below ``collection/``.

    GET and HEAD with ranges; other origins may read the data (CORS), and only the data; a chunk
    that is missing is an error, never zeros; the ledger, journals and hidden files are not sent.

    Parameters
    ----------
    viewer, collection
        Folders, absolute.
    port
        On all interfaces.

    Raises
    ------
    ConfigurationError
        If a path has characters that have a meaning in nginx.
    """
    for path in (viewer, collection):
        if not _PATH.fullmatch(str(path)):
            raise ConfigurationError(
                f"{path} cannot stand in a configuration of nginx: use letters, digits, "
                "spaces and / . _ + @ -"
            )
    return _TEXT.format(
        port=port,
        viewer=viewer,
        collection=collection,
        page_headers=_lines(PAGE_HEADERS),
        viewer_headers=_lines(VIEWER_HEADERS),
        data_headers=_lines(DATA_HEADERS | _SHARED),
        own=NGINX_FILE,
    )


_SHARED = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Headers": "Range, If-None-Match",
    "Access-Control-Expose-Headers": "Content-Range, Content-Length, ETag",
    "Access-Control-Allow-Methods": "GET, HEAD, OPTIONS",
    "Cache-Control": "$otzi_cache",
}


def _lines(headers: Mapping[str, str]) -> str:
    return "\n".join(
        f'            add_header {name} "{value}" always;' for name, value in headers.items()
    )


_TEXT = """\
# An otzi viewer and its collection, read only. Written by `otzi view --export`.
worker_processes auto;
pid /tmp/otzi-nginx-{port}.pid;
error_log stderr warn;

events {{ worker_connections 1024; }}

http {{
    types {{
        text/html html;
        text/css css;
        application/javascript js;
        application/json json;
        application/wasm wasm;
        image/png png;
    }}
    default_type application/octet-stream;
    charset utf-8;
    client_body_temp_path /tmp/otzi-nginx-{port}-body;
    proxy_temp_path /tmp/otzi-nginx-{port}-proxy;
    fastcgi_temp_path /tmp/otzi-nginx-{port}-fastcgi;
    uwsgi_temp_path /tmp/otzi-nginx-{port}-uwsgi;
    scgi_temp_path /tmp/otzi-nginx-{port}-scgi;
    client_max_body_size 1k;
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_timeout 65;
    server_tokens off;

    # A generation never changes once it is published; what points to it does.
    map $uri $otzi_cache {{
        default "no-cache";
        "~^/collection/tomograms/[^/]+/(raw|view|strokes|[a-z]+/[^/]+)/[0-9]+/"
            "public, max-age=31536000, immutable";
    }}

    server {{
        listen {port};
        root "{viewer}";
        index index.html;

        location / {{
            limit_except GET {{ deny all; }}
{page_headers}
        }}
        location /v/ {{
            limit_except GET {{ deny all; }}
{viewer_headers}
        }}
        location = /{own} {{ return 404; }}

        location /collection/ {{
            limit_except GET OPTIONS {{ deny all; }}
            if ($request_method = OPTIONS) {{ return 204; }}
            alias "{collection}/";
            autoindex off;
            disable_symlinks on "from={collection}";
{data_headers}
            # What people draw has their names in it.
            location ~ /\\. {{ return 404; }}
            location ~ "/drawn\\.|\\.(sqlite|sqlite-wal|sqlite-shm|journal|partial)$" {{
                return 404;
            }}
            # A reader takes 404 for a chunk of zeros.
            location ~ "^/collection/(.+/c/[0-9/]+)$" {{
                limit_except GET OPTIONS {{ deny all; }}
                if ($request_method = OPTIONS) {{ return 204; }}
                alias "{collection}/$1";
                error_page 404 =500 @missing;
                disable_symlinks on "from={collection}";
{data_headers}
            }}
        }}
        location @missing {{
{data_headers}
            return 500 "missing";
        }}
    }}
}}
"""

"""The dashboard: a page, a style sheet and some scripts, served as they are in this folder.

Nothing comes from elsewhere, and the policy sent with the page lets nothing in: no inline script or
style, no other origin, and (Trusted Types) no text that is parsed as HTML.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib import resources

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    ]
)

HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Asked for again each time, and answered 304: an upgraded service never meets an old page.
    "Cache-Control": "no-cache",
}

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file of the dashboard."""

    path: str
    content: bytes
    media_type: str

    @property
    def etag(self) -> str:
        """Names this very content."""
        return f'"{hashlib.sha256(self.content).hexdigest()[:20]}"'


def _read() -> dict[str, Asset]:
    found = {}
    for file in sorted(resources.files(__name__).iterdir(), key=lambda file: file.name):
        suffix = file.name[file.name.rfind(".") :]
        if suffix in _TYPES:
            path = "/" if file.name == "index.html" else f"/dashboard/{file.name}"
            found[path] = Asset(path, file.read_bytes(), _TYPES[suffix])
    return found


ASSETS = _read()
"""By path."""

PATHS = frozenset(ASSETS)
"""Served without a key: none of it is a secret, and the page is what asks for the key."""


def routes() -> list[Route]:
    """A route for each file."""
    return [Route(path, _answer(asset)) for path, asset in ASSETS.items()]


def _answer(asset: Asset) -> Callable[[Request], Awaitable[Response]]:
    etag = asset.etag
    headers = {**HEADERS, "ETag": etag}

    async def answer(request: Request) -> Response:
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers=headers)
        return Response(asset.content, media_type=asset.media_type, headers=headers)

    return answer

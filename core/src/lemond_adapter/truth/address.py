"""Where lemond is: its URL, checked, and what it may be reached by."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from lemond_adapter.types import ConfigError

_API_PATHS = frozenset({"", "/", "/v1", "/v1/", "/api/v1", "/api/v1/", "/v0", "/api/v0"})


@dataclass(frozen=True, slots=True)
class LemondAddress:
    """lemond's base URL without a path. `local` when it is on this host's loopback."""

    scheme: str
    host: str
    port: int
    local: bool

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def lemond_address(url: str) -> LemondAddress:
    """Reads a URL such as `http://127.0.0.1:13305`; an OpenAI base URL (`.../v1`) is accepted too.

    Raises `ConfigError` saying what was expected.
    """
    expected = "expected e.g. http://127.0.0.1:13305"
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"lemond URL {url!r:.120}: {error}; {expected}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"lemond URL {url!r:.120} is not an http URL; {expected}")
    if parts.username or parts.password:
        raise ConfigError("lemond URL holds a user or password; give the key as api_key instead")
    if parts.path not in _API_PATHS or parts.query or parts.fragment:
        raise ConfigError(f"lemond URL {url!r:.120} has a path or query that lemond's API lacks; {expected}")
    if port is None:
        port = 443 if parts.scheme == "https" else 80
    return LemondAddress(parts.scheme, parts.hostname, port, is_loopback(parts.hostname))


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this host's loopback."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

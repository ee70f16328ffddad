"""Where the event channel is: the advertisement in health, and the URL it stands for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lemond_adapter.types import MalformedPayload

PROTOCOL = 1


class Advertisement(BaseModel):
    """`native_events` of /v1/health. `protocol` is the newest spoken, `oldest_protocol` the oldest.

    It never names a host: the key goes only to the host that the operator configured.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    protocol: int = Field(ge=1)
    path: str = Field(pattern=r"^/[A-Za-z0-9._~-][A-Za-z0-9._~/-]*$", max_length=256)
    port: int | None = Field(default=None, ge=1, le=65535)
    oldest_protocol: int | None = Field(default=None, ge=1)

    @classmethod
    def read(cls, advertised: Mapping[str, Any]) -> Advertisement:
        """Raises `MalformedPayload` naming the first thing that does not fit."""
        try:
            return cls.model_validate(dict(advertised))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"])) or "object"
            raise MalformedPayload(f"/v1/health: native_events.{where}: {first['msg']}") from None

    def speaks(self, protocol: int) -> bool:
        """Whether the server speaks this protocol."""
        return (self.oldest_protocol or self.protocol) <= protocol <= self.protocol


def events_url(base_url: str, advertisement: Advertisement) -> str:
    """The WebSocket URL: lemond's own host, the advertised port (or lemond's) and path."""
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"lemond's URL {base_url!r:.120} is not http://host[:port]")
    secure = parts.scheme == "https"
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    port = advertisement.port or parts.port or (443 if secure else 80)
    return f"{'wss' if secure else 'ws'}://{host}:{port}{advertisement.path}"


def resume_url(url: str, boot_id: str | None, seq: int) -> str:
    """The URL that asks to go on behind `seq` of that boot. Neither is a secret."""
    return url if boot_id is None else f"{url}?boot_id={quote(boot_id, safe='')}&after_seq={seq}"

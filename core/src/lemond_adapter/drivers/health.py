"""lemond's health listing: a schema tolerant of unknown keys and strict on what is used.

One schema reads 10.5.0-11.7.0, because fields were only ever added; a driver subclasses
`HealthBody` or `HealthEntry` when its release moves something. Facts: keys and meaning as read in
lemond's source (`server.cpp:handle_health`) and seen on real 10.5.1-11.7.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from packaging.version import Version
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from lemond_adapter.types import LoadedModel, MalformedPayload


@dataclass(frozen=True, slots=True)
class HealthListing:
    """What a health body says, in release-independent terms.

    `native_events` is the advertisement of a native event channel, where a release has one.
    `unknown_keys` are keys the driver does not know (drift telemetry).
    """

    version: str | None
    models: tuple[LoadedModel, ...]
    websocket_port: int | None = None
    max_models: Mapping[str, int] = field(default_factory=dict)
    native_events: Mapping[str, Any] | None = None
    unknown_keys: frozenset[str] = frozenset()


class HealthEntry(BaseModel):
    """One entry of `all_models_loaded`."""

    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=())

    model_name: str = Field(min_length=1, max_length=512)
    backend_url: str | None = None
    pid: int | None = Field(default=None, ge=0, le=2**31)
    type: str = "llm"
    recipe: str = "llamacpp"
    checkpoint: str | None = None
    device: str | None = None
    recipe_options: dict[str, Any] = Field(default_factory=dict)
    last_use: Any = None
    pinned: bool = False
    is_busy: bool | None = None
    backend_alive: bool = True

    @field_validator("backend_url")
    @classmethod
    def _is_http_url(cls, value: str | None) -> str | None:
        if value is not None:
            split_backend_url(value)
        return value

    def to_model(self) -> LoadedModel:
        """The entry as the core's value; the never-a-timestamp `last_use` only if it is a number."""
        base_url, port = split_backend_url(self.backend_url) if self.backend_url else (None, None)
        counter = self.last_use
        return LoadedModel(
            model=self.model_name,
            base_url=base_url,
            port=port,
            pid=self.pid or None,
            type=self.type,
            recipe=self.recipe,
            checkpoint=self.checkpoint,
            device=self.device,
            options=self.recipe_options,
            last_use=float(counter)
            if isinstance(counter, int | float) and not isinstance(counter, bool)
            else None,
            pinned=self.pinned,
            busy=self.is_busy,
            extra=self.model_extra or {},
        )


class HealthBody(BaseModel):
    """The whole body."""

    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=())

    version: Any = None
    all_models_loaded: list[HealthEntry]
    max_models: dict[str, int] = Field(default_factory=dict)
    websocket_port: int | None = Field(default=None, ge=1, le=65535)
    native_events: dict[str, Any] | None = None


BASE_KEYS = frozenset(
    {
        "status",
        "version",
        "model_loaded",
        "all_models_loaded",
        "max_models",
        "websocket_port",
        "native_events",
    }
)
BASE_ENTRY_KEYS = frozenset(
    {
        "model_name",
        "checkpoint",
        "type",
        "device",
        "backend_url",
        "pid",
        "recipe",
        "recipe_options",
        "last_use",
    }
)


_KEYS_SINCE: Mapping[str, tuple[frozenset[str], frozenset[str]]] = {
    "10.8": (
        frozenset({"pinned_models"}),
        frozenset(
            {
                "status",
                "backend_alive",
                "backend_health",
                "loaded",
                "watchdog_reset",
                "watchdog_reset_reason",
                "pinned",
                "max_context_window",
                "cost_input_per_million",
                "cost_output_per_million",
            }
        ),
    ),
    "10.9": (frozenset({"telemetry", "update_check_done"}), frozenset()),
    "11.5": (
        frozenset({"pinned_helper_models"}),
        frozenset({"residency_class", "slot_pool", "is_busy", "is_streaming"}),
    ),
    "11.8": (frozenset(), frozenset({"launch_command"})),
}
"""Keys that release lines added, to the body and to its entries; none was ever removed (10.5-11.7)."""


def known_health_keys(line: str) -> tuple[frozenset[str], frozenset[str]]:
    """The keys of the body and of its entries that releases up to this line have: what `parse_health`
    takes for known. For a new line that added keys, add them to these in its driver."""
    keys, entry_keys = BASE_KEYS, BASE_ENTRY_KEYS
    for since, (more, more_in_entries) in _KEYS_SINCE.items():
        if Version(since) <= Version(line):
            keys, entry_keys = keys | more, entry_keys | more_in_entries
    return keys, entry_keys


def split_backend_url(url: str) -> tuple[str | None, int | None]:
    """(scheme://host:port, port) of a `backend_url`; (None, None) for the cloud's port 0.

    Raises `ValueError` when it is not an http URL with a port.
    """
    parts = urlsplit(url)
    port = parts.port
    if parts.scheme not in ("http", "https") or not parts.hostname or port is None:
        raise ValueError(f"backend_url {url!r:.120} is not http://host:port[/path]")
    if port == 0:
        return None, None
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}:{port}", port


def parse_health(
    body: object,
    schema: type[HealthBody] = HealthBody,
    known_keys: frozenset[str] = BASE_KEYS,
    known_entry_keys: frozenset[str] = BASE_ENTRY_KEYS,
) -> HealthListing:
    """Reads a health body. Raises `MalformedPayload` naming the first thing that does not fit."""
    if not isinstance(body, dict):
        raise MalformedPayload(f"/v1/health holds {type(body).__name__} where an object was expected")
    if "all_models_loaded" not in body and isinstance(body.get("loaded"), list):
        # Early stubs and documents of lemond name the list `loaded`; no release since 10.5.0 does.
        body = {**body, "all_models_loaded": body["loaded"]}
    try:
        parsed = schema.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "body"
        raise MalformedPayload(f"/v1/health: {where}: {first['msg']}") from error
    unknown = {key for key in body if key not in known_keys}
    for entry in parsed.all_models_loaded:
        unknown |= {
            f"all_models_loaded[].{key}" for key in entry.model_fields_set | set(entry.model_extra or {})
        } - {f"all_models_loaded[].{key}" for key in known_entry_keys}
    models: dict[str, LoadedModel] = {}
    for entry in parsed.all_models_loaded:
        if entry.backend_alive:
            models.setdefault(entry.model_name, entry.to_model())
    return HealthListing(
        version=parsed.version if isinstance(parsed.version, str) else None,
        models=tuple(models.values()),
        websocket_port=parsed.websocket_port,
        max_models=parsed.max_models,
        native_events=parsed.native_events,
        unknown_keys=frozenset(unknown),
    )

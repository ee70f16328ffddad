"""What is loaded, and where a request for it goes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

RouteMode = Literal["child", "gateway"]


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """One entry of lemond's health listing, in release-independent terms.

    `model` is the public name. `base_url` is scheme://host:port without a path (lemond appends
    `/v1` to it for every recipe, even those whose child serves no `/v1`); None where lemond names
    none. `pid` is None where lemond gives none (cloud models report 0). `last_use` is an opaque
    counter: on 10.5-11.7 milliseconds of lemond's steady clock, only equality is safe.
    """

    model: str
    base_url: str | None
    port: int | None
    pid: int | None
    type: str = "llm"
    recipe: str = "llamacpp"
    checkpoint: str | None = None
    device: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    last_use: float | None = None
    pinned: bool = False
    busy: bool | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RouteInfo:
    """Where requests for a model go right now.

    `generation` grows whenever the process or the port behind the model changes, so a holder of an
    old route can tell that it is old. `base_url` is scheme://host:port, no path. `mode` is `child`
    when the model's own server is spoken to, `gateway` when only lemond speaks the path. `pid` is
    None where the process is not visible from here; identity is then unproven.
    """

    slot: str | None
    model: str
    base_url: str
    port: int
    pid: int | None
    mode: RouteMode
    generation: int
    verified_at: datetime

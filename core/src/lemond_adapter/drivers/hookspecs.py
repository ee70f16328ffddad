"""What a driver wheel may implement. Data and pure functions only: no state, no IO.

Only `lemond_driver` is required. Everything else has a cautious default in the core.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from lemond_adapter.drivers.health import HealthListing
    from lemond_adapter.drivers.info import DriverInfo, Traits
    from lemond_adapter.drivers.signals import LogRule

PROJECT = "lemond_adapter"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec(firstresult=True)
def lemond_driver() -> DriverInfo:  # type: ignore[empty-body]
    """Who the driver is and which releases it serves. Required. Since 0.1."""


@hookspec(firstresult=True)
def lemond_traits() -> Traits | None:
    """What those releases do, as far as it changes what the core may do. Since 0.1."""


@hookspec(firstresult=True)
def lemond_parse_health(body: object) -> HealthListing | None:
    """Reads a health body; raises `MalformedPayload` when it cannot. Since 0.1."""


@hookspec(firstresult=True)
def lemond_log_rules() -> Sequence[LogRule] | None:
    """The lifecycle lines of those releases. Since 0.1."""


@hookspec(firstresult=True)
def lemond_public_name(canonical: str, listed: Collection[str]) -> str | None:
    """The public name of a model that a log line names; `listed` are names health uses. Since 0.1."""


@hookspec(firstresult=True)
def lemond_child_paths() -> Mapping[str, frozenset[str]] | None:
    """Recipe -> data-plane paths that its child speaks itself. Since 0.1."""


@hookspec(firstresult=True)
def lemond_event_source(advertised: Mapping[str, Any], base_url: str, api_key: str | None) -> object | None:
    """A native event source, for drivers whose channel is `native`. Since 0.1."""

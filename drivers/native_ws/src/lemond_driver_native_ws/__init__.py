"""lemond's native event WebSocket, protocol 1, wherever health advertises it.

No lemond up to 11.7 has it: until one does, this driver is installed and idle. It serves any release,
because the advertisement and not the version says whether the channel is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from packaging.specifiers import SpecifierSet

from lemond_adapter.drivers import DriverInfo, hookimpl
from lemond_driver_native_ws.address import PROTOCOL, Advertisement, events_url
from lemond_driver_native_ws.errors import (
    BadContent,
    Ended,
    HeartbeatMissed,
    LinkError,
    ProtocolMismatch,
    Refused,
    SeqGap,
    Unreachable,
)
from lemond_driver_native_ws.source import NativeEventSource

__all__ = [
    "PROTOCOL",
    "Advertisement",
    "BadContent",
    "Ended",
    "HeartbeatMissed",
    "LinkError",
    "NativeEventSource",
    "ProtocolMismatch",
    "Refused",
    "SeqGap",
    "Unreachable",
    "events_url",
    "lemond_driver",
    "lemond_event_source",
]


@hookimpl
def lemond_driver() -> DriverInfo:
    return DriverInfo(
        name="native-ws",
        serves=SpecifierSet(""),
        summary="events from lemond itself over a WebSocket, where health advertises native_events",
        channel="native",
    )


@hookimpl
def lemond_event_source(
    advertised: Mapping[str, Any], base_url: str, api_key: str | None
) -> NativeEventSource | None:
    """The source for what health advertises; None when it speaks no protocol that we do.

    Raises `MalformedPayload` when the advertisement cannot be read.
    """
    advertisement = Advertisement.read(advertised)
    if not advertisement.speaks(PROTOCOL):
        return None
    return NativeEventSource(events_url(base_url, advertisement), api_key=api_key)

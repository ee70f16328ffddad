"""Keys, addresses, redirects, and what the reference server refuses."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

import lemond_driver_native_ws as plugin
from lemond_adapter.drivers import build_driver
from lemond_adapter.drivers.native import EventSource
from lemond_adapter.simulator.native import PATH, NativeEventServer
from lemond_adapter.types import (
    ConfigError,
    LoadStarted,
    MalformedPayload,
)
from lemond_driver_native_ws import NativeEventSource


@pytest.mark.parametrize("given", [None, "wrong"])
async def test_a_wrong_key_is_refused_with_a_clear_reason(
    given: str | None, following: Any, source_for: Any
) -> None:
    async with NativeEventServer(api_key="right") as server:
        source = source_for(server, api_key=given)
        async with following(source) as sink:
            await sink.until(lambda s: bool(s.downs))
            assert "401" in sink.downs[0]
            assert "invalid or missing API key" in sink.downs[0]
            assert server.connects == 0
    assert not source.status.connected
    assert all("right" not in query and "wrong" not in query for query in server.handshakes)


async def test_the_right_key_is_admitted(following: Any, source_for: Any) -> None:
    async with (
        NativeEventServer(api_key="right") as server,
        following(source_for(server, api_key="right")) as sink,
    ):
        await sink.up()
    assert server.refused == 0


async def test_redirects_are_not_followed(following: Any) -> None:
    async with NativeEventServer() as elsewhere:

        async def redirect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            target = f"ws://127.0.0.1:{elsewhere.port}{PATH}"
            writer.write(f"HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n".encode())
            await writer.drain()
            writer.close()

        await _with_raw_server(following, redirect, "302")
        assert elsewhere.handshakes == []


async def test_an_empty_close_names_the_key_as_a_possible_cause(following: Any) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    await _with_raw_server(following, hang_up, "wrong or missing key")


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/v1/other", {}, 404),
        (f"{PATH}?api_key=right", {"Authorization": "Bearer right"}, 400),
        (f"{PATH}?boot_id=b", {"Authorization": "Bearer right"}, 400),
        (f"{PATH}?boot_id=b&after_seq=-1", {"Authorization": "Bearer right"}, 400),
        (f"{PATH}?boot_id=b&after_seq=x", {"Authorization": "Bearer right"}, 400),
        (PATH, {"Authorization": "Bearer right", "Origin": "https://evil.example"}, 403),
        (PATH, {"Authorization": "Bearer right", "Origin": "null"}, 403),
        (PATH, {"Authorization": "right"}, 401),
    ],
)
async def test_the_reference_server_refuses_bad_handshakes(
    path: str, headers: dict[str, str], status: int
) -> None:
    async with NativeEventServer(api_key="right") as server:
        with pytest.raises(InvalidStatus) as caught:
            async with connect(f"ws://127.0.0.1:{server.port}{path}", additional_headers=headers, proxy=None):
                pass
    assert caught.value.response.status_code == status


async def test_nothing_a_client_says_harms_the_reference_server(
    server: NativeEventServer, following: Any, source_for: Any
) -> None:
    async with following(source_for(server)) as sink:
        await sink.up()
        async with connect(f"ws://127.0.0.1:{server.port}{PATH}", proxy=None) as socket:
            for message in ("[1,2]", "null", '{"type":5}', b"\x00", "x" * 500):
                await socket.send(message)
            server.publish(LoadStarted(model="m"))
            await sink.until(lambda s: bool(s.events))
    assert sink.downs == []


def test_the_plugin_is_a_native_driver_and_makes_a_source_for_what_it_can_speak() -> None:
    driver = build_driver(plugin, name="native-ws")
    assert driver.info.channel == "native"

    def source(advertised: dict[str, Any], base_url: str = "http://10.0.0.5:13305") -> EventSource | None:
        made = driver.event_source(advertised, base_url, "key")
        assert made is None or isinstance(made, EventSource)
        return made

    first = source({"protocol": 1, "path": "/v1/events", "port": 13306, "host": "evil.example"})
    assert first is not None
    assert first.status.url == "ws://10.0.0.5:13306/v1/events"
    second = source({"protocol": 3, "oldest_protocol": 1, "path": "/e"}, "https://[::1]:8443")
    assert second is not None
    assert second.status.url == "wss://[::1]:8443/e"
    assert source({"protocol": 2, "path": "/v1/events"}) is None
    for bad in ({}, {"protocol": 1, "path": "//evil/x"}, {"protocol": 1, "path": "/x", "port": 0}):
        with pytest.raises(MalformedPayload, match="native_events"):
            source(bad)
    with pytest.raises(ConfigError, match="header"):
        NativeEventSource("ws://127.0.0.1:1/e", api_key="a\r\nb")


async def _with_raw_server(
    following: Any,
    handler: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    expected: str,
) -> None:
    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with following(NativeEventSource(f"ws://127.0.0.1:{port}{PATH}", api_key="k")) as sink:
            await sink.until(lambda s: bool(s.downs))
    assert expected in sink.downs[0]

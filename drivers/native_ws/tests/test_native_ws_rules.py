"""Servers that break the protocol's rules, frame by frame."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from lemond_driver_native_ws import NativeEventSource

HELLO = {"type": "hello", "protocol": 1, "boot_id": "b", "heartbeat_s": 30.0, "seq": 0, "resumed": False}
LIST = {"type": "list", "seq": 0, "reason": "start", "all_models_loaded": []}
LOAD = {"type": "load_started", "model": "m"}


class Script:
    """One list of frames for each connection, the last one for all further ones."""

    def __init__(self, *connections: Sequence[dict[str, Any]], status: HTTPStatus | None = None) -> None:
        self._connections = list(connections)
        self._status = status
        self.handshakes: list[str] = []
        self.news = asyncio.Event()
        self.url = ""

    def admit(self, connection: ServerConnection, request: Request) -> Response | None:
        self.handshakes.append(request.path)
        self.news.set()
        return connection.respond(self._status, "no") if self._status else None

    async def serve(self, connection: ServerConnection) -> None:
        frames = self._connections[min(len(self.handshakes), len(self._connections)) - 1]
        for frame in frames:
            await connection.send(json.dumps(frame))
        await connection.wait_closed()

    async def asked(self, times: int) -> None:
        while len(self.handshakes) < times:
            self.news.clear()
            await self.news.wait()


@asynccontextmanager
async def playing(script: Script, **kwargs: Any) -> AsyncIterator[NativeEventSource]:
    kwargs = {"first_delay_s": 0.01, "max_delay_s": 0.02} | kwargs
    async with serve(script.serve, "127.0.0.1", 0, process_request=script.admit, compression=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        yield NativeEventSource(f"ws://127.0.0.1:{port}/e", **kwargs)


@pytest.mark.parametrize(
    ("frames", "why"),
    [
        ([HELLO | {"resumed": True}], "resumed what was not asked for"),
        ([LIST], "first frame is not a hello"),
        ([HELLO, HELLO], "second hello"),
        ([HELLO, {"type": "event", "seq": 1, "event": LOAD}], "neither resumed nor listed"),
        ([HELLO, {"type": "heartbeat", "seq": 0}], "neither resumed nor listed"),
        ([HELLO | {"heartbeat_s": 0.0}], "heartbeat_s"),
        ([HELLO | {"boot_id": "a b"}], "boot_id"),
        ([HELLO | {"seq": "0"}], "seq"),
        ([{"type": "error", "code": "internal", "message": "out of files"}], "internal: out of files"),
        ([HELLO, *[{"type": "noise"}] * 101], "101 unreadable frames"),
    ],
)
async def test_a_broken_rule_ends_the_connection_and_a_list_heals_it(
    following: Any, frames: list[dict[str, Any]], why: str
) -> None:
    script = Script(frames, [HELLO, LIST])
    async with playing(script) as source, following(source) as sink:
        await sink.up()
    assert len(sink.downs) == 1
    assert why in sink.downs[0]
    assert [call[0] for call in sink.calls] == ["down", "listed"]
    assert script.handshakes == ["/e", "/e"]


@pytest.mark.parametrize("change", [{"boot_id": "other"}, {"seq": 0}])
async def test_a_resume_of_something_else_is_not_believed(following: Any, change: dict[str, Any]) -> None:
    start = [HELLO | {"seq": 5}, LIST | {"seq": 5}, {"type": "error", "code": "shutting_down"}]
    script = Script(start, [HELLO | {"seq": 5, "resumed": True} | change], [HELLO, LIST])
    async with playing(script) as source, following(source) as sink:
        await sink.up(2)
    assert script.handshakes == ["/e", "/e?boot_id=b&after_seq=5", "/e"]
    assert sink.resumes == []
    assert "not asked for" in sink.downs[1]


async def test_a_resume_that_stops_half_way_is_not_taken_for_whole(following: Any) -> None:
    half = [
        HELLO | {"seq": 2, "resumed": True},
        {"type": "event", "seq": 1, "event": LOAD},
        {"type": "heartbeat", "seq": 1},
    ]
    script = Script([HELLO, LIST, {"type": "error", "code": "internal"}], half, half, [HELLO, LIST])
    async with playing(script) as source, following(source) as sink:
        await sink.up(2)
    assert sink.resumes == []
    assert sink.seqs == [1]
    assert script.handshakes[1:] == ["/e?boot_id=b&after_seq=0", "/e?boot_id=b&after_seq=1", "/e"]
    assert "fell silent at event 1 of 2" in sink.downs[1]


async def test_the_same_reason_is_told_once(following: Any) -> None:
    script = Script(status=HTTPStatus.UNAUTHORIZED)
    async with playing(script) as source, following(source) as sink, asyncio.timeout(10):
        await script.asked(5)
    assert len(sink.downs) == 1
    assert source.status.problems["Refused"] >= 4


async def test_a_refusal_waits_the_longest_delay_at_once(following: Any) -> None:
    script = Script(status=HTTPStatus.UNAUTHORIZED)
    async with playing(script, first_delay_s=0.001, max_delay_s=600.0) as source, following(source) as sink:
        await sink.until(lambda s: bool(s.downs))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(script.asked(2), 0.1)


async def test_a_retry_after_is_kept_up_to_the_longest_delay(following: Any) -> None:
    bye = {"type": "error", "code": "shutting_down", "retry_after_s": 3000.0}
    script = Script([HELLO, LIST, bye])
    async with playing(script, first_delay_s=0.001, max_delay_s=600.0) as source, following(source) as sink:
        await sink.until(lambda s: bool(s.downs))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(script.asked(2), 0.1)

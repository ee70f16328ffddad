"""What the driver does with frames that are odd, wrong, missing, new or too long."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from lemond_adapter.drivers.native import EVENT_TYPES, decode_native_event, encode_native_event
from lemond_adapter.simulator.native import NativeEventServer
from lemond_adapter.types import (
    EvictionStarted,
    LoadFailed,
    LoadStarted,
)
from lemond_driver_native_ws import Advertisement
from lemond_driver_native_ws.frames import read_frame

ENTRY = {
    "model_name": "tiny-a",
    "backend_url": "http://127.0.0.1:8001/v1",
    "pid": 4711,
    "type": "llm",
    "recipe": "llamacpp",
    "recipe_options": {"ctx_size": 4096},
    "a_key_of_tomorrow": {"x": 1},
}


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        ("{", "not_json"),
        ("[" * 100_000, "not_json"),
        ("[1,2]", "not_a_frame"),
        ('"x"', "not_a_frame"),
        ("null", "not_a_frame"),
        ('{"type":5}', "not_a_frame"),
        (b"\x00\xff", "binary"),
        ('{"type":"weather","seq":9}', "unknown_frame"),
        ('{"type":"heartbeat","seq":"x"}', "bad_heartbeat"),
        ('{"type":"event","seq":1,"event":{"type":"load_started","model":"old"}}', "duplicate"),
    ],
)
async def test_a_frame_without_meaning_is_counted_and_skipped(
    server: NativeEventServer, message: str | bytes, problem: str, following: Any, source_for: Any
) -> None:
    server.publish(LoadStarted(model="before"))
    source = source_for(server)
    async with following(source) as sink:
        await sink.up()
        await server.send_raw(message)
        server.publish(LoadStarted(model="after"))
        await sink.until(lambda s: bool(s.events))
    assert source.status.problems[problem] == 1
    assert sink.downs == []
    assert server.connects == 1


@pytest.mark.parametrize(
    "event",
    [
        {"type": "model_loaded", "model": "m", "port": 70000, "pid": 1},
        {"type": "model_loaded", "model": "m", "port": "8001", "pid": 1},
        {"type": "process_spawned", "model": "m", "pid": -1},
        {"type": "process_spawned", "model": "m"},
        {"type": "load_started", "model": ""},
        {"type": "load_started"},
        {"type": "load_started", "model": "m", "at": "yesterday"},
        {"type": "load_started", "model": "m", "at": "2026-06-02T10:31:44.980"},
        {"type": "pull_progress", "model": "m", "percent": 101},
        {"model": "m"},
        {"type": "load_started", "model": "x" * 2_000_000},
    ],
)
async def test_an_event_that_cannot_be_read_costs_a_new_list(
    server: NativeEventServer, event: dict[str, Any], following: Any, source_for: Any
) -> None:
    async with following(source_for(server)) as sink:
        await sink.up()
        server.publish(event)
        await sink.up(2)
        server.publish(LoadStarted(model="after"))
        await sink.until(lambda s: bool(s.events))
    assert sink.listings[1][2:] == (1, "gap")
    assert sink.seqs == [2]
    assert server.peak == 1


async def test_what_a_newer_server_adds_is_let_pass(
    server: NativeEventServer, following: Any, source_for: Any
) -> None:
    source = source_for(server)
    async with following(source) as sink:
        await sink.up()
        server.publish({"type": "model_dreams", "model": "m"})
        server.publish({"type": "lemond_lost", "reason": "not lemond's to say"})
        server.publish({"type": "eviction_started", "model": "m", "reason": "quota", "quota": {"bytes": 5}})
        server.publish({"type": "load_failed", "model": "m", "reason": "quota", "kind": "quota", "seq": 99})
        await sink.until(lambda s: len(s.events) == 2)
    evicting, failed = sink.events
    assert isinstance(evicting, EvictionStarted)
    assert evicting.reason == "unknown"
    assert isinstance(failed, LoadFailed)
    assert (failed.reason, failed.kind, failed.seq) == ("quota", "unknown", 0)
    assert source.status.problems["unknown_event"] == 2
    assert sink.downs == []


async def test_a_frame_over_the_limit_costs_the_connection_and_a_new_list(
    server: NativeEventServer, following: Any, source_for: Any
) -> None:
    source = source_for(server, max_frame=4096)
    async with following(source) as sink:
        await sink.up()
        server.publish({"type": "load_started", "model": "m", "padding": "x" * 5000})
        await sink.up(2)
        server.publish(LoadStarted(model="after"))
        await sink.until(lambda s: bool(s.events))
    assert sink.seqs == [2]
    assert source.status.problems["BadContent"] == 1
    assert server.peak == 1


async def test_a_list_of_several_megabytes_is_taken(
    server: NativeEventServer, following: Any, source_for: Any
) -> None:
    many = [{**ENTRY, "model_name": f"m{number}", "note": "x" * 1000} for number in range(3000)]
    server.set_listing(lambda: {"all_models_loaded": many})
    async with following(source_for(server)) as sink:
        await sink.up()
    assert len(sink.listings[0][0].models) == 3000


async def test_a_list_that_cannot_be_read_is_asked_for_again(
    server: NativeEventServer, following: Any, source_for: Any
) -> None:
    answers = iter([[{"pid": 3}], [{**ENTRY, "backend_url": "ftp://x"}]])
    server.set_listing(lambda: {"all_models_loaded": next(answers, [ENTRY])})
    source = source_for(server)
    async with following(source) as sink:
        await sink.up()
    assert source.status.problems["BadContent"] == 2
    assert len(sink.downs) == 2
    assert sink.listings[0][3] == "start"


@pytest.mark.parametrize("ahead", ['{"type":"heartbeat","seq":2}', '{"type":"event","seq":3,"event":{}}'])
async def test_a_missing_event_is_noticed_and_fetched(
    server: NativeEventServer, ahead: str, following: Any, source_for: Any
) -> None:
    async with following(source_for(server)) as sink:
        await sink.up()
        await server.send_raw(ahead)  # as if events 1 and 2 had been lost on the way
        server.publish(LoadStarted(model="one"))
        server.publish(LoadStarted(model="two"))
        await sink.until(lambda s: len(s.events) == 2 and bool(s.resumes))
    assert sink.seqs == [1, 2]
    assert len(sink.listings) == 1


async def test_a_gap_that_resuming_does_not_close_ends_in_a_list(
    server: NativeEventServer, following: Any, source_for: Any
) -> None:
    async with following(source_for(server)) as sink:
        await sink.up()
        for _ in range(2):
            connects = server.connects
            await server.send_raw('{"type":"heartbeat","seq":7}')
            await sink.until(lambda s, n=connects: server.connects > n and server.open_connections == 1)
            await sink.until(lambda s: s.calls[-1][0] != "down")
        await sink.up(2)
    assert [call[0] for call in sink.calls] == ["listed", "down", "resumed", "down", "listed"]
    assert sink.listings[1][3] == "gap"


async def test_another_protocol_is_not_guessed_at(
    server: NativeEventServer, following: Any, source_for: Any
) -> None:
    server.protocol = 2
    source = source_for(server)
    async with following(source) as sink:
        await sink.until(lambda s: bool(s.downs))
    assert sink.downs == ["lemond speaks event protocol 2, this driver 1"]
    assert sink.listings == []


def test_every_example_in_the_document_is_what_the_code_reads() -> None:
    document = Path(__file__).parents[3] / "docs" / "native-events.md"
    blocks = re.findall(r"```json\n(.*?)```", document.read_text(encoding="utf-8"), re.S)
    bodies = [json.loads(line) for block in blocks for line in block.splitlines()]
    frames = [body for body in bodies if "type" in body]
    assert {frame["type"] for frame in frames} == {"hello", "list", "event", "heartbeat", "error"}
    for frame in frames:
        assert read_frame(json.dumps(frame)) is not None
    objects = [frame["event"] for frame in frames if frame["type"] == "event"]
    assert {body["type"] for body in objects} == set(EVENT_TYPES)
    for body in objects:
        event = decode_native_event(body, seq=1)
        assert event is not None
        assert encode_native_event(event) == body
    (advertised,) = (body["native_events"] for body in bodies if "native_events" in body)
    assert Advertisement.read(advertised).speaks(1)

"""The driver against the reference server, over real sockets: list, watch, resume, lose, come back."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import pytest
from websockets.asyncio.client import connect

from lemond_adapter.simulator.native import PATH, NativeEventServer
from lemond_adapter.types import (
    EvictionStarted,
    LoadFailed,
    LoadStarted,
    ModelEvicted,
    ModelLoaded,
    ProcessCrashed,
    ProcessSpawned,
    PullProgress,
    SlotEvent,
)

PATIENCE_S = 10.0
GARBAGE = ("{", b"x", '{"type":"event"}', '{"type":"heartbeat","seq":999}')
ACTIONS = {"toggle": 8, "burst": 2, "drop": 2, "restart": 1, "garbage": 1, "settle": 4}


async def test_a_new_client_gets_hello_list_and_then_every_event_in_order(
    server: NativeEventServer, following: Any, source_for: Any
) -> None:
    server.publish(LoadStarted(model="tiny-a"))  # before the list: held by it, not sent
    source = source_for(server)
    async with following(source) as sink:
        await sink.up()
        sent: list[SlotEvent] = [
            EvictionStarted(model="tiny-a", reason="lru"),
            ModelEvicted(model="tiny-a", reason="lru"),
            LoadStarted(model="tiny-b"),
            ProcessSpawned(model="tiny-b", pid=4712),
            ModelLoaded(model="tiny-b", port=8001, pid=4712),
            ProcessCrashed(model="tiny-b", pid=4712, exit="SIGKILL"),
            LoadFailed(model="tiny-b", reason="no such file", kind="not_found"),
            PullProgress(model="tiny-c", percent=40.0),
        ]
        for event in sent:
            server.publish(event)
        await sink.until(lambda s: len(s.events) == len(sent))
    listing, boot_id, seq, reason = sink.listings[0]
    assert (boot_id, seq, reason) == (server.boot_id, 1, "start")
    assert listing.version == "12.0.0"
    assert listing.max_models == {"llm": 2}
    assert [(m.model, m.port, m.pid) for m in listing.models] == [("tiny-a", 8001, 4711)]
    assert listing.models[0].extra == {"a_key_of_tomorrow": {"x": 1}}
    assert sink.seqs == list(range(2, 10))
    for got, event in zip(sink.events, sent, strict=True):
        assert type(got) is type(event)
        assert got.at.year > 2000
        same = {"seq", "at", "source", "lemond_seq"}
        assert got.model_dump(exclude=same) == event.model_dump(exclude=same)
    assert [event.lemond_seq for event in sink.events] == sink.seqs
    assert sink.downs == []
    assert source.status.events == 8
    assert server.peak == 1


async def test_a_lost_connection_is_resumed_without_loss_or_duplicates(
    server: NativeEventServer, following: Any, source_for: Any
) -> None:
    source = source_for(server)
    async with following(source) as sink:
        await sink.up()
        for number in range(1, 31):
            server.publish(LoadStarted(model=f"m{number}"))
            if number % 10 == 0:
                await sink.until(lambda s, n=number: len(s.events) >= n - 5)
                await server.drop_connections()
                server.publish(LoadStarted(model="while away"))
                await sink.until(lambda s, n=number: len(s.resumes) == n // 10)
        await sink.until(lambda s: len(s.events) == 33)
    assert sink.seqs == list(range(1, 34))
    assert len(sink.listings) == server.lists_sent == 1
    assert len(sink.downs) == 3
    assert server.peak == 1
    assert source.status.reconnects == 3
    assert f"boot_id={server.boot_id}" in server.handshakes[-1]
    # What happened meanwhile comes before the word that the view is whole again.
    for down in (i for i, call in enumerate(sink.calls) if call[0] == "down"):
        back = next(i for i in range(down, len(sink.calls)) if sink.calls[i][0] == "resumed")
        assert all(call[0] == "event" for call in sink.calls[down + 1 : back])
        assert sink.calls[back - 1] == ("event", sink.calls[back][1])


async def test_a_resume_with_nothing_missed_says_so(
    server: NativeEventServer, following: Any, source_for: Any
) -> None:
    async with following(source_for(server)) as sink:
        await sink.up()
        await server.drop_connections(abort=False)
        await sink.until(lambda s: bool(s.resumes))
    assert sink.resumes == [(server.boot_id, 0)]
    assert sink.events == []


async def test_another_boot_id_gives_a_new_list(
    server: NativeEventServer, following: Any, source_for: Any
) -> None:
    async with following(source_for(server)) as sink:
        await sink.up()
        for number in range(3):
            server.publish(LoadStarted(model=f"m{number}"))
        await sink.until(lambda s: len(s.events) == 3)
        await server.restart("boot-two")
        for number in range(5):  # seq runs past the old one: a bare seq would hide these
            server.publish(LoadStarted(model=f"n{number}"))
        await sink.up(2)
        server.publish(ModelLoaded(model="tiny-a", port=8001, pid=5))
        await sink.until(lambda s: bool(s.events) and isinstance(s.events[-1], ModelLoaded))
    _, boot_id, seq, reason = sink.listings[1]
    assert (boot_id, reason) == ("boot-two", "boot")
    assert sink.resumes == []
    assert sink.seqs[3:] == list(range(seq + 1, 7))


async def test_an_exceeded_history_gives_a_list_with_the_reason(
    server: NativeEventServer, following: Any, source_for: Any
) -> None:
    server.set_history(4)
    async with following(source_for(server)) as sink:
        await sink.up()
        await server.drop_connections()
        for number in range(10):
            server.publish(LoadStarted(model=f"m{number}"))
        await sink.up(2)
        server.publish(LoadStarted(model="after"))
        await sink.until(lambda s: bool(s.events))
    _, boot_id, seq, reason = sink.listings[1]
    assert (boot_id, seq, reason) == (server.boot_id, 10, "gap")
    assert sink.seqs == [11]


async def test_a_client_slower_than_the_history_gets_a_list_on_its_open_connection(
    server: NativeEventServer, following: Any, source_for: Any
) -> None:
    server.set_history(4)
    async with following(source_for(server)) as sink:
        await sink.up()
        for number in range(10):  # in one step: the connection's position falls off the ring
            server.publish(LoadStarted(model=f"m{number}"))
        await sink.up(2)
    assert sink.listings[1][2:] == (10, "gap")
    assert sink.downs == []
    assert server.connects == 1


async def test_silence_beyond_the_promised_heartbeat_reconnects(
    server: NativeEventServer, following: Any, source_for: Any
) -> None:
    server.heartbeat_s = 0.05
    server.heartbeats = False
    source = source_for(server)
    async with following(source) as sink:
        await sink.up()
        await sink.until(lambda s: bool(s.downs))
        server.publish(LoadStarted(model="m"))
        await sink.until(lambda s: bool(s.events) and bool(s.resumes))
    assert "silence for 0.125 s" in sink.downs[0]
    assert source.status.problems["HeartbeatMissed"] >= 1
    assert sink.seqs == [1]
    assert server.peak == 1


async def test_heartbeats_keep_a_quiet_connection(
    server: NativeEventServer, following: Any, source_for: Any
) -> None:
    server.heartbeat_s = 0.2
    beats = 0
    async with (
        connect(f"ws://127.0.0.1:{server.port}{PATH}", proxy=None) as socket,
        following(source_for(server)) as sink,
        asyncio.timeout(PATIENCE_S),
    ):
        while beats < 4:
            beats += json.loads(await socket.recv())["type"] == "heartbeat"
    assert sink.downs == []
    assert len(sink.listings) == 1


async def test_a_shutdown_is_told_in_words_and_the_next_boot_found(
    server: NativeEventServer, following: Any, source_for: Any
) -> None:
    async with following(source_for(server)) as sink:
        await sink.up()
        server.publish(EvictionStarted(model="tiny-a", reason="shutdown"))
        server.publish(ModelEvicted(model="tiny-a", reason="shutdown"))
        await sink.until(lambda s: len(s.events) == 2)
        await server.stop()
        await sink.until(lambda s: any("ConnectionRefusedError" in why for why in s.downs))
        await server.start()
        await sink.up(2)
    assert "shutting_down" in sink.downs[0]
    assert sink.listings[1][1:] == (server.boot_id, 0, "boot")


async def test_a_nudge_cuts_the_delay(server: NativeEventServer, following: Any, source_for: Any) -> None:
    source = source_for(server, first_delay_s=600.0, max_delay_s=600.0)
    async with following(source) as sink:
        await sink.up()
        await server.drop_connections()
        await sink.until(lambda s: bool(s.downs))
        source.nudge()
        await sink.until(lambda s: bool(s.resumes))


async def test_a_source_never_runs_twice(
    server: NativeEventServer, following: Any, source_for: Any, recorder: Any
) -> None:
    source = source_for(server)
    async with following(source) as sink:
        await sink.up()
        with pytest.raises(RuntimeError, match="one connection"):
            await source.run(recorder())
    assert server.peak == 1


async def test_what_the_sink_raises_is_the_cores_own_and_closes_the_connection(
    server: NativeEventServer, source_for: Any, recorder: Any
) -> None:
    class Broken(recorder):  # type: ignore[misc]
        def event(self, event: SlotEvent, *, seq: int) -> None:
            raise OSError("disk full")

    sink = Broken()
    task = asyncio.create_task(source_for(server).run(sink))
    await sink.up()
    server.publish(LoadStarted(model="m"))
    with pytest.raises(OSError, match="disk full"):
        await asyncio.wait_for(task, PATIENCE_S)


@pytest.mark.parametrize("seed", range(20))
async def test_under_any_history_the_view_converges_and_no_gap_is_silent(
    following: Any, source_for: Any, seed: int
) -> None:
    """What a client folds from lists and events is what lemond holds, whatever happened to the wire."""
    rng = random.Random(seed)
    loaded: set[str] = set()

    def body() -> dict[str, Any]:
        return {"all_models_loaded": [{"model_name": name} for name in sorted(loaded)]}

    async with NativeEventServer(body, history=8) as server, following(source_for(server)) as sink:
        await sink.up()
        for _ in range(60):
            action = rng.choices(list(ACTIONS), list(ACTIONS.values()))[0]
            for _again in range({"toggle": 1, "burst": 12}.get(action, 0)):
                name = f"m{rng.randrange(5)}"
                loaded.symmetric_difference_update({name})
                server.publish(
                    ModelLoaded(model=name, port=8001, pid=1) if name in loaded else ModelEvicted(model=name)
                )
            if action == "drop":
                await server.drop_connections(abort=rng.random() < 0.5)
            elif action == "restart":
                loaded.clear()
                await server.restart()
            elif action == "garbage":
                await server.send_raw(rng.choice(GARBAGE))
            elif action == "settle":
                await sink.until(lambda s: s.position == (server.boot_id, server.seq))
        loaded.add("last")
        last, boot_id = server.publish(ModelLoaded(model="last", port=8001, pid=1)), server.boot_id
        await sink.until(lambda s: s.position == (boot_id, last))
        assert sink.view == loaded
    assert server.peak == 1
    assert sink.position == (boot_id, last)
    assert sink.holes == []

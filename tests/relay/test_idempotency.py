"""`Idempotency-Key`: whatever a client does, its request is executed once."""

from __future__ import annotations

import json
import socket
import threading

from lemond_adapter.dispatch.idempotency import MAX_ENTRIES, Answers

from .conftest import Relay, Seen, request

BODY = b'{"model": "scripted", "n": 1}'


def key(name: str) -> bytes:
    return b"Idempotency-Key: " + name.encode() + b"\r\n"


def counting(relay: Relay, go: threading.Event | None = None, *, stream: bool = False) -> list[Seen]:
    def answer(connection: socket.socket, seen: Seen) -> None:
        number = len(relay.server.seen)
        if stream:
            event = b"data: %d\n\n" % number
            head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
            connection.sendall(head + b"%x\r\n%b\r\n" % (len(event), event))
            if go is not None:
                assert go.wait(20)
            connection.sendall(b"%x\r\n%b\r\n0\r\n\r\n" % (len(event), event))
            return
        if go is not None:
            assert go.wait(20)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % number)

    relay.server.answer = answer
    return relay.server.seen


def test_sent_again_it_gets_the_stored_answer(relay: Relay) -> None:
    seen = counting(relay)
    head, first = relay.ask(BODY, key("again"))
    assert b"Idempotent-Replayed" not in head
    head, second = relay.ask(BODY, key("again"))
    assert b"Idempotent-Replayed: true" in head
    assert (first, second, len(seen)) == (b"1", b"1", 1)
    assert relay.ask(BODY, key("another"))[1] == b"2"
    assert relay.ask(BODY)[1] == b"3"
    assert not any(line.lower().startswith(b"idempotency") for line in seen[0].lines)


def test_another_body_is_refused(relay: Relay) -> None:
    seen = counting(relay)
    relay.ask(BODY, key("body"))
    head, body = relay.ask(BODY.replace(b"1", b"2"), key("body"))
    assert b" 422 " in head
    assert json.loads(body)["error"]["code"] == "idempotency.mismatch"
    assert len(seen) == 1


def test_keys_of_other_clients_are_other_keys(relay: Relay) -> None:
    counting(relay)
    assert relay.ask(BODY, key("mine") + b"Authorization: Bearer a\r\n")[1] == b"1"
    assert relay.ask(BODY, key("mine") + b"Authorization: Bearer b\r\n")[1] == b"2"


def test_while_it_runs_the_same_request_joins_it(relay: Relay) -> None:
    go = threading.Event()
    for name, stream in (("joined", False), ("joined-stream", True)):
        go.clear()
        relay.server.seen.clear()
        counting(relay, go, stream=stream)
        wires = [relay.wire() for _ in range(5)]
        for wire in wires:
            wire.send(request(BODY, key(name)))
        if stream:
            assert all(wire.until(b"data: 1\n\n\r\n") for wire in wires)
        relay.until_seen(1)
        go.set()
        answers = [wire.until(b"0\r\n\r\n") for wire in wires] if stream else [w.answer()[1] for w in wires]
        assert len(set(answers)) == 1
        for wire in wires:
            wire.close()
        assert len(relay.server.seen) == 1
        # And afterwards, stream or not, it is all there.
        assert b"1" in relay.ask(BODY, key(name))[1]
        assert len(relay.server.seen) == 1


def test_a_client_that_left_finds_its_answer(relay: Relay) -> None:
    """What was sent to a model cannot be taken back: it runs to its end for the one that comes back."""
    go = threading.Event()
    seen = counting(relay, go)
    wire = relay.wire()
    wire.send(request(BODY, key("left")))
    relay.until_seen(1)
    wire.close()
    again = relay.wire()
    again.send(request(BODY, key("left")))
    go.set()
    assert again.answer()[1] == b"1"
    again.close()
    assert len(seen) == 1
    relay.idle()


def test_an_interrupted_one_is_not_executed_again(relay: Relay) -> None:
    relay.server.answer = lambda connection, seen: connection.close()
    first = relay.ask(BODY, key("lost"))[1]
    assert json.loads(first)["error"]["details"]["interrupted"] is True
    counting(relay)
    assert relay.ask(BODY, key("lost"))[1] == first
    assert len(relay.server.seen) == 1


def test_what_was_not_executed_is_tried_again(relay: Relay) -> None:
    loading = b'{"error": {"message": "Loading model", "code": 503}}'
    relay.server.answer = lambda connection, seen: connection.sendall(
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: %d\r\n\r\n%b" % (len(loading), loading)
    )
    assert json.loads(relay.ask(BODY, key("early"))[1])["error"]["code"] == "slot.loading"
    counting(relay)
    assert relay.ask(BODY, key("early"))[1] == b"2"


def test_an_answer_too_large_to_keep_is_told(relay: Relay) -> None:
    size = 9 << 20
    relay.server.answer = lambda connection, seen: connection.sendall(
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size
    )
    assert len(relay.ask(BODY, key("large"))[1]) == size
    head, body = relay.ask(BODY, key("large"))
    assert b" 409 " in head
    assert json.loads(body)["error"]["code"] == "idempotency.too_large"
    assert len(relay.server.seen) == 1


def test_bounds_and_time() -> None:
    now = 0.0
    answers = Answers(10.0, lambda: now)
    for number in range(MAX_ENTRIES):
        entry = answers.begin(b"%d" % number, b"")
        assert entry is not None
        entry.write(b"x" * 1000)
    assert answers.begin(b"one more", b"") is None, "all of them run"
    first = answers.find(b"0")
    assert first is not None
    first.finish(close=False)
    assert answers.begin(b"one more", b"") is not None
    assert answers.find(b"0") is None, "the oldest one that has ended made room"
    second = answers.find(b"1")
    assert second is not None
    second.finish(close=False)
    now = 9.9
    assert answers.find(b"1") is second
    now = 10.0
    assert answers.find(b"1") is None
    assert answers.size == (MAX_ENTRIES - 2) * 1000

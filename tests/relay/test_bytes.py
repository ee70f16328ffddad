"""What arrives is what was sent, but for the hop-by-hop headers: every byte of head and body, both ways,
however it was cut into pieces."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .conftest import MODEL, Relay, Seen, Wire, plain, request

NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9!#$%&'*+.^_`|~-]{0,20}", fullmatch=True).map(str.encode)
SPECIAL = {
    *(b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"host", b"expect"),
    *(b"content-length", b"content-type", b"authorization", b"x-api-key", b"cookie", b"origin", b"prefer"),
    *(
        b"idempotency-key",
        b"x-request-id",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authorization",
    ),
}
VALUES = st.binary(max_size=40).map(lambda b: bytes(c for c in b if c >= 32 and c != 127))
LINES = st.lists(
    st.tuples(
        NAMES.filter(lambda n: n.lower() not in SPECIAL), st.sampled_from([b": ", b":", b":\t "]), VALUES
    ),
    max_size=8,
).map(lambda items: [name + sep + value for name, sep, value in items])
BODIES = st.dictionaries(
    st.text(max_size=5).filter(lambda k: k not in ("model", "stream")), st.text(max_size=60)
)
CUTS = st.lists(st.integers(1, 200), max_size=6) | st.just([1])
EXTENSION = st.sampled_from([b"", b"", b";a=b", b';name="x y"'])
TUNED = settings(
    deadline=None,
    max_examples=120,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def pieces(data: bytes, cuts: list[int]) -> Iterator[bytes]:
    """`data` in pieces of the given sizes, then the rest; [1] means byte by byte for the first part."""
    if cuts == [1]:
        cuts = [1] * min(len(data), 300)
    at = 0
    for size in cuts:
        if at < len(data):
            yield data[at : at + size]
            at += size
    if at < len(data):
        yield data[at:]


def chunked(draw: st.DrawFn, data: bytes) -> bytes:
    out = b""
    while data:
        size = draw(st.integers(1, len(data)))
        form = draw(st.sampled_from([b"%x", b"%X", b"%04x"]))
        out += form % size + draw(EXTENSION) + b"\r\n" + data[:size] + b"\r\n"
        data = data[size:]
    return out


@st.composite
def requests(draw: st.DrawFn) -> tuple[list[bytes], bytes, bytes, bool]:
    """(header lines, body, body on the wire, chunked)"""
    body = json.dumps({**draw(BODIES), "model": MODEL}).encode()
    lines = draw(LINES)
    if draw(st.booleans()):
        return lines, body, chunked(draw, body) + b"0\r\n\r\n", True
    return lines, body, body, False


@TUNED
@given(sent=requests(), cuts=CUTS)
def test_requests(relay: Relay, sent: tuple[list[bytes], bytes, bytes, bool], cuts: list[int]) -> None:
    relay.server.seen.clear()
    lines, body, raw, is_chunked = sent
    framing = b"Transfer-Encoding: chunked" if is_chunked else b"content-LENGTH: %d" % len(body)
    at = len(lines) // 2
    mixed = [*lines[:at], framing, *lines[at:]]
    data = b"POST /v1/completions?a=b%20c HTTP/1.1\r\nhOST: x\r\n" + b"".join(
        line + b"\r\n" for line in mixed
    )
    wire = relay.wire()
    for piece in pieces(data + b"\r\n" + raw, cuts):
        wire.send(piece)
    head, answer = wire.answer()
    wire.close()
    assert (head.split(b" ")[1], answer) == (b"200", b"{}")
    [seen] = relay.server.seen
    assert seen.first == b"POST /v1/completions?a=b%20c HTTP/1.1"
    assert seen.body == body
    assert seen.lines[0] == b"Host: 127.0.0.1:%d" % relay.server.port
    passed, ours = seen.lines[1 : 1 + len(mixed) - is_chunked], seen.lines[1 + len(mixed) - is_chunked :]
    assert passed == (lines if is_chunked else mixed)
    if is_chunked:
        assert ours.pop(0) == b"Content-Length: %d" % len(body)
    assert len(ours) == 1
    assert ours[0].startswith(b"X-Request-Id: ")


@st.composite
def answers(draw: st.DrawFn) -> tuple[bytes, list[bytes], bytes, bytes, str]:
    """(status line, header lines, data, body on the wire, framing)"""
    status = draw(
        st.sampled_from(
            [b"200 OK", b"201 Made", b"200 ", b"418 I'm a teapot", b"404 x", b"500 y", b"204 z", b"304 w"]
        )
    )
    lines = draw(LINES)
    if draw(st.booleans()):
        lines.append(b"content-TYPE: text/event-stream")
    if status[:3] in (b"204", b"304"):
        return b"HTTP/1.1 " + status, lines, b"", b"", "none"
    data = draw(st.binary(max_size=600))
    framing = draw(st.sampled_from(["length", "chunked", "chunked", "close"]))
    if framing == "length":
        lines.insert(len(lines) // 2, b"Content-Length:  %d" % len(data))
        return b"HTTP/1.1 " + status, lines, data, data, framing
    if framing == "close":
        return draw(st.sampled_from([b"HTTP/1.1 ", b"HTTP/1.0 "])) + status, lines, data, data, framing
    lines.insert(0, b"TRANSFER-encoding: Chunked")
    trailers = b"".join(line + b"\r\n" for line in draw(LINES.filter(lambda found: len(found) < 3)))
    raw = chunked(draw, data) + b"0" + draw(EXTENSION) + b"\r\n" + trailers + b"\r\n"
    return b"HTTP/1.1 " + status, lines, data, raw, framing


@TUNED
@given(told=answers(), cuts=CUTS, interim=st.booleans(), minor=st.sampled_from([1, 1, 0]))
def test_answers(
    relay: Relay,
    told: tuple[bytes, list[bytes], bytes, bytes, str],
    cuts: list[int],
    interim: bool,
    minor: int,
) -> None:
    status, lines, data, raw, framing = told
    hop = [b"Connection: x-mine", b"X-Mine: 1", b"Keep-Alive: timeout=5"] if framing != "close" else []

    def answer(connection: socket.socket, seen: Seen) -> None:
        head = b"".join(line + b"\r\n" for line in [status, *lines, *hop]) + b"\r\n"
        if interim:
            head = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + head
        for piece in pieces(head + raw, cuts):
            connection.sendall(piece)
        if framing == "close":
            raise EOFError

    relay.server.answer = answer
    wire = relay.wire()
    wire.send(request(b'{"model": "scripted"}').replace(b"HTTP/1.1", b"HTTP/1.%d" % minor))
    head, body = wire.answer()
    wire.close()
    first, *got = head.split(b"\r\n")[:-2]
    assert first == status.replace(b"HTTP/1.0", b"HTTP/1.1")
    kept = [line for line in lines if not line.startswith(b"TRANSFER")] if minor == 0 else lines
    assert got[: len(kept)] == kept
    added = [line.partition(b":")[0] for line in got[len(kept) :]]
    expected = [b"Transfer-Encoding"] if framing == "close" and minor == 1 else []
    expected.append(b"X-Request-Id")
    assert added == expected + ([b"Connection"] if minor == 0 else [])
    if framing == "close" and minor == 1:
        assert unchunk(body) == data
    elif framing == "chunked" and minor == 0:
        assert body == data
    else:
        assert body == raw


def unchunk(raw: bytes) -> bytes:
    data = b""
    while raw:
        line, _, raw = raw.partition(b"\r\n")
        size = int(line, 16)
        data, raw = data + raw[:size], raw[size + 2 :]
        if not size:
            break
    return data


FORM = b'--B\r\nContent-Disposition: form-data; name="model"\r\n\r\nspeech\r\n--B\r\n'
FORM += b'Content-Disposition: form-data; name="file"; filename="model"\r\n\r\n'
FORM_HEAD = (
    b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: h\r\nContent-Type: multipart/form-data; boundary=B\r\n"
)


@pytest.fixture
def speech(relay: Relay) -> Relay:
    """Its server does not wait for the body."""
    relay.server.read_body = False
    return relay


def test_an_answer_that_comes_before_the_body_has_ended(speech: Relay) -> None:
    """A large form is passed on while it comes in; its server may answer before it has all of it."""
    speech.server.answer = lambda connection, seen: connection.sendall(
        b"HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\n\r\nmuch"
    )
    length = 8 * 1024 * 1024
    wire = speech.wire()
    wire.send(FORM_HEAD + b"Content-Length: %d\r\n\r\n" % length + FORM + b"x" * 600_000)
    head, body = wire.answer()
    assert head.startswith(b"HTTP/1.1 413 Too Large")
    assert body == b"much"
    # The rest of the form is read and dropped, and the connection serves on.
    speech.server.read_body = True
    speech.server.answer = plain
    wire.send(b"x" * (length - len(FORM) - 600_000) + request(b'{"model": "scripted"}'))
    assert wire.answer()[1] == b"{}"
    wire.close()


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_large_form_streams_to_its_server(speech: Relay, is_chunked: bool) -> None:
    begun = threading.Event()
    received = bytearray()

    def answer(connection: socket.socket, seen: Seen) -> None:
        begun.set()
        received.extend(seen.body)
        while not received.endswith(b"0\r\n\r\n" if is_chunked else b"--B--\r\n"):
            received.extend(connection.recv(65536))
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        raise EOFError

    speech.server.answer = answer
    form = FORM + os.urandom(700_000) + b"\r\n--B--\r\n"
    wire = speech.wire()
    framing = b"Transfer-Encoding: chunked" if is_chunked else b"Content-Length: %d" % len(form)
    wire.send(FORM_HEAD + framing + b"\r\n\r\n")
    half = 400_000
    first, second = form[:half], form[half:]
    wire.send(b"%x\r\n%b\r\n" % (half, first) if is_chunked else first)
    assert begun.wait(10), "the form's first half did not reach its server before the second was sent"
    wire.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(second), second) if is_chunked else second)
    assert wire.answer()[1] == b"{}"
    wire.close()
    got = unchunk(bytes(received)) if is_chunked else bytes(received)
    assert got == form.replace(b"\r\nspeech\r\n", b"\r\ncheckpoint\r\n")
    length = len(form) + len("checkpoint") - len("speech")
    assert is_chunked or b"Content-Length: %d" % length in speech.server.seen[0].lines


def test_pipelined_requests_are_answered_in_order_across_both_sides(relay: Relay) -> None:
    relay.server.answer = lambda connection, seen: connection.sendall(
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(seen.body), seen.body)
    )
    wire = relay.wire()
    bodies = [b'{"model": "scripted", "n": %d}' % n for n in range(20)]
    get = b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n"
    wire.send(b"".join(request(body) + get for body in bodies))
    for body in bodies:
        assert wire.answer()[1] == body
        assert json.loads(wire.answer()[1]) == {"status": "ok"}
    wire.close()


def test_expect_100_continue(relay: Relay) -> None:
    wire = relay.wire()
    body = b'{"model": "scripted"}'
    whole = request(body, b"Expect: 100-continue\r\n")
    wire.send(whole[: -len(body)])
    assert wire.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    wire.send(body)
    assert wire.answer()[1] == b"{}"
    wire.close()
    assert not any(line.lower().startswith(b"expect") for line in relay.server.seen[0].lines)


def test_a_request_id_is_passed_on_or_made(relay: Relay) -> None:
    head, _ = relay.ask(headers=b"X-Request-Id: mine\r\n")
    assert b"mine" not in head
    assert b"X-Request-Id: mine" in relay.server.seen[0].lines
    head, _ = relay.ask()
    [made] = [line for line in head.split(b"\r\n") if line.startswith(b"X-Request-Id: ")]
    assert made in relay.server.seen[1].lines
    head, _ = relay.ask(b'{"model": "nobody"}', b"X-Request-Id: mine\r\n")
    assert b" 404 " in head
    assert b"x-request-id: mine" in head


NGINX = """daemon off; worker_processes 1; pid {d}/pid; error_log {d}/err;
events {{ }}
http {{ access_log off; client_body_temp_path {d}/b; proxy_temp_path {d}/p; fastcgi_temp_path {d}/f;
uwsgi_temp_path {d}/u; scgi_temp_path {d}/s; ignore_invalid_headers off; underscores_in_headers on;
server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://127.0.0.1:{up};
proxy_http_version 1.1; proxy_buffering off; }} }} }}"""


@pytest.fixture(scope="module")
def nginx(shared_relay: Relay, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    tool = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")
    if tool is None:
        pytest.skip("nginx is not installed: apt-get install nginx-light")
    folder = Path(tmp_path_factory.mktemp("nginx"))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    (folder / "conf").write_text(NGINX.format(d=folder, port=port, up=shared_relay.server.port))
    running = subprocess.Popen([tool, "-c", str(folder / "conf")])
    ends = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except OSError:
            assert time.monotonic() < ends
            threading.Event().wait(0.02)
    yield ("127.0.0.1", port)
    running.terminate()
    running.wait(10)


PLAIN_NAMES = st.from_regex(r"x-[a-z][a-z0-9]{0,12}", fullmatch=True).map(str.encode)
PLAIN_LINES = st.lists(
    st.tuples(PLAIN_NAMES, st.from_regex(r"[!-~]([ -~]{0,20}[!-~])?", fullmatch=True)),
    max_size=6,
    unique_by=lambda x: x[0],
).map(lambda items: [name + b": " + value.encode() for name, value in items if name != b"x-request-id"])


@settings(TUNED, max_examples=40)
@given(ask=PLAIN_LINES, tell=PLAIN_LINES, data=st.binary(max_size=300), is_chunked=st.booleans())
def test_as_nginx_does(
    relay: Relay, nginx: tuple[str, int], ask: list[bytes], tell: list[bytes], data: bytes, is_chunked: bool
) -> None:
    """The same request and the same answer through nginx: the same headers and the same data arrive."""

    def answer(connection: socket.socket, seen: Seen) -> None:
        framing = b"Transfer-Encoding: chunked" if is_chunked else b"Content-Length: %d" % len(data)
        raw = (b"%x\r\n%b\r\n" % (len(data), data) if data else b"") + b"0\r\n\r\n" if is_chunked else data
        connection.sendall(b"\r\n".join([b"HTTP/1.1 200 OK", *tell, framing, b"", raw]))

    relay.server.answer = answer
    relay.server.seen.clear()
    results = []
    for address in (relay.address, nginx):
        wire = Wire(address)
        wire.send(request(b'{"model": "scripted"}', b"".join(line + b"\r\n" for line in ask)))
        head, body = wire.answer()
        wire.close()
        passed = {line for line in head.split(b"\r\n") if line.startswith(b"x-")}
        results.append((passed, unchunk(body) if is_chunked else body))
    assert results[0] == results[1]
    ours, theirs = relay.server.seen
    keep = lambda seen: [line for line in seen.lines if line.startswith(b"x-")]  # noqa: E731
    assert keep(ours) == keep(theirs) == ask
    assert ours.body == theirs.body

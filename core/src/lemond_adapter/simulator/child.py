"""A model's server: a small OpenAI-like HTTP server that signs every answer with its model's name.

Standard library only, and started without site packages, so that a child is up in a fraction of a
second. Requests may carry `sim_...` fields that provoke what real children do: slow answers, death
before or in the middle of one, a stall.
"""

from __future__ import annotations

import argparse
import base64
import ctypes
import json
import os
import signal
import struct
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_PR_SET_PDEATHSIG = 1


# What the child of a recipe speaks; everything else is 404.
_PATHS = {
    "llamacpp": (
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/rerank",
        "/v1/reranking",
        "/rerank",
        "/v1/responses",
        "/v1/messages",
        "/tokenize",
    ),
    "flm": ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/audio/transcriptions"),
    "whispercpp": ("/inference",),
    "kokoro": ("/v1/audio/speech",),
}


class Child(ThreadingHTTPServer):
    """The server and what it counts."""

    daemon_threads = True
    request_queue_size = 512
    disable_nagle_algorithm = True

    def __init__(self, args: argparse.Namespace) -> None:
        self.model: str = args.model
        self.checkpoint: str = args.checkpoint
        self.recipe: str = args.recipe
        self.ready_at = time.monotonic() + args.warm_s
        self.lock = threading.Lock()
        self.seen: dict[str, int] = {}
        self.executed = 0
        super().__init__(("127.0.0.1", args.port), Handler)

    def count(self, request_id: str | None) -> None:
        """One request was executed."""
        with self.lock:
            self.executed += 1
            if request_id:
                self.seen[request_id] = self.seen.get(request_id, 0) + 1


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 65536
    server: Child

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        """Health, model list, counters."""
        child = self.server
        path = self.path.partition("?")[0]
        if path in ("/health", "/api/tags", "/"):
            if time.monotonic() < child.ready_at:
                self._json(503, _LOADING)
            else:
                self._json(200, {"status": "ok", "model": child.model})
        elif path == "/sim/requests":
            with child.lock:
                self._json(
                    200, {"model": child.model, "executed": child.executed, "counts": dict(child.seen)}
                )
        elif path == "/v1/models":
            self._json(200, {"object": "list", "data": [{"id": child.model, "object": "model"}]})
        else:
            self._json(404, {"error": {"message": "not found", "type": "not_found_error", "code": 404}})

    def do_POST(self) -> None:
        """Inference."""
        raw = self._body()
        child = self.server
        if time.monotonic() < child.ready_at:
            self._json(503, _LOADING)
            return
        path = self.path.partition("?")[0]
        try:
            body = json.loads(raw) if "json" in (self.headers.get("Content-Type") or "json") else {}
        except ValueError as error:
            self._json(400, {"error": {"message": f"bad JSON: {error}", "type": "invalid_request_error"}})
            return
        if path not in _PATHS.get(child.recipe, _PATHS["llamacpp"]):
            self._json(404, {"error": {"message": "File Not Found", "type": "not_found_error", "code": 404}})
            return
        if not isinstance(body, dict):
            self._json(400, {"error": {"message": "not an object", "type": "invalid_request_error"}})
            return
        if (
            child.recipe == "flm"
            and "json" in (self.headers.get("Content-Type") or "json")
            and body.get("model") != child.checkpoint
        ):
            text = f"model {body.get('model')!r} is not loaded; {child.checkpoint} is"
            self._json(400, {"error": {"message": text, "type": "invalid_request_error"}})
            return
        child.count(self.headers.get("X-Request-Id"))
        threading.Event().wait(float(body.get("sim_delay_ms", 0)) / 1000)
        if body.get("sim_die") == "before":
            os._exit(9)
        if "sim_status" in body:
            self._json(int(body["sim_status"]), {"error": {"message": "as asked", "type": "sim"}})
        elif path in ("/v1/chat/completions", "/v1/completions") and body.get("stream"):
            self._stream(body, chat="chat" in path)
        elif path in ("/v1/responses", "/v1/messages") and body.get("stream"):
            self._named_events(path, body)
        else:
            self._whole(200, json.dumps(self._answer(path, body)).encode(), body)

    def _body(self) -> bytes:
        if "chunked" not in (self.headers.get("Transfer-Encoding") or "").lower():
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass  # trailers
        return b"".join(parts)

    def _answer(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        name = self.server.model
        base: dict[str, Any] = {
            "model": name,
            "system_fingerprint": self._signature(),
            "created": int(time.time()),
        }
        usage = {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}
        if path == "/v1/chat/completions":
            message = {"role": "assistant", "content": f"I am {name}."}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            return {
                "id": "chatcmpl-sim",
                "object": "chat.completion",
                "choices": [choice],
                "usage": usage,
                **base,
            }
        if path == "/v1/completions":
            done = {"index": 0, "text": f"I am {name}.", "finish_reason": "stop"}
            return {"id": "cmpl-sim", "object": "text_completion", "choices": [done], "usage": usage, **base}
        if path == "/v1/embeddings":
            return {"object": "list", "data": _embeddings(body), "usage": usage, **base}
        if path in ("/v1/rerank", "/v1/reranking", "/rerank"):
            documents = body.get("documents") or []
            scores = [{"index": i, "relevance_score": 1.0 / (i + 1)} for i in range(len(documents))]
            return {"object": "list", "results": scores, "usage": usage, **base}
        if path == "/v1/responses":
            text = {"type": "output_text", "text": f"I am {name}.", "annotations": []}
            item = {"id": "msg-sim", "type": "message", "role": "assistant", "status": "completed"}
            return {
                "id": "resp-sim",
                "object": "response",
                "output": [{**item, "content": [text]}],
                **_RESPONSE,
                **base,
            }
        if path == "/v1/messages":
            content = [{"type": "text", "text": f"I am {name}."}]
            counted = {"input_tokens": 3, "output_tokens": 3}
            end = {"stop_reason": "end_turn", "stop_sequence": None, "usage": counted}
            return {
                "id": "msg-sim",
                "type": "message",
                "role": "assistant",
                "content": content,
                **end,
                **base,
            }
        return {"text": f"I am {name}.", **base}

    def _signature(self) -> str:
        return f"sim-{self.server.model}-{os.getpid()}"

    def _stream(self, body: dict[str, Any], *, chat: bool) -> None:
        words = [word + " " for word in f"I am {self.server.model} .".split()]
        count = int(body.get("sim_chunks", len(words)))
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if chat:
            self._event(chat, {"role": "assistant", "content": ""})
        for index in range(count):
            self._event(chat, {"content": words[index % len(words)]})
            self._provoked(body, index, count)
        self._event(chat, {}, finish="stop")
        if (body.get("stream_options") or {}).get("include_usage"):
            usage = {"prompt_tokens": 3, "completion_tokens": count, "total_tokens": 3 + count}
            self._chunk({**self._frame(chat), "choices": [], "usage": usage})
        self._write(b"data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()

    def _named_events(self, path: str, body: dict[str, Any]) -> None:
        """Streams whose events have names: Anthropic's messages, OpenAI's responses."""
        whole = self._answer(path, body)
        words = [word + " " for word in f"I am {self.server.model} .".split()]
        count = int(body.get("sim_chunks", len(words)))
        head: list[tuple[str, dict[str, Any]]]
        tail: list[tuple[str, dict[str, Any]]]
        if path == "/v1/messages":
            start = {**whole, "content": [], "stop_reason": None}
            block = {"index": 0, "content_block": {"type": "text", "text": ""}}
            head = [("message_start", {"message": start}), ("content_block_start", block)]
            piece, key = "content_block_delta", "delta"
            stop = {
                "delta": {"stop_reason": "end_turn", "stop_sequence": None},
                "usage": {"output_tokens": count},
            }
            tail = [("content_block_stop", {"index": 0}), ("message_delta", stop), ("message_stop", {})]
        else:
            head = [("response.created", {"response": {**whole, "status": "in_progress", "output": []}})]
            piece, key = "response.output_text.delta", ""
            tail = [("response.completed", {"response": whole})]
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        number = 0
        for name, data in head:
            self._named(name, data, number)
            number += 1
        for index in range(count):
            word = words[index % len(words)]
            plain = {"item_id": "msg-sim", "output_index": 0, "content_index": 0, "delta": word}
            self._named(
                piece, {"index": 0, key: {"type": "text_delta", "text": word}} if key else plain, number
            )
            number += 1
            self._provoked(body, index, count)
        for name, data in tail:
            self._named(name, data, number)
            number += 1
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()

    def _named(self, name: str, data: dict[str, Any], number: int) -> None:
        numbered = {"sequence_number": number} if name.startswith("response.") else {}
        text = json.dumps({"type": name, **numbered, **data})
        self._write(f"event: {name}\ndata: {text}\n\n".encode())

    def _provoked(self, body: dict[str, Any], index: int, count: int) -> None:
        """After a piece of the answer: dies, stalls, or waits, as the request has asked."""
        if body.get("sim_die") == "mid" and index >= count // 2:
            os._exit(9)
        if body.get("sim_stall") and index >= count // 2:
            threading.Event().wait()
        threading.Event().wait(float(body.get("sim_interval_ms", 0)) / 1000)

    def _frame(self, chat: bool) -> dict[str, Any]:
        kind = "chat.completion.chunk" if chat else "text_completion"
        return {
            "id": "chatcmpl-sim",
            "object": kind,
            "created": int(time.time()),
            "model": self.server.model,
            "system_fingerprint": self._signature(),
        }

    def _event(self, chat: bool, delta: dict[str, Any], finish: str | None = None) -> None:
        choice: dict[str, Any] = {"index": 0, "finish_reason": finish}
        if chat:
            choice["delta"] = delta
        else:
            choice["text"] = delta.get("content", "")
        self._chunk({**self._frame(chat), "choices": [choice]})

    def _chunk(self, body: dict[str, Any]) -> None:
        self._write(b"data: " + json.dumps(body).encode() + b"\n\n")

    def _write(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n" % len(data) + data + b"\r\n")
        self.wfile.flush()

    def _json(self, status: int, body: dict[str, Any]) -> None:
        self._whole(status, json.dumps(body).encode(), {})

    def _whole(self, status: int, data: bytes, provoke: dict[str, Any]) -> None:
        """An answer of known length, which may be cut or may never end."""
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2])
        self.wfile.flush()
        self._provoked({"sim_interval_ms": 0, **provoke}, 0, 0)
        self.wfile.write(data[len(data) // 2 :])
        self.wfile.flush()


_RESPONSE: dict[str, Any] = {
    "status": "completed",
    "parallel_tool_calls": False,
    "tool_choice": "auto",
    "tools": [],
    "created_at": 1.0,
}
_LOADING = {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}


def _embeddings(body: dict[str, Any]) -> list[dict[str, Any]]:
    given = body.get("input")
    inputs = given if isinstance(given, list) else [given]
    vector = [0.25, -0.5, 0.75, 1.0]
    packed = base64.b64encode(struct.pack("<4f", *vector)).decode()
    value: object = packed if body.get("encoding_format") == "base64" else vector
    return [{"object": "embedding", "index": i, "embedding": value} for i in range(len(inputs))]


def say(line: str) -> None:
    """A line for lemond's log."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    """Dies with lemond: on Linux children get SIGTERM when the thread that forked them ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--checkpoint", default="")
    parser.add_argument("--recipe", default="llamacpp")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--warm-s", type=float, default=0.0)
    parser.add_argument("--parent", type=int, default=0)
    parser.add_argument("--broken", action="store_true")
    args = parser.parse_args()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if args.parent and os.getppid() != args.parent:
        sys.exit(0)
    say(f"srv    load_model: loading model '{args.checkpoint}'")
    if args.broken:
        say("llama_model_load: invalid magic in the model file")
        sys.exit(1)
    server = Child(args)
    say(f"main: server is listening on http://127.0.0.1:{args.port}")
    # As llama-server: SIGTERM ends it at once and cleanly, whatever it is in the middle of.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    server.serve_forever(poll_interval=0.5)


if __name__ == "__main__":
    main()

"""Errors of the data plane: one shape, the headers that make SDKs wait and try again."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from lemond_adapter.types import LemondError, LemondUnavailable, ModelNotFound, SlotFailed, SlotLoading

UNAVAILABLE_WAIT_S = 2.0
"""Suggested wait while lemond cannot be reached: a restart takes a few seconds."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer of ours instead of the model's."""

    status: int
    code: str
    message: str
    retry_after_s: float | None = None
    details: dict[str, Any] | None = None

    def body(self) -> bytes:
        """The JSON that OpenAI SDKs (message, type, code) and hal0 (code, message, details) read."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        if self.status == 429:
            kind = "rate_limit_error"
        error = {"code": self.code, "message": self.message, "type": kind, "details": self.details or {}}
        return json.dumps({"error": error}).encode()

    def headers(self) -> list[tuple[bytes, bytes]]:
        """With `Retry-After` in 1..59 s: SDKs ignore or refuse values outside that range."""
        headers = [(b"content-type", b"application/json")]
        if self.retry_after_s is not None:
            seconds = min(59, max(1, math.ceil(self.retry_after_s)))
            millis = min(59_000, max(250, math.ceil(self.retry_after_s * 1000)))
            headers += [(b"retry-after", b"%d" % seconds), (b"retry-after-ms", b"%d" % millis)]
        return headers


def refusal_for(error: LemondError, *, upstream: str | None = None, interrupted: bool = False) -> Refusal:
    """The answer for an error of ours."""
    if isinstance(error, SlotLoading):
        progress: dict[str, Any] = {
            "phase": error.phase,
            "requested_model": error.model,
            "upstream": upstream,
            "eta_s": None if error.eta_s is None else round(error.eta_s, 3),
            "queue_position": error.queue_position,
        }
        details: dict[str, Any] = {
            "slot": error.slot,
            "state": error.state,
            "retry_after_s": round(error.retry_after_s, 3),
            "progress": progress,
        }
        if interrupted:
            details["interrupted"] = True
        return Refusal(503, "slot.loading", str(error), error.retry_after_s, details)
    if isinstance(error, SlotFailed):
        details = {"slot": error.slot, "model": error.model, "kind": error.kind, "state": "error"}
        details["retry_after_s"] = round(error.retry_after_s, 3)
        return Refusal(503, "slot.error", str(error), error.retry_after_s, details)
    if isinstance(error, ModelNotFound):
        return Refusal(404, "model.not_found", str(error))
    if isinstance(error, LemondUnavailable):
        return Refusal(503, "lemonade.unavailable", str(error), UNAVAILABLE_WAIT_S)
    return Refusal(503, "lemonade.unavailable", str(error), UNAVAILABLE_WAIT_S, {"cause": error.code})


def response_bytes(
    refusal: Refusal, more: Iterable[tuple[bytes, bytes]] = (), *, close: bool, minor: int = 1
) -> bytes:
    """The whole answer on the wire, for a client of HTTP/1.`minor`."""
    body = refusal.body()
    lines = [b"HTTP/1.1 %d %b" % (refusal.status, HTTPStatus(refusal.status).phrase.encode())]
    headers = [*refusal.headers(), *more, (b"content-length", b"%d" % len(body))]
    lines += [name + b": " + value for name, value in headers]
    if close:
        lines.append(b"connection: close")
    elif minor == 0:
        lines.append(b"connection: keep-alive")
    return b"\r\n".join([*lines, b"", body])


def cut_stream_event(model: str, why: str) -> bytes:
    """The last event of a stream whose child went away: SDKs raise it as an API error."""
    error = {
        "code": "slot.interrupted",
        "message": f"{model} went away in the middle of the answer ({why}); send the request again",
        "type": "server_error",
        "details": {"model": model},
    }
    return b"data: " + json.dumps({"error": error}).encode() + b"\n\n"

"""Finds `model` and `stream` in a request body without re-serialising it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, ValidationError

_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[{}\[\]]', re.DOTALL)
_VALUE = re.compile(rb'\s*:\s*("[^"\\]*+(?:\\.[^"\\]*+)*+")', re.DOTALL)
_TRIES = 4
_MODEL_PART = re.compile(rb'[;\s]name=(?:"model"|model(?![^;\s]))')
_BOUNDARY = re.compile(r'boundary=(?:"([^"]{1,200})"|([^\s;]{1,200}))', re.IGNORECASE)


class BodyProblem(ValueError):
    """The body cannot be routed; the text says what was expected."""


class BodyTooLarge(BodyProblem):
    """More bytes than are read for one request."""


@dataclass(frozen=True, slots=True)
class Peeked:
    """What routing needs of a body."""

    model: str
    stream: bool


class _Wanted(BaseModel):
    """Only these members become Python objects; the rest is checked and dropped by the parser."""

    model_config = ConfigDict(extra="ignore", strict=True)

    model: str
    stream: bool | None = None


_parse = _Wanted.__pydantic_validator__.validate_json


def peek(body: bytes, content_type: str) -> Peeked:
    """Raises `BodyProblem` for what is not JSON, not an object, or names no model."""
    if is_form(content_type.encode("latin-1", errors="replace")):
        return Peeked(_form_field(body, content_type), stream=False)
    try:
        wanted = _parse(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        if first["type"] == "json_invalid":
            raise BodyProblem(f"the body is not JSON: {first['msg']}") from None
        if first["loc"] == ("model",) and first["type"] == "missing":
            raise BodyProblem("the body has no 'model': name a slot, an alias or a model") from None
        where = ".".join(map(str, first["loc"])) or "the body"
        raise BodyProblem(f"{where}: {first['msg']}") from None
    if not wanted.model:
        raise BodyProblem("'model' is empty: name a slot, an alias or a model")
    return Peeked(wanted.model, bool(wanted.stream))


def is_form(content_type: bytes) -> bool:
    """Whether a body of this type is a form, else it is JSON."""
    return content_type[:19].lower() == b"multipart/form-data"


def form_model(begun: bytes, content_type: bytes) -> str | None:
    """The `model` of a form of which `begun` has come in; None while that cannot be told."""
    try:
        return _form_field(begun, content_type.decode("latin-1"))
    except BodyProblem:
        return None


def replace_model(body: bytes, content_type: str, name: str) -> bytes:
    """The same body with another model name; every other byte unchanged."""
    if is_form(content_type.encode("latin-1", errors="replace")):
        start, end = _form_span(body, content_type)
        return body[:start] + name.encode() + body[end:]
    new = json.dumps(name).encode()
    # Looking for the word and asking the parser whether it was the right place is many times faster
    # than following the whole structure; from the end, because the last one counts.
    for at in _places(body)[:-_TRIES:-1]:
        value = _VALUE.match(body, at)
        if value is None:
            continue
        changed = body[: value.start(1)] + new + body[value.end(1) :]
        if _parse(changed).model == name != _parse(body).model:
            return changed
    start, end = _model_span(body)
    return body[:start] + new + body[end:]


def _places(body: bytes) -> list[int]:
    """Where a `"model"` ends."""
    found, at = [], body.find(b'"model"')
    while at >= 0:
        found.append(at + 7)
        at = body.find(b'"model"', at + 7)
    return found


def _model_span(body: bytes) -> tuple[int, int]:
    """Where the value of the top-level `model` stands; the last one counts, as in JSON parsers."""
    depth, span, awaited = 0, None, False
    for token in _TOKEN.finditer(body):
        text = token.group()
        if text in (b"{", b"["):
            depth += 1
            awaited = False
        elif text in (b"}", b"]"):
            depth -= 1
        elif depth == 1:
            if awaited:
                span, awaited = token.span(), False
            elif body[token.end() : token.end() + 16].lstrip()[:1] == b":":
                awaited = json.loads(text) == "model"
    if span is None:
        raise BodyProblem("the body has no 'model'")
    return span


def _form_field(body: bytes, content_type: str) -> str:
    start, end = _form_span(body, content_type)
    name = body[start:end].decode("utf-8", errors="replace").strip()
    if not name:
        raise BodyProblem("the form's 'model' field is empty")
    return name


def _form_span(body: bytes, content_type: str) -> tuple[int, int]:
    found = _BOUNDARY.search(content_type)
    if found is None:
        raise BodyProblem("multipart/form-data without a boundary")
    boundary = b"--" + (found.group(1) or found.group(2)).encode("latin-1", errors="replace")
    position = 0
    while (position := body.find(boundary, position)) >= 0:
        head_end = body.find(b"\r\n\r\n", position)
        if head_end < 0:
            break
        head = body[position + len(boundary) : head_end]
        if _MODEL_PART.search(head) is not None:
            value_end = body.find(b"\r\n" + boundary, head_end)
            if value_end < 0:
                break
            return head_end + 4, value_end
        position = head_end
    raise BodyProblem("the form has no 'model' field: name a slot, an alias or a model")

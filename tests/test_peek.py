"""Model names are found, and replaced, without touching another byte."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lemond_adapter.dispatch.peek import BodyProblem, peek, replace_model

JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(
    before=st.dictionaries(st.text().filter(lambda k: k not in ("model", "stream")), JSON, max_size=4),
    model=st.text(min_size=1),
    name=st.text(min_size=1),
    stream=st.booleans(),
    indent=st.sampled_from([None, 1]),
    ascii_=st.booleans(),
)
def test_round_trip(
    before: dict[str, object], model: str, name: str, stream: bool, indent: int | None, ascii_: bool
) -> None:
    whole = {**before, "model": model, "nested": {"model": "not me"}, "stream": stream}
    try:
        body = json.dumps(whole, indent=indent, ensure_ascii=ascii_).encode()
    except UnicodeEncodeError:
        return
    try:
        peeked = peek(body, "application/json")
    except BodyProblem:
        # A lone surrogate is JSON to Python and none to the strict parser: refused, not guessed.
        assert "\\ud" in body.decode()
        return
    assert (peeked.model, peeked.stream) == (model, stream)
    try:
        changed = json.loads(replace_model(body, "application/json", name))
    except UnicodeEncodeError:
        return
    assert changed == {**whole, "model": name}


def test_keys_that_only_look_like_it() -> None:
    body = b'{"a": "model", "b": ["model"], "mod\\u0065l" : "x", "c": {"model": "y"}}'
    assert peek(body, "application/json").model == "x"
    assert json.loads(replace_model(body, "application/json", "z"))["model"] == "z"


FORM = (
    b'--B\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nname="model"\r\n'
    b'--B\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper\r\n--B--\r\n'
)


def test_multipart() -> None:
    kind = "multipart/form-data; boundary=B"
    assert peek(FORM, kind).model == "whisper"
    assert replace_model(FORM, kind, "other") == FORM.replace(b"whisper", b"other")


@pytest.mark.parametrize("kind", ["multipart/form-data", "multipart/form-data; boundary=C"])
def test_multipart_without_a_model(kind: str) -> None:
    with pytest.raises(BodyProblem):
        peek(FORM, kind)

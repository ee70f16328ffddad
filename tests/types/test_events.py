"""The events' one JSON shape."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from lemond_adapter import ModelLoaded, SlotEvent, decode_event, encode_event
from lemond_adapter.types import events as module

KINDS: list[type[SlotEvent]] = sorted(SlotEvent.__subclasses__(), key=lambda kind: kind.__name__)


def test_the_contracts_example() -> None:
    text = (
        '{"seq": 41, "at": "2026-06-02T10:31:44.980Z", "type": "model_loaded", "model": "tiny-a",'
        ' "slot": "primary", "port": 8003, "pid": 6217, "source": "log", "lemond_seq": 81}'
    )
    event = decode_event(text)
    assert isinstance(event, ModelLoaded)
    assert json.loads(encode_event(event)) == json.loads(text)


def test_all_fourteen_kinds_are_there() -> None:
    assert len(KINDS) == 14


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_every_event_survives_the_codec(kind: type[SlotEvent], data: Any) -> None:
    event = data.draw(st.from_type(kind)).model_copy(
        update={
            "seq": data.draw(st.integers(0, 2**53)),
            "at": datetime(2026, 6, 2, 10, 31, 44, 980_000, UTC),
            "model": data.draw(st.none() | st.text(max_size=40)),
        }
    )
    assert decode_event(encode_event(event)) == event


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "{}",
        '{"type": "nonsense"}',
        '{"type": "process_crashed"}',
        '{"type": "resynced", "reason": "x"}',
        '{"type": "pull_progress", "percent": 101}',
    ],
)
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        decode_event(text)


def test_events_are_frozen() -> None:
    event = module.LoadStarted(model="a")
    with pytest.raises(ValidationError):
        event.seq = 5  # type: ignore[misc]

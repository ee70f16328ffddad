"""Captures: recordings of a lemond, read and replayed."""

from lemond_adapter.captures.reader import Capture, CaptureLine, read_capture
from lemond_adapter.captures.replay import Replay, replay

__all__ = ["Capture", "CaptureLine", "Replay", "read_capture", "replay"]

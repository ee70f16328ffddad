"""The correlator: whose load failed, when lemond's threads print out of turn."""

from __future__ import annotations

from lemond_adapter.drivers import Signal, SignalKind
from lemond_adapter.truth.correlator import Correlator
from lemond_adapter.truth.hints import HintKind

WHY = "llama-server failed to start"


def test_a_failure_that_is_printed_late_is_not_the_next_loads() -> None:
    """As on lemond 10.7.0: the second of two equal lines comes when the next load has begun."""
    correlator = Correlator(lambda canonical: canonical.removeprefix("extra."))
    told = [
        (hint.kind, hint.model)
        for signal in (
            Signal(SignalKind.LOAD_BEGAN, "extra.broken"),
            Signal(SignalKind.ATTEMPT_FAILED, reason=WHY),
            Signal(SignalKind.LOAD_FAILED, reason=WHY),
            Signal(SignalKind.LOAD_BEGAN, "extra.tiny-a"),
            Signal(SignalKind.SPAWNED, pid=7),
            Signal(SignalKind.LOAD_FAILED, reason=WHY),
            Signal(SignalKind.LOADED),
        )
        for hint in correlator.feed(signal)
    ]
    assert (HintKind.FAILED, "broken") in told
    assert (HintKind.FAILED, "tiny-a") not in told
    assert told[-1] == (HintKind.LOADED, "tiny-a")

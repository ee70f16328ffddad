"""Turns signals into hints: gives anonymous lines their model, and evictions their reason. Sans-IO.

Lines such as `Model loaded successfully. Total loaded: 1` carry no name. lemond loads one model at
a time (10.5.0-11.7.0), so between `Loading model: X` and its end they belong to X.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lemond_adapter.drivers import Signal, SignalKind
from lemond_adapter.truth.hints import Hint, HintKind
from lemond_adapter.types import EvictionReason, FailureKind


@dataclass(slots=True)
class OpenLoad:
    """The load that lemond is in the middle of."""

    model: str
    pid: int | None = None
    cascade: bool = False
    reason: str | None = None


_MISSING = ("not found", "does not exist", "no such file")
_REJECTED = ("pinned", "invalid custom", "conflict", "not enough memory", "not supported")


def failure_kind(reason: str) -> FailureKind:
    """lemond's text for a failed load, sorted. The words are those of 10.5.0-11.7.0."""
    text = reason.lower()
    if any(word in text for word in _MISSING):
        return "not_found"
    if "timeout" in text or "timed out" in text:
        return "timeout"
    if any(word in text for word in _REJECTED):
        return "rejected"
    if "failed to start" in text or "terminated" in text or "exited" in text:
        return "backend_exit"
    return "unknown"


class Correlator:
    """Feeds on the signals of one log stream, in order."""

    def __init__(self, public_name: Callable[[str], str]) -> None:
        self._public = public_name
        self._requested: dict[str, None] = {}
        self._why: dict[str, EvictionReason] = {}
        self._going: dict[str, EvictionReason] = {}
        self._all: EvictionReason | None = None
        self._pressure = False
        self._said: str | None = None
        self.open_load: OpenLoad | None = None

    def history_ends(self) -> list[Hint]:
        """After a snapshot of the past was fed and its hints dropped: what is still going on."""
        load = self.open_load
        if load is None:
            return []
        hints = [Hint(HintKind.STARTING, load.model)]
        if load.pid is not None:
            hints.append(Hint(HintKind.SPAWNED, load.model, pid=load.pid))
        return hints

    def restarted(self) -> None:
        """lemond is a new process: nothing that was open can end any more."""
        self._requested.clear()
        self._why.clear()
        self._going.clear()
        self._all = self._said = self.open_load = None
        self._pressure = False

    def feed(self, signal: Signal, seq: int | None = None) -> list[Hint]:
        """The hints in one signal; `seq` is the log entry it came from."""
        handler = _HANDLERS.get(signal.kind)
        if handler is None:
            return []
        model = self._public(signal.model) if signal.model else None
        hints = handler(self, signal, model)
        return [_with_seq(hint, seq) for hint in hints]

    # Loads.

    def _requested_load(self, signal: Signal, model: str | None) -> list[Hint]:
        if model is not None:
            self._requested[model] = None
            while len(self._requested) > 64:
                del self._requested[next(iter(self._requested))]
        return []

    def _began(self, signal: Signal, model: str | None) -> list[Hint]:
        if model is None:
            return []
        self._requested.pop(model, None)
        self._why.pop(model, None)
        load, hints = self.open_load, list[Hint]()
        if load is not None and load.model == model:
            if load.pid is None and load.reason is None:
                return []  # the same begin, printed at debug and at info level
            self.open_load = OpenLoad(model, cascade=load.cascade)
            return [Hint(HintKind.STARTING, model)]
        if load is not None:
            # Its end was lost: what became of it only the listing knows.
            hints.append(Hint(HintKind.LOADED, load.model, pid=load.pid))
        self.open_load = OpenLoad(model)
        hints.append(Hint(HintKind.STARTING, model))
        return hints

    def _spawned(self, signal: Signal, model: str | None) -> list[Hint]:
        if self.open_load is None or signal.pid is None:
            return []
        self.open_load.pid = signal.pid
        return [Hint(HintKind.SPAWNED, self.open_load.model, pid=signal.pid)]

    def _ready(self, signal: Signal, model: str | None) -> list[Hint]:
        # A load that succeeds on the second attempt of a cascade prints no "Model loaded" line.
        if self.open_load is not None and self.open_load.cascade:
            return [Hint(HintKind.LOADED, self.open_load.model, pid=self.open_load.pid)]
        return []

    def _loaded(self, signal: Signal, model: str | None) -> list[Hint]:
        load, self.open_load = self.open_load, None
        self._said = None
        if load is None:
            return [Hint(HintKind.RELIST, text="a load ended whose beginning was not seen")]
        return [Hint(HintKind.LOADED, load.model, pid=load.pid)]

    def _loaded_by_name(self, signal: Signal, model: str | None) -> list[Hint]:
        if self.open_load is not None and self.open_load.model == model:
            return self._loaded(signal, model)
        return []

    def _attempt_failed(self, signal: Signal, model: str | None) -> list[Hint]:
        if self.open_load is not None:
            self.open_load.reason = signal.reason
        return []

    def _cascade(self, signal: Signal, model: str | None) -> list[Hint]:
        self._all = "load_failure_cascade"
        if self.open_load is not None:
            self.open_load.cascade = True
        return []

    def _failed(self, signal: Signal, model: str | None) -> list[Hint]:
        reason = signal.reason or "no reason given"
        load = self.open_load
        if load is not None and load.reason is None:
            # No attempt of this load has failed: the line is another's, whose thread printed it late,
            # when lemond had begun the next load already (seen on 10.7.0).
            said, self._said = self._said, None
            return [] if said == reason else [Hint(HintKind.RELIST, text="a load failed, not the open one")]
        self.open_load = self._all = None
        if load is not None:
            self._said = reason
            return [self._failure(load.model, reason)]
        if self._said == reason:
            self._said = None  # lemond prints the line twice, from two places
            return []
        if len(self._requested) == 1:
            name, _ = self._requested.popitem()
            self._said = reason
            return [self._failure(name, reason)]
        return [Hint(HintKind.RELIST, text=f"a load failed ({reason[:120]}) whose model is not known")]

    @staticmethod
    def _failure(model: str, reason: str) -> Hint:
        return Hint(HintKind.FAILED, model, text=reason, failure=failure_kind(reason))

    # Evictions.

    def _because(self, reason: EvictionReason) -> Callable[[Signal, str | None], list[Hint]]:
        def remember(signal: Signal, model: str | None) -> list[Hint]:
            if model is not None:
                self._why[model] = reason
            return []

        return remember

    def _idle_unload(self, signal: Signal, model: str | None) -> list[Hint]:
        if model is not None:
            self._why[model] = "oom" if self._pressure else "idle"
        self._pressure = False
        return []

    def _under_pressure(self, signal: Signal, model: str | None) -> list[Hint]:
        self._pressure = True
        return []

    def _unload_all(self, signal: Signal, model: str | None) -> list[Hint]:
        self._all = "manual"
        return []

    def _evicting(self, signal: Signal, model: str | None) -> list[Hint]:
        if model is None:
            return []
        reason = self._why.pop(model, None) or self._all or "unknown"
        self._going[model] = reason
        return [Hint(HintKind.EVICTING, model, reason=reason)]

    def _evicted(self, signal: Signal, model: str | None) -> list[Hint]:
        if model is None:
            return []
        reason = self._going.pop(model, None) or self._why.pop(model, None) or self._all or "unknown"
        return [Hint(HintKind.EVICTED, model, reason=reason)]

    def _evicted_all(self, signal: Signal, model: str | None) -> list[Hint]:
        gone, self._going = self._going, {}
        reason, self._all = self._all, None
        hints = [Hint(HintKind.EVICTED, name, reason=why) for name, why in gone.items()]
        return [*hints, Hint(HintKind.RELIST, reason=reason or "unknown", text="all models were evicted")]

    def _kept(self, signal: Signal, model: str | None) -> list[Hint]:
        if model is None:
            return []
        self._going.pop(model, None)
        return [Hint(HintKind.KEPT, model)]

    # Processes and the daemon.

    def _dead(self, signal: Signal, model: str | None) -> list[Hint]:
        return [Hint(HintKind.DEAD, pid=signal.pid, text=signal.reason)]

    def _pruned(self, signal: Signal, model: str | None) -> list[Hint]:
        return [Hint(HintKind.RELIST, model, text="lemond found the backend dead")]

    def _shutdown(self, signal: Signal, model: str | None) -> list[Hint]:
        self._all = "shutdown"
        return [Hint(HintKind.SHUTTING_DOWN)]


def _with_seq(hint: Hint, seq: int | None) -> Hint:
    return Hint(hint.kind, hint.model, hint.pid, hint.reason, hint.text, hint.failure, seq)


_Handler = Callable[[Correlator, Signal, str | None], list[Hint]]


def _reason(reason: EvictionReason) -> _Handler:
    return lambda self, signal, model: self._because(reason)(signal, model)


_HANDLERS: dict[SignalKind, _Handler] = {
    SignalKind.LOAD_REQUESTED: Correlator._requested_load,
    SignalKind.LOAD_BEGAN: Correlator._began,
    SignalKind.SPAWNED: Correlator._spawned,
    SignalKind.CHILD_READY: Correlator._ready,
    SignalKind.LOADED: Correlator._loaded,
    SignalKind.LOADED_BY_NAME: Correlator._loaded_by_name,
    SignalKind.RELOADING: _reason("reload"),
    SignalKind.ATTEMPT_FAILED: Correlator._attempt_failed,
    SignalKind.LOAD_FAILED: Correlator._failed,
    SignalKind.CASCADE: Correlator._cascade,
    SignalKind.EVICTING_LRU: _reason("lru"),
    SignalKind.EVICTING_NPU: _reason("npu_exclusivity"),
    SignalKind.EVICTING: Correlator._evicting,
    SignalKind.EVICTED: Correlator._evicted,
    SignalKind.EVICTION_DEFERRED: Correlator._kept,
    SignalKind.EVICTION_CANCELLED: Correlator._kept,
    SignalKind.UNLOADING_ONE_OF_ALL: Correlator._evicting,
    SignalKind.EVICTED_ALL: Correlator._evicted_all,
    SignalKind.UNLOAD_CALLED: _reason("manual"),
    SignalKind.UNLOAD_ALL_CALLED: Correlator._unload_all,
    SignalKind.IDLE_REACHED: _reason("idle"),
    SignalKind.IDLE_UNLOAD: Correlator._idle_unload,
    SignalKind.PRESSURE: Correlator._under_pressure,
    SignalKind.CHILD_DEAD: Correlator._dead,
    SignalKind.PRUNED: Correlator._pruned,
    SignalKind.SHUTDOWN: Correlator._shutdown,
}

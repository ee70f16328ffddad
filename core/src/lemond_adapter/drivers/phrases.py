"""Every lifecycle line of lemond 10.5.0-11.7.0, with the release lines that print it.

Read from lemond's source at each tag and seen in recordings where `corpus/` has them. Templates were
only ever added or removed, never reused with another meaning, so one list serves all log drivers:
`phrases_for("10.7")` is what a driver of that line uses. Patterns match the message text, never the
tag or the severity: two of lemond's threads logging at once can swap those.
"""

from __future__ import annotations

import re
from functools import cache

from packaging.version import Version

from lemond_adapter.drivers.signals import LogRule, SignalKind

SERVERS = (
    "llama-server",
    "FastFlowLM",
    "flm-server",
    "RyzenAI-Server",
    "whisper-server",
    "kokoro-server",
    "sd-server",
    "vllm-server",
    "moonshine-server",
    "acestep-server",
    "thinksound-server",
    "openmoss-server",
    "trellis-server",
    "ort-server",
    "thenoise-server",
    "cloud",
)
"""Names that lemond gives its children's servers, the first word of some lines."""

_TYPED = r"(?P<model>\S(?:.*\S)?)"


def log_rule(
    kind: SignalKind,
    pattern: str,
    *words: str,
    since: str | None = None,
    until: str | None = None,
) -> LogRule:
    """A rule for a message text. `pattern` is anchored with ^ and $; `words` are the possible first
    words of a matching line, by default the pattern's own first word."""
    compiled = re.compile(pattern)
    return LogRule(kind, compiled, words or (pattern.removeprefix("^").split(" ", 1)[0],), since, until)


_rule = log_rule
_K = SignalKind

PHRASES: tuple[LogRule, ...] = (
    # Load: asked for, begun, its process, its end.
    _rule(_K.LOAD_REQUESTED, r"^Ensuring model loaded: (?P<model>\S+)(?: .*)?$"),
    _rule(_K.LOAD_REQUESTED, rf"^Auto-loading model: {_TYPED}$"),
    _rule(_K.NOTED, r"^Another load is in progress, waiting\.\.\.$", until="11.0"),
    # At debug level the router announces a load before it makes room for it, and before a reload.
    _rule(_K.LOAD_REQUESTED, r"^Loading model: (?P<model>\S+) \(checkpoint: .*$"),
    _rule(_K.LOAD_BEGAN, r"^Loading (?:cloud )?model: (?P<model>\S+)$"),
    _rule(_K.SPAWNED, r"^Process started (?:successfully, PID: |with PID: )(?P<pid>\d{1,10})$"),
    _rule(_K.NOTED, r"^Process started successfully$"),
    _rule(_K.PORT_KNOWN, r"^Starting (?:\S+ )?on port (?P<port>\d{1,5})(?: .*|\.\.\.)?$"),
    _rule(_K.PORT_KNOWN, r"^Starting server on port (?P<port>\d{1,5})(?: .*|\.\.\.)?$"),
    _rule(_K.PORT_KNOWN, r"^Model loaded on port (?P<port>\d{1,5})$"),
    _rule(_K.PORT_KNOWN, r"^\S+ will use port: (?P<port>\d{1,5})$", *SERVERS),
    _rule(
        _K.PORT_KNOWN,
        r"^Started watchdog for \S+ using http://127\.0\.0\.1:(?P<port>\d{1,5})(?:/.*)?$",
        since="10.8",
    ),
    _rule(_K.CHILD_READY, r"^\S+ is ready!$", *SERVERS),
    _rule(_K.LOADED, r"^Model loaded successfully\. Total loaded: \d+$"),
    _rule(_K.LOADED_BY_NAME, rf"^Model loaded(?: successfully)?: {_TYPED}$"),
    _rule(_K.ALREADY_LOADED, r"^Model already loaded(?:, updating access time.*|: .+)$"),
    _rule(_K.RELOADING, rf"^Options changed, reloading model: {_TYPED}$"),
    _rule(_K.ATTEMPT_FAILED, r"^Backend load failed: (?P<reason>.+)$"),
    _rule(_K.ATTEMPT_FAILED, r"^Retry also failed: (?P<reason>.+)$"),
    _rule(_K.LOAD_FAILED, r"^Failed to load model: (?P<reason>.+)$"),
    _rule(_K.FILE_MISSING, r"^File not found error, NOT evicting other models$"),
    _rule(_K.CASCADE, r"^Load failed with non-file-not-found error, evicting all models and retrying\.\.\.$"),
    _rule(_K.NOTED, r"^\S+ process has terminated(?: with exit code: -?\d+|!)$", *SERVERS),
    _rule(_K.NOTED, r"^\S+ failed to start within .*$", *SERVERS),
    _rule(_K.NOTED, r"^\S+ load cancelled$", *SERVERS, since="11.5"),
    _rule(_K.NOTED, r"^Load cancelled, skipping nuclear retry$", since="11.5"),
    _rule(_K.NOTED, r"^Retry successful(?: in \d+ms)?!$"),
    _rule(_K.NOTED, r"^Model not found: .+$"),
    # Eviction: why, whom, done.
    _rule(_K.EVICTING_LRU, rf"^Slot limit reached for type \S+, evicting LRU: {_TYPED}$", until="11.0"),
    _rule(_K.EVICTING_LRU, rf"^Slot limit reached for pool \S+, evicting LRU: {_TYPED}$", since="11.5"),
    _rule(_K.EVICTING_NPU, rf"^FLM cannot coexist with \S+, evicting: {_TYPED}$"),
    _rule(_K.EVICTING_NPU, r"^FLM \S+ slot occupied by: (?P<model>\S+), evicting\.\.\.$"),
    _rule(
        _K.NOTED,
        r"^\S+ requires exclusive NPU access, evicting all NPU servers\.\.\.$",
        "ryzenai-llm",
        "whispercpp",
        "flm",
    ),
    _rule(_K.NOTED, r"^Unknown NPU recipe, evicting all NPU servers\.\.\.$", until="10.8"),
    _rule(_K.EVICTING_NPU, rf"^Evicting NPU server: {_TYPED}$"),
    _rule(_K.EVICTING, rf"^Evicting model: {_TYPED}$"),
    _rule(_K.EVICTED, rf"^Evicted model: {_TYPED}$"),
    _rule(
        _K.EVICTION_DEFERRED,
        r"^Deferring eviction for model (?P<model>\S+) because requests are still unwinding after \d+s"
        r" \(state=\w+\)$",
        since="10.8",
    ),
    _rule(_K.EVICTION_CANCELLED, r"^Eviction of (?P<model>\S+) cancelled \(.+\)$", since="10.8"),
    _rule(_K.EVICTING_ALL, r"^Evicting all models \(\d+ total\)$"),
    _rule(_K.UNLOADING_ONE_OF_ALL, r"^Unloading: (?P<model>\S+)$", until="10.7"),
    _rule(_K.EVICTED_ALL, r"^All models evicted$", until="10.7"),
    _rule(_K.EVICTED_ALL, r"^Evict all completed\. Remaining tombstoned models: \d+$", since="10.8"),
    _rule(_K.UNLOAD_CALLED, rf"^Unload model called: {_TYPED}$"),
    _rule(_K.UNLOAD_ALL_CALLED, r"^Unload all models called$"),
    _rule(_K.NOTED, r"^Model '.+' unloaded successfully$"),
    _rule(_K.NOTED, r"^All models unloaded(?: successfully)?$"),
    _rule(_K.NOTED, r"^Unload request received$"),
    _rule(_K.NOTED, r"^Unload failed: Model not loaded: .+$"),
    _rule(_K.UNLOAD_CALLED, r"^POST /api/(?:chat|generate) - Unloading model: (?P<model>\S+)$"),
    _rule(_K.UNLOAD_CALLED, rf"^Model is loaded, unloading before delete: {_TYPED}$"),
    _rule(_K.NOTED, r"^Deleting model: .+$"),
    _rule(_K.NOTED, r"^Unloading model\.\.\.$"),
    _rule(_K.NOTED, r"^Unloading \S+ before installing new .+ binary$"),
    _rule(_K.NOTED, r"^Unloading models and stopping backend servers\.\.\.$"),
    _rule(_K.NOTED, r"^Stopping server \(PID: \d+\)$"),
    _rule(_K.NOTED, r"^Process terminated, waiting for GPU driver cleanup\.\.\.$"),
    _rule(_K.NOTED, r"^Process did not respond to SIGTERM, using SIGKILL$"),
    _rule(_K.NOTED, r"^Process already exited; reaped PID \d+$", since="10.8"),
    _rule(_K.NOTED, r"^Process PID \d+ (?:is no longer an owned child|was already gone).*$", since="10.8"),
    # lemond's own idle and pressure eviction, opt-in.
    _rule(_K.IDLE_REACHED, r"^Model (?P<model>\S+) reached evict idle timeout \(\d+s\)\..*$", since="10.8"),
    _rule(_K.NOTED, r"^Model \S+ (?:reached downsize idle timeout .*|downsized\.)$", since="10.8"),
    _rule(_K.NOTED, r"^Downsize of \S+ failed; left ready\.$", since="10.8"),
    _rule(
        _K.IDLE_UNLOAD,
        r"^Eviction Engine unloading model: (?P<model>\S+) due to score/pressure/idle\.$",
        since="10.8",
    ),
    _rule(_K.PRESSURE, r"^VRAM pressure critical .*$", since="10.8"),
    # Dead children, where lemond notices them.
    _rule(
        _K.CHILD_DEAD,
        r"^\S+ backend marked unavailable: (?:[^;]+); (?:terminating and reaping|reaped exited) backend"
        r" process PID (?P<pid>\d{1,10})(?: \((?P<reason>exit_code=-?\d+)\))?$",
        *SERVERS,
        since="10.8",
    ),
    _rule(
        _K.NOTED, r"^\S+ backend marked unavailable: .+; no process handle to reap$", *SERVERS, since="10.8"
    ),
    _rule(_K.NOTED, r"^\S+ health probe failed \d+/\d+ .*$", *SERVERS, since="10.8"),
    _rule(_K.NOTED, r"^\S+ watchdog disabled$", *SERVERS, since="10.8"),
    _rule(_K.PRUNED, r"^Pruning unavailable backend for model: (?P<model>\S+) \(state=\w+\)$", since="10.8"),
    _rule(
        _K.PRUNED,
        r"^Existing backend for (?P<model>\S+) is unavailable \(state=\w+\), evicting before reload$",
        since="10.8",
    ),
    _rule(
        _K.RELOADING_AFTER_RESET, rf"^Reloading model after backend watchdog reset: {_TYPED}$", since="10.8"
    ),
    _rule(_K.NOTED, r"^Automatic reload after watchdog reset failed for .+$", since="10.8"),
    _rule(_K.NOTED, r"^Auto-tune ctx_size resolved to \d+$", since="10.8"),
    _rule(_K.NOTED, r"^Changed loaded model \S+ residency from \w+ to \w+$", since="11.5"),
    _rule(_K.IDLE_REACHED, r"^Reconcile-unload of job-loaded model: (?P<model>\S+)$", since="11.5"),
    _rule(
        _K.NOTED,
        r"^Routing helper \S+ (?:referenced by no|released and referenced by no|no longer referenced by any)"
        r" active policy.*$",
        since="11.6",
    ),
    _rule(_K.NOTED, r"^Skipping load of routing helper \S+; referenced by no active policy$", since="11.6"),
    # The daemon itself.
    _rule(_K.BOOT, r"^Starting Lemonade Server\.\.\.$"),
    _rule(_K.VERSION, r"^  Version: (?P<reason>\S+)$", ""),
    _rule(_K.SHUTDOWN, r"^Shutdown request(?:ed, stopping server\.\.\.| received)$"),
    _rule(_K.SHUTDOWN, r"^Stopping (?:WebSocket|HTTP) server\.\.\.$"),
    # Lines that look like lifecycle and say nothing that changes the state.
    _rule(_K.NOTED, r"^Starting (?!\S* ?on port |server on port |Lemonade Server).*$"),
    _rule(_K.NOTED, r"^Loading (?!cloud model: |model: ).*$"),
    _rule(_K.NOTED, r"^Model (?:uses|supports) .*$"),
    _rule(_K.NOTED, r"^Using LlamaCpp Backend: \S+$"),
    _rule(_K.NOTED, r"^This usually means:$"),
    _rule(_K.NOTED, r"^  - (?:Missing required|Incompatible model|Try running).*$", ""),
    _rule(_K.NOTED, r"^Server is ready(?:!| at .*)$"),
    _rule(_K.NOTED, r"^Cleanup complete$"),
    _rule(_K.NOTED, r"^(?:GET|POST|DELETE|HEAD|OPTIONS) /.*$", "GET", "POST", "DELETE", "HEAD", "OPTIONS"),
    _rule(_K.NOTED, r"^Error \d{3}: [A-Z]+ /.*$"),
    _rule(_K.NOTED, r"^===== LOAD ENDPOINT ENTERED .*$"),
    _rule(_K.NOTED, r"^Max loaded models per type: -?\d+$"),
    _rule(_K.NOTED, r"^Retrying backend load\.\.\.$"),
)


@cache
def phrases_for(first: str, last: str | None = None) -> tuple[LogRule, ...]:
    """The phrases that releases from this line to that one print, e.g. `phrases_for("10.8", "10.10")`."""
    lowest, highest = Version(first), Version(last or first)

    def printed(rule: LogRule) -> bool:
        return (rule.since is None or Version(rule.since) <= highest) and (
            rule.until is None or lowest <= Version(rule.until)
        )

    return tuple(rule for rule in PHRASES if printed(rule))

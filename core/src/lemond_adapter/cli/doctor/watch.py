"""The watch: does lemond tell what it does, and when."""

from __future__ import annotations

from datetime import datetime

from lemond_adapter.cli.doctor.finding import LATER, Finding, ok
from lemond_adapter.cli.doctor.look import Look
from lemond_adapter.drivers.signals import SignalKind

CLOCK_TOLERANCE_S = 2.0


def log_stream(look: Look) -> Finding:
    """Whether the log stream is open, and what keeps it shut."""
    status = look.adapter.truth.stream.status
    if look.adapter.truth.native.active:
        return ok("log stream", "not needed: lemond's native events are followed")
    if status.connected:
        return ok("log stream", f"connected to {status.url}")
    if status.url is None:
        return Finding(
            "log stream",
            "warning",
            "lemond names no websocket_port in its health",
            "its WebSocket server did not start, or is disabled",
            LATER,
            "check websocket_port in lemond's config.json ('auto' is the default) and lemond's own log",
        )
    if look.stream_port is not None:
        what = "the log stream's port cannot be reached: the WebSocket is blocked"
        evidence = f"{status.url}: {look.stream_port}"
        fix = "open that port to this host (firewall, container network); lemond binds it to its loopback"
    else:
        what = "the log stream's port takes connections and ends them: the WebSocket is refused"
        evidence = f"{status.url}: {status.last_error}"
        fix = (
            "lemond refuses a wrong key without a word: check LEMONADE_API_KEY; or a proxy drops the upgrade"
        )
    return Finding("log stream", "problem", what, evidence, LATER, fix)


_NO_LOAD = frozenset({SignalKind.BOOT, SignalKind.VERSION, SignalKind.NOTED, SignalKind.SHUTDOWN})
_SILENT_LEVELS = frozenset({"warning", "warn", "error", "fatal", "critical", "off"})


def log_level(look: Look) -> Finding:
    """Whether lemond writes the lines that lifecycle is read from: by its settings, by its boot lines, or
    by their absence after a load."""
    level, evidence = _level(look)
    fix = '"log_level": "info" in lemond\'s config.json, then restart lemond'
    if level is not None and level.lower() in _SILENT_LEVELS:
        what = f"lemond's log level is {level}: it writes no lifecycle lines"
        return Finding("log level", "warning", what, evidence, LATER, fix)
    if level is not None:
        return ok("log level", level, evidence)
    listing, driver = look.adapter.truth.listing, look.adapter.driver
    reads = driver is not None and bool(driver.matcher.rules)
    if listing is None or not listing.models or driver is None or not reads or not look.opened_at:
        return ok("log level", "not known", evidence)
    signals = (driver.matcher.match_line(entry.line) for entry in look.history)
    if any(signal is not None and signal.kind not in _NO_LOAD for signal in signals):
        return ok("log level", "lifecycle lines are written")
    models = ", ".join(entry.model for entry in listing.models)[:200]
    return Finding(
        "log level",
        "warning",
        "models are loaded, and lemond's log says nothing of it: its log level is too high",
        f"loaded: {models}; none of the {len(look.history)} log lines it keeps is about a load",
        LATER,
        fix,
    )


def _level(look: Look) -> tuple[str | None, str]:
    told = (look.settings or {}).get("log_level")
    if isinstance(told, str):
        return told, f"log_level in {look.settings_from}"
    return None, f"settings not readable: {look.settings_from}"


def clock(look: Look) -> Finding:
    """lemond's clock against ours; its log has local time without a zone."""
    fresh = [entry for entry in look.history if "New connection from" in entry.line]
    if look.opened_at is None or not fresh:
        return ok("clock", "not comparable: no log line whose moment is known")
    try:
        stamp = datetime.strptime(fresh[-1].line[:23], "%Y-%m-%d %H:%M:%S.%f")
    except ValueError:
        return ok("clock", "not comparable: the log's times cannot be read")
    ahead = (stamp - look.opened_at).total_seconds()
    zone = round(ahead / 900) * 900  # zones differ by quarters of an hour
    rest = ahead - zone
    evidence = f"lemond's log says {stamp:%H:%M:%S.%f}, here it is {look.opened_at:%H:%M:%S.%f}"
    if abs(rest) <= CLOCK_TOLERANCE_S:
        away = f"; lemond's log is in a zone {zone / 3600:+g} h of ours" if zone else ""
        return ok("clock", f"the clocks agree{away}", evidence)
    return Finding(
        "clock",
        "warning",
        f"lemond's clock is {rest:+.1f} s of ours",
        evidence,
        "lemond's log and the adapter's journal cannot be laid side by side; routing is not affected",
        "let both hosts follow a time server (timedatectl set-ntp true)",
    )

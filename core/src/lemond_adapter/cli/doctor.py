"""Checks of a lemond and of what we can see of it: what, evidence, consequence, what to do."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Literal

from lemond_adapter.adapter import LemondAdapter
from lemond_adapter.types import Known

LOOKS = 6
"""Listings that are compared: where two lemonds share a port, the answers differ from one to the next."""

Grade = Literal["ok", "warning", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One check's outcome. `fix` is empty when all is well."""

    check: str
    grade: Grade
    what: str
    fix: str = ""


async def examine(url: str, api_key: str | None) -> list[Finding]:
    """Looks at a lemond for a moment, without changing anything."""
    async with LemondAdapter(url, api_key=api_key, silence_s=5.0) as adapter:
        for _ in range(30):
            if not adapter.truth.reachable or adapter.truth.stream.status.connected:
                break
            await asyncio.sleep(0.1)
        for _ in range(LOOKS if adapter.truth.reachable else 0):
            await adapter.truth.relisted(5.0)
        return findings(adapter)


def findings(adapter: LemondAdapter) -> list[Finding]:
    """The checks, over a running adapter."""
    found = [_reachable(adapter)]
    if isinstance(adapter.loaded(), Known):
        found += [_alone(adapter), _driver(adapter), _drift(adapter), _stream(adapter)]
        found += [_processes(adapter), _threads(adapter)]
    found += [
        Finding(
            "driver wheels",
            "problem",
            f"{broken.name} ({broken.origin}) cannot be used: {broken.error}",
            "reinstall or remove that distribution",
        )
        for broken in adapter.installed.broken
    ]
    return found


def _reachable(adapter: LemondAdapter) -> Finding:
    why = adapter.truth.unknown_why
    if why is None:
        return Finding("reachable", "ok", f"lemond {adapter.version} answers at {adapter.address.url}")
    fix = "start lemond, or name it with --lemond"
    if "API key" in why:
        fix = "set LEMONADE_API_KEY to lemond's key"
    elif "JSON" in why:
        fix = "another server answers there: name lemond's own port with --lemond"
    elif "silent" in why:
        fix = "lemond blocks health while it evicts; if that lasts, restart it"
    return Finding("reachable", "problem", why, fix)


def _alone(adapter: LemondAdapter) -> Finding:
    if not adapter.truth.neighbour.shared:
        return Finding("one lemond", "ok", "the same lemond answers each time")
    text = next(
        (p for p in adapter.truth.reading.problems if "two lemonds" in p), "two lemonds share the port"
    )
    fix = "stop one of them: loads reach either, and half of the answers are the other one's"
    return Finding("one lemond", "problem", text, fix)


def _drift(adapter: LemondAdapter) -> Finding:
    lines, keys = adapter.truth.unknown_lines, adapter.truth.reading.unknown_keys
    if not lines and not keys:
        return Finding("drift", "ok", "every lifecycle line and health key is known to the driver")
    examples = [*(f"line {line!r}" for line, _ in lines.most_common(3)), *(f"key {key}" for key in keys)]
    fix = "record it with 'lemond-adapter capture' and open a pull request with the capture"
    return Finding("drift", "warning", f"not known to the driver: {', '.join(examples)[:400]}", fix)


def _driver(adapter: LemondAdapter) -> Finding:
    selection = adapter.selection
    assert selection is not None
    text = f"{selection.driver.name} ({selection.match}) reads lemond {selection.version}"
    if selection.match == "exact":
        return Finding("driver", "ok", text)
    fix = "install the driver wheel of this release; until then evictions are noticed later, never wrongly"
    return Finding("driver", "warning", "; ".join([text, *selection.notes]), fix)


def _stream(adapter: LemondAdapter) -> Finding:
    status = adapter.truth.stream.status
    if status.connected:
        return Finding("log stream", "ok", f"connected to {status.url}")
    if status.url is None:
        fix = "check lemond's websocket_port setting; without the stream changes are noticed by heartbeat"
        return Finding("log stream", "warning", "lemond names no websocket_port in its health", fix)
    fix = "check that the port is open to this host and that the key is right"
    return Finding("log stream", "problem", f"{status.url}: {status.last_error}", fix)


def _processes(adapter: LemondAdapter) -> Finding:
    visible = adapter.truth.witness.report.pids_visible
    if visible:
        return Finding("processes", "ok", "children are visible: their end is known at once")
    if visible is None:
        return Finding("processes", "ok", "no child is loaded; whether their pids are visible is not known")
    fix = "run the adapter in lemond's pid namespace"
    text = "children are not visible from here: identity is unproven, crashes are seen on connect"
    return Finding("processes", "warning", text, fix)


def _threads(adapter: LemondAdapter) -> Finding:
    driver = adapter.driver
    threads = driver.traits.http_threads if driver else None
    if threads is None:
        return Finding("lemond's threads", "ok", "many; no budget needed")
    return Finding(
        "lemond's threads",
        "ok",
        f"{threads} connections at a time on this release: send model traffic to the adapter, not to lemond",
    )

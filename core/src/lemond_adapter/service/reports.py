"""What the service says about itself: status, routes, snapshot."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any

from lemond_adapter.adapter import LemondAdapter
from lemond_adapter.dispatch.dataplane import DataPlane
from lemond_adapter.journal import Journal
from lemond_adapter.slots.rows import SlotBoard
from lemond_adapter.types import RouteInfo, Unknown, rfc3339


def lemond_report(adapter: LemondAdapter) -> dict[str, Any]:
    """lemond and the driver that reads it."""
    truth, selection = adapter.truth, adapter.selection
    return {
        "url": adapter.address.url,
        "version": adapter.version,
        "reachable": truth.reachable,
        "since": _time(truth.knowledge_since),
        "why": truth.unknown_why,
        "hanging": truth.hanging,
        "pid": truth.witness.report.lemond_pid,
        "shared_port": truth.neighbour.shared,
        "driver": selection.driver.name if selection else None,
        "driver_match": selection.match if selection else None,
    }


def status(adapter: LemondAdapter, plane: DataPlane, journal: Journal) -> dict[str, Any]:
    """Everything an operator asks first."""
    truth, selection = adapter.truth, adapter.selection
    knowledge = adapter.loaded()
    stream = truth.stream
    return {
        "lemond": lemond_report(adapter),
        "driver": {
            "name": selection.driver.name if selection else None,
            "match": selection.match if selection else None,
            "origin": selection.driver.origin if selection else None,
            "notes": list(selection.notes) if selection else [],
            "broken": [
                {"name": broken.name, "origin": broken.origin, "error": broken.error}
                for broken in adapter.installed.broken
            ],
        },
        "knowledge": {
            "value": "unknown" if isinstance(knowledge, Unknown) else "known",
            "since": _time(truth.knowledge_since),
            "why": truth.unknown_why,
        },
        "log_stream": {
            "connected": stream.status.connected,
            "url": stream.status.url,
            "last_seq": stream.cursor.last_seq,
            "reconnects": stream.status.reconnects,
            "gaps": stream.cursor.gaps,
            "duplicates": stream.cursor.duplicates,
            "malformed_frames": stream.status.malformed,
            "restarts_seen": stream.status.restarts_seen,
            "last_error": stream.status.last_error,
        },
        "native_events": _native(adapter),
        "processes": {
            "pids_visible": truth.witness.report.pids_visible,
            "watched": sorted(truth.witness.processes.watched),
            "identity_mismatches_prevented": truth.witness.report.mismatches,
        },
        "control_requests": {
            "last_minute": adapter.client.requests_last_minute(),
            "budget_per_minute": 4,
            "total": dict(adapter.client.requests),
        },
        "drift": {
            "unknown_lifecycle_lines": sum(truth.unknown_lines.values()),
            "examples": [line for line, _ in truth.unknown_lines.most_common(5)],
            "unknown_health_keys": sorted(truth.reading.unknown_keys),
        },
        "counters": {
            "requests": dict(plane.traffic.outcomes),
            "in_flight": adapter.leases.total(),
            "events": adapter.hub.seq,
            "event_subscribers": adapter.hub.subscribers,
            "listings": truth.listings,
        },
        "data_plane": plane.report(),
        "journal": asdict(journal.status()),
        "problems": truth.reading.problems,
        "epoch": adapter.hub.epoch,
    }


def _native(adapter: LemondAdapter) -> dict[str, Any] | None:
    """The native event channel; None where lemond advertises none that a driver follows."""
    source = adapter.truth.native.status
    if source is None:
        return None
    return {
        "url": source.url,
        "connected": source.connected,
        "boot_id": source.boot_id,
        "last_seq": source.last_seq,
        "reconnects": source.reconnects,
        "last_error": source.last_error,
        "problems": dict(source.problems),
    }


def routes(adapter: LemondAdapter) -> dict[str, Any]:
    """The route table as the dispatcher sees it."""
    table = [_route(route) for route in adapter.truth.ledger.routes.values()]
    return {"stale": not adapter.truth.reachable, "routes": table}


def snapshot(adapter: LemondAdapter, board: SlotBoard) -> dict[str, Any]:
    """The first event of a stream."""
    return {
        "epoch": adapter.hub.epoch,
        "seq": adapter.hub.seq,
        "slots": board.rows(),
        "lemond": lemond_report(adapter),
    }


def _route(route: RouteInfo) -> dict[str, Any]:
    return {
        "slot": route.slot,
        "model": route.model,
        "base_url": route.base_url,
        "port": route.port,
        "pid": route.pid,
        "mode": route.mode,
        "generation": route.generation,
        "verified_at": _time(route.verified_at),
    }


def _time(moment: datetime) -> str:
    return rfc3339(moment)

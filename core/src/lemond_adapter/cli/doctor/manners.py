"""lemond's settings and limits that fight the adapter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from lemond_adapter.cli.doctor.finding import Finding, ok
from lemond_adapter.cli.doctor.look import Look

SPARE_THREADS = 2
"""What the adapter itself needs of a small thread pool: a listing and a load."""


def settings(look: Look) -> list[Finding]:
    """One finding for each setting that fights us."""
    checks: list[Callable[[Look], Finding | None]] = [_own_eviction, _limits, _watchdog]
    found = [finding for check in checks if (finding := check(look)) is not None]
    return found or [ok("settings", "nothing that fights the adapter", look.settings_from)]


def _own_eviction(look: Look) -> Finding | None:
    driver, listing = look.adapter.driver, look.adapter.truth.listing
    models = listing.models if listing else ()
    per_model = [entry.model for entry in models if entry.options.get("auto_evict") is True]
    consequence = "its clock never sees direct traffic: it may unload a model in the middle of a stream"
    if look.settings is not None and look.settings.get("auto_evict") is True:
        return Finding(
            "settings",
            "warning",
            "lemond evicts idle models itself",
            f"auto_evict = true in {look.settings_from}",
            consequence,
            '"auto_evict": false in lemond\'s config.json; the adapter has policy.idle_timeout_s',
        )
    if per_model:
        return Finding(
            "settings",
            "warning",
            "some models were loaded with lemond's own idle eviction",
            f"auto_evict in the options of {', '.join(per_model)[:200]}",
            consequence,
            "load them without auto_evict; the adapter has policy.idle_timeout_s",
        )
    if look.settings is None and driver is not None and driver.traits.own_idle_eviction:
        return Finding(
            "settings",
            "warning",
            "lemond's settings cannot be read; this release may evict idle models itself",
            look.settings_from,
            f"if auto_evict is on, {consequence}",
            "set LEMONADE_ADMIN_API_KEY to lemond's admin key, or see to it that auto_evict is false",
        )
    return None


def _limits(look: Look) -> Finding | None:
    listing = look.adapter.truth.listing
    limits = listing.max_models if listing else {}
    wanted = Counter(slot.type for slot in look.slots if slot.enabled)
    over = [
        f"{kind}: {count} slots, limit {limits[kind]}"
        for kind, count in wanted.items()
        if 0 <= limits.get(kind, -1) < count
    ]
    if not over:
        return None
    return Finding(
        "settings",
        "warning",
        "lemond keeps fewer models than there are slots",
        "; ".join(over),
        "slots of that type take turns: each request for an unloaded one costs another one its place",
        '"max_loaded_models" in lemond\'s config.json: as many of a type as fit in memory',
    )


def _watchdog(look: Look) -> Finding | None:
    told = [entry.line for entry in look.history if entry.line.endswith("watchdog disabled")]
    if not told:
        return None
    return Finding(
        "settings",
        "warning",
        "lemond's backend watchdog is switched off",
        told[-1][:200],
        "a child that hangs with its port open is never reset: its requests wait until they time out",
        "take LEMONADE_BACKEND_WATCHDOG=0 out of lemond's environment",
    )


def threads(look: Look) -> Finding:
    """lemond's thread pool, where it is small: a connection holds a thread as long as it is open."""
    driver = look.adapter.driver
    most = driver.traits.http_threads if driver else None
    if most is None:
        return ok("threads", "many; no budget needed")
    used = look.connections
    evidence = "" if used is None else f"{used} connections to lemond's port are open"
    if used is not None and used > most - SPARE_THREADS:
        return Finding(
            "threads",
            "warning",
            f"lemond serves {most} connections at a time, and {used} are open",
            evidence,
            "health, loads and unloads wait for a free thread; with all taken lemond looks hung",
            "send model traffic and dashboards to the adapter; it needs one or two connections itself",
        )
    return ok("threads", f"{most} connections at a time on this release", evidence)


def slots(look: Look) -> Finding | None:
    """Configured slots whose model lemond does not know; None without slots."""
    if not look.slots:
        return None
    if look.missing:
        return Finding(
            "slots",
            "problem",
            "slots name models that lemond does not have",
            "; ".join(f"{slot.name}: {slot.model!r}" for slot in look.missing)[:400],
            "requests for them get 503 slot.error with lemond's 404",
            "GET /v1/models lists the names; pull the model with lemond, or correct the slot",
        )
    return ok("slots", f"lemond has the models of all {len(look.slots)} slots")

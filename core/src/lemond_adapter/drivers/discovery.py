"""Finds installed driver wheels through their entry points. A broken wheel is reported and skipped."""

from __future__ import annotations

from dataclasses import dataclass

import importlib_metadata

from lemond_adapter.drivers.driver import Driver, build_driver
from lemond_adapter.types import DriverError

GROUP = "lemond_adapter.drivers"


@dataclass(frozen=True, slots=True)
class BrokenDriver:
    """An installed driver that cannot be used, and why."""

    name: str
    origin: str
    error: str


@dataclass(frozen=True, slots=True)
class Installed:
    """What the environment offers, good and broken, in order of name."""

    drivers: tuple[Driver, ...]
    broken: tuple[BrokenDriver, ...] = ()


def installed_drivers() -> Installed:
    """Loads every entry point of the group. Never raises for a driver's fault."""
    good: list[Driver] = []
    broken: list[BrokenDriver] = []
    for entry in sorted(importlib_metadata.entry_points(group=GROUP), key=lambda e: (e.name, e.value)):
        origin = f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value
        try:
            plugin = entry.load()
            good.append(build_driver(plugin, name=entry.name, origin=origin))
        except DriverError as error:
            broken.append(BrokenDriver(entry.name, origin, str(error)))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - import runs a stranger's code
            broken.append(BrokenDriver(entry.name, origin, f"import failed: {error!r:.300}"))
    return Installed(tuple(good), tuple(broken))

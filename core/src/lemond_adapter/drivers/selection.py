"""Chooses the driver for a probed version: exact, else the nearest older line, else generic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from packaging.version import Version

from lemond_adapter.drivers.driver import Driver
from lemond_adapter.drivers.generic import generic_driver
from lemond_adapter.drivers.versions import lower_bound, parse_release, release_of, serves, width
from lemond_adapter.types import DriverMatch, UnsupportedVersion


@dataclass(frozen=True, slots=True)
class Selection:
    """The chosen driver, how well it fits, and what an operator should know about the choice."""

    driver: Driver
    match: DriverMatch
    version: str | None
    notes: tuple[str, ...] = ()


def select_driver(reported: object, drivers: Sequence[Driver], *, forced: str | None = None) -> Selection:
    """The driver to use for the version string that health reports.

    Never raises: a version that is none, or that no driver serves, gets `generic` with a note.
    `forced` names a driver to use whatever the version (for replays and tests).
    """
    text = reported if isinstance(reported, str) else None
    # A native channel is chosen by what health advertises, beside the driver that reads health.
    candidates = [driver for driver in drivers if driver.info.channel == "log"]
    if forced is not None:
        for driver in [*drivers, generic_driver()]:
            if driver.name == forced:
                return Selection(driver, "exact", text, (f"driver {forced} was forced",))
        names = ", ".join(sorted(driver.name for driver in drivers)) or "none"
        return Selection(generic_driver(), "generic", text, (f"no driver {forced!r} installed ({names})",))
    try:
        version = parse_release(reported)
    except UnsupportedVersion as error:
        return Selection(generic_driver(), "generic", text, (str(error),))
    matching = [driver for driver in candidates if serves(driver.info.serves, version)]
    if matching:
        return _narrowest(matching, text)
    older = [driver for driver in candidates if lower_bound(driver.info.serves) <= release_of(version)]
    if older:
        return _nearest(older, version, text)
    hint = f"no installed driver serves lemond {version}; health and process watch alone are used"
    if candidates:
        return Selection(generic_driver(), "generic", text, (hint,))
    return Selection(generic_driver(), "generic", text, (f"no driver is installed: {hint}",))


def _narrowest(matching: list[Driver], text: str | None) -> Selection:
    """Narrowest range, then highest lower bound, then name."""
    by_name = sorted(matching, key=lambda d: d.name)
    by_height = sorted(by_name, key=lambda d: lower_bound(d.info.serves), reverse=True)
    ranked = sorted(by_height, key=lambda d: width(d.info.serves))
    chosen = ranked[0]
    notes: tuple[str, ...] = ()
    if len(ranked) > 1:
        others = ", ".join(f"{d.name} ({d.origin})" for d in ranked[1:])
        notes = (f"{chosen.name} chosen as the narrowest of several that serve {text}; also: {others}",)
    return Selection(chosen, "exact", text, notes)


def _nearest(older: list[Driver], version: Version, text: str | None) -> Selection:
    chosen = max(older, key=lambda d: (lower_bound(d.info.serves), d.name))
    note = (
        f"no installed driver serves lemond {version}; the nearest older one, {chosen.name} "
        f"(serves {chosen.info.serves}), is used. Log lines it does not know are counted as drift: "
        "install a newer driver wheel, or record a capture and add one"
    )
    return Selection(chosen, "nearest", text, (note,))

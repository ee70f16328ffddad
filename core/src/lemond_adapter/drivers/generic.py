"""The driver of last resort: health and process watch alone, for a release nobody has read.

It has no log rules, so log lines mean nothing to it and every fact comes from the listing and the
processes. That is slower to know (a heartbeat at worst) and never wrong.
"""

from __future__ import annotations

from packaging.specifiers import SpecifierSet

from lemond_adapter.drivers.driver import Driver, build_driver
from lemond_adapter.drivers.hookspecs import hookimpl
from lemond_adapter.drivers.info import DriverInfo, Traits


class GenericDriver:
    """A plugin like any other."""

    @hookimpl
    def lemond_driver(self) -> DriverInfo:
        return DriverInfo(
            name="generic",
            serves=SpecifierSet(""),
            summary="health and process watch alone, for releases no installed driver knows",
        )

    @hookimpl
    def lemond_traits(self) -> Traits:
        return Traits()


def generic_driver() -> Driver:
    """The built-in fallback."""
    return build_driver(GenericDriver(), name="generic")

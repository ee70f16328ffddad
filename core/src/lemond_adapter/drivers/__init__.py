"""What changes with lemond's releases. A driver wheel imports what it needs from here.

No network library is imported here, and no driver holds state.
"""

from lemond_adapter.drivers.discovery import GROUP, BrokenDriver, Installed, installed_drivers
from lemond_adapter.drivers.driver import Driver, build_driver
from lemond_adapter.drivers.generic import generic_driver
from lemond_adapter.drivers.health import (
    BASE_ENTRY_KEYS,
    BASE_KEYS,
    HealthBody,
    HealthEntry,
    HealthListing,
    known_health_keys,
    parse_health,
)
from lemond_adapter.drivers.hookspecs import hookimpl
from lemond_adapter.drivers.info import DriverInfo, Traits
from lemond_adapter.drivers.matcher import LogMatcher, message_of
from lemond_adapter.drivers.names import public_name
from lemond_adapter.drivers.paths import CHILD_PATHS
from lemond_adapter.drivers.phrases import PHRASES, log_rule, phrases_for
from lemond_adapter.drivers.selection import Selection, select_driver
from lemond_adapter.drivers.signals import LogRule, Signal, SignalKind
from lemond_adapter.drivers.versions import parse_release

__all__ = [
    "BASE_ENTRY_KEYS",
    "BASE_KEYS",
    "CHILD_PATHS",
    "GROUP",
    "PHRASES",
    "BrokenDriver",
    "Driver",
    "DriverInfo",
    "HealthBody",
    "HealthEntry",
    "HealthListing",
    "Installed",
    "LogMatcher",
    "LogRule",
    "Selection",
    "Signal",
    "SignalKind",
    "Traits",
    "build_driver",
    "generic_driver",
    "hookimpl",
    "installed_drivers",
    "known_health_keys",
    "log_rule",
    "message_of",
    "parse_health",
    "parse_release",
    "phrases_for",
    "public_name",
    "select_driver",
]

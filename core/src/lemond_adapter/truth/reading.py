"""The driver in use: chosen by lemond's version, set aside when it breaks. Sans-IO."""

from __future__ import annotations

import logging

from lemond_adapter.drivers import (
    Driver,
    HealthListing,
    Installed,
    Selection,
    generic_driver,
    select_driver,
)
from lemond_adapter.types import DriverError

log = logging.getLogger(__name__)

FAULTS_ALLOWED = 3
"""A driver that raises this often is set aside for the generic one."""

PROBLEMS_KEPT = 20


class Reading:
    """Reads health bodies with the driver that fits them. `problems` are for `status` and `doctor`."""

    def __init__(self, installed: Installed, forced: str | None) -> None:
        self._installed = installed
        self._forced = forced
        self._faults = 0
        self.selection: Selection | None = None
        self.problems: list[str] = []
        self.unknown_keys: frozenset[str] = frozenset()
        for broken in installed.broken:
            self.complain(f"driver {broken.name} ({broken.origin}) cannot be used: {broken.error}")

    @property
    def driver(self) -> Driver | None:
        """None before lemond was met."""
        return self.selection.driver if self.selection else None

    def fits(self, reported: object) -> bool:
        """Whether the driver in use was chosen for this version."""
        version = reported if isinstance(reported, str) else None
        return self.selection is not None and self.selection.version == version

    def choose(self, reported: object) -> Selection:
        """Chooses the driver for the version that health reports, and says what is odd about it."""
        self.selection = select_driver(reported, self._installed.drivers, forced=self._forced)
        self._faults = 0
        for note in self.selection.notes:
            log.warning("%s", note)
        return self.selection

    def parse(self, body: object) -> HealthListing:
        """Raises `MalformedPayload`. A driver that breaks is complained of, and the generic one reads."""
        driver = self.driver or generic_driver()
        try:
            listing = driver.parse_health(body)
        except DriverError as error:
            self._fault(error)
            listing = generic_driver().parse_health(body)
        self.unknown_keys = listing.unknown_keys
        return listing

    def complain(self, text: str) -> None:
        """Once for each text."""
        if text not in self.problems:
            log.warning("%s", text)
            self.problems = [*self.problems[1 - PROBLEMS_KEPT :], text]

    def _fault(self, error: DriverError) -> None:
        self._faults += 1
        self.complain(str(error))
        if self._faults >= FAULTS_ALLOWED and self.selection is not None:
            broken = self.selection.driver.name
            note = f"{broken} set aside: {error}"
            self.selection = Selection(generic_driver(), "generic", self.selection.version, (note,))
            log.error("driver %s failed %d times; the generic driver is used", broken, self._faults)

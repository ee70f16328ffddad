"""The processes behind lemond's listing: are they alive, are they the ones that listen, whose are they.

Decides what may be called a route. Where pids are not visible (another container, another system) a
route has no pid and its identity is unproven; where they are visible and contradict the listing,
there is no route.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from lemond_adapter.drivers import Driver, HealthListing
from lemond_adapter.truth import procfs
from lemond_adapter.truth.address import LemondAddress, is_loopback
from lemond_adapter.truth.processes import ProcessWatch
from lemond_adapter.truth.record import Ending
from lemond_adapter.types import LoadedModel, RouteInfo

log = logging.getLogger(__name__)


@dataclass(slots=True)
class WitnessReport:
    """For `status` and `doctor`."""

    pids_visible: bool | None = None
    """None until a child was seen; False where listed pids mean nothing here."""
    lemond_pid: int | None = None
    mismatches: int = 0
    """Listed ports that another process than the listed one was found on."""


class Witness:
    """One per adapter. `on_end` is told of ended children, `on_lemond_end` of lemond's own end."""

    def __init__(
        self,
        address: LemondAddress,
        *,
        slot_name: Callable[[str], str | None],
        on_end: Callable[[int, Ending], None],
        on_lemond_end: Callable[[Ending], None],
    ) -> None:
        self._address = address
        self._slot_name = slot_name
        self._on_end = on_end
        self._on_lemond_end = on_lemond_end
        self.processes = ProcessWatch(self._ended)
        self.report = WitnessReport()
        self.driver: Driver | None = None
        self._lemond_gone = False
        self._ended_pids: set[int] = set()
        """Ended, and still listed: lemond <= 10.7 lists a dead child, as a zombie, for ever."""

    def see(self, listing: HealthListing) -> None:
        """Opens a watch on every listed process; to be called before the ledger takes the listing."""
        self._lemond_gone = False
        if not self._address.local:
            return
        for entry in listing.models:
            if entry.pid is not None and entry.pid not in self._ended_pids:
                self.processes.watch(entry.pid)

    def settle(self, listing: HealthListing, routed: Iterable[LoadedModel]) -> None:
        """After the ledger took the listing: ends the watches that nobody needs."""
        keep = {entry.pid for entry in (*listing.models, *routed) if entry.pid is not None}
        if self.report.lemond_pid is not None:
            keep.add(self.report.lemond_pid)
        self._ended_pids &= keep
        self.processes.keep_only(frozenset(keep))

    def alive(self, entry: LoadedModel) -> bool | None:
        """Whether the listed process lives; None where it cannot be seen."""
        if entry.pid is None or not self._address.local:
            return None
        if entry.pid in self._ended_pids:
            return False
        known = self.processes.alive(entry.pid)
        if known is not None:
            return known
        return False if self.report.pids_visible and self.processes.works else None

    def lemond_alive(self) -> bool | None:
        """Whether lemond's own process lives, where it is known; False from its end to the next listing."""
        if self._lemond_gone:
            return False
        pid = self.report.lemond_pid
        return None if pid is None else self.processes.alive(pid)

    def make_route(self, entry: LoadedModel, generation: int) -> RouteInfo | None:
        """The route for a listed model, or None when nothing may be sent there."""
        route = RouteInfo(
            slot=self._slot_name(entry.model),
            model=entry.model,
            base_url=self._address.url,
            port=self._address.port,
            pid=None,
            mode="gateway",
            generation=generation,
            verified_at=datetime.now(UTC),
        )
        if not self._address.local or entry.base_url is None or entry.port is None:
            return route
        host = entry.base_url.rpartition(":")[0].partition("//")[2].strip("[]")
        if not is_loopback(host):
            self.report.mismatches += 1
            log.warning("%s: lemond lists %s, which is not on this host; not routed", entry.model, host)
            return None
        visible = self._proven(entry, entry.port)
        if visible is False:
            return None
        if visible is None and not _answers(host, entry.port):
            # lemond lives in another network namespace: its children cannot be reached from here.
            return route
        speaks = self.driver is not None and self.driver.has_child_paths(entry.recipe)
        if not speaks:
            return replace(route, pid=entry.pid if visible else None)
        return replace(
            route,
            base_url=entry.base_url,
            port=entry.port,
            pid=entry.pid if visible else None,
            mode="child",
        )

    def _proven(self, entry: LoadedModel, port: int) -> bool | None:
        """True: watched, and the port is its own. None: not visible, unproven. False: contradicted."""
        if entry.pid is None:
            return None
        if self.processes.alive(entry.pid) is None:
            # No such process. Where lemond's own can be seen, that is proof that it has ended.
            return False if self.processes.works and self._same_namespace() else None
        owns = procfs.owns_port(entry.pid, port)
        if owns:
            self.report.pids_visible = True
            self._meet_lemond(entry.pid)
            return True
        if owns is None:
            return True  # its files cannot be read (another user), but the process is watched
        if self._same_namespace():
            self.report.mismatches += 1
            log.warning(
                "%s: lemond lists port %d for pid %d, but that process does not listen there; not routed",
                entry.model,
                port,
                entry.pid,
            )
            return False
        # lemond's pids are of another namespace: a process here has the same number by chance.
        self.report.pids_visible = False
        self.processes.forget(entry.pid)
        return None

    def _same_namespace(self) -> bool:
        """Whether pids in the listing mean the same here: lemond's own process can be seen."""
        if not self.report.pids_visible and procfs.listener_pid(self._address.port) is not None:
            self.report.pids_visible = True
        return bool(self.report.pids_visible)

    def _meet_lemond(self, child: int) -> None:
        if self.lemond_alive():
            return
        parent = procfs.parent_pid(child)
        if parent is None or parent <= 1 or not procfs.owns_port(parent, self._address.port):
            return
        if self.processes.watch(parent):
            self.report.lemond_pid = parent

    def _ended(self, pid: int, ending: Ending) -> None:
        if pid == self.report.lemond_pid:
            self.report.lemond_pid = None
            self._lemond_gone = True
            self._on_lemond_end(ending)
        else:
            self._ended_pids.add(pid)
            self._on_end(pid, ending)

    def close(self) -> None:
        """Ends all watches."""
        self.processes.close()


def _answers(host: str, port: int) -> bool:
    """Whether something listens there; on loopback the answer takes microseconds."""
    try:
        with socket.create_connection((host, port), timeout=0.2):
            return True
    except OSError:
        return False

"""Tells two lemonds on one port from a restart. Sans-IO.

To 10.8.1 a second lemond can share the first one's port (measured on 10.7.0: connections alternate
between two instances with different model tables).
"""

from __future__ import annotations

ALONE_AFTER = 12
"""Listings in a row that name one WebSocket port, after which the second lemond is held for gone."""


class Neighbour:
    """`shared` while two lemonds answer in turns: then a listing only adds, because what it lacks may
    be the other lemond's, and processes alone say what is gone."""

    def __init__(self) -> None:
        self.shared = False
        self.ports: tuple[int, int] | None = None
        self._same = 0

    def listing(self, old_port: int | None, port: int | None, *, first_lives: bool) -> bool:
        """Takes the WebSocket ports of the last listing and of this one; whether `shared` changed.

        `first_lives`: the log stream on the old port is connected and lemond's process has not ended:
        a restart would have cut both.
        """
        before = self.shared
        if old_port is not None and port is not None and port != old_port:
            self._same = 0
            if first_lives:
                self.shared, self.ports = True, (old_port, port)
        else:
            self._same += 1
            if self._same >= ALONE_AFTER:
                self.shared = False
        return self.shared != before

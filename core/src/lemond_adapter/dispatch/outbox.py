"""Writes of one turn of the event loop, made together at its end.

Each write to a socket wakes the process that waits for it. With many requests under way, writes in
between the work on others wake the same few processes again and again; in one go they find several
requests at once. With few requests under way there is nothing to gain, and they are written at once.
"""

from __future__ import annotations

import asyncio

FEW = 3


class Outbox:
    """In order per transport, as long as everything written to it goes through here or after `flush`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._queue: list[tuple[asyncio.Transport, bytes]] = []
        self.under_way = 0
        """Requests that are being served."""

    def write(self, transport: asyncio.Transport, data: bytes) -> None:
        """Now, or at the end of this turn."""
        queue = self._queue
        if queue:
            queue.append((transport, data))
        elif self.under_way <= FEW:
            transport.write(data)
        else:
            queue.append((transport, data))
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Everything, now."""
        if self._queue:
            queue, self._queue = self._queue, []
            for transport, data in queue:
                if not transport.is_closing():
                    transport.write(data)

"""Tells systemd how the service is, by the datagrams of sd_notify(3). Without $NOTIFY_SOCKET: nothing."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator

log = logging.getLogger(__name__)


def notify(state: str) -> bool:
    """Sends lines such as `READY=1`; whether there was somebody to send them to."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]  # an abstract socket
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.connect(address)
            sender.send(state.encode())
    except OSError as error:
        log.warning("systemd cannot be told %s: %s", state.partition("\n")[0], error.strerror)
        return False
    return True


def watchdog_period_s() -> float | None:
    """Half of what systemd allows between two signs of life; None when it waits for none from us."""
    usec, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not usec.isdigit() or int(usec) == 0 or (pid and pid != str(os.getpid())):
        return None
    return int(usec) / 2_000_000


@contextlib.asynccontextmanager
async def announced(status: str) -> AsyncIterator[None]:
    """READY on entering, STOPPING on leaving. In between a sign of life from the event loop itself: one
    that hangs is restarted by systemd."""
    notify(f"READY=1\nSTATUS={status}")
    period = watchdog_period_s()
    alive = None if period is None else asyncio.create_task(_signs_of_life(period), name="watchdog")
    try:
        yield
    finally:
        notify("STOPPING=1")
        if alive is not None:
            alive.cancel()
            await asyncio.gather(alive, return_exceptions=True)


async def _signs_of_life(period_s: float) -> None:
    while True:
        notify("WATCHDOG=1")
        await asyncio.sleep(period_s)

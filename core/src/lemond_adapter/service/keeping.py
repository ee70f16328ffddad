"""Where the service keeps its state, and the adapter wired to it."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from lemond_adapter.adapter import LemondAdapter
from lemond_adapter.journal import Journal
from lemond_adapter.service.config import Config
from lemond_adapter.slots.rows import SlotBoard
from lemond_adapter.slots.snapshot import StateFiles, read_states
from lemond_adapter.truth.hub import HubClosed

log = logging.getLogger(__name__)

FILE = "journal.sqlite"

SAVE_EVERY_S = 0.5
"""Changes within this are one write."""

RENEW_S = 900.0


def state_dir(config: Config, *, simulated: bool) -> Path | None:
    """`[state] dir`; else systemd's `$STATE_DIRECTORY`; else a folder of this port's below
    `$XDG_STATE_HOME`. None = nothing is kept: for a simulated lemond, and for a port that the system
    chooses, unless a folder was named."""
    if config.state.dir is not None:
        return Path(config.state.dir).expanduser()
    if simulated or config.listen.port == 0:
        return None
    if given := os.environ.get("STATE_DIRECTORY"):
        return Path(given.partition(":")[0])
    try:
        base = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    except RuntimeError:
        return None  # no home folder
    return base / "lemond-adapter" / str(config.listen.port)


@contextmanager
def journal(config: Config, *, simulated: bool) -> Iterator[Journal]:
    """The journal, written to its end when the context is left."""
    folder = state_dir(config, simulated=simulated)
    found = Journal(
        folder / FILE if folder else None,
        most_rows=config.state.journal_rows,
        oldest_s=config.state.journal_days * 86_400,
    )
    try:
        yield found
    finally:
        found.close()


def attach(adapter: LemondAdapter, journal: Journal) -> None:
    """To be called before the adapter is entered: its first event is kept too."""
    journal.epoch = adapter.hub.epoch
    adapter.hub.observers.append(journal.event)
    for model, seconds in journal.load_times():
        adapter.history.learned(model, seconds)
    adapter.history.observers.append(journal.load_time)


def _hal0_dir(config: Config) -> Path | None:
    return Path(config.state.hal0_dir).expanduser() if config.state.hal0_dir is not None else None


@asynccontextmanager
async def board(adapter: LemondAdapter, config: Config) -> AsyncIterator[SlotBoard]:
    """The slots; with `[state] hal0_dir` also in hal0's files, up to the context's end."""
    folder = _hal0_dir(config)
    if folder is None:
        yield SlotBoard(adapter)
        return
    found = SlotBoard(adapter, read_states(folder))
    saving = asyncio.create_task(_save(adapter, found, StateFiles.at(folder)), name="state files")
    try:
        yield found
    finally:
        saving.cancel()
        await asyncio.gather(saving, return_exceptions=True)


async def _save(adapter: LemondAdapter, board: SlotBoard, files: StateFiles) -> None:
    """After each change, soon. A disk that refuses is told once, and tried again with the next change."""
    subscription = adapter.hub.subscribe(adapter.hub.first)
    told = False
    try:
        while True:
            # Rows of an unmet lemond are what the files say already.
            if adapter.selection is not None:
                try:
                    await asyncio.to_thread(files.write, board.rows())
                    told = False
                except OSError as error:
                    if not told:
                        log.warning("%s: slots' states are not written: %s", files.folder, error)
                    told = True
            try:
                async with asyncio.timeout(RENEW_S):
                    await subscription.next_batch()
            except TimeoutError:
                continue
            await asyncio.sleep(SAVE_EVERY_S)
    except HubClosed:
        if adapter.selection is not None:
            files.write(board.rows())
    finally:
        subscription.close()

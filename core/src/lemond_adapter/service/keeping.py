"""Where the service keeps its state, and the adapter wired to it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lemond_adapter.adapter import LemondAdapter
from lemond_adapter.journal import Journal
from lemond_adapter.service.config import Config

log = logging.getLogger(__name__)

FILE = "journal.sqlite"


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

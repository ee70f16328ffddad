"""What people see: colours in a terminal, plain text into a pipe, tables that live, completion."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import AsyncIterator
from typing import Any

import pytest

from lemond_adapter.simulator import SimulatorProcess

ESCAPE = "\x1b"


class Terminal:
    """A command in a terminal of its own; `shown` is all that it has written."""

    def __init__(self, master: int) -> None:
        self._master = master
        self._more = asyncio.Event()
        self.shown = ""
        asyncio.get_running_loop().add_reader(master, self._read)

    def _read(self) -> None:
        try:
            chunk = os.read(self._master, 65_536)
        except OSError:
            chunk = b""
        if not chunk:
            asyncio.get_running_loop().remove_reader(self._master)
        self.shown += chunk.decode(errors="replace")
        self._more.set()

    async def shows(self, pattern: str) -> None:
        async with asyncio.timeout(20):
            while not re.search(pattern, self.shown):
                self._more.clear()
                await self._more.wait()


@contextlib.asynccontextmanager
async def terminal(*arguments: str) -> AsyncIterator[Terminal]:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 140, 0, 0))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "lemond_adapter", *arguments),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "140"},
    )
    os.close(slave)
    try:
        yield Terminal(master)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        asyncio.get_running_loop().remove_reader(master)
        os.close(master)


@contextlib.asynccontextmanager
async def piped(*arguments: str) -> AsyncIterator[asyncio.StreamReader]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "lemond_adapter", *arguments, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        yield process.stdout
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def until(reader: asyncio.StreamReader, text: str) -> str:
    """What came up to and with this text."""
    found = b""
    async with asyncio.timeout(20):
        while text.encode() not in found:
            chunk = await reader.read(4096)
            assert chunk, found
            found += chunk
    return found.decode()


async def test_events_are_coloured_in_a_terminal_and_plain_in_a_pipe(
    simulator: SimulatorProcess, service: Any
) -> None:
    await service.loaded("tiny-a")
    arguments = ("events", "--url", service.url, "--since", "0")
    async with terminal(*arguments) as seen:
        await seen.shows(re.escape(ESCAPE) + r"\[32mmodel_loaded")
    async with piped(*arguments) as reader:
        text = await until(reader, "model_loaded")
    assert ESCAPE not in text
    assert re.search(r"^\S+Z load_started +tiny-a ", text, re.MULTILINE)


async def test_watch_follows_the_truth(simulator: SimulatorProcess, service: Any) -> None:
    await service.loaded("tiny-a")
    async with terminal("slots", "--watch", "--url", service.url) as seen:
        await seen.shows("tiny-a.*ready")
        await service.loaded("tiny-b")
        await seen.shows("tiny-b.*ready")
        await simulator.fault("crash", model="tiny-a")
        await seen.shows("tiny-a.*offline")


async def test_watch_into_a_pipe_prints_each_table(simulator: SimulatorProcess, service: Any) -> None:
    await service.loaded("tiny-a")
    async with piped("slots", "--watch", "--json", "--url", service.url) as reader:
        assert '"state": "ready"' in await until(reader, "\n")
        await simulator.fault("crash", model="tiny-a")
        assert '"state": "offline"' in await until(reader, '"offline"')


async def test_watch_says_when_the_service_ends(service: Any) -> None:
    async with terminal("slots", "--watch", "--url", service.url) as seen:
        await seen.shows("in flight")
        await service.stop()
        await seen.shows("lemond-adapter: .*" + re.escape(service.url))


def test_names_are_no_markup_and_no_escapes() -> None:
    from rich.console import Console

    from lemond_adapter.cli.display import event_line, slot_table

    row = {
        "name": "[red]x[/red]",
        "state": "ready",
        "model_id": "\x1b[2Jm",
        "port": 1,
        "metadata": {"in_flight": 0, "message": "[/]"},
    }
    console = Console(record=True, width=140, file=open(os.devnull, "w"))  # noqa: SIM115 - for the test's life
    console.print(slot_table([row]))
    text = console.export_text()
    assert "[red]x[/red]" in text
    assert ESCAPE not in text
    event = {"at": "now", "type": "load_failed", "model": "\x1b[2Jm", "reason": "\x07bell\nline"}
    line = event_line(event)
    assert "\n" not in line
    assert "\x07" not in line
    assert "\x1b[2J" not in line


@pytest.mark.parametrize(
    ("words", "expected"), [("lemond-adapter do", "doctor"), ("lemond-adapter serve --sim", "--simulate")]
)
def test_the_shell_completes(words: str, expected: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from lemond_adapter.cli import main; main()"],
        capture_output=True,
        text=True,
        check=True,
        env={
            **os.environ,
            "_LEMOND_ADAPTER_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - 1),
        },
    )
    assert expected in done.stdout.split()

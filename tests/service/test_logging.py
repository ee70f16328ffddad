"""What the service writes to stderr: one line an event, in one format, without keys and bodies."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import re
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog

from lemond_adapter.service import logs
from lemond_adapter.simulator import SimulatorProcess

LEMOND_KEY = "canary-lemond-key-7d1f"
OUR_KEY = "canary-our-key-91ab"
WRONG_KEY = "canary-wrong-key-5c3e"
PROMPT = "canary prompt: my bank account"
TYPED = "canary-typed-model"


async def fault_run(simulator: SimulatorProcess, service: Any) -> None:
    """Traffic of all outcomes, with a key, a prompt and a name that must not be written down."""
    messages = [{"role": "user", "content": PROMPT}]

    async def chat(model: str, key: str = OUR_KEY, wait: int = 0, **more: Any) -> int:
        body = {"model": model, "messages": messages, **more}
        headers = {
            "Authorization": f"Bearer {key}",
            "Prefer": f"wait={wait}",
            "X-Request-Id": "asks-17",
        }
        return int((await service.post("/v1/chat/completions", body, **headers)).status_code)

    assert await chat("tiny-a") == 503
    assert await chat("tiny-a", wait=20) == 200
    assert await chat("tiny-a", stream=True) == 200
    assert await chat("tiny-a", key=WRONG_KEY) == 401
    assert await chat(TYPED) == 404
    assert await chat("tiny-a", sim_die="before") == 503
    assert await chat("tiny-a", wait=20) == 200
    await simulator.fault("load_failure", model="tiny-b", reason="no such\x1b[31m thing\nsecond line")
    assert await chat("tiny-b") == 503


@pytest.fixture
async def guarded(start_service: Any) -> Any:
    """A lemond with a key, a service with another, both given by environment."""
    async with SimulatorProcess(api_key=LEMOND_KEY) as simulator:

        async def start(*arguments: str) -> Any:
            keys = {"LEMONADE_API_KEY": LEMOND_KEY, "LEMOND_ADAPTER_API_KEY": OUR_KEY}
            service = await start_service("--lemond", simulator.url, *arguments, environment=keys)
            await fault_run(simulator, service)
            assert await service.stop() == 0
            return service.stderr.decode()

        yield start


async def test_json_is_one_object_a_line_with_fixed_keys(guarded: Any) -> None:
    text = await guarded("--log-format", "json", "-v")
    lines = [json.loads(line) for line in text.splitlines()]
    for line in lines:
        assert {"at", "level", "logger", "message"} <= line.keys(), line
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", line["at"])
    told = [line["message"] for line in lines if line["logger"] == "lemond_adapter.events"]
    assert told[0] == "lemond_started"
    assert {"load_started", "model_loaded", "process_crashed", "load_failed"} <= set(told)
    [loaded, *_] = [line for line in lines if line["message"] == "model_loaded"]
    assert loaded["model"] == "tiny-a"
    assert loaded["level"] == "info"
    assert isinstance(loaded["pid"], int)
    answered = [line for line in lines if line["message"] == "request"]
    assert {"served", "slot.loading", "model.not_found"} <= {line["outcome"] for line in answered}
    [streamed] = [line for line in answered if line.get("stream")]
    assert (streamed["model"], streamed["status"], streamed["level"]) == ("tiny-a", 200, "debug")
    assert streamed["request_id"] == "asks-17"
    assert 0 < streamed["ttft_s"] <= streamed["duration_s"]
    refused = [line for line in answered if line["outcome"] == "slot.loading"]
    assert all(line["level"] == "info" and line["retry_after_s"] > 0 for line in refused)
    foreign = [line for line in lines if not line["logger"].startswith("lemond_adapter.")]
    assert not foreign


@pytest.mark.parametrize("log_format", ["json", "console"])
async def test_no_key_body_or_typed_name_is_written(guarded: Any, log_format: str) -> None:
    text = await guarded("--log-format", log_format, "-v")
    assert "model_loaded" in text
    for canary in (LEMOND_KEY, OUR_KEY, WRONG_KEY, PROMPT, TYPED, "bank account"):
        assert canary not in text
    assert "canary" not in text


async def test_for_people_it_is_one_printable_line_an_event(guarded: Any) -> None:
    text = await guarded("--log-format", "console")
    assert "\x1b" not in text, "no colours into a pipe, and no escapes of lemond's"
    for line in text.splitlines():
        assert re.match(r"\d{4}-\d\d-\d\dT[\d:.]+Z \[(info|warning|error) +\] \S", line), line
    assert "outcome=served" not in text, "what went well is told by --verbose only"


@pytest.mark.parametrize(("ours", "expected"), [(True, "{"), (False, "2")])
async def test_under_systemd_it_is_json(simulator: SimulatorProcess, ours: bool, expected: str) -> None:
    reading, writing = os.pipe()
    found = os.fstat(writing)
    inode = found.st_ino if ours else found.st_ino + 1
    command = [sys.executable, "-m", "lemond_adapter", "serve", "--listen", "127.0.0.1:0"]
    process = subprocess.Popen(
        [*command, "--lemond", simulator.url],
        stdout=subprocess.PIPE,
        stderr=writing,
        env={**os.environ, "JOURNAL_STREAM": f"{found.st_dev}:{inode}"},
    )
    os.close(writing)
    assert process.stdout is not None
    assert (await asyncio.to_thread(process.stdout.readline)).startswith(b"ready: ")
    process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(process.wait, 20) == 0
    process.stdout.close()
    said = os.read(reading, 65_536).decode()
    os.close(reading)
    assert said.startswith(expected)


async def test_a_log_that_nobody_reads_holds_up_nothing(simulator: SimulatorProcess) -> None:
    """A pipe takes 64 KiB; then whoever writes to it waits, for ever."""
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "lemond_adapter", "serve", "--listen", "127.0.0.1:0", "-v"]
    process = subprocess.Popen([*command, "--lemond", simulator.url], stdout=subprocess.PIPE, stderr=writing)
    os.close(writing)
    assert process.stdout is not None
    url = (await asyncio.to_thread(process.stdout.readline)).split()[1].decode()
    lines = 1500  # of about 150 bytes each
    async with httpx.AsyncClient(trust_env=False, timeout=5.0) as client:
        for _ in range(lines):
            answer = await client.post(f"{url}/v1/chat/completions", json={"model": "nobody-knows"})
            assert answer.status_code == 404
        assert (await client.get(f"{url}/healthz")).status_code == 200
    process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(process.wait, 20) == 0, "nor its end"
    process.stdout.close()
    with os.fdopen(reading, "rb") as said:
        text = said.read()
    assert 50_000 < len(text) < lines * 100, "the pipe was full"


def test_a_line_is_whole_although_the_pipe_does_not_block() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    record = logging.makeLogRecord({"msg": "x" * 300_000})
    with os.fdopen(writing, "w") as stream:
        writer = threading.Thread(target=logs.LineWriter(stream).emit, args=(record,))
        writer.start()
        found = 0
        while found < 300_001:
            assert select.select([reading], [], [], 5.0)[0], f"only {found} bytes came"
            found += len(os.read(reading, 65_536))
        writer.join(20)
    assert os.read(reading, 10) == b""
    os.close(reading)


@pytest.fixture
def written() -> Iterator[Callable[[], str]]:
    """Logging into a string, put back afterwards; gives what was written."""
    root, text = logging.getLogger(), io.StringIO()
    handlers, level = root.handlers, root.level
    finish = logs.configure("json", verbose=True, secrets=["s3cret-key", "abc"], stream=text)

    def all_of_it() -> str:
        finish()
        return text.getvalue()

    yield all_of_it
    logging.captureWarnings(False)
    root.handlers = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def test_a_key_that_turns_up_in_a_text_is_blotted_out(written: Callable[[], str]) -> None:
    logging.getLogger("lemond_adapter.truth").warning("lemond says: bad key %s (abc)", "s3cret-key")
    try:
        raise ValueError("quoting s3cret-key")
    except ValueError:
        logging.getLogger("lemond_adapter.truth").exception("failed")
    first, second = map(json.loads, written().splitlines())
    assert first["message"] == "lemond says: bad key [key] (abc)", "words of three letters are no keys"
    assert "quoting [key]" in second["exception"]
    assert "s3cret" not in written()


def test_the_constraints_name_the_logger() -> None:
    pinned = (Path(__file__).parents[2] / "constraints.txt").read_text()
    assert f"structlog=={structlog.__version__}\n" in pinned

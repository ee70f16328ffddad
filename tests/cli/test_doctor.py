"""doctor names each trouble that lemond can have, and what to do about it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lemond_adapter.simulator import SimulatorProcess

KEYS = ["check", "grade", "what", "evidence", "consequence", "fix"]


async def doctor(*arguments: str, **environment: str) -> tuple[int, str]:
    """Exit status and output of a doctor without keys but those given."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("LEMONADE_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "lemond_adapter", "doctor", *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**kept, **environment},
    )
    async with asyncio.timeout(60):
        said, complained = await process.communicate()
    assert complained == b"", complained.decode()
    assert process.returncode is not None
    return process.returncode, said.decode()


Prepare = Callable[[SimulatorProcess], Awaitable[Any]]


async def nothing(simulator: SimulatorProcess) -> None:
    """No trouble beyond how the simulator was started."""


def fault(name: str, **parameters: Any) -> Prepare:
    return lambda simulator: simulator.fault(name, **parameters)


def loaded_then(name: str, **parameters: Any) -> Prepare:
    async def prepare(simulator: SimulatorProcess) -> None:
        await simulator.load("tiny-a")
        await simulator.fault(name, **parameters)

    return prepare


def health(**change: Any) -> Prepare:
    """Health tells of a loaded model that is not quite as it is."""

    async def prepare(simulator: SimulatorProcess) -> None:
        await simulator.load("tiny-a")
        body = await simulator.health()
        body["all_models_loaded"][0].update(change)
        await simulator.fault("health_body", body=json.dumps(body))

    return prepare


async def squatted(simulator: SimulatorProcess) -> None:
    """lemond lists a port on which another program listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    await simulator.fault("port_squat", port=port)
    await health(backend_url=f"http://127.0.0.1:{port}/v1")(simulator)


async def quiet_load(simulator: SimulatorProcess) -> None:
    """The level cannot be read anywhere, and the load leaves no line."""
    await simulator.fault("config", log_level="warning")
    await simulator.fault("hide_config")
    await simulator.load("tiny-a")


CLOSED = "http://127.0.0.1:1/v1"


@dataclass(frozen=True)
class Case:
    """A trouble, and the finding it must give: `grade` and words of `what`, `evidence` and `fix`."""

    name: str
    check: str
    grade: str
    what: str
    evidence: str
    fix: str
    prepare: Prepare = nothing
    release: str = "10.7.0"
    key: str | None = None
    arguments: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)


CASES = [
    Case("hang", "reachable", "problem", "answers nothing", "silent", "restart", fault("hang", seconds=60)),
    Case(
        "health blocks",
        "reachable",
        "problem",
        "its health does not answer",
        "silent",
        "eviction",
        fault("health_hang", seconds=60),
    ),
    Case(
        "another server",
        "reachable",
        "problem",
        "not lemond",
        "text/html",
        "--lemond",
        fault("health_body", body="<html>", content_type="text/html"),
    ),
    Case("no key", "auth", "problem", "none was given", "API key", "LEMONADE_API_KEY", key="k-1"),
    Case(
        "wrong key",
        "auth",
        "problem",
        "refuses the key",
        "API key",
        "conf.d",
        key="k-1",
        environment={"LEMONADE_API_KEY": "k-2-canary"},
    ),
    Case(
        "ollama",
        "version",
        "warning",
        "no usable version",
        "Ollama",
        "not Ollama",
        fault("health_keys", version="0.16.1"),
    ),
    Case(
        "new release",
        "driver",
        "warning",
        "nearest",
        "2026.47.1",
        "driver wheel",
        fault("health_keys", version="2026.47.1"),
    ),
    Case(
        "drift",
        "drift",
        "warning",
        "not known to the driver",
        "surprise_key",
        "capture",
        fault("health_keys", surprise_key=1),
    ),
    Case(
        "no websocket",
        "log stream",
        "warning",
        "no websocket_port",
        "did not start",
        "config.json",
        fault("health_keys", websocket_port=None),
    ),
    Case(
        "websocket blocked",
        "log stream",
        "problem",
        "blocked",
        "127.0.0.1:1/logs/stream: Connect call failed",
        "firewall",
        fault("health_keys", websocket_port=1),
    ),
    Case(
        "websocket refused",
        "log stream",
        "problem",
        "is refused",
        "ws://",
        "LEMONADE_API_KEY",
        fault("ws_refuse"),
    ),
    Case(
        "log level",
        "log level",
        "warning",
        "warning",
        "/internal/config",
        '"log_level": "info"',
        fault("config", log_level="warning"),
    ),
    Case(
        "log level by what is missing",
        "log level",
        "warning",
        "says nothing of it",
        "tiny-a",
        '"log_level": "info"',
        quiet_load,
    ),
    Case(
        "dead child",
        "children",
        "warning",
        "process is dead",
        "tiny-a",
        "unloads it",
        loaded_then("crash", model="tiny-a"),
    ),
    Case(
        "other network namespace",
        "children",
        "problem",
        "not reachable from here",
        "port 1",
        "network_mode",
        health(backend_url=CLOSED, pid=4_194_303),
    ),
    Case(
        "other pid namespace",
        "processes",
        "warning",
        "not visible",
        "4194303",
        "pid namespace",
        health(pid=4_194_303),
    ),
    Case("squatter", "identity", "problem", "another process", "tiny-a", "ss -ltnp", squatted),
    Case(
        "two lemonds", "one lemond", "problem", "two lemonds", "alternate", "stop one", fault("second_lemond")
    ),
    Case(
        "lemond evicts by itself",
        "settings",
        "warning",
        "evicts idle models itself",
        "auto_evict = true",
        '"auto_evict": false',
        fault("config", auto_evict=True),
        release="10.8.1",
    ),
    Case(
        "a model loaded with eviction",
        "settings",
        "warning",
        "own idle eviction",
        "tiny-a",
        "without auto_evict",
        health(recipe_options={"auto_evict": True}),
        release="10.8.1",
    ),
    Case(
        "settings hidden",
        "settings",
        "warning",
        "cannot be read",
        "/v1/params",
        "LEMONADE_ADMIN_API_KEY",
        fault("hide_config"),
        release="10.8.1",
    ),
    Case(
        "watchdog off",
        "settings",
        "warning",
        "watchdog is switched off",
        "watchdog disabled",
        "LEMONADE_BACKEND_WATCHDOG",
        fault("log", tag="BackendWatchdog", text="llama-server watchdog disabled"),
        release="10.8.1",
    ),
    Case(
        "too few places",
        "settings",
        "warning",
        "fewer models than there are slots",
        "llm: 5 slots, limit 4",
        "max_loaded_models",
        arguments=("--config", "five.toml"),
    ),
    Case(
        "a slot for nothing",
        "slots",
        "problem",
        "does not have",
        "chat: 'tiny-zzz'",
        "/v1/models",
        arguments=("--config", "typo.toml"),
    ),
    Case("clock", "clock", "warning", "clock is +", "log says", "timedatectl", fault("clock", seconds=400)),
]

FIVE = "".join(f'[slots.s{n}]\nmodel = "tiny-a"\n' for n in range(5))
TYPO = '[slots.chat]\nmodel = "tiny-zzz"\n'


def parameters() -> list[Any]:
    """Those that wait for a silent lemond take their time."""
    slow = {"hang", "health blocks"}
    return [
        pytest.param(case, id=case.name.replace(" ", "-"), marks=[pytest.mark.slow] * (case.name in slow))
        for case in CASES
    ]


@pytest.mark.parametrize("case", parameters())
async def test_each_trouble_is_named_with_what_to_do(case: Case, tmp_path: Path) -> None:
    (tmp_path / "five.toml").write_text(FIVE)
    (tmp_path / "typo.toml").write_text(TYPO)
    arguments = [str(tmp_path / text) if text.endswith(".toml") else text for text in case.arguments]
    async with SimulatorProcess(case.release, api_key=case.key) as simulator:
        await case.prepare(simulator)
        code, text = await doctor("--lemond", simulator.url, "--json", *arguments, **case.environment)
    findings = json.loads(text)
    assert all(list(finding) == KEYS for finding in findings)
    [found] = [f for f in findings if f["check"] == case.check and f["grade"] != "ok"]
    assert found["grade"] == case.grade, found
    assert case.what in found["what"], found
    assert case.evidence in found["evidence"], found
    assert case.fix in found["fix"], found
    assert found["consequence"]
    assert code == any(f["grade"] == "problem" for f in findings)
    for secret in case.environment.values():
        assert secret not in text


async def test_threads_taken_by_others_are_counted(simulator: SimulatorProcess) -> None:
    port = int(simulator.url.rpartition(":")[2])
    with contextlib.ExitStack() as stack:
        for _ in range(7):
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        code, text = await doctor("--lemond", simulator.url, "--json")
    [found] = [f for f in json.loads(text) if f["check"] == "threads"]
    assert (code, found["grade"]) == (0, "warning")
    assert "8 connections at a time" in found["what"]
    assert found["fix"]


def own_address() -> str | None:
    """An address of this host that is not its loopback; nothing is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.254", 9))
        except OSError:
            return None
        found = str(probe.getsockname()[0])
    return None if found.startswith("127.") else found


async def test_children_of_another_host_are_out_of_reach() -> None:
    address = own_address()
    if address is None:
        pytest.skip("this host has no address but its loopback")
    async with SimulatorProcess(extra_args=["--listen", f"{address}:0"]) as simulator:
        url = simulator.url.replace("127.0.0.1", address)
        code, text = await doctor("--lemond", url, "--json")
    found = {finding["check"]: finding for finding in json.loads(text) if finding["grade"] != "ok"}
    assert code == 0, "it works, through lemond"
    assert found.keys() == {"children", "processes"}
    assert "not reachable from here" in found["children"]["what"]
    assert "goes through lemond" in found["children"]["consequence"]
    assert "on lemond's host" in found["processes"]["fix"]


async def test_all_is_well_with_a_loaded_model(simulator: SimulatorProcess) -> None:
    await simulator.load("tiny-a")
    code, text = await doctor("--lemond", simulator.url, "--json")
    findings = json.loads(text)
    assert code == 0
    assert {f["grade"] for f in findings} == {"ok"}, findings
    assert [f["check"] for f in findings] == [
        *("reachable", "auth", "one lemond", "version", "driver", "drift", "log stream", "log level"),
        *("children", "identity", "processes", "settings", "threads", "clock"),
    ]
    before = (await simulator.health())["all_models_loaded"]
    assert [entry["model_name"] for entry in before] == ["tiny-a"], "looking changes nothing"


async def test_for_people_it_says_what_was_seen_what_follows_and_what_to_do() -> None:
    code, text = await doctor("--lemond", "http://127.0.0.1:1")
    assert code == 1
    assert "problem  reachable: nothing answers at http://127.0.0.1:1" in text
    for label in ("seen: ", "so:   ", "do:   start lemond"):
        assert label in text
    assert "\x1b" not in text, "no colours into a pipe"


async def test_hostile_names_do_not_steer_the_terminal(simulator: SimulatorProcess) -> None:
    await health(model_name="\x1b[2Jevil", pid=4_194_303)(simulator)
    _, text = await doctor("--lemond", simulator.url)
    assert "evil" in text
    assert "\x1b" not in text

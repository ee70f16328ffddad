"""The command line, as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lemond_adapter.simulator import SimulatorProcess

CORPUS = Path(__file__).parents[2] / "corpus" / "10.7.0"
COMMANDS = ("serve", "events", "slots", "doctor", "drivers", "replay", "simulate", "capture")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lemond_adapter", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command: str) -> None:
    done = run(command, "--help")
    assert done.returncode == 0
    assert f"Example: lemond-adapter {command}" in " ".join(done.stdout.split())


@pytest.mark.parametrize(
    ("arguments", "status", "expected"),
    [
        (["nonsense"], 2, "nonsense"),
        (["serve", "--bogus"], 2, "--bogus"),
        (["serve", "--listen", "nowhere"], 2, "HOST:PORT"),
        (["serve", "--lemond", "ftp://x"], 1, "not an http URL"),
        (["serve", "--config", "missing.toml"], 1, "missing.toml"),
        (["serve", "--listen", "0.0.0.0:0"], 1, "--insecure"),
        (["events", "--url", "http://127.0.0.1:1"], 1, "no service at"),
        (["slots", "--url", "http://127.0.0.1:1"], 1, "no service at"),
        (["replay", "missing.jsonl"], 1, "missing.jsonl"),
        (["replay", str(CORPUS / "crash.info.jsonl"), "--driver", "none"], 1, "no driver is called"),
    ],
)
def test_errors_are_one_line(arguments: list[str], status: int, expected: str) -> None:
    done = run(*arguments)
    assert done.returncode == status
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("lemond-adapter: ")
    assert expected in done.stderr


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[lemond]\nurll = 'x'\n", "lemond.urll: unknown key; known here: url"),
        ("[listen]\nport = 'x'\n", "listen.port"),
        ("[slots.primary]\n", "slots.primary.model"),
        ("[slots.primary]\nmodel = ''\n", "a model name"),
        ("nonsense", "not TOML"),
        ('[slots.a]\nmodel="x"\naliases=["b"]\n[slots.b]\nmodel="y"\n', "already taken"),
    ],
)
def test_bad_configuration_names_file_and_key(tmp_path: Path, text: str, expected: str) -> None:
    file = tmp_path / "adapter.toml"
    file.write_text(text)
    done = run("serve", "--config", str(file), "--check")
    assert done.returncode == 1, done.stdout
    assert expected in done.stderr
    assert done.stderr.count("\n") == 1


def test_check_accepts_hal0s_slot(tmp_path: Path) -> None:
    file = tmp_path / "adapter.toml"
    file.write_text(
        "[slots.primary]\nname = 'primary'\ntype = 'llm'\nbackend = 'vulkan'\nport = 8001\nenabled = true\n"
        "model = { default = 'Qwen3-8B-GGUF', context_size = 8192 }\nserver = { extra_args = '-fa on' }\n"
    )
    assert run("serve", "--config", str(file), "--check").returncode == 0


def test_drivers_lists_what_is_installed() -> None:
    rows = json.loads(run("drivers", "--json").stdout)
    assert {"lemond-10.7", "generic"} <= {row["name"] for row in rows}


def test_replay_prints_events() -> None:
    done = run("replay", str(CORPUS / "crash.info.jsonl"), "--json")
    assert done.returncode == 0
    kinds = [json.loads(line)["type"] for line in done.stdout.splitlines()]
    assert "process_crashed" in kinds
    assert done.stderr == ""


def test_replay_names_the_malformed_line(tmp_path: Path) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_text('{"t": 0, "kind": "meta", "lemond": "10.7.0"}\nnot json\n')
    done = run("replay", str(file))
    assert done.returncode == 1
    assert f"{file}:2" in done.stderr


async def test_events_slots_and_doctor_against_a_service(simulator: SimulatorProcess, service: Any) -> None:
    await service.loaded("tiny-a")
    rows = json.loads(run("slots", "--url", service.url, "--json").stdout)
    assert [row["name"] for row in rows] == ["tiny-a"]
    assert "tiny-a" in run("slots", "--url", service.url).stdout
    follower = subprocess.Popen(
        [sys.executable, "-m", "lemond_adapter", "events", "--url", service.url, "--json", "--since", "0"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert follower.stdout is not None
    seen = [json.loads(follower.stdout.readline()) for _ in range(3)]
    follower.terminate()
    follower.wait()
    assert [event["seq"] for event in seen] == [1, 2, 3]
    behind = subprocess.Popen(
        [sys.executable, "-m", "lemond_adapter", "events", "--url", service.url, "--json", "--since", "999"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert behind.stdout is not None
    gap = json.loads(behind.stdout.readline())
    behind.terminate()
    behind.wait()
    assert (gap["type"], gap["reason"]) == ("resynced", "gap")
    healthy = run("doctor", "--lemond", simulator.url, "--json")
    assert healthy.returncode == 0, healthy.stdout
    assert {finding["grade"] for finding in json.loads(healthy.stdout)} == {"ok"}
    absent = run("doctor", "--lemond", "http://127.0.0.1:1")
    assert absent.returncode == 1
    assert "start lemond" in absent.stdout

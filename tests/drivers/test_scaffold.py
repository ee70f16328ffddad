"""`drivers new`: from nothing to a driver that its corpus locks, without an edit in the core."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CAPTURES = ROOT / "corpus" / "11.7.0"


def scaffold(folder: Path, line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lemond_adapter", "drivers", "new", line, "--output", str(folder)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def conformance(driver: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "--rootdir",
            driver,
            driver / "tests",
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=driver,
        env={**os.environ, "PYTHONPATH": str(driver / "src")},
    )


def with_captures(driver: Path, *, changed: bool) -> None:
    """The newest captures, as they are or with a line that no release prints."""
    target = driver / "corpus" / "11.7.0"
    shutil.copytree(CAPTURES, target)
    if changed:
        for path in target.glob("*.jsonl"):
            text = path.read_text(encoding="utf-8")
            text = text.replace("Evicting model: ", "Removing model from memory: ")
            path.write_text(text, encoding="utf-8")


def test_an_empty_driver_passes_its_empty_run(tmp_path: Path) -> None:
    assert scaffold(tmp_path, "11.9").returncode == 0
    done = conformance(tmp_path / "lemond_11_9")
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_the_newest_release_as_if_it_were_new(tmp_path: Path) -> None:
    assert scaffold(tmp_path, "11.7").returncode == 0
    driver = tmp_path / "lemond_11_7"
    with_captures(driver, changed=False)
    done = conformance(driver)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_a_changed_line_fails_until_the_driver_knows_it(tmp_path: Path) -> None:
    assert scaffold(tmp_path, "11.7").returncode == 0
    driver = tmp_path / "lemond_11_7"
    with_captures(driver, changed=True)
    done = conformance(driver)
    assert done.returncode == 1
    assert "Removing model from memory" in done.stdout
    module = driver / "src" / "lemond_driver_11_7" / "__init__.py"
    text = module.read_text()
    text = text.replace(
        "NEW_LINES: tuple[LogRule, ...] = ()",
        "NEW_LINES: tuple[LogRule, ...] = (\n"
        '    log_rule(SignalKind.EVICTING, r"^Removing model from memory: (?P<model>\\S+)$"),\n)',
    ).replace("    LogRule,\n", "    LogRule,\n    SignalKind,\n    log_rule,\n")
    module.write_text(text)
    done = conformance(driver)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("line", ["", "11", "11.x", "11.7.0", "../evil"])
def test_bad_lines_are_refused(tmp_path: Path, line: str) -> None:
    done = scaffold(tmp_path, line)
    assert done.returncode == 1
    assert "release line" in done.stderr
    assert not list(tmp_path.iterdir())


def test_an_existing_folder_is_left_alone(tmp_path: Path) -> None:
    assert scaffold(tmp_path, "11.9").returncode == 0
    done = scaffold(tmp_path, "11.9")
    assert done.returncode == 1
    assert "exists already" in done.stderr

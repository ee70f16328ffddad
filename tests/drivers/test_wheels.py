"""Driver wheels as an operator has them: built, installed into a running environment, removed."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DRIVERS = sorted(path.parent for path in (ROOT / "drivers").glob("*/pyproject.toml"))


def run(*command: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=300, check=False, cwd=cwd
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every wheel of the workspace, by project folder."""
    built = {}
    for project in (ROOT / "core", *DRIVERS):
        output = tmp_path_factory.mktemp(project.name)
        run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", output, project)
        [built[project.name]] = output.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory, wheels: dict[str, Path]) -> Path:
    """A fresh virtual environment with the core in it, and no driver."""
    folder = tmp_path_factory.mktemp("fresh")
    run(sys.executable, "-m", "venv", folder)
    interpreter = folder / "bin" / "python"
    pip(interpreter, "install", "-c", ROOT / "constraints.txt", f"{wheels['core']}[serve]")
    return interpreter


def pip(interpreter: Path, *arguments: str | Path) -> str:
    return run(interpreter, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments)


def installed(interpreter: Path) -> set[str]:
    rows = json.loads(run(interpreter, "-m", "lemond_adapter", "drivers", "--json"))
    assert not [row for row in rows if "error" in row]
    return {row["name"] for row in rows}


def ready_line(interpreter: Path, release: str) -> str:
    """What `serve` says in front of a simulated lemond of that release."""
    process = subprocess.Popen(
        [interpreter, "-m", "lemond_adapter", "serve", "--simulate", release, "--listen", "127.0.0.1:0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    process.terminate()
    process.communicate(timeout=30)
    return line


@pytest.mark.slow
def test_installing_a_wheel_is_all_it_takes(python: Path, wheels: dict[str, Path]) -> None:
    assert installed(python) == {"generic"}
    assert ready_line(python, "10.7.0").endswith("lemond=10.7.0 driver=generic")
    pip(python, "install", "--no-deps", wheels["lemond_10_7"])
    assert installed(python) == {"generic", "lemond-10.7"}
    assert ready_line(python, "10.7.0").endswith("lemond=10.7.0 driver=lemond-10.7")
    pip(python, "uninstall", "-y", "lemond-driver-10-7")
    assert ready_line(python, "10.7.0").endswith("lemond=10.7.0 driver=generic")


@pytest.mark.slow
def test_all_wheels_together_are_sound(python: Path, wheels: dict[str, Path]) -> None:
    pip(python, "install", "--no-deps", *(wheels[project.name] for project in DRIVERS))
    run(python, "-m", "pip", "check")
    names = {f"lemond-{line}" for line in ("10.5", "10.6", "10.7", "10.8", "11.0", "11.5", "11.6")}
    assert installed(python) == {"generic", "native-ws", *names}
    names = {project.name.removeprefix("lemond_").replace("_", "-") for project in DRIVERS}
    pip(python, "uninstall", "-y", *(f"lemond-driver-{name}" for name in names))


@pytest.mark.slow
def test_wheels_hold_their_minimum(wheels: dict[str, Path]) -> None:
    for project, wheel in wheels.items():
        names = zipfile.ZipFile(wheel).namelist()
        assert [name for name in names if name.endswith("py.typed")], project
        assert not [name for name in names if "corpus" in name or "/tests/" in name], project
        if project != "core":
            assert wheel.stat().st_size < 40_000, (project, wheel.stat().st_size)


@pytest.mark.slow
def test_the_core_alone_needs_no_service(python: Path, tmp_path: Path, wheels: dict[str, Path]) -> None:
    """Without the extra the package imports, and the command line says what it needs."""
    run(sys.executable, "-m", "venv", tmp_path / "bare")
    bare = tmp_path / "bare" / "bin" / "python"
    pip(bare, "install", "-c", ROOT / "constraints.txt", wheels["core"])
    run(bare, "-c", "import lemond_adapter; lemond_adapter.LemondAdapter('http://127.0.0.1:1')")
    done = subprocess.run(
        [bare, "-m", "lemond_adapter", "serve"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "lemond-adapter[serve]" in done.stderr

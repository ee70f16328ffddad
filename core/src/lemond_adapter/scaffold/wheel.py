"""Writes the files of a new driver wheel."""

from __future__ import annotations

import re
from pathlib import Path
from string import Template

from lemond_adapter.drivers import Driver, installed_drivers, select_driver
from lemond_adapter.types import ConfigError

_LINE = re.compile(r"^(\d{1,4})\.(\d{1,3})$")

PYPROJECT = Template("""[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "lemond-driver-$dash"
version = "0.1.0"
description = "lemond-adapter driver for lemond $line"
readme = "README.md"
requires-python = ">=3.11"
license = "Apache-2.0"
dependencies = ["lemond-adapter"]

[project.entry-points."lemond_adapter.drivers"]
"lemond-$line" = "lemond_driver_$under"

[tool.hatch.build.targets.wheel]
packages = ["src/lemond_driver_$under"]
""")

MODULE = Template('''"""lemond $line: say in one line what changed for a controller.

Say for which releases the rules and traits hold, and from where: source, measurement, recording.
"""

from __future__ import annotations

from collections.abc import Sequence

from packaging.specifiers import SpecifierSet

from lemond_adapter.drivers import (
    DriverInfo,
    HealthListing,
    LogRule,
    Traits,
    hookimpl,
    known_health_keys,
    parse_health,
    phrases_for,
)

# Keys that this line added to health come here, e.g. KEYS | {"new_key"}.
KEYS, ENTRY_KEYS = known_health_keys("$line")

# Lifecycle lines that no older release prints, e.g.
# log_rule(SignalKind.EVICTING, r"^Removing model: (?P<model>\\S+)$$"), with both names imported.
NEW_LINES: tuple[LogRule, ...] = ()


@hookimpl
def lemond_driver() -> DriverInfo:
    return DriverInfo(
        name="lemond-$line",
        serves=SpecifierSet(">=$line,<$next"),
        summary="$summary",
        recorded=(),
    )


@hookimpl
def lemond_traits() -> Traits:
    # As $ancestor has them: check each against the new release.
    return Traits(
$traits    )


@hookimpl
def lemond_parse_health(body: object) -> HealthListing:
    return parse_health(body, known_keys=KEYS, known_entry_keys=ENTRY_KEYS)


@hookimpl
def lemond_log_rules() -> Sequence[LogRule]:
    return (*NEW_LINES, *phrases_for("$line"))
''')

TESTS = Template('''"""The conformance run of this driver."""

from pathlib import Path

import lemond_driver_$under

from lemond_adapter.testing import conformance

CORPUS = Path(__file__).parents[1] / "corpus"
RELEASES = sorted(folder.name for folder in CORPUS.iterdir() if folder.is_dir())

TestConformance = conformance(lemond_driver_$under, corpus=CORPUS, releases=RELEASES)
''')

README = Template("""# lemond-driver-$dash

Reads lemond `>=$line,<$next`.

**Unrecorded**: no corpus locks its rules yet.

What an operator should know of this line:

- (what changed, in their words)
""")


def create_driver(line: str, folder: Path) -> list[Path]:
    """Writes `folder/lemond_<line>`, from what the newest installed driver knows; the files written.

    Raises `ConfigError` when the line is no release line or the folder exists.
    """
    found = _LINE.match(line)
    if found is None:
        raise ConfigError(f"{line!r} is not a release line; expected e.g. 11.9 or 2026.47")
    under, dash = line.replace(".", "_"), line.replace(".", "-")
    root = folder / f"lemond_{under}"
    if root.exists():
        raise ConfigError(f"{root} exists already; remove it, or choose another folder with --output")
    ancestor = _ancestor(line)
    values = {
        "line": line,
        "under": under,
        "dash": dash,
        "next": f"{found[1]}.{int(found[2]) + 1}",
        "ancestor": ancestor.name,
        "summary": f"as {ancestor.name} until its corpus says otherwise",
        "traits": _traits(ancestor),
    }
    package = root / "src" / f"lemond_driver_{under}"
    files = {
        root / "pyproject.toml": PYPROJECT.substitute(values),
        root / "README.md": README.substitute(values),
        root / "tests" / f"test_driver_{under}.py": TESTS.substitute(values),
        root / "corpus" / "README.md": f"# Captures of lemond {line}, a folder a release\n",
        package / "__init__.py": MODULE.substitute(values),
        package / "py.typed": "",
    }
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return list(files)


def _ancestor(line: str) -> Driver:
    return select_driver(f"{line}.0", installed_drivers().drivers).driver


def _traits(driver: Driver) -> str:
    traits = driver.traits
    return "".join(f"        {name}={getattr(traits, name)!r},\n" for name in traits.__dataclass_fields__)

"""Which driver reads which release."""

from __future__ import annotations

import pytest
from packaging.specifiers import SpecifierSet

from lemond_adapter import DriverError, UnsupportedVersion
from lemond_adapter.drivers import (
    DriverInfo,
    build_driver,
    hookimpl,
    installed_drivers,
    parse_release,
    select_driver,
)


def driver(name: str, serves: str) -> object:
    class Plugin:
        @hookimpl
        def lemond_driver(self) -> DriverInfo:
            return DriverInfo(name=name, serves=SpecifierSet(serves))

    return build_driver(Plugin(), name=name)


LINES = [
    driver("lemond-10.7", ">=10.7,<10.8"),
    driver("lemond-10.8", ">=10.8,<11"),
    driver("lemond-11.6", ">=11.6,<11.8"),
]


def test_releases_are_ordered_as_the_contract_says() -> None:
    names = ["10.9.0", "10.10.0", "11.7.0", "2026.47.1"]
    assert sorted(map(parse_release, reversed(names))) == [parse_release(name) for name in names]


@pytest.mark.parametrize(
    ("version", "name", "match"),
    [
        ("10.7.0", "lemond-10.7", "exact"),
        ("10.7.0-rc1", "lemond-10.7", "exact"),
        ("10.10.0", "lemond-10.8", "exact"),
        ("11.0.0", "lemond-10.8", "nearest"),
        ("11.7.0", "lemond-11.6", "exact"),
        ("2026.47.1", "lemond-11.6", "nearest"),
        ("10.6.0", "generic", "generic"),
        ("0.16.1", "generic", "generic"),
        ("banana", "generic", "generic"),
        ("", "generic", "generic"),
        (None, "generic", "generic"),
        (10.7, "generic", "generic"),
        ("1" * 100, "generic", "generic"),
    ],
)
def test_selection(version: object, name: str, match: str) -> None:
    selection = select_driver(version, LINES)  # type: ignore[arg-type]
    assert (selection.driver.name, selection.match) == (name, match)
    assert bool(selection.notes) == (match != "exact")


def test_several_that_match_the_narrowest_wins_and_it_is_said() -> None:
    selection = select_driver("10.7.0", [driver("wide", ">=10,<12"), *LINES])  # type: ignore[list-item]
    assert selection.driver.name == "lemond-10.7"
    assert "wide" in selection.notes[0]


def test_the_installed_driver_is_found() -> None:
    installed = installed_drivers()
    assert "lemond-10.7" in [d.name for d in installed.drivers]
    assert installed.broken == ()


@pytest.mark.parametrize("version", ["0.16.1", "", "x", None, 3])
def test_what_is_no_version_of_lemond_says_so(version: object) -> None:
    with pytest.raises(UnsupportedVersion, match="version"):
        parse_release(version)


def test_a_driver_without_its_required_hook_is_named() -> None:
    with pytest.raises(DriverError, match="empty"):
        build_driver(object(), name="empty")


def test_a_hook_that_raises_is_contained() -> None:
    class Plugin:
        @hookimpl
        def lemond_driver(self) -> DriverInfo:
            return DriverInfo(name="bad", serves=SpecifierSet(">=1"))

        @hookimpl
        def lemond_parse_health(self, body: object) -> None:
            raise ZeroDivisionError

    with pytest.raises(DriverError, match=r"bad.*ZeroDivisionError"):
        build_driver(Plugin(), name="bad").parse_health({})

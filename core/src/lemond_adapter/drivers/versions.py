"""Release strings of lemond, ordered.

`10.9.0 < 10.10.0 < 11.7.0 < 2026.47.1`: lemond is reported to have moved to year.week numbering in
autumn 2026. A pre-release belongs to its line. `0.16.1` is what every release answers on
`/api/version` (a constant for Ollama clients), so it is never a version of lemond.
"""

from __future__ import annotations

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from lemond_adapter.types import UnsupportedVersion

OLLAMA_CONSTANT = "0.16.1"


def parse_release(text: object) -> Version:
    """The version that lemond reported. Raises `UnsupportedVersion` saying what was seen."""
    if not isinstance(text, str) or not text.strip() or len(text) > 64:
        raise UnsupportedVersion(
            f"lemond's health reports no usable version ({text!r:.80}); expected e.g. '10.7.0' or '2026.47.1'"
        )
    if text.strip() == OLLAMA_CONSTANT:
        raise UnsupportedVersion(
            f"{OLLAMA_CONSTANT} is lemond's constant for Ollama clients, not its version; "
            "the server at this URL may be Ollama or another emulation of it"
        )
    try:
        version = Version(text.strip())
    except InvalidVersion:
        raise UnsupportedVersion(
            f"{text!r:.80} is not a version; expected e.g. '10.7.0' or '2026.47.1'"
        ) from None
    return version


def release_of(version: Version) -> Version:
    """The release a version belongs to: `10.7.0rc1` counts as `10.7.0`."""
    return Version(version.base_version)


def serves(specifier: SpecifierSet, version: Version) -> bool:
    """Whether a driver with this specifier serves the version (pre-releases with their line)."""
    return specifier.contains(release_of(version), prereleases=True)


def lower_bound(specifier: SpecifierSet) -> Version:
    """The lowest release a specifier admits; `0` when it has no lower bound."""
    bounds = [
        Version(s.version.removesuffix(".*")) for s in specifier if s.operator in (">=", ">", "==", "~=")
    ]
    return max(bounds, default=Version("0"))


def upper_bound(specifier: SpecifierSet) -> Version | None:
    """The release at which a specifier ends; None when it is open."""
    bounds: list[Version] = []
    for clause in specifier:
        version = Version(clause.version.removesuffix(".*"))
        if clause.operator in ("<", "<="):
            bounds.append(version)
        elif clause.operator in ("==", "~="):
            bounds.append(
                _next_line(version, wildcard=clause.version.endswith(".*") or clause.operator == "~=")
            )
    return min(bounds, default=None)


def width(specifier: SpecifierSet) -> float:
    """How wide a range is, for choosing the narrowest of several; infinite when open."""
    upper = upper_bound(specifier)
    if upper is None:
        return float("inf")
    return _ordinal(upper) - _ordinal(lower_bound(specifier))


def _next_line(version: Version, *, wildcard: bool) -> Version:
    release = list(version.release) if wildcard else [*version.release, 0]
    release[-1] += 1
    return Version(".".join(map(str, release)))


def _ordinal(version: Version) -> float:
    major, minor, micro = (*version.release, 0, 0, 0)[:3]
    return major * 1_000_000.0 + minor * 1_000.0 + micro

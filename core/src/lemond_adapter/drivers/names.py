"""Names: log lines say `extra.tiny-a` or `user.tiny-a` where health says `tiny-a`."""

from __future__ import annotations

from collections.abc import Collection

PREFIXES = ("user.", "extra.", "builtin.")
"""lemond's name spaces in 10.5.0-11.7.0: registered, imported, built in."""


def public_name(canonical: str, listed: Collection[str] = ()) -> str:
    """The public name of a model that a log line names.

    `listed` are names known from health: lemond keeps the prefix there when the bare name belongs to
    another model, and then the prefixed form is the public one.
    """
    if canonical in listed:
        return canonical
    for prefix in PREFIXES:
        if canonical.startswith(prefix) and len(canonical) > len(prefix):
            return canonical[len(prefix) :]
    return canonical

"""Lines made to hurt a pattern: each rule's own words, repeated, with an ending that cannot match."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

from lemond_adapter.drivers import LogRule

_FILLERS = ("a", " ", "a ", ".", "1", "extra.", "because ", "' ", ": ", "(", "/")


def literal_start(rule: LogRule) -> str:
    """The words that a matching line begins with."""
    text = rule.pattern.pattern.removeprefix("^")
    plain = re.match(r"[\w \-'./,=]*(?:\\[.'\-(){}][\w \-'/,=]*)*", text)
    found = (plain[0] if plain else "").replace("\\", "")
    return found or rule.words[0] + " "


def hostile_lines(rule: LogRule, length: int) -> Iterator[str]:
    """Lines of about `length` characters that start as the rule wants and end as it does not."""
    start = literal_start(rule)
    for filler in _FILLERS:
        yield start + filler * (length // len(filler)) + "\x00"


def matching_seconds(rule: LogRule, length: int) -> float:
    """The longest time that one hostile line of this length takes the pattern, best of three."""
    worst = 0.0
    for line in hostile_lines(rule, length):
        best = float("inf")
        for _ in range(3):
            began = time.perf_counter()
            rule.pattern.match(line)
            best = min(best, time.perf_counter() - began)
        worst = max(worst, best)
    return worst

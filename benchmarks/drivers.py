"""Lines a second that each driver's matcher reads, on one core: chatter and lifecycle lines.

Chatter is what children print (most of a real log); lifecycle lines are those of the corpus that a
rule knows. Best of five runs each.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

from common import Row, machine

from lemond_adapter.captures import read_capture
from lemond_adapter.drivers import Driver, installed_drivers

CORPUS = Path(__file__).parents[1] / "corpus"


def lines_of(releases: Sequence[str]) -> tuple[list[str], list[str]]:
    """(chatter, lifecycle) lines of the captures."""
    chatter, lifecycle = [], []
    for path in sorted(CORPUS.glob("*/*.jsonl")):
        if releases and path.parent.name not in releases:
            continue
        for line in read_capture(path).lines:
            if line.kind == "ws":
                frame = line.data["frame"]
                frame = json.loads(frame) if isinstance(frame, str) else frame
                if frame["type"] == "logs.entry":
                    entry = frame["entry"]
                    (chatter if entry["tag"] == "Process" else lifecycle).append(entry["line"])
    return chatter, lifecycle


def speed(driver: Driver, lines: Sequence[str]) -> float:
    repeat = max(1, 100_000 // len(lines))
    best = float("inf")
    match = driver.matcher.match_line
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(repeat):
            for line in lines:
                match(line)
        best = min(best, time.perf_counter() - began)
    return repeat * len(lines) / best


def measure() -> list[Row]:
    rows = []
    for driver in installed_drivers().drivers:
        if driver.info.channel != "log":
            continue
        chatter, all_lines = lines_of(driver.info.recorded)
        lifecycle = [line for line in all_lines if driver.matcher.match_line(line) is not None]
        fast, slow = speed(driver, chatter), speed(driver, lifecycle)
        text = f"{fast:,.0f} chatter, {slow:,.0f} lifecycle lines/s"
        met = fast >= 1_000_000 and slow >= 200_000
        rows.append(Row(f"driver {driver.name}", text, ">= 1,000,000 / 200,000", met))
    return rows


if __name__ == "__main__":
    print(machine())
    for row in measure():
        print(f"{row.what:24} {row.value:60} {row.target}")

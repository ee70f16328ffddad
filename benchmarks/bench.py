"""All benchmarks: one table, and `results.json` beside this file.

`--gateway URL --model NAME` compares with a real lemond's gateway too; `--quick` is for trying it out.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import time
from pathlib import Path
from urllib.parse import urlsplit

import latency
import lookups
import scale
import streams
from common import MODEL, Row, Target, machine

import drivers
import relay

RESULTS = Path(__file__).with_name("results.json")


PARTS = ("relay", "streams", "scale", "latency", "lookups", "drivers")


async def run(args: argparse.Namespace) -> list[Row]:
    quick, only = args.quick, args.only
    lemond = Target("lemond's gateway", urlsplit(args.gateway).port or 80, 0) if args.gateway else None
    rows: list[Row] = []
    if "relay" in only:
        rows += await relay.measure(1 if quick else 4, 1 if quick else 2, lemond, args.model)
    if "streams" in only:
        rows += await streams.measure(1 if quick else 4)
    if "scale" in only:
        rows += await scale.measure(2 if quick else 10, 5 if quick else 60)
    if "latency" in only:
        rows += await latency.measure(5 if quick else 50)
    if "lookups" in only:
        rows += await lookups.measure(1 if quick else 7)
    if "drivers" in only:
        rows += drivers.measure()
    return rows


def table(rows: list[Row]) -> str:
    lines = ["| what | measured | target | met |", "| --- | --- | --- | --- |"]
    mark = {True: "yes", False: "no", None: ""}
    lines += [f"| {row.what} | {row.value} | {row.target} | {mark[row.met]} |" for row in rows]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gateway", help="a lemond's URL")
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, default=PARTS, help="these; the others' rows stay"
    )
    args = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536), hard))
    rows = asyncio.run(run(args))
    day = time.strftime("%Y-%m-%d", time.gmtime())
    print(f"{day}, {machine()}\n\n{table(rows)}")
    found = {row.what: row.json() for row in rows}
    if len(args.only) < len(PARTS) and RESULTS.exists():
        before = {row["what"]: row for row in json.loads(RESULTS.read_text())["rows"]}
        found = {**before, **found}
    told = {"date": day, "machine": machine(), "rows": list(found.values())}
    RESULTS.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()

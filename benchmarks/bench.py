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


async def run(args: argparse.Namespace) -> list[Row]:
    quick = args.quick
    lemond = Target("lemond's gateway", urlsplit(args.gateway).port or 80, 0) if args.gateway else None
    rows = await relay.measure(1 if quick else 4, 1 if quick else 2, lemond, args.model)
    rows += await streams.measure(1 if quick else 4)
    rows += await scale.measure(2 if quick else 10, 5 if quick else 60)
    rows += await latency.measure(5 if quick else 50)
    rows += await lookups.measure(1 if quick else 7)
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
    args = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536), hard))
    rows = asyncio.run(run(args))
    day = time.strftime("%Y-%m-%d", time.gmtime())
    print(f"{day}, {machine()}\n\n{table(rows)}")
    told = {"date": day, "machine": machine(), "rows": [row.json() for row in rows]}
    RESULTS.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()

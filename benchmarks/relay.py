"""A short request through us, nginx, haproxy, and an ASGI application over httpx: latency and throughput.

One model server for all, runs interleaved, medians, ratios to nginx. `--gateway URL --model NAME` adds a
real lemond's own gateway.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from common import MODEL, Row, Target, cpu_s, machine, median, model_server, peers, service

LUA = """
wrk.method = "POST"
wrk.body = [[{body}]]
wrk.headers["Content-Type"] = "application/json"
wrk.path = "/v1/embeddings"
"""
_UNITS = {"us": 1.0, "ms": 1000.0, "s": 1_000_000.0}


async def wrk(port: int, connections: int, seconds: int, script: Path) -> tuple[float, float]:
    """(median latency in microseconds, requests a second)."""
    running = await asyncio.create_subprocess_exec(
        *("wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(script)),
        f"http://127.0.0.1:{port}/",
        stdout=asyncio.subprocess.PIPE,
    )
    text = (await running.communicate())[0].decode()
    if "Non-2xx" in text or "Socket errors" in text:
        raise RuntimeError(f"port {port}: {text}")
    half = re.search(r"50%\s+([\d.]+)(us|ms|s)", text)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    if half is None or rate is None:
        raise RuntimeError(f"wrk said: {text}")
    return float(half[1]) * _UNITS[half[2]], float(rate[1])


async def measure(
    rounds: int = 5, seconds: int = 2, gateway: Target | None = None, model: str = MODEL
) -> list[Row]:
    if shutil.which("wrk") is None:
        return [Row("short requests", "wrk is not installed: apt-get install wrk")]
    wanted = ("nginx", "haproxy", "uvicorn + httpx")
    latency: dict[str, list[float]] = {}
    rate: dict[str, list[float]] = {}
    cpu: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "post.lua"
        script.write_text(LUA.format(body=json.dumps({"model": model, "input": "a short text to embed"})))
        async with model_server() as stub, service(stub) as ours, peers(stub, wanted) as others:
            targets = [stub, ours, *(t for t in others.values() if t is not None)]
            if gateway is not None:
                targets.append(gateway)
            for target in targets:
                await wrk(target.port, 4, 1, script)
            for _ in range(rounds):
                for target in targets:
                    took, _ = await wrk(target.port, 1, seconds, script)
                    latency.setdefault(target.name, []).append(took)
                for target in targets:
                    before = cpu_s(target.pid) if target.pid else 0.0
                    _, got = await wrk(target.port, 32, seconds, script)
                    rate.setdefault(target.name, []).append(got)
                    spent = cpu_s(target.pid) - before if target.pid else 0.0
                    cpu.setdefault(target.name, []).append(spent / (got * seconds) * 1e6)
            missing = [name for name, target in others.items() if target is None]
    return rows(latency, rate, cpu, missing)


def rows(
    latency: Mapping[str, list[float]],
    rate: Mapping[str, list[float]],
    cpu: Mapping[str, list[float]],
    missing: list[str],
) -> list[Row]:
    found = []
    p50 = {name: median(values) for name, values in latency.items()}
    rps = {name: median(values) for name, values in rate.items()}
    for name in p50:
        ours = name == "lemond-adapter"
        detail = {"p50_us": latency[name], "requests_s": rate[name]}
        text = f"p50 {p50[name]:.0f} us"
        if "nginx" in p50 and name != "nginx":
            text += f" = {p50[name] / p50['nginx']:.2f}x nginx"
        met = p50[name] <= 1.25 * p50["nginx"] if ours and "nginx" in p50 else None
        found.append(
            Row(f"short request, 1 connection: {name}", text, "<= 1.25x nginx" if ours else "", met, detail)
        )
    for name in rps:
        ours = name == "lemond-adapter"
        text = f"{rps[name]:,.0f} requests/s, {median(cpu[name]):.0f} us CPU each"
        if "nginx" in rps and name != "nginx":
            text += f"; {rps[name] / rps['nginx']:.2f}x nginx"
        met = rps[name] >= 0.6 * rps["nginx"] if ours and "nginx" in rps else None
        found.append(
            Row(f"short request, 32 connections: {name}", text, ">= 0.6x nginx" if ours else "", met)
        )
    if "lemond's gateway" in p50:
        added = p50["lemond's gateway"] - p50["direct"]
        mine = p50["lemond-adapter"] - p50["direct"]
        text = f"{mine:.0f} us against {added:.0f} us: 1/{added / mine:.0f}"
        found.append(Row("added to a call, against lemond's gateway", text, "<= 1/50", mine * 50 <= added))
    found += [Row(f"short request: {name}", "not installed") for name in missing]
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--gateway", help="a lemond's URL")
    parser.add_argument("--model", default=MODEL)
    args = parser.parse_args()
    lemond = Target("lemond's gateway", urlsplit(args.gateway).port or 80, 0) if args.gateway else None
    print(machine())
    for row in asyncio.run(measure(args.rounds, args.seconds, lemond, args.model)):
        print(f"{row.what:50} {row.value:40} {row.target}")

"""Faults by name: what goes wrong with real lemonds, on demand."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Any

from lemond_adapter.simulator.children import SimChild, healthy
from lemond_adapter.simulator.daemon import Daemon, Faults


class BadFault(Exception):
    """No such fault, or parameters that do not fit."""


# What `NAME=VALUE` on the command line means, where VALUE is not a JSON object.
_MAIN_PARAMETER = {
    "hang": "seconds",
    "health_hang": "seconds",
    "slow_health": "ms",
    "health_body": "body",
    "load_failure": "model",
    "clock": "seconds",
    "port_squat": "port",
    "ws_gap": "count",
    "ws_silence": "seconds",
}


def fault_parameters(name: str, value: str) -> dict[str, Any]:
    """The parameters of a fault given on the command line."""
    if value.startswith("{"):
        given: dict[str, Any] = json.loads(value)
        return given
    return {_MAIN_PARAMETER.get(name, "model"): value} if value else {}


async def apply_fault(daemon: Daemon, body: dict[str, Any]) -> dict[str, Any]:
    """Carries out one fault; the answer says what was done."""
    name = body.get("name")
    fault = FAULTS.get(str(name))
    if fault is None:
        raise BadFault(f"no fault {name!r}; known: {', '.join(sorted(FAULTS))}")
    return await fault(daemon, body) or {}


def _child(daemon: Daemon, body: dict[str, Any]) -> SimChild:
    model = daemon.router.find(str(body.get("model")))
    child = daemon.router.child_of(model) if model else None
    if child is None:
        raise BadFault(f"model {body.get('model')!r} is not loaded")
    return child


def _until(seconds: object, now: float | None = None) -> float:
    now = asyncio.get_running_loop().time() if now is None else now
    return float("inf") if seconds is None else now + float(str(seconds))


async def _crash(daemon: Daemon, body: dict[str, Any]) -> dict[str, Any]:
    child = _child(daemon, body)
    os.kill(child.pid, signal.SIGKILL)
    return {"pid": child.pid}


async def _hang(daemon: Daemon, body: dict[str, Any]) -> None:
    daemon.faults.hang_until = _until(body.get("seconds"))


async def _health_hang(daemon: Daemon, body: dict[str, Any]) -> None:
    daemon.faults.health_hang_until = _until(body.get("seconds"))


async def _slow_health(daemon: Daemon, body: dict[str, Any]) -> None:
    daemon.faults.health_delay_s = float(body.get("ms", 0)) / 1000


async def _health_body(daemon: Daemon, body: dict[str, Any]) -> None:
    daemon.faults.health_body = body
    times = body.get("times")
    daemon.faults.health_body_times = float("inf") if times is None else int(times)


async def _health_keys(daemon: Daemon, body: dict[str, Any]) -> None:
    """Keys of health that are told otherwise, e.g. a websocket_port where nobody listens."""
    daemon.faults.health_keys = {key: value for key, value in body.items() if key != "name"}


async def _config(daemon: Daemon, body: dict[str, Any]) -> None:
    """Settings of lemond's config.json; `log_level` decides what is written from now on."""
    daemon.settings.update({key: value for key, value in body.items() if key != "name"})
    daemon.log.set_level(str(daemon.settings["log_level"]))


async def _hide_config(daemon: Daemon, body: dict[str, Any]) -> None:
    """The settings cannot be read: lemond wants an admin key that nobody here has."""
    daemon.faults.config_hidden = bool(body.get("on", True))


async def _clock(daemon: Daemon, body: dict[str, Any]) -> None:
    """lemond's clock goes wrong by some seconds."""
    daemon.log.clock_offset_s = float(body.get("seconds", 0))


async def _silent_evict(daemon: Daemon, body: dict[str, Any]) -> dict[str, Any]:
    child = _child(daemon, body)
    daemon.router.table.remove(child)
    child.process.terminate()
    child.process.wait()
    return {"pid": child.pid}


async def _evict(daemon: Daemon, body: dict[str, Any]) -> None:
    await daemon.router.evict(_child(daemon, body))


async def _move(daemon: Daemon, body: dict[str, Any]) -> dict[str, Any]:
    """Unloads a model and loads it elsewhere, while another takes its old port."""
    child = _child(daemon, body)
    router, old = daemon.router, child.port
    await router.unload(child.model)
    taker = router.find(str(body["port_taken_by"])) if body.get("port_taken_by") else None
    if taker is not None:
        await router.unload(taker)
        router.next_port = old
        await router.load(taker, {})
        held = router.child_of(taker)
        old = held.port if held else old
    router.avoid_ports.add(old)
    await router.load(child.model, {})
    router.avoid_ports.discard(old)
    moved = router.child_of(child.model)
    return {"old_port": child.port, "new_port": moved.port if moved else None, "taken_port": old}


async def _port_squat(daemon: Daemon, body: dict[str, Any]) -> None:
    port = int(body["port"])
    daemon.squat(port)
    # Once this returns, the port answers as the squatter.
    while daemon.squatters[port].poll() is None:
        if await healthy(port):
            return
        await asyncio.sleep(0.01)
    raise BadFault(f"nothing could take port {port}: it is in use")


async def _load_failure(daemon: Daemon, body: dict[str, Any]) -> None:
    reason = str(body.get("reason", "llama-server failed to start"))
    daemon.router.failures[str(body["model"])] = [reason] * int(body.get("times", 2))


async def _ws_drop(daemon: Daemon, body: dict[str, Any]) -> None:
    daemon.stream.drop()


async def _ws_garbage(daemon: Daemon, body: dict[str, Any]) -> None:
    binary = body.get("base64")
    daemon.stream.send_all(base64.b64decode(binary) if binary else str(body.get("text", "garbage")))


async def _ws_gap(daemon: Daemon, body: dict[str, Any]) -> None:
    daemon.log.hidden = int(body.get("count", 10))


async def _ws_silence(daemon: Daemon, body: dict[str, Any]) -> None:
    """Published entries are kept but sent to nobody, for some seconds or until `clear`."""
    on = bool(body.get("on", True))
    daemon.log.silent_until = _until(body.get("seconds"), time.monotonic()) if on else 0.0


async def _ws_refuse(daemon: Daemon, body: dict[str, Any]) -> None:
    daemon.stream.refuse = bool(body.get("on", True))


async def _second_lemond(daemon: Daemon, body: dict[str, Any]) -> None:
    daemon.faults.second_lemond = bool(body.get("on", True))


async def _log(daemon: Daemon, body: dict[str, Any]) -> None:
    daemon.log.write(str(body.get("severity", "Info")), str(body.get("tag", "Router")), str(body["text"]))


async def _restart(daemon: Daemon, body: dict[str, Any]) -> None:
    daemon.restart(str(body["version"]) if body.get("version") else None)


async def _clear(daemon: Daemon, body: dict[str, Any]) -> None:
    daemon.faults = Faults()
    daemon.log.silent_until, daemon.log.hidden = 0.0, 0
    daemon.log.clock_offset_s = 0.0
    daemon.stream.refuse = False
    daemon.router.avoid_ports.clear()
    daemon.router.failures.clear()


_Fault = Callable[[Daemon, dict[str, Any]], Awaitable[dict[str, Any] | None]]

FAULTS: dict[str, _Fault] = {
    "crash": _crash,
    "hang": _hang,
    "health_hang": _health_hang,
    "slow_health": _slow_health,
    "health_body": _health_body,
    "health_keys": _health_keys,
    "config": _config,
    "hide_config": _hide_config,
    "clock": _clock,
    "silent_evict": _silent_evict,
    "evict": _evict,
    "move": _move,
    "port_squat": _port_squat,
    "load_failure": _load_failure,
    "ws_drop": _ws_drop,
    "ws_garbage": _ws_garbage,
    "ws_gap": _ws_gap,
    "ws_silence": _ws_silence,
    "ws_refuse": _ws_refuse,
    "second_lemond": _second_lemond,
    "log": _log,
    "restart": _restart,
    "clear": _clear,
}

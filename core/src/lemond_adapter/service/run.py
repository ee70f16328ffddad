"""Runs the service: adapter, HTTP server, and the simulated lemond where one is wanted."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from lemond_adapter.adapter import LemondAdapter
from lemond_adapter.dispatch.dataplane import DataPlane, Limits
from lemond_adapter.journal import Journal
from lemond_adapter.service import keeping
from lemond_adapter.service.app import build_app
from lemond_adapter.service.config import Config, load_config, secret
from lemond_adapter.service.notify import announced
from lemond_adapter.service.server import Server, protocol_for, raise_file_limit, settle_memory
from lemond_adapter.slots.rows import SlotBoard
from lemond_adapter.truth.address import is_loopback
from lemond_adapter.types import ConfigError, LemondError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line adds to the configuration."""

    simulate: str | None = None
    insecure: bool = False
    time_scale: float = 1.0
    config_file: Path | None = None


def listener(config: Config, *, insecure: bool) -> socket.socket:
    """The bound socket. Raises `ConfigError` when it cannot be had, or would be open to the network
    without a key."""
    host, port = config.listen.host, config.listen.port
    if not is_loopback(host) and secret(config.listen.api_key_env) is None and not insecure:
        raise ConfigError(
            f"listen.host {host}: other machines could use the models without a key; set "
            f"{config.listen.api_key_env}, or pass --insecure if that is wanted"
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another --listen"
        ) from None


async def run(config: Config, options: Options, say: Callable[[str], None]) -> None:
    """Serves until SIGTERM or SIGINT. `say` gets the `ready:` line."""
    with listener(config, insecure=options.insecure) as bound:
        async with contextlib.AsyncExitStack() as stack:
            url = config.lemond.url
            if options.simulate is not None:
                url = await stack.enter_async_context(_simulated(options))
            journal = stack.enter_context(keeping.journal(config, simulated=options.simulate is not None))
            adapter = LemondAdapter(
                url,
                api_key=secret(config.lemond.api_key_env),
                slots=config.slot_specs(),
                connect_timeout_s=config.lemond.connect_timeout_s,
                load_timeout_s=config.lemond.load_timeout_s,
                heartbeat_s=config.policy.heartbeat_s,
                silence_s=config.policy.silence_s,
                policy=config.acting(),
                seq_after=journal.seq_after,
            )
            keeping.attach(adapter, journal)
            await stack.enter_async_context(adapter)
            adapter.actor.notes.observers.append(journal.note)
            _reload_on_hangup(options.config_file, adapter)
            board = await stack.enter_async_context(keeping.board(adapter, config))
            await _serve(config, adapter, board, journal, bound, say)


def _reload_on_hangup(file: Path | None, adapter: LemondAdapter) -> None:
    """SIGHUP: slots and policies are read anew; a file that is refused changes nothing."""

    def reload() -> None:
        try:
            config = load_config(file)
            adapter.reconfigure(config.slot_specs(), config.acting())
        except ConfigError as error:
            log.error("not reloaded, everything stays as it was: %s", error)
        else:
            log.warning("reloaded %s: %d slots", file, len(config.slots))

    if file is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)


@contextlib.asynccontextmanager
async def _simulated(options: Options) -> AsyncIterator[str]:
    from lemond_adapter.simulator import SimulatorError, SimulatorProcess

    try:
        async with SimulatorProcess(options.simulate or "10.7.0", time_scale=options.time_scale) as simulator:
            yield simulator.url
    except SimulatorError as error:
        raise LemondError(str(error)) from error


async def _serve(
    config: Config,
    adapter: LemondAdapter,
    board: SlotBoard,
    journal: Journal,
    bound: socket.socket,
    say: Callable[[str], None],
) -> None:
    raise_file_limit()
    api_key = secret(config.listen.api_key_env)
    policy = config.policy
    limits = Limits(policy.max_waiting, policy.idempotency_ttl_s)
    plane = DataPlane(adapter, limits, api_key=api_key)
    server = Server(
        uvicorn.Config(
            build_app(adapter, plane, board, journal, api_key=api_key),
            http=protocol_for(plane),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=max(1, int(config.policy.drain_timeout_s)),
        )
    )
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    serving = asyncio.create_task(server.serve([bound]), name="http")
    await server.up.wait()
    driver = adapter.driver.name if adapter.driver else "none"
    host = f"[{config.listen.host}]" if ":" in config.listen.host else config.listen.host
    url = f"http://{host}:{bound.getsockname()[1]}"
    settle_memory()
    say(f"ready: {url} lemond={adapter.version or 'unreachable'} driver={driver}")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    async with announced(f"serving at {url}"):
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    adapter.hub.close()
    server.should_exit = True
    await serving
    await plane.close()

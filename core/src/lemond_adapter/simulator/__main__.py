"""`python -m lemond_adapter.simulator`: one simulated lemond in this process."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import sys
from collections.abc import Iterator

import uvicorn

from lemond_adapter.simulator.daemon import Daemon
from lemond_adapter.simulator.faults import apply_fault, fault_parameters
from lemond_adapter.simulator.http import build_app
from lemond_adapter.simulator.models import choose_models
from lemond_adapter.simulator.profile import profile_for

_PR_SET_PDEATHSIG = 1


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(prog="python -m lemond_adapter.simulator", description=__doc__)
    p.add_argument("--listen", default="127.0.0.1:13305", metavar="HOST:PORT")
    p.add_argument("--release", default="10.7.0")
    p.add_argument("--version-string", help="what health reports as its version, if not the release")
    p.add_argument("--time-scale", type=float, default=1.0, help="divides every wait of lemond's")
    p.add_argument("--load-seconds", type=float, default=2.0, help="how long a child warms up")
    p.add_argument("--max-loaded-models", type=int, default=1, help="per type; -1 = unlimited")
    p.add_argument("--ws-port", type=int, default=0)
    p.add_argument("--child-port-base", type=int, default=8001)
    p.add_argument("--api-key")
    p.add_argument("--log-level", default="info")
    p.add_argument("--models", help="comma-separated public names; default: a dozen of all kinds")
    p.add_argument("--fault", action="append", default=[], metavar="NAME[=VALUE|=JSON]")
    p.add_argument("--http-threads", type=int, help="requests at once; 0 = unlimited; default 8")
    p.add_argument("--die-with-parent", action="store_true")
    return p


class _Server(uvicorn.Server):
    """uvicorn, but our own signal handling: its own ends the process before lemond's shutdown is done."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(args: argparse.Namespace) -> None:
    """Runs until SIGTERM or SIGINT."""
    host, _, port = args.listen.rpartition(":")
    profile = profile_for(args.release)
    if not profile.is_of(args.release):
        sys.stderr.write(
            f"the simulated lemond knows {profile.release}: it reports {args.release} and behaves as that\n"
        )
    daemon = Daemon(
        profile,
        choose_models(args.models),
        version=args.version_string or args.release,
        scale=args.time_scale,
        max_loaded=args.max_loaded_models,
        port_base=args.child_port_base,
        load_s=args.load_seconds,
        log_level=args.log_level,
        api_key=args.api_key,
        http_threads=profile.http_threads if args.http_threads is None else args.http_threads,
    )
    listener = socket.create_server((host or "127.0.0.1", int(port)), backlog=128, reuse_port=False)
    bound = listener.getsockname()[1]
    await daemon.start(host or "127.0.0.1", bound, args.ws_port)
    for text in args.fault:
        name, _, more = text.partition("=")
        await apply_fault(daemon, {**fault_parameters(name, more), "name": name})
    config = uvicorn.Config(
        build_app(daemon), log_level="error", lifespan="off", timeout_graceful_shutdown=1, ws="none"
    )
    server = _Server(config)

    def shut_down() -> None:
        """The log stream goes first, then HTTP, then the models."""
        if not server.should_exit:
            daemon.begin_shutdown()
            server.should_exit = True

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, shut_down)
    sys.stdout.write(f"listening: http://{host or '127.0.0.1'}:{bound} ws={daemon.stream.port}\n")
    sys.stdout.flush()
    try:
        await server.serve(sockets=[listener])
    finally:
        await daemon.stop()


def main() -> None:
    """Entry point."""
    args = parser().parse_args()
    if args.die_with_parent:
        parent = os.getppid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            sys.exit(0)
    asyncio.run(serve(args))


if __name__ == "__main__":
    main()

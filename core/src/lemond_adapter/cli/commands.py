"""The commands."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from lemond_adapter.captures import read_capture, replay
from lemond_adapter.cli.client import Service
from lemond_adapter.cli.display import event_line, plain, show_finding, slot_table
from lemond_adapter.drivers import generic_driver, installed_drivers, select_driver
from lemond_adapter.types import ConfigError, LemondUnavailable, Resynced, encode_event

app = typer.Typer(
    name="lemond-adapter",
    help="Routes AI traffic to the model servers that Lemonade's lemond really runs.",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

DEFAULT_URL = "http://127.0.0.1:13306"
DEFAULT_LEMOND = "http://127.0.0.1:13305"


class LogFormat(StrEnum):
    """How `serve` logs."""

    AUTO = "auto"
    CONSOLE = "console"
    JSON = "json"


Url = Annotated[str, typer.Option("--url", help="A running service.")]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable.")]


def say(line: str) -> None:
    """A line to stdout, at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise typer.BadParameter(f"{text!r} is not HOST:PORT, e.g. 127.0.0.1:13306")
    return host.strip("[]") or "127.0.0.1", int(port)


# click has no option whose value may be left out and typer no access to it; a bare `--simulate` is
# given its default before parsing.
class _Serve(typer.core.TyperCommand):
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        for index, arg in enumerate(args):
            following = args[index + 1] if index + 1 < len(args) else "-"
            if arg == "--simulate" and following.startswith("-"):
                args[index] = "--simulate=10.7.0"
        return super().parse_args(ctx, args)


@app.command(cls=_Serve)
def serve(
    lemond: Annotated[str | None, typer.Option(help=f"lemond's URL; default {DEFAULT_LEMOND}.")] = None,
    listen: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Default 127.0.0.1:13306.")] = None,
    config: Annotated[Path | None, typer.Option(help="A TOML file.")] = None,
    simulate: Annotated[
        str | None, typer.Option(metavar="[RELEASE]", help="Start a simulated lemond and use it.")
    ] = None,
    time_scale: Annotated[float, typer.Option(help="How much faster the simulated lemond lives.")] = 1.0,
    check: Annotated[bool, typer.Option("--check", help="Check the configuration and exit.")] = False,
    insecure: Annotated[bool, typer.Option("--insecure", help="Allow other hosts without a key.")] = False,
    log_format: Annotated[
        LogFormat, typer.Option(help="auto: json under systemd, else for people.")
    ] = LogFormat.AUTO,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log every request.")] = False,
) -> None:
    """The service. Example: lemond-adapter serve --simulate"""
    from lemond_adapter.service import logs
    from lemond_adapter.service.config import load_config, secret
    from lemond_adapter.service.run import Options, run

    settings = load_config(config)
    keys = (settings.lemond.api_key_env, settings.lemond.admin_api_key_env, settings.listen.api_key_env)
    finish_logs = logs.configure(log_format.value, verbose=verbose, secrets=[secret(key) for key in keys])
    if lemond is not None:
        changed = settings.lemond.model_copy(update={"url": lemond})
        settings = settings.model_copy(update={"lemond": changed})
    if listen is not None:
        host, port = _address(listen)
        settings = settings.model_copy(
            update={"listen": settings.listen.model_copy(update={"host": host, "port": port})}
        )
    if check:
        say(f"{config or 'defaults'}: ok, {len(settings.slots)} slots")
        return
    options = Options(simulate=simulate, insecure=insecure, time_scale=time_scale, config_file=config)
    serving = run(settings, options, say)
    try:
        import uvloop
    except ModuleNotFoundError:
        asyncio.run(serving)
    else:
        uvloop.run(serving)
    finally:
        finish_logs()


@app.command()
def events(
    url: Url = DEFAULT_URL,
    as_json: Json = False,
    since: Annotated[int | None, typer.Option(metavar="SEQ", help="Go on behind this event.")] = None,
) -> None:
    """Every change as it happens. Example: lemond-adapter events --json"""
    expected = since is None
    for event in Service(url).events(since):
        if as_json and event["type"] == "snapshot":
            # A new stream begins with one. Any other says that events are missing: an event tells so.
            if not expected:
                gap = Resynced(seq=event["seq"], at=datetime.now(UTC), reason="gap", source="self")
                say(encode_event(gap))
            expected = False
        elif as_json:
            say(json.dumps(event))
        elif event["type"] == "snapshot":
            states = ", ".join(f"{row['name']} {row['state']}" for row in event["slots"]) or "nothing loaded"
            say(f"{'':24} snapshot          {states}")
        else:
            typer.echo(event_line(event))


@app.command()
def slots(
    url: Url = DEFAULT_URL,
    as_json: Json = False,
    watch: Annotated[bool, typer.Option("--watch", help="Keep the table live.")] = False,
) -> None:
    """The slots. Example: lemond-adapter slots --watch"""
    service = Service(url)
    console = Console()
    if not watch or as_json or not console.is_terminal:
        for rows in _slot_rows(service, watch=watch):
            if as_json:
                say(json.dumps(rows))
            else:
                console.print(slot_table(rows))
        return
    from rich.live import Live

    with Live(console=console, auto_refresh=False) as live:
        for rows in _slot_rows(service, watch=True):
            live.update(slot_table(rows), refresh=True)


def _slot_rows(service: Service, *, watch: bool) -> Iterator[list[dict[str, Any]]]:
    """The rows as they are; with `watch` again after each change, until the service ends."""
    if not watch:
        yield service.get("/api/slots")
        return
    for _ in service.events(None):
        yield service.get("/api/slots")
    raise LemondUnavailable(f"the service at {service.url} ended the stream")


@app.command()
def doctor(
    lemond: Annotated[str | None, typer.Option(help=f"lemond's URL; default {DEFAULT_LEMOND}.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="The service's TOML file: its slots are checked.")
    ] = None,
    as_json: Json = False,
) -> None:
    """What is wrong, and what to do. Example: lemond-adapter doctor --lemond http://127.0.0.1:13305"""
    from lemond_adapter.cli.doctor import examine
    from lemond_adapter.service.config import load_config, secret

    logging.getLogger("lemond_adapter").setLevel(logging.CRITICAL)
    settings = load_config(config)
    found = asyncio.run(
        examine(
            lemond or settings.lemond.url,
            secret(settings.lemond.api_key_env),
            admin_key=secret(settings.lemond.admin_api_key_env),
            slots=tuple(settings.slot_specs()),
        )
    )
    if as_json:
        say(json.dumps([finding.as_json() for finding in found]))
    else:
        for finding in found:
            show_finding(finding)
    raise typer.Exit(1 if any(finding.grade == "problem" for finding in found) else 0)


drivers_app = typer.Typer(invoke_without_command=True, rich_markup_mode=None)
app.add_typer(drivers_app, name="drivers")


@drivers_app.callback()
def drivers(ctx: typer.Context, as_json: Json = False) -> None:
    """Installed drivers and the releases each serves. Example: lemond-adapter drivers"""
    if ctx.invoked_subcommand is not None:
        return
    installed = installed_drivers()
    rows: list[dict[str, Any]] = [
        {
            "name": driver.name,
            "serves": str(driver.info.serves) or "any",
            "recorded": list(driver.info.recorded),
            "from": driver.origin,
            "summary": driver.info.summary,
        }
        for driver in (*installed.drivers, generic_driver())
    ]
    rows += [{"name": b.name, "from": b.origin, "error": b.error} for b in installed.broken]
    if as_json:
        say(json.dumps(rows))
        return
    for row in rows:
        if "error" in row:
            say(f"{row['name']:14} BROKEN  {row['from']}: {row['error']}")
        else:
            say(f"{row['name']:14} {row['serves']:14} {row['from']:28} {row['summary']}")


@drivers_app.command()
def new(
    line: Annotated[str, typer.Argument(metavar="LINE", help="The release line, e.g. 11.9.")],
    output: Annotated[Path, typer.Option(help="The folder for it.")] = Path("drivers"),
) -> None:
    """A new driver wheel from a template. Example: lemond-adapter drivers new 11.9"""
    from lemond_adapter.scaffold import create_driver

    for path in create_driver(line, output):
        say(str(path))
    say("next: install it with pip install -e, record captures into its corpus folder, run its tests")


@app.command()
def capture(
    output: Annotated[Path, typer.Option(help="The file to write; must not exist.")],
    lemond: Annotated[str, typer.Option(help="lemond's URL.")] = DEFAULT_LEMOND,
    duration: Annotated[float | None, typer.Option(help="Seconds; default: until Ctrl-C.")] = None,
    scenario: Annotated[str, typer.Option(help="What is being done.")] = "unnamed",
    log_level: Annotated[str, typer.Option(help="lemond's log level, for the record.")] = "info",
    scrub: Annotated[bool, typer.Option("--scrub", help="Take out home folders and keys.")] = False,
) -> None:
    """Record a running lemond. Example: lemond-adapter capture --output crash.info.jsonl --duration 60"""
    from lemond_adapter.captures.recorder import record
    from lemond_adapter.service.config import secret

    written = asyncio.run(
        record(
            lemond,
            output,
            api_key=secret("LEMONADE_API_KEY"),
            duration_s=duration,
            scenario=scenario,
            log_level=log_level,
            scrub=scrub,
        )
    )
    say(f"{output}: {written} lines")


@app.command(name="replay")
def replay_(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...")],
    driver: Annotated[str | None, typer.Option(metavar="NAME", help="Use this driver.")] = None,
    as_json: Json = False,
) -> None:
    """Captures through a driver. Example: lemond-adapter replay corpus/10.7.0/crash.info.jsonl"""
    installed = installed_drivers()
    if driver is not None and driver not in {d.name for d in (*installed.drivers, generic_driver())}:
        raise ConfigError(f"no driver is called {driver!r}; 'lemond-adapter drivers' lists them")
    for file in files:
        capture = read_capture(file)
        selection = select_driver(capture.release, installed.drivers, forced=driver)
        result = replay(capture, selection.driver)
        for warning in (*capture.warnings, *result.complaints):
            sys.stderr.write(f"{warning}\n")
        if not as_json:
            say(f"{file}: lemond {capture.release}, {selection.driver.name} ({selection.match})")
        for t, event in zip(result.times, result.events, strict=True):
            if as_json:
                say(encode_event(event))
            else:
                rest = event.model_dump(mode="json", exclude={"seq", "at", "type", "model", "slot"})
                text = " ".join(f"{key}={value}" for key, value in rest.items() if value is not None)
                say(plain(f"{t:9.3f} s  {event.type:17} {event.model or '-':16} {text}"))
        _report_unknown(result.unknown_lines)


def _report_unknown(lines: Counter[str]) -> None:
    for line, count in lines.most_common():
        sys.stderr.write(plain(f"no rule knew, {count}x: {line}") + "\n")


@app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def simulate(
    ctx: typer.Context,
    listen: Annotated[str, typer.Option(metavar="HOST:PORT")] = "127.0.0.1:13305",
    release: Annotated[str, typer.Option(help="The lemond release to behave as.")] = "10.7.0",
    time_scale: Annotated[float, typer.Option(help="Divides every wait of lemond's.")] = 1.0,
    max_loaded_models: Annotated[int, typer.Option(help="Per type; -1 = unlimited.")] = 1,
    fault: Annotated[list[str] | None, typer.Option(metavar="NAME[=JSON]", help="A fault.")] = None,
) -> None:
    """The simulated lemond alone. Example: lemond-adapter simulate --time-scale 10"""
    from lemond_adapter.simulator.__main__ import parser
    from lemond_adapter.simulator.__main__ import serve as serve_simulator

    _address(listen)
    arguments = ["--listen", listen, "--release", release, "--time-scale", str(time_scale)]
    arguments += ["--max-loaded-models", str(max_loaded_models)]
    for text in fault or []:
        arguments += ["--fault", text]
    asyncio.run(serve_simulator(parser().parse_args([*arguments, *ctx.args])))

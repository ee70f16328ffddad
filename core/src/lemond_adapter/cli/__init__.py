"""The command line. Errors are one line on stderr: what was wrong and what to do."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point: exit 2 for bad usage, 1 for anything else that went wrong."""
    try:
        import click

        from lemond_adapter.cli.commands import app
    except ModuleNotFoundError as error:
        if error.name and error.name.startswith("lemond_adapter"):
            raise
        _fail(f"the command line needs the extra: pip install 'lemond-adapter[serve]' ({error})", 1)
    from lemond_adapter.types import LemondError

    try:
        status = app(standalone_mode=False)
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "lemond-adapter"
        _fail(f"{error.format_message()} (see: {where} --help)", 2)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except click.ClickException as error:
        _fail(error.format_message(), 1)
    except LemondError as error:
        _fail(str(error), 1)
    except BrokenPipeError:
        sys.exit(0)
    sys.exit(status if isinstance(status, int) else 0)


def _fail(message: str, status: int) -> None:
    sys.stderr.write("lemond-adapter: " + " ".join(message.split()) + "\n")
    sys.exit(status)

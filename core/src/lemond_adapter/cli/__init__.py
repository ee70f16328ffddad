"""The command line. Errors are one line on stderr: what was wrong and what to do."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point: exit 2 for bad usage, 1 for anything else that went wrong."""
    try:
        import typer

        from lemond_adapter.cli.commands import app
    except ModuleNotFoundError as error:
        if error.name and error.name.startswith("lemond_adapter"):
            raise
        _fail(f"the command line needs the extra: pip install 'lemond-adapter[serve]' ({error})", 1)
    from lemond_adapter.types import LemondError

    # typer brings click along, as a dependency or inside itself: its classes are found through it.
    usage_error: type[Exception]
    click_exception: type[Exception]
    usage_error, click_exception = typer.BadParameter.__mro__[1:3]
    try:
        status = app(standalone_mode=False, prog_name="lemond-adapter")
    except typer.Exit as error:
        sys.exit(error.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        sys.exit(130)
    except LemondError as error:
        _fail(str(error), 1)
    except BrokenPipeError:
        sys.exit(0)
    except click_exception as error:
        text = error.format_message() if hasattr(error, "format_message") else str(error)
        if isinstance(error, usage_error):
            context = getattr(error, "ctx", None)
            where = context.command_path if context else "lemond-adapter"
            _fail(f"{text} (see: {where} --help)", 2)
        _fail(text, 1)
    sys.exit(status if isinstance(status, int) else 0)


def _fail(message: str, status: int) -> None:
    sys.stderr.write("lemond-adapter: " + " ".join(message.split()) + "\n")
    sys.exit(status)

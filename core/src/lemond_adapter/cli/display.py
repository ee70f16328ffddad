"""How things look in a terminal. Names and texts are data: nothing in them may steer it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:  # the doctor's package brings the whole adapter, which a table does not need
    from lemond_adapter.cli.doctor.finding import Finding

_EVENT_COLOURS = {
    "model_loaded": "green",
    "pull_finished": "green",
    "lemond_started": "green",
    "eviction_started": "yellow",
    "model_evicted": "yellow",
    "port_changed": "yellow",
    "load_failed": "red",
    "process_crashed": "red",
    "lemond_lost": "red",
    "resynced": "bright_black",
}


def event_line(event: dict[str, Any]) -> str:
    """In colours; `typer.echo` takes them out where nobody sees them."""
    shown = {"seq", "at", "type", "model", "slot", "source"}
    rest = " ".join(f"{key}={value}" for key, value in event.items() if key not in shown)
    kind = typer.style(f"{event['type']:17}", fg=_EVENT_COLOURS.get(event["type"], "cyan"))
    return f"{event['at']} {kind} {plain(event.get('model') or '-'):24} {plain(rest)}"


def plain(text: str) -> str:
    """Names are data: nothing in them may steer the terminal."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


_STATE_COLOURS = {
    "ready": "green",
    "serving": "bold green",
    "idle": "green",
    "pulling": "cyan",
    "starting": "cyan",
    "warming": "cyan",
    "unloading": "yellow",
    "error": "red",
}


def slot_table(rows: list[dict[str, Any]]) -> Table:
    """The rows of /api/slots."""
    table = Table("slot", "state", "model", "port", "pid", "in flight", "note")
    for row in rows:
        more = row["metadata"]
        state = Text(row["state"], style=_STATE_COLOURS.get(row["state"], "default"))
        if more.get("stale"):
            state.append(" (stale)", style="yellow")
        cells = [
            row["model_id"],
            row["port"] or "-",
            more.get("pid", "-"),
            more["in_flight"],
            more["message"],
        ]
        # As Text: brackets in a name are no markup.
        table.add_row(Text(plain(row["name"])), state, *(Text(plain(str(cell))) for cell in cells))
    return table


_GRADE_COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}


def show_finding(finding: Finding) -> None:
    """What it is; where it is not well also what was seen, what follows and what to do."""
    grade = typer.style(f"{finding.grade:8}", fg=_GRADE_COLOURS[finding.grade], bold=finding.grade != "ok")
    typer.echo(f"{grade} {finding.check}: {plain(finding.what)}")
    if finding.grade == "ok":
        return
    for label, text in (("seen", finding.evidence), ("so", finding.consequence), ("do", finding.fix)):
        if text:
            typer.echo(f"{'':8}   {label + ':':6}{plain(text)}")

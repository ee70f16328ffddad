"""Writes the references in docs/reference from what the code says: `make docs`.

With `--check` it writes nothing and fails when a file would change.
"""

from __future__ import annotations

import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from lemond_adapter.service.config import Config
from lemond_adapter.service.metrics import hal0
from lemond_adapter.service.metrics.families import FAMILIES, Family

FOLDER = Path(__file__).parent / "reference"

NOTICE = "<!-- Written by `make docs` from the code. Do not edit. -->"

MEANING = {
    "lemond.url": "Where lemond answers.",
    "lemond.api_key_env": "The environment variable that holds lemond's API key.",
    "lemond.admin_api_key_env": "The one that holds its admin key; only `doctor` uses it.",
    "lemond.connect_timeout_s": "How long a connect to lemond may take.",
    "lemond.load_timeout_s": "How long one load may take.",
    "listen.host": "The address to listen on. Another than loopback needs a key.",
    "listen.port": "The port; 0 takes any free one, the `ready:` line names it.",
    "listen.api_key_env": "The environment variable that holds the key clients must send, if any.",
    "policy.hold_s": "How long a request waits for a route instead of being refused; a slot may differ.",
    "policy.idle_timeout_s": "A model that was not used for so long is unloaded; 0 = never; a slot may differ.",
    "policy.drain_timeout_s": "How long streams may go on after SIGTERM; an eviction of ours waits so long, then is called off.",
    "policy.max_restarts": "Deaths in a row, without a request served between, after which a slot is in error.",
    "policy.heartbeat_s": "How often health is asked when nothing else asks for it.",
    "policy.silence_s": "How long health may be silent before what is known counts as unknown.",
    "policy.restart_backoff_s": "Pause before the second restart in a row; each further one doubles it.",
    "policy.restart_refill_s": "So long after the last death all restarts are there again.",
    "policy.warm": "Slots or models to load at start and after a restart of lemond.",
    "policy.max_waiting": "How many requests may be held at once; more are refused.",
    "policy.idempotency_ttl_s": "How long an Idempotency-Key is remembered.",
    "state.dir": "Where the journal is kept. Else `$STATE_DIRECTORY` (systemd), else `$XDG_STATE_HOME/lemond-adapter`.",
    "state.journal_rows": "How many events the journal keeps.",
    "state.journal_days": "How long it keeps them.",
    "state.hal0_dir": "A folder that gets hal0's `<slot>/state.json`.",
    "slots_dir": "A folder of hal0's slot files, one slot each, beside the configuration file.",
    "slots.<name>.model": "The model's public name, or hal0's table.",
    "slots.<name>.model.default": "The model's public name.",
    "slots.<name>.model.context_size": "Sent to lemond as `ctx_size`.",
    "slots.<name>.aliases": "Other names that clients may use.",
    "slots.<name>.type": "As in lemond: `llm`, `embedding`, `reranking`, `transcription`, `tts`, `image`.",
    "slots.<name>.backend": "Shown in `/api/slots`; what lemond says otherwise.",
    "slots.<name>.enabled": "Off: its name answers 404, and it is not loaded.",
    "slots.<name>.pinned": "Never evicted by the adapter; pinned in lemond where it can be.",
    "slots.<name>.priority": "The higher is warmed and restored first, and evicted last.",
    "slots.<name>.max_in_flight": "Requests running at once; 0 = no limit.",
    "slots.<name>.max_queue": "Requests that wait for one of those to end.",
    "slots.<name>.idle_timeout_s": "Instead of policy.idle_timeout_s; 0 = never unloaded.",
    "slots.<name>.hold_s": "Instead of policy.hold_s.",
    "slots.<name>.server.extra_args": "Sent to lemond as `llamacpp_args`.",
}
"""For keys whose field has no description of its own."""


def main() -> None:
    """Writes or checks the files."""
    check = "--check" in sys.argv[1:]
    stale = []
    for name, text in references().items():
        file = FOLDER / name
        if file.exists() and file.read_text(encoding="utf-8") == text:
            continue
        stale.append(str(file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file))
        if not check:
            file.parent.mkdir(exist_ok=True)
            file.write_text(text, encoding="utf-8")
    for path in stale:
        sys.stdout.write(f"{path}: {'out of date; run make docs' if check else 'written'}\n")
    sys.exit(1 if check and stale else 0)


def references() -> dict[str, str]:
    """File name to text."""
    return {"configuration.md": configuration(), "metrics.md": metrics()}


# The configuration.


def configuration() -> str:
    """Every key with type, default and meaning."""
    lines = [
        "# Configuration reference",
        "",
        NOTICE,
        "",
        "`lemond-adapter serve --config FILE`, TOML. Everything is optional; what is unknown or of a wrong type",
        "is refused with file, key and what was expected. `--check` only checks. Durations are in seconds.",
    ]
    for title, rows in sections(Config):
        lines += ["", f"## {title}", "", "| key | type | default | meaning |", "| --- | --- | --- | --- |"]
        lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines) + "\n"


Row = tuple[str, str, str, str]


def sections(model: type[BaseModel]) -> Iterator[tuple[str, list[Row]]]:
    """A table for each section of the file, one for what is outside of them."""
    loose: list[Row] = []
    for name, field in model.model_fields.items():
        inner, each = _section(field)
        if inner is None:
            loose.append(_row(name, name, field))
        else:
            path = f"{name}.<name>" if each else name
            yield f"[{path}]", list(_rows(path, "", inner))
    if loose:
        yield "Outside of sections", loose


def _section(field: FieldInfo) -> tuple[type[BaseModel] | None, bool]:
    """The model of a section, and whether there is one for each name."""
    if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
        return field.annotation, False
    if typing.get_origin(field.annotation) is dict:
        value = typing.get_args(field.annotation)[1]
        if isinstance(value, type) and issubclass(value, BaseModel):
            return value, True
    return None, False


def _rows(path: str, prefix: str, model: type[BaseModel]) -> Iterator[Row]:
    for name, field in model.model_fields.items():
        key = prefix + name
        inner = [
            part
            for part in _parts(field.annotation)
            if isinstance(part, type) and issubclass(part, BaseModel)
        ]
        if len(inner) != len(_parts(field.annotation)):
            yield _row(f"{path}.{key}", key, field)
        for table in inner:
            yield from _rows(path, f"{key}.", table)


def _parts(annotation: Any) -> tuple[Any, ...]:
    """The members of a union, or the one type."""
    if typing.get_origin(annotation) in (typing.Union, UnionType):
        return typing.get_args(annotation)
    return (annotation,)


def _row(path: str, key: str, field: FieldInfo) -> Row:
    return f"`{key}`", _type(field), _default(field), field.description or MEANING.get(path, "")


_TYPE_NAMES = {str: "text", int: "whole number", float: "number", bool: "true or false"}


def _type(field: FieldInfo) -> str:
    names = []
    for part in _parts(field.annotation):
        if part is type(None):
            continue
        if isinstance(part, type) and issubclass(part, BaseModel):
            names.append("table")
        elif typing.get_origin(part) is list:
            names.append("list of " + _TYPE_NAMES.get(typing.get_args(part)[0], "values"))
        elif typing.get_origin(part) is typing.Literal:
            names += [f"`{value}`" for value in typing.get_args(part)]
        else:
            names.append(
                _TYPE_NAMES.get(part, "table" if part is dict else getattr(part, "__name__", str(part)))
            )
    return " or ".join(names) + "".join(_bounds(field))


def _bounds(field: FieldInfo) -> Iterator[str]:
    for rule in field.metadata:
        match rule:
            case annotated_types.Ge(ge=bound):
                yield f", at least {bound}"
            case annotated_types.Gt(gt=bound):
                yield f", more than {bound}"
            case annotated_types.Le(le=bound):
                yield f", at most {bound}"
            case annotated_types.Lt(lt=bound):
                yield f", less than {bound}"


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "needed"
    if value is None:
        return "-"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, float) and value.is_integer():
        return f"`{int(value)}`"
    return f'`"{value}"`' if isinstance(value, str) else f"`{value}`"


# The metrics.


def metrics() -> str:
    """Every metric with kind, labels and meaning."""
    lines = [
        "# Metrics reference",
        "",
        NOTICE,
        "",
        "`GET /metrics`, Prometheus text. Durations are in seconds. Labels are bounded: states, codes, and the",
        "first 200 names of slots and models that a slot or lemond knows; later ones are `other`. What a client",
        "typed is never a label: a name that stands for nothing counts as slot `unresolved`. A model that no slot",
        "names is a slot of its own. Counters whose first step matters begin at 0. Beside these there are",
        "`process_*` (CPU, memory, open files).",
        "",
        "| metric | kind | labels | meaning |",
        "| --- | --- | --- | --- |",
    ]
    lines += [f"| {' | '.join(_metric_row(family))} |" for family in FAMILIES]
    lines += ["", "## Buckets", "", "| histogram | upper bounds |", "| --- | --- |"]
    for family in FAMILIES:
        if family.kind == "histogram":
            bounds = " ".join(f"{bound:g}" for bound in family.buckets)
            lines.append(f"| `{family.exposed}` | {bounds} |")
    lines += ["", "## hal0's names", "", *_hal0(), ""]
    return "\n".join(lines)


def _metric_row(family: Family) -> Row:
    labels = ", ".join(f"`{label}`" for label in family.labels) or "-"
    return f"`{family.exposed}`", family.kind, labels, family.text.replace("|", "\\|")


def _hal0() -> Iterator[str]:
    yield "`GET /metrics?hal0=1` adds the gauges that hal0's dashboards read, as far as they are known here:"
    yield ""
    yield "| gauge | labels | meaning |"
    yield "| --- | --- | --- |"
    for name, (text, labels) in hal0.NAMES.items():
        yield f"| `{hal0.PREFIX}{name}` | {', '.join(f'`{label}`' for label in labels) or '-'} | {text} |"
    yield ""
    left_out = ", ".join(f"`{hal0.PREFIX}{name}`" for name in hal0.LEFT_OUT)
    yield f"Left out, because nothing here knows them: {left_out}."


if __name__ == "__main__":
    main()

"""`GET /v1/models`: slots and aliases first, then what lemond can serve."""

from __future__ import annotations

from typing import Any

from lemond_adapter.adapter import LemondAdapter


async def model_rows(adapter: LemondAdapter) -> list[dict[str, Any]]:
    """OpenAI model objects. With lemond silent: what was known of it last."""
    await adapter.catalogue.refresh()
    rows: dict[str, dict[str, Any]] = {}
    for name, slot in adapter.slots.aliases():
        if slot.enabled:
            rows[name] = _row(name, "slot", slot.model)
    for entry in adapter.catalogue.entries:
        known = {key: entry.raw[key] for key in ("recipe", "labels", "checkpoint") if key in entry.raw}
        rows.setdefault(entry.model, {**_row(entry.model, "lemonade", None), **known})
    for model in adapter.truth.ledger.routes:
        rows.setdefault(model, _row(model, "lemonade", None))
    return list(rows.values())


def _row(name: str, owner: str, root: str | None) -> dict[str, Any]:
    row: dict[str, Any] = {"id": name, "object": "model", "created": 0, "owned_by": owner}
    if root is not None and root != name:
        row["root"] = root
    return row

"""For an agent's session: warm its slots before it starts, and ask afterwards why one went."""

from __future__ import annotations

import asyncio
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from lemond_adapter.adapter import LemondAdapter
from lemond_adapter.dispatch.envelope import Refusal
from lemond_adapter.journal import Journal, Query

MOST_ROWS = 1000


class WarmRequest(BaseModel):
    """The body of a warm-up: slots, aliases or models, in the order they are wanted."""

    model_config = ConfigDict(extra="forbid")

    slots: list[str] = Field(min_length=1, max_length=64)


def refused(refusal: Refusal) -> Response:
    """A refusal as a response."""
    headers = {name.decode(): value.decode() for name, value in refusal.headers()}
    return Response(refusal.body(), refusal.status, headers)


class Session:
    """`/warm` and `/journal`."""

    def __init__(self, adapter: LemondAdapter, journal: Journal) -> None:
        self._adapter = adapter
        self._journal = journal
        self._running: set[asyncio.Task[Any]] = set()

    async def warm(self, request: Request) -> Response:
        """Loads each slot in turn: 200 with each one's outcome, or 202 at once with `?wait=0`."""
        try:
            wanted = WarmRequest.model_validate_json(await request.body())
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"])) or "the body"
            text = f'{where}: {first["msg"]}; expected {{"slots": ["primary", ...]}}'
            return refused(Refusal(400, "request.invalid", text))
        task = asyncio.create_task(self._adapter.warm(wanted.slots))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        if request.query_params.get("wait") == "0":
            return JSONResponse({"slots": wanted.slots, "accepted": True}, 202)
        # A client that leaves does not stop the loads.
        outcome = await asyncio.shield(task)
        results = {
            name: {"ok": error is None}
            if error is None
            else {"ok": False, "code": error.code, "message": str(error)}
            for name, error in outcome.items()
        }
        return JSONResponse({"results": results})

    async def journal(self, request: Request) -> Response:
        """Past events and notes, newest last; `slot`, `type`, `since` and `limit` narrow them."""
        query = request.query_params
        try:
            since, limit = int(query.get("since", "0")), int(query.get("limit", "100"))
        except ValueError:
            text = "since and limit are whole numbers"
            return refused(Refusal(400, "request.invalid", text))
        if since < 0 or limit < 1:
            return refused(Refusal(400, "request.invalid", "since is at least 0, limit at least 1"))
        name = query.get("slot")
        slot, model = self._adapter.resolve(name) if name else (None, None)
        asked = Query(
            since=since,
            limit=min(limit, MOST_ROWS),
            model=model,
            slot=slot.name if slot else name,
            type=query.get("type"),
        )
        journal, epoch = self._journal, self._adapter.hub.epoch
        found = {"epoch": epoch, "oldest_seq": await journal.oldest_seq() or self._adapter.hub.seq + 1}
        found |= {"events": await journal.events(asked), "notes": await journal.notes(asked)}
        if (problem := journal.status().problem) is not None:
            found["problem"] = problem
        return JSONResponse(found)

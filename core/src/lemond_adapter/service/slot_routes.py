"""`/api/slots`: the rows, and what may be done to a slot."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lemond_adapter.adapter import LemondAdapter
from lemond_adapter.dispatch.envelope import Refusal, refusal_for
from lemond_adapter.service.session import refused
from lemond_adapter.slots.rows import SlotBoard
from lemond_adapter.types import LemondError, SlotState

_UNDER_WAY = frozenset({SlotState.STARTING, SlotState.WARMING})


class SlotRoutes:
    """An action is accepted with 202 and the row as it is then; what comes of it is told by events."""

    def __init__(self, adapter: LemondAdapter, board: SlotBoard) -> None:
        self._adapter = adapter
        self._board = board
        self._acts: set[asyncio.Task[Any]] = set()

    def routes(self) -> list[Route]:
        """For the application."""
        one = "/api/slots/{name:path}"
        return [
            Route("/api/slots", self.rows),
            Route(f"{one}/load", self.load, methods=["POST"]),
            Route(f"{one}/unload", self.unload, methods=["POST"]),
            Route(f"{one}/restart", self.restart, methods=["POST"]),
            Route(one, self.row),
        ]

    async def rows(self, request: Request) -> Response:
        return JSONResponse(self._board.rows())

    async def row(self, request: Request) -> Response:
        name = request.path_params["name"]
        row = self._board.row(name)
        return JSONResponse(row) if row is not None else _not_found(name)

    async def load(self, request: Request) -> Response:
        """Also clears what earlier failures left: somebody acts."""
        return await self._act(request, self._adapter.ensure_loaded)

    async def unload(self, request: Request) -> Response:
        """Drains first; `?force=1` cuts what is in flight."""
        force = request.query_params.get("force") == "1"

        async def away(name: str) -> None:
            await self._adapter.unload(name, force=force)

        return await self._act(request, away, unless_loading=True)

    async def restart(self, request: Request) -> Response:
        async def again(name: str) -> None:
            await self._adapter.unload(name)
            await self._adapter.ensure_loaded(name)

        return await self._act(request, again, unless_loading=True)

    async def _act(
        self, request: Request, action: Callable[[str], Awaitable[Any]], *, unless_loading: bool = False
    ) -> Response:
        name = request.path_params["name"]
        slot, model = self._adapter.resolve(name)
        if slot is None and self._board.row(name) is None:
            try:
                known = await self._adapter.catalogue.knows(model)
            except LemondError as error:
                return refused(refusal_for(error))
            if not known:
                return _not_found(name)
        if slot is not None and not slot.enabled:
            return _conflict(f"slot {name!r} is disabled; set enabled = true first")
        if not self._adapter.truth.reachable:
            why = f"lemond cannot be reached: {self._adapter.truth.unknown_why}"
            return refused(Refusal(409, "lemonade.unavailable", why))
        if unless_loading and self._board.state(model) in _UNDER_WAY:
            return _conflict(f"{name!r} is being loaded, which lemond cannot break off; try again then")
        task = asyncio.ensure_future(self._outcome(name, model, action(name)))
        self._acts.add(task)
        task.add_done_callback(self._acts.discard)
        await asyncio.sleep(0)  # so that the row shows what has begun
        row = self._board.row(name) or {"name": name, "model_id": model, "state": "offline"}
        return JSONResponse(row, 202)

    async def _outcome(self, name: str, model: str, action: Awaitable[Any]) -> None:
        """What came of an accepted action is told by events, and why it failed by a note."""
        try:
            await action
        except LemondError as error:
            self._adapter.actor.notes.add("slot.action_failed", f"{name}: {error}", model, code=error.code)


def _not_found(name: str) -> Response:
    return refused(Refusal(404, "slot.not_found", f"no slot is called {name!r}; GET /api/slots lists them"))


def _conflict(why: str) -> Response:
    return refused(Refusal(409, "slot.conflict", why))

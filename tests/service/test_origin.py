"""A web page that somebody visits may not act on the models of this machine."""

from __future__ import annotations

from typing import Any

import httpx
import pytest


@pytest.mark.parametrize(("origin", "status"), [("http://evil.example", 403), ("null", 403), (None, 202)])
async def test_foreign_origins_may_look_but_not_act(service: Any, origin: str | None, status: int) -> None:
    await service.loaded("tiny-a")
    headers = {} if origin is None else {"Origin": origin}
    async with httpx.AsyncClient(trust_env=False, headers=headers) as client:
        assert (await client.get(f"{service.url}/api/slots")).status_code == 200
        answer = await client.post(f"{service.url}/api/slots/tiny-a/unload")
    assert answer.status_code == status
    if status == 403:
        assert answer.json()["error"]["code"] == "origin.refused"
        assert await service.routed("tiny-a")


async def test_its_own_page_may(service: Any) -> None:
    async with httpx.AsyncClient(trust_env=False, headers={"Origin": service.url}) as client:
        assert (await client.post(f"{service.url}/api/slots/tiny-a/load")).status_code == 202

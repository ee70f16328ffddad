"""The proxy that most Python gateways are at heart: an ASGI application over one httpx client.

Usage: httpx_proxy.py PORT UPSTREAM_PORT
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

PORT, UPSTREAM = int(sys.argv[1]), int(sys.argv[2])
client = httpx.AsyncClient(
    base_url=f"http://127.0.0.1:{UPSTREAM}",
    timeout=None,
    trust_env=False,
    limits=httpx.Limits(max_connections=None),
)


async def forward(request: Request) -> Response:
    headers = [(k, v) for k, v in request.headers.raw if k not in (b"host", b"connection")]
    outgoing = client.build_request("POST", request.url.path, content=await request.body(), headers=headers)
    answer = await client.send(outgoing, stream=True)

    async def body() -> AsyncIterator[bytes]:
        async for chunk in answer.aiter_raw():
            yield chunk
        await answer.aclose()

    return StreamingResponse(body(), answer.status_code, media_type=answer.headers.get("content-type"))


app = Starlette(routes=[Route("/{path:path}", forward, methods=["POST"])])

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=PORT, log_level="warning", access_log=False)

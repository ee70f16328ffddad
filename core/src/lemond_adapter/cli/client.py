"""Talks to a running service."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import httpx

from lemond_adapter.types import LemondError, LemondUnavailable


class Service:
    """A running service at `url`; its key comes from LEMOND_ADAPTER_API_KEY."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        key = os.environ.get("LEMOND_ADAPTER_API_KEY")
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    def get(self, path: str) -> Any:
        """The JSON at a path. Raises `LemondUnavailable` or `LemondError`."""
        try:
            with httpx.Client(trust_env=False, timeout=10.0, headers=self._headers) as client:
                answer = client.get(self.url + path)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._unreachable(error) from error
        if answer.status_code != 200:
            raise LemondError(f"{self.url}{path} answered {answer.status_code}: {answer.text[:200]}")
        try:
            return answer.json()
        except ValueError:
            raise LemondError(f"{self.url}{path}: not JSON; is a lemond-adapter service there?") from None

    def events(self, since: int | None) -> Iterator[dict[str, Any]]:
        """Events as they come; a snapshot comes as `{"type": "snapshot", ...}`."""
        path = "/api/v1/adapter/events" + (f"?since={since}" if since is not None else "")
        timeout = httpx.Timeout(10.0, read=60.0)
        try:
            with (
                httpx.Client(trust_env=False, timeout=timeout, headers=self._headers) as client,
                client.stream("GET", self.url + path) as answer,
            ):
                if answer.status_code != 200:
                    raise LemondError(f"{self.url}{path} answered {answer.status_code}")
                kind = ""
                for line in answer.iter_lines():
                    if line.startswith("event: "):
                        kind = line[7:]
                    elif line.startswith("data: "):
                        data = json.loads(line[6:])
                        yield {"type": "snapshot", **data} if kind == "snapshot" else data
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: Exception) -> LemondUnavailable:
        return LemondUnavailable(
            f"no service at {self.url} ({error}); start one with 'lemond-adapter serve' or give --url"
        )

"""Services with slots and a policy, from a configuration file written for the test."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def configured(tmp_path: Path, start_service: Any) -> Callable[..., Awaitable[Any]]:
    """Starts a service with this configuration in front of a simulated lemond."""

    async def start(url: str, text: str) -> Any:
        file = tmp_path / "adapter.toml"
        file.write_text(text, encoding="utf-8")
        return await start_service("--lemond", url, "--config", str(file))

    return start

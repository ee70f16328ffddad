"""What can be checked before a load is sent: a load that lemond refuses costs every other model. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

RESERVED = frozenset(
    {
        "--ctx-size",
        "--device",
        "--embedding",
        "--embeddings",
        "--gpu-layers",
        "--jinja",
        "--mmproj",
        "--mmproj-auto",
        "--mmproj-offload",
        "--mmproj-url",
        "--model",
        "--n-gpu-layers",
        "--no-jinja",
        "--no-mmproj",
        "--no-mmproj-auto",
        "--no-mmproj-offload",
        "--port",
        "--rerank",
        "--reranking",
        "-c",
        "-dev",
        "-m",
        "-mm",
        "-mmu",
        "-ngl",
    }
)
"""llama-server's flags that lemond sets itself and refuses in `llamacpp_args` (10.6.0). Its refusal is an
ordinary load failure to lemond: it evicts every model and tries once more."""


def objection(options: Mapping[str, Any]) -> str | None:
    """Why these options cannot work, in words that say what to change; None when nothing is seen."""
    given = options.get("llamacpp_args")
    if not isinstance(given, str):
        return None
    try:
        words = shlex.split(given)
    except ValueError as error:
        return f"llamacpp_args {given!r}: {error}"
    taken = sorted({word.partition("=")[0] for word in words} & RESERVED)
    if not taken:
        return None
    return f"llamacpp_args: {', '.join(taken)} is set by lemond itself; take it out of server.extra_args"

"""Routes AI traffic to the model servers that Lemonade's lemond really runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lemond_adapter.types import *  # noqa: F403
from lemond_adapter.types import __all__ as _types

if TYPE_CHECKING:
    from lemond_adapter.adapter import LemondAdapter

__version__ = "0.1.0"
__all__ = ["LemondAdapter", "__version__", *_types]


def __getattr__(name: str) -> Any:
    # The network libraries are imported by those who run an adapter, not by those who only name a type.
    if name == "LemondAdapter":
        from lemond_adapter.adapter import LemondAdapter

        return LemondAdapter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

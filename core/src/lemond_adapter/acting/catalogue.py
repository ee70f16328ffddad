"""Which models lemond can serve: asked when a name is not known, shared by all who ask."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from lemond_adapter.truth.control import CatalogueEntry, LemondClient
from lemond_adapter.types import LemondError

FRESH_S = 60.0
"""How long an answer serves for names that are in it, and for `/v1/models`."""

MISS_FRESH_S = 2.0
"""How long it serves to say that a name is not in it: the model may just have been added."""


_TYPE_OF_LABEL: Mapping[str, str] = {
    "embeddings": "embedding",
    "embedding": "embedding",
    "reranking": "reranking",
    "transcription": "transcription",
    "image": "image",
    "tts": "tts",
    "audio-generation": "audio-generation",
    "classification": "classification",
    "classifier": "classification",
    "3d": "mesh",
}
"""lemond gives no type in `/v1/models`: it derives it from these labels, `chat` before all of them
(`model_types.h:find_deployment_mode`, read after 11.7.0)."""

_TYPE_OF_RECIPE: Mapping[str, str] = {
    "whispercpp": "transcription",
    "moonshine": "transcription",
    "kokoro": "tts",
    "sd-cpp": "image",
}
"""For models whose labels say nothing: what their server can be."""


class Catalogue:
    """A cache with one question in flight."""

    def __init__(
        self,
        client: LemondClient,
        public_name: Callable[[str], str],
        on_entries: Callable[[tuple[CatalogueEntry, ...]], None],
    ) -> None:
        self._client = client
        self._public = public_name
        self._on_entries = on_entries
        self._clock = asyncio.get_running_loop().time
        self._asked = float("-inf")
        self._flight: asyncio.Task[None] | None = None
        self._names: frozenset[str] = frozenset()
        self.entries: tuple[CatalogueEntry, ...] = ()

    def type_of(self, model: str) -> str | None:
        """The type that lemond will list it under; None for a model that is not in the answer at hand."""
        raw = self._raw(model)
        if raw is None:
            return None
        given = raw.get("labels")
        labels = [label for label in given if isinstance(label, str)] if isinstance(given, list) else []
        if "chat" in labels:
            return "llm"
        named = next((_TYPE_OF_LABEL[label] for label in labels if label in _TYPE_OF_LABEL), None)
        return named or _TYPE_OF_RECIPE.get(str(raw.get("recipe")), "llm")

    def recipe_of(self, model: str) -> str | None:
        """What will run it; None for a model that is not in the answer at hand."""
        recipe = (self._raw(model) or {}).get("recipe")
        return recipe if isinstance(recipe, str) else None

    def _raw(self, model: str) -> Mapping[str, Any] | None:
        return next((entry.raw for entry in self.entries if entry.model == model), None)

    async def knows(self, model: str) -> bool | None:
        """Whether lemond has this model; None when lemond cannot be asked."""
        age = self._clock() - self._asked
        if model in self._names:
            return True
        if age < MISS_FRESH_S:
            return False
        if not await self.refresh(0.0):
            return None
        return model in self._names

    async def refresh(self, older_than_s: float = FRESH_S) -> bool:
        """Asks lemond when the answer at hand is older; whether there is one no older than that."""
        if self._clock() - self._asked <= older_than_s:
            return True
        if self._flight is None or self._flight.done():
            self._flight = asyncio.create_task(self._ask())
        try:
            await asyncio.shield(self._flight)
        except LemondError:
            return False
        return True

    async def close(self) -> None:
        """Ends a question in flight."""
        if self._flight is not None:
            self._flight.cancel()
            await asyncio.gather(self._flight, return_exceptions=True)

    async def _ask(self) -> None:
        entries = await self._client.catalogue()
        self.entries = entries
        self._names = frozenset(entry.model for entry in entries)
        self._asked = self._clock()
        self._on_entries(entries)

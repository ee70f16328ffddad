"""What differs between releases, as data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ReleaseProfile:
    """One release line. Seconds are lemond's own, before the time scale."""

    release: str
    lists_dead_children: bool = True
    term_wait_s: float = 5.0
    cleanup_s: float = 2.0
    ready_poll_s: float = 0.1
    waits_for_the_dead: bool = True
    """Each failed attempt waits for a child that it has reaped already."""
    evict_all_wait_s: float = 5.0
    http_threads: int = 8
    short_authorization_is_500: bool = True
    fabricates_done: bool = True
    """A stream that its child cut ends with `[DONE]` all the same."""
    masks_embedding_errors: bool = True
    """Errors of the child on embeddings and reranking are answered with 200."""
    already_loaded_line: str = "Model already loaded, updating access time"
    lru_line: str = "Slot limit reached for type {type}, evicting LRU: {name}"
    types: tuple[str, ...] = ("embedding", "image", "llm", "reranking", "transcription", "tts")

    def is_of(self, release: str) -> bool:
        """Whether the release is of this profile's line."""
        return release.split(".")[:2] == self.release.split(".")[:2]


PROFILES = {"10.7": ReleaseProfile("10.7.0")}


def profile_for(release: str) -> ReleaseProfile:
    """The profile of the release's line; the nearest known one otherwise."""
    line = ".".join(release.split(".")[:2])
    return PROFILES.get(line, PROFILES["10.7"])

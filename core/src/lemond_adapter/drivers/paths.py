"""Which data-plane paths a recipe's child speaks itself, and which only lemond does.

From lemond's source, 10.5.0-11.7.0; llama-server's own paths from llama.cpp. A path that is not
listed goes through lemond (`gateway`).
"""

from __future__ import annotations

from collections.abc import Mapping

CHILD_PATHS: Mapping[str, frozenset[str]] = {
    "llamacpp": frozenset(
        {
            "/v1/chat/completions",
            "/v1/completions",
            "/v1/embeddings",
            "/v1/rerank",
            "/v1/reranking",
            "/v1/responses",
            "/v1/messages",
        }
    ),
    "flm": frozenset(
        {"/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/audio/transcriptions"}
    ),
    "ryzenai-llm": frozenset({"/v1/chat/completions", "/v1/completions", "/v1/responses"}),
    "vllm": frozenset({"/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses"}),
    "kokoro": frozenset({"/v1/audio/speech"}),
    "sd-cpp": frozenset({"/v1/images/generations", "/v1/images/edits"}),
}

CHECKPOINT_RECIPES = frozenset({"flm"})
"""Recipes whose child wants its checkpoint in the `model` field (lemond rewrites it too)."""

GATEWAY_PATHS: Mapping[str, str] = {"/v1/rerank": "/v1/reranking"}
"""Paths that lemond knows by another name."""

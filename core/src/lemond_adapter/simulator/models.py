"""The models that the simulated lemond can serve."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SimModel:
    """`canonical` is lemond's own name for it in log lines, `public` what health and clients use."""

    public: str
    canonical: str
    type: str = "llm"
    recipe: str = "llamacpp"
    checkpoint: str = ""
    size_gb: float = 0.1
    broken: bool = False
    """Its child exits at once with code 1."""

    @property
    def server(self) -> str:
        """lemond's name for the child's server."""
        return {"flm": "FastFlowLM", "whispercpp": "whisper-server"}.get(self.recipe, "llama-server")

    @property
    def device(self) -> str:
        """Where it runs, in health."""
        return "npu" if self.recipe == "flm" else "cpu"

    @property
    def registered_device(self) -> str:
        """Where it may run, in debug lines: llama.cpp models are meant for a GPU until the backend says."""
        return {"flm": "npu", "llamacpp": "gpu"}.get(self.recipe, "cpu")

    @property
    def labels(self) -> list[str]:
        """As `/v1/models` gives them."""
        known = {"llm": [], "embedding": ["embeddings"], "reranking": ["reranking"]}
        return known.get(self.type, [self.type])

    @property
    def tag(self) -> str:
        """The tag of the backend's lines."""
        return {"flm": "FastFlowLM", "whispercpp": "WhisperServer"}.get(self.recipe, "LlamaCpp")


def _extra(name: str, **more: object) -> SimModel:
    return SimModel(name, f"extra.{name}", checkpoint=f"/srv/models/{name}.gguf", **more)  # type: ignore[arg-type]


DEFAULT_MODELS: tuple[SimModel, ...] = (
    _extra("tiny-a"),
    _extra("tiny-b"),
    _extra("tiny-c"),
    _extra("tiny-d"),
    _extra("broken", broken=True),
    SimModel("tiny-embed", "user.tiny-embed", type="embedding", checkpoint="/srv/models/tiny-embed.gguf"),
    SimModel("tiny-rerank", "user.tiny-rerank", type="reranking", checkpoint="/srv/models/tiny-rerank.gguf"),
    SimModel("Qwen3-8B-GGUF", "Qwen3-8B-GGUF", checkpoint="unsloth/Qwen3-8B-GGUF:Q4_1", size_gb=5.2),
    SimModel(
        "Qwen3-Embedding-0.6B-GGUF",
        "Qwen3-Embedding-0.6B-GGUF",
        type="embedding",
        checkpoint="Qwen/Qwen3-Embedding-0.6B-GGUF:Q8_0",
        size_gb=0.6,
    ),
    SimModel(
        "bge-reranker-v2-m3-GGUF",
        "bge-reranker-v2-m3-GGUF",
        type="reranking",
        checkpoint="gpustack/bge-reranker-v2-m3-GGUF:Q8_0",
        size_gb=0.5,
    ),
    SimModel("Llama-3.2-1B-FLM", "Llama-3.2-1B-FLM", recipe="flm", checkpoint="llama3.2:1b", size_gb=1.2),
    SimModel(
        "Whisper-Tiny",
        "Whisper-Tiny",
        type="transcription",
        recipe="whispercpp",
        checkpoint="ggerganov/whisper.cpp:ggml-tiny.bin",
    ),
)


def choose_models(names: str | None) -> tuple[SimModel, ...]:
    """The default models, or those named in a comma-separated list (unknown names become LLMs)."""
    if not names:
        return DEFAULT_MODELS
    known = {model.public: model for model in DEFAULT_MODELS}
    return tuple(known.get(name) or _extra(name) for name in filter(None, names.split(",")))

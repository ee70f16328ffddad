"""What lemond says around a boot and the start of a load, word for word from its recordings.

Kept apart from the router so that what is said and what is done can be read separately.
"""

from __future__ import annotations

from typing import Any

from lemond_adapter.simulator.logs import LogHub
from lemond_adapter.simulator.models import SimModel

_SERVER_EXE = "/opt/lemonade/bin/llama-server"


def boot(log: LogHub, *, version: str, host: str, port: int, ws_port: int, level: str, limit: int) -> None:
    """From the start of the process until it serves."""
    log.info("main", "Starting Lemonade Server...")
    log.info("main", f"  Version: {version}")
    log.info("main", "  Cache dir: /var/lib/lemonade/.cache/lemonade")
    log.info("main", f"  Port: {port}")
    log.info("main", f"  Host: {host}")
    log.info("main", f"  Log level: {level}")
    log.info("main", "  Extra models dir: /srv/models")
    log.info("ModelManager", 'Loading "user_models.json"')
    log.info("ModelManager", "Extra models directory set to: /srv/models")
    log.debug("Router", f"Max loaded models per type: {limit}")
    log.info("Server", "Web app directory not found at: /opt/lemonade/resources/web-app")
    log.info("Server", "Falling back to static status page at root")
    log.info("WebSocket", f"Configured port: {ws_port}")
    log.info("Server", f"Starting HTTP server on {host}:{port}")
    log.info("ModelManager", "Building models cache...")
    log.info("ModelManager", "Scanning for GGUF models in: /srv/models")
    log.info("ModelManager", "Discovered 5 models from extra directory")
    log.info("WebSocket", f"Server started on port {ws_port}")
    log.info("Server", f"WebSocket server started on port {ws_port}")
    log.info("Server", f"IPv4 HTTP server listening on {host}:{port}")
    log.info("ModelManager", "Cache built: 85 total, 6 downloaded")


def settings(options: dict[str, Any]) -> str:
    """The options as its debug lines give them."""
    keys = ("ctx_size", "llamacpp_device", "llamacpp_backend", "llamacpp_args")
    given = ", ".join(f"{key}={options.get(key) or '(none)'}" for key in keys)
    return f"{given}, merge_args={str(options.get('merge_args', True)).lower()}"


def asked(log: LogHub, model: SimModel, options: dict[str, Any], checked: bool) -> None:
    """A load call reaches the router: `checked` once it is not kept waiting by another load."""
    if not checked:
        log.debug("Router", f"Effective settings: {settings(options)}")
        return
    what = f"checkpoint: {model.checkpoint}, recipe: {model.recipe}, type: {model.type}"
    log.debug("Router", f"Loading model: {model.canonical} ({what}, device: {model.registered_device})")


def starting(log: LogHub, model: SimModel, options: dict[str, Any], port: int) -> None:
    """Up to the fork. The anchor line, `Loading model: ...`, has been said before the port is chosen."""
    if model.recipe == "flm":
        log.info(model.tag, "Starting flm-server...")
        command = f'"flm" "serve" "{model.checkpoint}" "--ctx-len" "{options["ctx_size"]}" "--port" "{port}"'
        log.info("ProcessManager", f"Starting process: {command}")
        return
    if model.recipe != "llamacpp":
        log.debug("WrappedServer", f"{model.server} will use port: {port}")
        log.info(model.tag, f"Starting server on port {port}")
        return
    log.debug(model.tag, f"Per-model settings: {settings(options)}")
    log.info(model.tag, f"Using LlamaCpp Backend: {options['llamacpp_backend']}")
    log.debug("BackendManager", f"Installing llamacpp:{options['llamacpp_backend']}")
    log.debug("llamacpp Server", f"Found executable at: {_SERVER_EXE}")
    log.debug(model.tag, f"Using GGUF: {model.checkpoint}")
    log.debug("WrappedServer", f"{model.server} will use port: {port}")
    log.debug(model.tag, f"Using backend: {options['llamacpp_backend']}")
    log.debug(model.tag, "[LlamaCpp] Use GPU: false")
    if model.type == "embedding":
        log.info(model.tag, "Model supports embeddings, adding --embeddings flag")
    if model.type == "reranking":
        log.info(model.tag, "Model supports reranking, adding --reranking flag")
    log.debug(model.tag, "ngl set to 0")
    if options.get("llamacpp_args"):
        log.debug(model.tag, f"Adding custom arguments: {options['llamacpp_args']}")
    log.info(model.tag, "Starting llama-server...")
    command = command_line(model, options, port)
    log.debug("ProcessManager", f"Starting process with filtered output: {command}")


def command_line(model: SimModel, options: dict[str, Any], port: int) -> str:
    """What the real child's command would be."""
    ctx = 8192 if model.type == "embedding" else options["ctx_size"]
    flag = {"embedding": " --embeddings", "reranking": " --reranking"}.get(model.type, "")
    fixed = "--jinja --metrics --keep 16 --reasoning-format auto --no-webui"
    custom = f" {options['llamacpp_args']}" if options.get("llamacpp_args") else ""
    head = f"{_SERVER_EXE} -m {model.checkpoint} --ctx-size {ctx} --port {port}"
    return f"{head} {fixed}{flag} -ngl 0{custom}"


def started(log: LogHub, model: SimModel, pid: int) -> None:
    """After the fork."""
    if model.recipe == "flm":
        log.info("ProcessManager", "Process started successfully")
    elif model.recipe == "llamacpp":
        log.info("ProcessManager", f"Process started successfully, PID: {pid}")
    else:
        log.info(model.tag, f"Process started with PID: {pid}")
    log.debug("WrappedServer", f"Waiting for {model.server} to be ready...")


def ready(log: LogHub, model: SimModel, port: int) -> None:
    """The child has answered its readiness probe."""
    log.info("WrappedServer", f"{model.server} is ready!")
    if model.recipe == "flm":
        log.info(model.tag, f"Model loaded on port {port}")
    elif model.recipe == "llamacpp":
        log.debug(model.tag, f"Model loaded on port {port}")
    else:
        log.info(model.tag, "Server is ready!")
    log.debug("Router", "Backend started successfully")


def died_at_start(log: LogHub, model: SimModel) -> None:
    """The child exited before it was ready."""
    log.error("WrappedServer", f"{model.server} process has terminated with exit code: 1")
    log.error("WrappedServer", "This usually means:")
    log.error("WrappedServer", "  - Missing required drivers or dependencies")
    log.error("WrappedServer", "  - Incompatible model file")
    log.error("WrappedServer", "  - Try running the server manually to see the actual error")


def telemetry(log: LogHub) -> None:
    """After an answer that was not streamed."""
    log.info("Telemetry", "=== Telemetry ===")
    log.info("Telemetry", "Input tokens:  3")
    log.info("Telemetry", "Output tokens: 3")
    log.info("Telemetry", "TTFT (s):      0.00")
    log.info("Telemetry", "TPS:           3404.26")
    log.info("Telemetry", "=================")

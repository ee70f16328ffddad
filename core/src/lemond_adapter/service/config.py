"""The configuration: TOML and environment, refused with file, key and what was expected."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from lemond_adapter.acting.policy import Policy
from lemond_adapter.types import ConfigError, SlotMap, SlotSpec


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LemondSection(_Strict):
    """Where lemond is. Keys are named by environment variable, never written down."""

    url: str = "http://127.0.0.1:13305"
    api_key_env: str = "LEMONADE_API_KEY"
    admin_api_key_env: str = "LEMONADE_ADMIN_API_KEY"
    connect_timeout_s: float = Field(default=3.0, gt=0)
    load_timeout_s: float = Field(default=600.0, gt=0)


class ListenSection(_Strict):
    """Where we listen."""

    host: str = "127.0.0.1"
    port: int = Field(default=13306, ge=0, le=65535)
    api_key_env: str = "LEMOND_ADAPTER_API_KEY"


class PolicySection(_Strict):
    """What we do by ourselves. Durations in seconds; 0 = never."""

    hold_s: float = Field(default=0.0, ge=0)
    idle_timeout_s: float = Field(default=300.0, ge=0)
    drain_timeout_s: float = Field(default=30.0, ge=0)
    max_restarts: int = Field(default=5, ge=0)
    heartbeat_s: float = Field(default=30.0, gt=0)
    silence_s: float = Field(default=10.0, gt=0)
    restart_backoff_s: float = Field(default=1.0, ge=0)
    restart_refill_s: float = Field(default=600.0, gt=0)
    warm: list[str] = Field(default_factory=list)
    max_waiting: int = Field(default=256, ge=0)
    idempotency_ttl_s: float = Field(default=600.0, ge=0)


class StateSection(_Strict):
    """What is kept on disk. `dir` holds the journal; `hal0_dir` gets hal0's `<slot>/state.json`."""

    dir: str | None = None
    journal_rows: int = Field(default=100_000, ge=100)
    journal_days: float = Field(default=30.0, gt=0)
    hal0_dir: str | None = None


class SlotModel(BaseModel):
    """hal0 writes a slot's model as a table."""

    model_config = ConfigDict(extra="allow", frozen=True)

    default: str = ""
    context_size: int | None = None


class SlotServer(BaseModel):
    """hal0's server settings of a slot."""

    model_config = ConfigDict(extra="allow", frozen=True)

    extra_args: str | list[str] = ""


class SlotSection(BaseModel):
    """One slot. hal0's own keys are accepted as they are, also those that mean nothing here."""

    model_config = ConfigDict(extra="allow", frozen=True)

    model: str | SlotModel
    aliases: list[str] = Field(default_factory=list)
    type: str = "llm"
    backend: str = ""
    enabled: bool = True
    pinned: bool = False
    priority: int = 0
    max_in_flight: int = Field(default=0, ge=0)
    max_queue: int = Field(default=64, ge=0)
    idle_timeout_s: float | None = Field(default=None, ge=0)
    hold_s: float | None = Field(default=None, ge=0)
    server: SlotServer = Field(default_factory=SlotServer)

    @field_validator("model")
    @classmethod
    def _named(cls, value: str | SlotModel) -> str | SlotModel:
        if not (value if isinstance(value, str) else value.default):
            raise ValueError("a model name, or {default = <model name>}")
        return value

    def spec(self, name: str) -> SlotSpec:
        """As the core's value."""
        table = self.model if isinstance(self.model, SlotModel) else SlotModel(default=str(self.model))
        options: dict[str, Any] = {}
        if table.context_size is not None:
            options["ctx_size"] = table.context_size
        args = self.server.extra_args
        if args:
            options["llamacpp_args"] = args if isinstance(args, str) else " ".join(args)
        return SlotSpec(
            name=name,
            model=table.default,
            aliases=tuple(self.aliases),
            type=self.type,
            backend=self.backend,
            enabled=self.enabled,
            options=options or None,
            idle_timeout_s=self.idle_timeout_s,
            hold_s=self.hold_s,
            pinned=self.pinned,
            priority=self.priority,
            max_in_flight=self.max_in_flight,
            max_queue=self.max_queue,
        )


class Config(_Strict):
    """The whole file."""

    lemond: LemondSection = Field(default_factory=LemondSection)
    listen: ListenSection = Field(default_factory=ListenSection)
    policy: PolicySection = Field(default_factory=PolicySection)
    state: StateSection = Field(default_factory=StateSection)
    slots: dict[str, SlotSection] = Field(default_factory=dict)
    slots_dir: str | None = None

    def acting(self) -> Policy:
        """What is done unasked, as the core's value."""
        given = self.policy
        return Policy(
            idle_timeout_s=given.idle_timeout_s,
            drain_timeout_s=given.drain_timeout_s,
            max_restarts=given.max_restarts,
            restart_backoff_s=given.restart_backoff_s,
            restart_refill_s=given.restart_refill_s,
            hold_s=given.hold_s,
            warm=tuple(given.warm),
        )

    def slot_specs(self) -> list[SlotSpec]:
        """The slots as the core wants them."""
        return [section.spec(name) for name, section in self.slots.items()]


def load_config(path: str | Path | None) -> Config:
    """Reads a configuration file; the defaults without one. Raises `ConfigError`."""
    if path is None:
        return Config()
    file = Path(path)
    config = _with_slots_dir(file, _validate(file, _toml(file)))
    try:
        SlotMap(config.slot_specs())
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from None
    return config


def _with_slots_dir(file: Path, config: Config) -> Config:
    if config.slots_dir is None:
        return config
    folder = file.parent / config.slots_dir
    if not folder.is_dir():
        raise ConfigError(f"{file}: slots_dir: {folder} is not a folder")
    slots: dict[str, Any] = {}
    for slot_file in sorted(folder.glob("*.toml")):
        raw = _toml(slot_file)
        name = str(raw.pop("name", slot_file.stem))
        slots[name] = _validate(slot_file, {"slots": {name: raw}}).slots[name]
    return config.model_copy(update={"slots": {**slots, **config.slots}})


def _toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: not TOML: {error}") from error


def _validate(file: Path, raw: Mapping[str, Any]) -> Config:
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"]) or "the file"
        if first["type"] == "extra_forbidden":
            known = _known_keys(first["loc"])
            raise ConfigError(f"{file}: {key}: unknown key; known here: {known}") from None
        given = repr(first.get("input"))[:60]
        raise ConfigError(f"{file}: {key}: {first['msg']} (given: {given})") from None


def _known_keys(where: tuple[int | str, ...]) -> str:
    sections: dict[str, type[BaseModel]] = {
        "lemond": LemondSection,
        "listen": ListenSection,
        "policy": PolicySection,
        "state": StateSection,
    }
    schema = sections.get(str(where[0]), Config) if len(where) > 1 else Config
    return ", ".join(schema.model_fields)


def secret(variable: str) -> str | None:
    """A key from the environment; None when unset or empty."""
    return os.environ.get(variable) or None

"""A loaded driver: the plugin's answers, read once, with every later call contained."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import pluggy

from lemond_adapter.drivers import health, hookspecs
from lemond_adapter.drivers.health import HealthListing
from lemond_adapter.drivers.info import DriverInfo, Traits
from lemond_adapter.drivers.matcher import LogMatcher
from lemond_adapter.drivers.names import public_name
from lemond_adapter.drivers.paths import CHECKPOINT_RECIPES, CHILD_PATHS, GATEWAY_PATHS
from lemond_adapter.drivers.signals import LogRule
from lemond_adapter.types import DriverError, LemondError, RouteMode


@dataclass(frozen=True, slots=True)
class Driver:
    """What the core asks of a release. Built by `build_driver`, never by hand."""

    info: DriverInfo
    traits: Traits
    matcher: LogMatcher
    origin: str
    """Distribution and version it came from, e.g. `lemond-driver-10-7 0.1.0`."""
    _parse_health: Callable[[object], HealthListing]
    _public_name: Callable[[str, Collection[str]], str]
    _child_paths: Mapping[str, frozenset[str]]
    _hooks: Any = None
    gives_traits: bool = False
    """Whether the plugin states its traits, or gets the cautious defaults."""

    @property
    def name(self) -> str:
        return self.info.name

    def parse_health(self, body: object) -> HealthListing:
        """Reads a health body. Raises `MalformedPayload`, or `DriverError` when the driver breaks."""
        try:
            return self._parse_health(body)
        except LemondError:
            raise
        except Exception as error:
            raise DriverError(f"driver {self.name}: parse_health raised {error!r:.300}") from error

    def public_name(self, canonical: str, listed: Collection[str] = ()) -> str:
        """The public name for a name in a log line; a driver that breaks here loses its say."""
        try:
            return self._public_name(canonical, listed)
        except Exception:  # noqa: BLE001 - a plugin's fault; the core's rule is a safe answer
            return public_name(canonical, listed)

    def mode_for(self, recipe: str, path: str) -> RouteMode:
        """Whether a recipe's child speaks the path itself or only lemond does."""
        return "child" if path in self._child_paths.get(recipe, frozenset()) else "gateway"

    def has_child_paths(self, recipe: str) -> bool:
        """Whether a recipe's child speaks any data-plane path itself."""
        return bool(self._child_paths.get(recipe))

    def gateway_path(self, path: str) -> str:
        """lemond's own name for a data-plane path."""
        return GATEWAY_PATHS.get(path, path)

    def child_model_name(self, recipe: str, model: str, checkpoint: str | None) -> str | None:
        """What the child must see as `model`; None where it ignores the field."""
        return (checkpoint or model) if recipe in CHECKPOINT_RECIPES else None

    def event_source(
        self, advertised: Mapping[str, Any], base_url: str, api_key: str | None
    ) -> object | None:
        """The native event source of a `native` driver; None for log drivers."""
        if self._hooks is None or self.info.channel != "native":
            return None
        source: object | None = self._hooks.lemond_event_source(
            advertised=advertised, base_url=base_url, api_key=api_key
        )
        return source


def build_driver(plugin: object, *, name: str, origin: str = "in the core") -> Driver:
    """Validates a plugin against the hookspecs and reads its answers.

    Raises `DriverError` naming the driver and what is wrong with it.
    """
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    try:
        manager.register(plugin, name=name)
        manager.check_pending()
        hooks = manager.hook
        info = hooks.lemond_driver()
        if not isinstance(info, DriverInfo):
            raise DriverError(f"driver {name} ({origin}): lemond_driver() must return a DriverInfo")
        traits = hooks.lemond_traits() or Traits()
        rules = tuple(hooks.lemond_log_rules() or ())
        child_paths = hooks.lemond_child_paths() or CHILD_PATHS
    except DriverError:
        raise
    except Exception as error:
        raise DriverError(f"driver {name} ({origin}): {error!r:.300}") from error
    if not isinstance(traits, Traits) or not all(isinstance(rule, LogRule) for rule in rules):
        raise DriverError(f"driver {name} ({origin}): traits or log rules have the wrong type")

    def parse(body: object) -> HealthListing:
        listing = hooks.lemond_parse_health(body=body)
        return listing if isinstance(listing, HealthListing) else health.parse_health(body)

    def name_for(canonical: str, listed: Collection[str]) -> str:
        answer = hooks.lemond_public_name(canonical=canonical, listed=listed)
        return answer if isinstance(answer, str) else public_name(canonical, listed)

    has_names = bool(hooks.lemond_public_name.get_hookimpls())
    return Driver(
        info=info,
        traits=traits,
        matcher=LogMatcher(rules),
        origin=origin,
        _parse_health=parse,
        _public_name=name_for if has_names else public_name,
        _child_paths=child_paths,
        _hooks=hooks,
        gives_traits=bool(hooks.lemond_traits.get_hookimpls()),
    )

"""A behavioural twin of lemond, for first use, demos and tests: its HTTP and log stream on their own
ports, its children as real processes. Not lemond's code: what it does was measured on real releases
and is checked against their recordings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lemond_adapter.simulator.process import SimulatorError, SimulatorProcess

__all__ = ["SimulatorError", "SimulatorProcess"]


def __getattr__(name: str) -> Any:
    # Late: the simulated lemond itself imports this package too, and has to start quickly.
    if name in __all__:
        from lemond_adapter.simulator import process

        return getattr(process, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""A behavioural twin of lemond, for first use, demos and tests: its HTTP and log stream on their own
ports, its children as real processes. Not lemond's code: what it does was measured on real releases
and is checked against their recordings.
"""

from lemond_adapter.simulator.process import SimulatorError, SimulatorProcess

__all__ = ["SimulatorError", "SimulatorProcess"]

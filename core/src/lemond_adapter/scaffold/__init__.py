"""`drivers new`: a driver wheel for a release that has none yet."""

from lemond_adapter.scaffold.wheel import create_driver

__all__ = ["create_driver"]

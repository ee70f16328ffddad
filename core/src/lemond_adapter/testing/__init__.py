"""The conformance kit: what a driver's author runs. One line gives all checks:

    TestConformance = conformance(lemond_driver_11_9, corpus=Path("corpus"), releases=["11.9.0"])

Needs pytest and hypothesis.
"""

import pytest

pytest.register_assert_rewrite("lemond_adapter.testing.kit")

from lemond_adapter.testing.kit import conformance  # noqa: E402 - after its asserts are made to speak

__all__ = ["conformance"]

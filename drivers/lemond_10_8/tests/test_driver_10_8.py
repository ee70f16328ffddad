"""The conformance run of this driver."""

from pathlib import Path

import lemond_driver_10_8
from lemond_adapter.testing import conformance

CORPUS = Path(__file__).parents[3] / "corpus"

TestConformance = conformance(lemond_driver_10_8, corpus=CORPUS, releases=["10.8.1", "10.10.0"])

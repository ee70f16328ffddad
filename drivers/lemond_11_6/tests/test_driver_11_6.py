"""The conformance run of this driver."""

from pathlib import Path

import lemond_driver_11_6
from lemond_adapter.testing import conformance

CORPUS = Path(__file__).parents[3] / "corpus"

TestConformance = conformance(lemond_driver_11_6, corpus=CORPUS, releases=["11.7.0"])

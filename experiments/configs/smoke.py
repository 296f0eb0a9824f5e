"""The smallest comparison that goes through every stage, for CI."""

from dataclasses import replace

from ..compare.settings import Comparison, Expectation
from .default import mqar, text


def smoke() -> Comparison:
    """``subquad compare --preset smoke``: under 90 seconds on two cores. Too short to tell architectures apart."""
    recall = replace(mqar(), steps=60, lrs=(0.01,), seeds=2, expectations=(Expectation("min_gru", at_most=0.2),))
    prose = replace(text(), steps=20, lrs=(0.01,), seeds=2, expectations=())
    return Comparison("smoke", ("transformer", "gated_deltanet", "min_gru"), (recall, prose))

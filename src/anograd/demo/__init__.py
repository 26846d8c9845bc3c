"""The demonstration: one digit normal and nine odd, then a table with ten known anomalies."""

from anograd.demo import cancer, digits
from anograd.demo.outcome import Outcome

__all__ = ["Outcome", "cancer", "digits"]

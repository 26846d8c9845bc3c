"""Detect anomalies from the gradients they would cause.

A network is fitted to normal data. A row it has never seen asks for another weight update than a
normal one, and that update, the per-sample gradient of the loss, tells how strange the row is.
"""

from anograd._version import __version__
from anograd.detectors import GradCon, load
from anograd.gradients import Sketch, per_sample, plan
from anograd.target import Target

__all__ = ["GradCon", "Sketch", "Target", "__version__", "load", "per_sample", "plan"]

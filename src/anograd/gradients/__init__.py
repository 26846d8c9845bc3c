"""Per-sample gradients of any network and what can be read off them without storing them.

:func:`anograd.per_sample` is the only door. One forward and one backward pass note, for each chosen layer,
its input and the loss gradient at its output; a rule a layer kind says how the gradient factors into them.
"""

from anograd.gradients import attention, layers, recurrent  # noqa: F401 - register the rules
from anograd.gradients.engine import PerSample, per_sample
from anograd.gradients.planning import plan
from anograd.gradients.rules import Direct, Lookup, Outer, rule
from anograd.gradients.served import Plan
from anograd.gradients.sketch import Sketch
from anograd.gradients.steady import doubled, steady

__all__ = [
    "Direct",
    "Lookup",
    "Outer",
    "PerSample",
    "Plan",
    "Sketch",
    "doubled",
    "per_sample",
    "plan",
    "rule",
    "steady",
]

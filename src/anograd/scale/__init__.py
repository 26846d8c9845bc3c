"""Scoring on several processors or machines: what engines map over a table, and a run on Ray."""

from anograd.scale.on_ray import score_on_ray as score_on_ray
from anograd.scale.parts import Done as Done
from anograd.scale.scorer import Scorer as Scorer

"""Representation -> one number a row, high = anomalous: a module a score, which learns from normal rows."""

from anograd.score.blocks import BlockTest as BlockTest
from anograd.score.density import NormDensity as NormDensity
from anograd.score.fisher import ScoreTest as ScoreTest
from anograd.score.gradcon import PUBLISHED_BETA as PUBLISHED_BETA
from anograd.score.gradcon import equal_spread as equal_spread
from anograd.score.gradcon import gradcon_score as gradcon_score
from anograd.score.gradnorm import UniformGradient as UniformGradient
from anograd.score.labelled import LabelledNorms as LabelledNorms
from anograd.score.loss import LossAlone as LossAlone
from anograd.score.neighbours import Neighbours as Neighbours
from anograd.score.references import ReferenceGap as ReferenceGap
from anograd.score.subspace import Subspace as Subspace

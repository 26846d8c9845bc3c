"""Detect anomalies from the gradients they would cause.

A network is fitted to normal data. A row it has never seen asks for another weight update than a
normal one, and that update, the per-sample gradient of the loss, tells how strange the row is.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from anograd._version import __version__

if TYPE_CHECKING:
    from anograd.detectors import (
        R2AD2,
        GradCon,
        GradDensity,
        GradientDetector,
        GradientFeatures,
        GradLabels,
        GradNeighbours,
        GradNorm,
        GradReferences,
        GradScoreTest,
        GradSubspace,
        GraN,
        fit_together,
        load,
        unlike,
    )
    from anograd.gradients import Sketch, per_sample, plan
    from anograd.onnx import export
    from anograd.target import Target

__all__ = [
    "R2AD2",
    "GraN",
    "GradCon",
    "GradDensity",
    "GradLabels",
    "GradNeighbours",
    "GradNorm",
    "GradReferences",
    "GradScoreTest",
    "GradSubspace",
    "GradientDetector",
    "GradientFeatures",
    "Sketch",
    "Target",
    "__version__",
    "export",
    "fit_together",
    "load",
    "per_sample",
    "plan",
    "unlike",
]

# Torch and scikit-learn take seconds to load, so they wait until a name is asked for.
_HOMES = {
    "GraN": "anograd.detectors",
    "GradCon": "anograd.detectors",
    "GradDensity": "anograd.detectors",
    "GradNeighbours": "anograd.detectors",
    "GradReferences": "anograd.detectors",
    "GradScoreTest": "anograd.detectors",
    "GradSubspace": "anograd.detectors",
    "R2AD2": "anograd.detectors",
    "GradLabels": "anograd.detectors",
    "GradNorm": "anograd.detectors",
    "GradientDetector": "anograd.detectors",
    "GradientFeatures": "anograd.detectors",
    "Sketch": "anograd.gradients",
    "Target": "anograd.target",
    "fit_together": "anograd.detectors",
    "export": "anograd.onnx",
    "load": "anograd.detectors",
    "per_sample": "anograd.gradients",
    "plan": "anograd.gradients",
    "unlike": "anograd.detectors",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'anograd' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

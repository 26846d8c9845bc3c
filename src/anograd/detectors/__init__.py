"""The detectors: each a preset of target, representation and score behind scikit-learn's interface."""

from __future__ import annotations

from pathlib import Path

from anograd import store
from anograd.detectors.base import Detector
from anograd.detectors.classifier import GradLabels, GradNorm
from anograd.detectors.composed import GradientDetector
from anograd.detectors.density import GradDensity
from anograd.detectors.gradcon import GradCon
from anograd.detectors.gran import GraN
from anograd.detectors.neighbours import GradNeighbours
from anograd.detectors.r2ad2 import R2AD2
from anograd.detectors.references import GradReferences
from anograd.detectors.score_test import GradScoreTest
from anograd.detectors.subspace import GradSubspace
from anograd.detectors.together import fit_together
from anograd.detectors.transformer import GradientFeatures
from anograd.target import Target

__all__ = [
    "DETECTORS",
    "R2AD2",
    "Detector",
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
    "fit_together",
    "load",
]

DETECTORS: dict[str, type[Detector]] = {
    kind.__name__.lower(): kind
    for kind in (
        GradCon, R2AD2, GradDensity, GradScoreTest, GradSubspace, GradNeighbours, GradReferences, GraN,
        GradNorm, GradLabels, GradientDetector,
    )
}  # fmt: skip


def load(folder: str | Path, *, target: Target | None = None, device: str | None = None) -> Detector:
    """Return the fitted detector that was saved to a folder, scoring as it did there.

    Nothing in the folder is run: JSON, safetensors and skops, checksums compared first.

    Parameters
    ----------
    folder : path
        What ``detector.save(folder)`` wrote.
    target : Target, optional
        For a detector fitted on an adopted network: that network, whose weights are set to the saved ones.

    device : str, optional
        Where to score, such as "cpu" for a model fitted on a GPU; as it was fitted when left out.

    Raises
    ------
    FileNotFoundError
        No such folder.
    ValueError
        No model, a newer anograd's, or a damaged one.
    """
    stored = store.read(folder)
    named = {kind.__name__: kind for kind in DETECTORS.values()}
    name = stored.manifest.get("detector")
    if name not in named:
        raise ValueError(
            f"{str(folder)!r} holds a detector of the kind {name!r}; this anograd knows {', '.join(named)}: "
            f"pip install -U anograd"
        )
    return named[name].from_stored(stored, target, device)

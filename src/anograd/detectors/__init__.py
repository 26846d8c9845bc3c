"""The detectors: each a preset of target, representation and score behind scikit-learn's interface."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from anograd import store
from anograd.checkpoint import copied
from anograd.detectors import golden
from anograd.detectors.base import Detector
from anograd.detectors.changed import unlike
from anograd.detectors.checks import HandedIn
from anograd.detectors.classifier import GradLabels, GradNorm
from anograd.detectors.composed import GradientDetector
from anograd.detectors.density import GradDensity
from anograd.detectors.gradcon import GradCon
from anograd.detectors.gran import GraN
from anograd.detectors.neighbours import GradNeighbours
from anograd.detectors.r2ad2 import R2AD2
from anograd.detectors.references import GradReferences
from anograd.detectors.saved import restored
from anograd.detectors.score_test import GradScoreTest
from anograd.detectors.subspace import GradSubspace
from anograd.detectors.together import fit_together
from anograd.detectors.transformer import GradientFeatures
from anograd.target import Target, undisturbed

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
    "unlike",
]

DETECTORS: dict[str, type[Detector]] = {
    kind.__name__.lower(): kind
    for kind in (
        GradCon, R2AD2, GradDensity, GradScoreTest, GradSubspace, GradNeighbours, GradReferences, GraN,
        GradNorm, GradLabels, GradientDetector,
    )
}  # fmt: skip


@undisturbed()
def load(
    folder: str | Path,
    *,
    target: Target | None = None,
    device: str | None = None,
    kinds: Sequence[type[Detector]] = (),
) -> Detector:
    """Return the fitted detector that was saved to a folder, scoring as it did there.

    Nothing in the folder is run: JSON, safetensors and skops, checksums compared first. Then a few made-up
    rows that were saved with their scores are scored again.

    Parameters
    ----------
    folder : path
        What ``detector.save(folder)`` wrote.
    target : Target, optional
        For a detector fitted on an adopted network: that network, whose weights are set to the saved ones
        where the model can be loaded, and stay as they are where it cannot.
    device : str, optional
        Where to score, such as "cpu" for a model fitted on a GPU; as it was fitted when left out.
    kinds : sequence of classes, optional
        Detectors of your own, of which the folder names one; those of this package are always known.

    Raises
    ------
    FileNotFoundError
        No such folder.
    TypeError
        `target` is no Target, or one of `kinds` no class of detectors.
    ValueError
        No model, a detector that neither this version nor `kinds` knows, a newer anograd's, or a damaged one;
        one that scores otherwise here than when it was saved.
    """
    if target is not None and not isinstance(target, Target):
        raise TypeError(
            f"target={type(target).__name__}(...) was given: write target=Target.adopt(your_network, ...), "
            f"with the loss and layers of the fit"
        )
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, Detector)):
            raise TypeError(f"kinds={kinds!r} was given: write kinds=[YourDetector], classes of detectors")
    stored = store.read(folder)
    named = {kind.__name__: kind for kind in (*DETECTORS.values(), *kinds)}
    name = str(stored.manifest.get("detector"))
    if name not in named:
        raise ValueError(
            f"{str(folder)!r} holds a detector of the kind {name!r}, and known are {', '.join(named)}: if it "
            f"is one of your own, load(folder, kinds=[{name}]); else pip install -U anograd"
        )
    with _given_back(target):
        try:
            detector = restored(named[name], stored, target, device)
            found = golden.difference(detector, stored)
        except (HandedIn, OSError, ImportError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # plain data and tensors of any shape, with checksums that are right
            why = f"do not fit together ({type(error).__name__}: {error})"
            if target is None:
                raise store.damaged(folder, f"its parts {why}") from error
            raise ValueError(
                f"the model in {str(folder)!r} and the network that was handed in {why}: hand over the one "
                f"of the fit, with its loss and layers, or copy the folder again"
            ) from error
        if found is not None:
            raise ValueError(f"the model in {str(folder)!r} scores otherwise than when it was saved: {found}")
    return detector


@contextmanager
def _given_back(target: Target | None) -> Iterator[None]:
    """Give a network that was handed in its own weights back where an error ends the block."""
    before = {} if target is None else copied(target.module.state_dict())
    try:
        yield
    except BaseException:
        if target is not None:
            target.module.load_state_dict(before)
        raise

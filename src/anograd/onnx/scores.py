"""What each detector makes of encoded rows, as a function of tensors that can be traced."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, cast

import torch
from torch import Tensor

from anograd.detectors import R2AD2, Detector, GradCon, GradNorm, GradScoreTest
from anograd.detectors.gradient import PostHocDetector
from anograd.detectors.network import NetworkDetector
from anograd.features import Features
from anograd.gradients import PerSample, doubled
from anograd.gradients.planning import plan
from anograd.gradients.served import Plan
from anograd.onnx.passes import check_rules, one_pass, projections
from anograd.represent import cosine
from anograd.score import ScoreTest, gradcon_score
from anograd.target import Target, real_type

Score = Callable[[Tensor], Tensor]


def score_of(detector: Detector, rows: Tensor) -> Score:
    """Return the function from encoded rows to scores, (n,), high = anomalous.

    Parameters
    ----------
    detector : Detector
    rows : torch.Tensor, (n, ...)
        A few encoded rows, to see how the network goes through its layers.

    Raises
    ------
    ValueError
        For a kind of detector that cannot be exported, or a layer that follows no rule of the engine.
    """
    check_kind(detector)
    if isinstance(detector, GradCon):
        return _gradcon(detector, rows)
    if isinstance(detector, R2AD2):
        return _r2ad2(detector, rows)
    assert isinstance(detector, PostHocDetector)
    of_gradient = _post_hoc(detector, rows)
    if isinstance(detector, GradScoreTest) and detector.inputs:
        return _with_inputs(detector, of_gradient)
    return of_gradient


def _with_inputs(detector: GradScoreTest, of_gradient: Score) -> Score:
    target, real = _steady(detector)

    def score(x: Tensor) -> Tensor:
        return of_gradient(x) + detector._surprise_of_inputs(detector._shown_by(target, _as(x, real)).values)

    return score


def check_kind(detector: Any) -> None:
    """Raise ValueError where there is no such function for a detector of this kind."""
    if not isinstance(detector, GradCon | R2AD2 | PostHocDetector):
        raise ValueError(
            f"{type(detector).__name__} cannot be written as ONNX: GradCon, R2AD2 and all other detectors "
            f"that `anograd info` lists can"
        )


def _gradcon(detector: GradCon, rows: Tensor) -> Score:
    target, real = _steady(detector)
    reference = {name: one.to(real) for name, one in detector.reference_.items()}
    planned = check_rules(plan(target, _as(rows, real)))

    def score(x: Tensor) -> Tensor:
        found = one_pass(target, planned, _as(x, real), ("loss", "norm", "inner"), reference=reference)
        assert found.loss is not None
        return gradcon_score(found.loss, cosine(found, reference), detector.beta_)

    return score


def _steady(detector: NetworkDetector) -> tuple[Target, torch.dtype]:
    """Return the target to write and its type: double where PyTorch's scores are what double would give."""
    target = doubled(detector.target_) if detector._is_steady() else detector.target_
    return target, real_type(target.module)


def _as(x: Tensor, real: torch.dtype) -> Tensor:
    return x.to(real) if x.is_floating_point() else x


def _r2ad2(detector: R2AD2, rows: Tensor) -> Score:
    real = next(detector.targets_[0].module.parameters()).dtype
    planned = [check_rules(plan(target, rows.to(real))) for target in detector.targets_]
    kind = "full" if detector.sketch_ is None else "sketch"
    drawn = [projections(target, detector.sketch_) for target in detector.targets_]

    def score(x: Tensor) -> Tensor:
        passes = [
            one_pass(target, one, x.to(real), (kind,), sketch=sketch)
            for target, one, sketch in zip(detector.targets_, planned, drawn, strict=True)
        ]
        gradients = torch.stack([getattr(found, kind) for found in passes], dim=1)
        if detector.training != "published":
            columns = [x.flatten(1).to(gradients)] if detector.columns else []
            gradients = torch.cat([gradients.flatten(1), *columns], dim=1)
        scores: Tensor = detector.scorer_(gradients)
        return scores

    return score


def _post_hoc(detector: PostHocDetector, rows: Tensor) -> Score:
    (target, real), kind = _steady(detector), detector.representation
    references = [{name: value.to(real) for name, value in one.items()} for one in detector.references_]
    if isinstance(detector, GradNorm):  # whose gradient is a product of what the forward pass shows
        return lambda x: detector.score_(detector._read(x))
    planned = check_rules(plan(target, _as(rows, real)))
    if isinstance(detector, GradScoreTest) and kind == "full" and detector._expands():
        return _score_test(detector, planned)
    drawn = projections(target, detector.sketch_)

    def read(x: Tensor) -> Features:
        if kind == "cosine":
            passes = [
                one_pass(target, planned, x, ("loss", "norm", "inner"), reference=reference)
                for reference in references
            ]
            cosines = [cosine(found, reference) for found, reference in zip(passes, references, strict=True)]
            assert passes[0].loss is not None
            return Features(passes[0].loss, torch.cat(cosines, dim=1))
        unit = detector.unit and kind in ("sketch", "full")
        found = one_pass(target, planned, x, ("loss", kind), sketch=drawn, unit=unit)
        assert found.loss is not None
        return Features(found.loss, getattr(found, kind))

    def score(x: Tensor) -> Tensor:
        scores: Tensor = detector.score_(read(_as(x, real)))
        return scores

    return score


def _score_test(detector: GradScoreTest, planned: Plan) -> Score:
    """Return the score test with the diagonal that builds no gradient of a linear layer."""

    def sample(target: Target, x: Tensor, want: Collection[str], memory: Any, **named: Any) -> PerSample:
        return one_pass(target, planned, x, want, **named)

    statistics = detector._expanding(sample)

    def score(x: Tensor) -> Tensor:
        by_layer, loss = statistics(detector._precise(x))
        return cast(ScoreTest, detector.score_).join(by_layer.sum(1), loss)

    return score

"""From a fitted detector and rows to their explanation."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from anograd.decoded import decode, settle
from anograd.detectors.parts import Parts
from anograd.detectors.precise import at_home, precise
from anograd.detectors.rows import Encoder
from anograd.explain import Explanation, contributions, nearest, patches, spread
from anograd.table import Table

if TYPE_CHECKING:
    from anograd.detectors.base import Detector

NEAREST = 3
PATCH, ALONG = 4, 24  # pixels of a patch's side, and patches along an image: each costs two scores
LEAST = 1e-12


def taken_apart(detector: Detector) -> Parts:
    """Return a detector's score taken apart, its groups on the CPU."""
    with at_home():
        return detector._parts()


def explained(detector: Detector, X: Any, normal: Any, patch: int | None) -> Explanation:
    """Return why rows score as they do; `Detector.explain` says how.

    Parameters
    ----------
    detector : Detector
    X, normal : as for ``fit``
    patch : int, optional
    """
    with precise(detector._device()):
        return _explained(detector, X, normal, patch)


def _explained(detector: Detector, X: Any, normal: Any, patch: int | None) -> Explanation:
    device = detector._device()
    rows = torch.cat(list(detector._encode(X))).to(device)
    others = None if normal is None else torch.cat(list(detector._encode(normal))).to(device)
    expected = _expected(detector, rows, others)
    encoder = detector.encoder_
    with at_home():
        groups = _groups(encoder, rows, patch).to(device)
    shares, scores = contributions(_in_batches(detector, detector._score_batch), rows, expected, groups)
    features = shares if encoder.table is not None else spread(shares, groups, rows - expected)
    parts = taken_apart(detector)
    read = _in_batches(detector, parts.read)
    found = read(rows)
    usual = detector.usual_.to(found).expand_as(found)
    of_parts, _ = contributions(parts.score, found, usual, parts.groups.to(device))
    return Explanation(
        scores=_array(scores),
        features=_array(features),
        names=_names(encoder),
        expected=_decoded(encoder, expected),
        parts=_array(of_parts),
        part_names=parts.names,
        nearest=None if others is None else _nearest(found, read(others)).cpu().numpy(),
    )


def _expected(detector: Detector, rows: Tensor, others: Tensor | None) -> Tensor:
    if not rows.is_floating_point():
        raise ValueError(
            f"the rows are {rows.dtype}, which name something and cannot be put right a little: only rows of "
            "real numbers can be explained"
        )
    found = None if others is None else others[_nearest_row(rows, others)]
    table = detector.encoder_.table
    if found is None and detector._expected(rows[:1]) is not None:
        # Of a cell far out an autoencoder makes something far out, in all columns.
        near = rows if table is None else rows.clamp(-1, 2)
        found = _in_batches(detector, detector._expected)(near)
        found = found if table is None else torch.minimum(found.clamp_min(0), _highest(table).to(found))
    if found is None:
        raise ValueError(
            "the network does not reconstruct its input, so nothing tells what a normal row would be: "
            "give normal rows, detector.explain(X, normal=X_train)"
        )
    if table is not None:
        found = torch.from_numpy(settle(table, found.float().cpu().numpy())).to(rows)
    return found.to(rows)


def _highest(table: Table) -> Tensor:
    """Return the highest number that normal rows have in each encoded column: 1, or 0 where all are alike."""
    return torch.tensor([0.0 if j in table.constant else 1.0 for j in table.origin], device="cpu")


def _groups(encoder: Encoder, rows: Tensor, patch: int | None) -> Tensor:
    """Return which entries of a row are put right together: a category's levels, a patch, or each alone."""
    if encoder.table is not None:
        return torch.as_tensor(encoder.table.origin)
    shape = rows.shape[1:]
    if patch is None:
        patch = max(PATCH, -(-max(shape[1:], default=1) // ALONG))
    if isinstance(patch, bool) or not isinstance(patch, Integral) or patch < 1:
        raise ValueError(f"patch={patch!r}: a side of 1 pixel or more is wanted, a whole number")
    return patches(shape, patch) if len(shape) > 2 else torch.arange(shape.numel()).reshape(shape)


def _in_batches(detector: Detector, function: Callable[[Tensor], Any]) -> Callable[[Tensor], Tensor]:
    return lambda x: torch.cat([function(batch) for batch in torch.split(x, detector._at_once())]).detach()


def _nearest_row(rows: Tensor, others: Tensor) -> Tensor:
    """Return the number of the nearest of the others to each row, (n,).

    An entry beyond twice their range is left out: it is far from all of them, and would decide alone.
    """
    rows, others = rows.flatten(1), others.flatten(1)
    low, high = others.aminmax(dim=0)
    within = (rows >= 2 * low - high) & (rows <= 2 * high - low)
    found = nearest(rows, others, 1)[:, 0]
    for i in torch.nonzero(within.any(1) & ~within.all(1)).ravel():
        apart = rows[i, within[i]] - others[:, within[i]]
        found[i] = apart.square().sum(1).argmin()
    return found


def _nearest(rows: Tensor, others: Tensor) -> Tensor:
    """Return the nearest by what the score reads, each entry in units of its spread, signed logarithm."""
    mean, spread_of = others.mean(0), others.std(0, correction=0)
    scale = spread_of.clamp_min(1e-6 * float(spread_of.max()) + LEAST)
    here, there = ((x - mean) / scale for x in (rows, others))
    return nearest(here.sign() * here.abs().log1p(), there.sign() * there.abs().log1p(), NEAREST)


def _names(encoder: Encoder) -> tuple[str, ...]:
    if encoder.table is None:
        return tuple(encoder.names or ())
    return tuple(encoder.table.names_in or map(str, range(encoder.table.n_in)))


def _decoded(encoder: Encoder, expected: Tensor) -> np.ndarray[Any, Any]:
    rows = expected.float().cpu().numpy()
    return rows if encoder.table is None else decode(encoder.table, rows)


def _array(values: Tensor) -> np.ndarray[Any, np.dtype[np.float64]]:
    return values.double().cpu().numpy()

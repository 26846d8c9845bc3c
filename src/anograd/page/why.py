"""Why the highest rows score as they do, made ready to be shown."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anograd.data import cells, check_images, rows_at
from anograd.detectors import Detector
from anograd.page.scored import Scored
from anograd.reasons import PARTS_SHOWN, as_data

COLUMNS = 5
PIXELS = 96  # of a picture's longer side, at most
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Column:
    """A column that makes a row anomalous: what it holds, what a normal row would, and what that contributes.

    `width` is the contribution in percent of the row's largest.
    """

    name: str
    given: Any
    expected: Any
    contribution: float
    width: float


@dataclass(frozen=True)
class Picture:
    """An image as a data URI, with what it is and what it shows in words."""

    name: str
    uri: str
    alt: str


@dataclass(frozen=True)
class Reason:
    """One row of the highest, and why it is.

    Attributes
    ----------
    number : int
        Of the row, from 0.
    title : str
    score, p : float
    alarm : bool
    odd : bool, optional
        The truth.
    columns : tuple of Column
    parts : tuple of (str, float)
        What the loss and each layer contribute, largest first.
    nearest : tuple of str, optional
        Normal rows.
    pictures : tuple of Picture
    """

    number: int
    title: str
    score: float
    p: float
    alarm: bool
    odd: bool | None
    columns: tuple[Column, ...] = ()
    parts: tuple[tuple[str, float], ...] = ()
    nearest: tuple[str, ...] | None = None
    pictures: tuple[Picture, ...] = ()


def reasons(
    detector: Detector,
    X: Any,
    scored: Scored,
    top: int = 20,
    normal: Any = None,
    called: Sequence[str] | None = None,
) -> tuple[list[Reason], str]:
    """Return the rows with the highest scores and why; where nobody can tell, also what stands in the way.

    Parameters
    ----------
    detector : Detector
        Fitted.
    X : as for ``fit``
        All rows.
    scored : Scored
    top : int
        Rows at most.
    normal : as for ``fit``, optional
        Rows to compare with.
    called : sequence of str, optional
        What each of these is called.
    """
    index = scored.highest(top)
    bare = [
        Reason(
            int(i), scored.titles[i], float(scored.scores[i]), float(scored.p[i]), bool(scored.alarms[i]),
            None if scored.odd is None else bool(scored.odd[i]),
        )
        for i in index
    ]  # fmt: skip
    some = rows_at(X, index)
    try:
        found = detector.explain(some, normal=normal)
    except ValueError as error:
        return bare, str(error)
    given = cells(some) if found.names else None
    told = as_data(found, [one.title for one in bare], scored.p[index], given)
    pixels = detector.encoder_.pixels
    shown = pixels is not None and found.features.ndim == 4 and found.features.shape[1] in (1, 3)
    images = pixels.transform(check_images(some)) if shown and pixels is not None else None
    full = []
    for i, (one, data) in enumerate(zip(bare, told, strict=True)):
        near = data.get("nearest")
        more = replace(
            one,
            columns=_columns(data.get("features", [])),
            parts=_parts(data["parts"]),
            nearest=None if near is None else tuple(called[j] if called else f"row {j}" for j in near),
            pictures=() if images is None else _pictures(images[i], found.expected[i], found.features[i]),
        )
        full.append(more)
    return full, ""


def _columns(features: Sequence[dict[str, Any]]) -> tuple[Column, ...]:
    odd = [one for one in features if one["given"] != one["expected"]]  # else the share is of rounding
    order = sorted(odd, key=lambda one: -one["contribution"])[:COLUMNS]
    most = order[0]["contribution"] if order else 0.0
    return tuple(
        Column(
            one["name"], one["given"], one["expected"], one["contribution"], 100 * one["contribution"] / most
        )
        for one in order
        if one["contribution"] > 0
    )


def _parts(parts: Sequence[dict[str, Any]]) -> tuple[tuple[str, float], ...]:
    order = sorted(parts, key=lambda one: -one["contribution"])[:PARTS_SHOWN]
    return tuple((one["name"], one["contribution"]) for one in order if one["contribution"] > 0)


def _pictures(image: Floats, expected: Floats, shares: Floats) -> tuple[Picture, ...]:
    total = shares.sum(0)
    row, column = np.unravel_index(int(total.argmax()), total.shape)
    most = float(np.abs(total).max()) or 1.0
    where = f"row {row + 1} of {total.shape[0]}, column {column + 1} of {total.shape[1]}"
    size = f"{total.shape[1]} by {total.shape[0]} pixels"
    return (
        Picture("given", _png(_grey(image)), f"The image as given, {size}"),
        Picture("expected", _png(_grey(expected)), f"What a normal image like it would be, {size}"),
        Picture(
            f"why, up to {total.max():+.3g}",
            _png(_heat(_smaller(total) / most)),
            f"Heat map of the contributions: the largest, {total.max():+.3g}, in {where}",
        ),
    )


def _grey(image: Floats) -> Floats:
    """Return an image (C, H, W), grey or in colour, as (H, W, 3)."""
    layers = [_smaller(np.asarray(layer, dtype=np.float64)) for layer in image]
    return np.clip(np.stack(layers * (3 // len(layers)), -1), 0, 1)


def _heat(shares: Floats) -> Floats:
    """Return contributions in -1..1 as (H, W, 3): red = more anomalous, blue = less."""
    up, down = np.clip(shares, 0, 1)[..., None], np.clip(-shares, 0, 1)[..., None]
    red, blue = np.array([0.70, 0.09, 0.17]), np.array([0.13, 0.40, 0.67])
    colours: Floats = 1 - up * (1 - red) - down * (1 - blue)
    return colours


def _smaller(layer: Floats) -> Floats:
    """Return means over blocks of pixels, so many that the longer side is short enough."""
    block = -(-max(layer.shape) // PIXELS)
    for axis, length in enumerate(layer.shape):
        starts = np.arange(0, length, block)
        sizes = np.diff(np.append(starts, length))
        layer = np.add.reduceat(layer, starts, axis) / np.expand_dims(sizes, 1 - axis)
    return layer


def _png(image: Floats) -> str:
    from matplotlib.image import imsave

    content = io.BytesIO()
    nothing: Any = {"Software": None}
    imsave(content, np.rint(255 * image).astype(np.uint8), format="png", metadata=nothing)
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()

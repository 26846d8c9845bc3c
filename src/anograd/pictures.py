"""Pictures: the rows at either end of a score, and the scores of several kinds of rows side by side."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from anograd.whole import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]
BINS = 110  # dots side by side
WIDE = 30  # letters of a caption's line; the end of a path says most
COLOURS = ("#4878a8", "#c44e52")  # blue and red that people with any colour vision tell apart


def extremes(images: NDArray[Any], scores: Floats, p: Floats, *, title: str, count: int = 16) -> Figure:
    """Return a picture of the most and the least anomalous rows, each with its score and p value beneath.

    Parameters
    ----------
    images : ndarray (n, C, H, W)
        With C = 1 (grey) or 3 (colour) and values in 0..1.
    scores, p : ndarray (n,)
        Scores, high = anomalous, and p values.
    title : str
    count : int
        Rows at either end; fewer where there are fewer.

    Raises
    ------
    ImportError
        Pictures need ``pip install 'anograd[report]'``.
    """
    count = min(count, len(images))
    order = np.argsort(-scores, kind="stable")
    columns = min(8, count)
    lines = -(-count // columns)
    figure = new_figure(1.25 * columns + 0.3, 2 * (1.62 * lines + 0.35) + 0.4)
    figure.suptitle(title, fontsize=13, wrap=True)
    halves = figure.subfigures(2, 1, squeeze=False)[:, 0]
    blocks = ((f"The {count} most anomalous", order[:count]), (f"The {count} least anomalous", order[::-1]))
    for half, (heading, chosen) in zip(halves, blocks, strict=True):
        half.suptitle(heading, fontsize=11, fontweight="bold")
        axes = np.ravel(half.subplots(lines, columns, squeeze=False))
        for place, row in zip(axes, chosen[:count], strict=False):
            _draw(place, images[row], f"score {scores[row]:.3f}\np {p[row]:.3g}")
        for empty in axes[count:]:
            empty.set_axis_off()
    return figure


def reasons(images: Floats, expected: Floats, features: Floats, captions: Sequence[str]) -> Figure:
    """Return a picture with a line a row: the image, what was expected, and what each pixel contributes.

    Red pixels make the row more anomalous, blue ones less; each row has its own scale.

    Parameters
    ----------
    images, expected : ndarray (n, C, H, W)
        With C = 1 (grey) or 3 (colour) and values in 0..1.
    features : ndarray (n, C, H, W)
        Contributions, in units of the score.
    captions : sequence of str
        Of each row.

    Raises
    ------
    ImportError
        Pictures need ``pip install 'anograd[report]'``.
    """
    figure = new_figure(6.4, 2.2 * len(images) + 0.4)
    axes = figure.subplots(len(images), 3, squeeze=False)
    for name, place in zip(("given", "expected", "why"), axes[0], strict=True):
        place.set_title(name, fontsize=11)
    for row, (left, middle, right) in enumerate(axes):
        _draw(left, images[row], captions[row])
        _draw(middle, expected[row], "")
        shares = features[row].sum(0)
        most = float(np.abs(shares).max()) or 1.0
        right.imshow(shares, cmap="RdBu_r", vmin=-most, vmax=most)
        right.set_xticks([])
        right.set_yticks([])
        right.set_xlabel(f"up to {shares.max():+.3g}", fontsize=9)
    return figure


def _draw(place: Axes, image: NDArray[Any], caption: str) -> None:
    pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    place.imshow(np.clip(pixels, 0, 1), cmap="gray", vmin=0, vmax=1)
    place.set_xticks([])
    place.set_yticks([])
    lines = (line if len(line) <= WIDE else "..." + line[3 - WIDE :] for line in caption.split("\n"))
    place.set_xlabel("\n".join(map(_printable, lines)), fontsize=9, parse_math=False)


def _printable(line: str) -> str:  # names of files need not be text
    return "".join(letter if letter.isprintable() else "?" for letter in line)


def strips(groups: Mapping[str, Floats], line: float, *, title: str, meaning: str) -> Figure:
    """Return a picture with one dot a row, a strip of dots for each kind of rows, and the line of alarm.

    Dots that would lie on each other are stacked. Filled ones raise an alarm, hollow ones do not.

    Parameters
    ----------
    groups : dict of str to ndarray (n,)
        Scores, high = anomalous, by kind of row; the first one is drawn on top.
    line : float
        Scores above it raise an alarm.
    title : str
    meaning : str
        What the line is, such as "alarm at alpha 0.05".

    Raises
    ------
    ImportError
        Pictures need ``pip install 'anograd[report]'``.
    """
    figure = new_figure(9, 1.1 + 1.4 * len(groups))
    figure.suptitle(title, fontsize=13, wrap=True)
    axes: Axes = figure.subplots()
    every = np.concatenate(list(groups.values()))
    low, high = float(every.min()), float(every.max())
    width = (high - low) / BINS or 1.0
    heaps = {name: _heap(np.rint((scores - low) / width)) for name, scores in groups.items()}
    tallest = 2 * max(float(np.abs(heap).max()) for heap in heaps.values()) + 1
    for place, (name, scores) in enumerate(groups.items()):
        colour = COLOURS[place % len(COLOURS)]
        alarms = scores > line
        y = place + heaps[name] * min(0.05, 0.8 / tallest)
        looks: Any = {"s": 16, "edgecolors": colour, "linewidths": 0.8}
        axes.scatter(scores[~alarms], y[~alarms], facecolors="none", **looks)
        axes.scatter(scores[alarms], y[alarms], facecolors=colour, **looks)
    axes.axvline(line, color="black", linewidth=1.2)
    axes.annotate(
        f"{meaning} \N{RIGHTWARDS ARROW}", (line, 1), xycoords=("data", "axes fraction"), xytext=(4, -4),
        textcoords="offset points", verticalalignment="top", fontsize=9,
    )  # fmt: skip
    axes.set_yticks(
        range(len(groups)),
        [f"{name}\n{int((s > line).sum()):,} of {len(s):,} raise an alarm" for name, s in groups.items()],
    )
    axes.set_ylim(len(groups) - 0.5, -0.7)
    axes.set_xlabel("score, high = anomalous")
    axes.tick_params(axis="y", length=0)
    axes.spines[["left", "top", "right"]].set_visible(False)
    return figure


def _heap(bins: NDArray[Any]) -> Floats:
    """Return how far each dot stands above or below the middle of its strip, in dots."""
    heights = np.zeros(len(bins))
    for one in np.unique(bins):
        there = np.flatnonzero(bins == one)
        heights[there] = np.arange(len(there)) - (len(there) - 1) / 2
    return heights


def new_figure(width: float, height: float) -> Figure:
    """Return an empty picture.

    Parameters
    ----------
    width, height : float
        In inches.

    Raises
    ------
    ImportError
        Pictures need ``pip install 'anograd[report]'``.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("the picture needs matplotlib: pip install 'anograd[report]'") from error
    return Figure(figsize=(width, height), layout="constrained")


def save_png(figure: Figure, path: str | Path) -> None:
    """Write a picture as PNG, whole or not at all."""
    content = io.BytesIO()
    with warnings.catch_warnings():  # letters that the font lacks are drawn as boxes
        warnings.filterwarnings("ignore", r"Glyph \d+")
        figure.savefig(content, format="png", dpi=120)
    write_whole(path, content.getvalue())

"""Pictures say what they show, and what they need."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from PIL import Image

from anograd import pictures


@pytest.mark.parametrize(("n", "channels"), [(40, 1), (5, 3), (1, 1)])
def test_picture_of_the_extremes(tmp_path, n, channels):
    images = np.random.default_rng(0).uniform(size=(n, channels, 8, 8))
    scores, p = np.linspace(-1, 1, n), np.linspace(1, 0.05, n)
    figure = pictures.extremes(images, scores, p, title="Rows")
    halves = [half for half in figure.subfigs]
    captions = [[ax.get_xlabel() for ax in half.axes if ax.get_xlabel()] for half in halves]
    assert [len(half) for half in captions] == [min(16, n)] * 2
    assert captions[0][0] == f"score {scores.max():.3f}\np {p[scores.argmax()]:.3g}"
    assert captions[1][0] == f"score {scores.min():.3f}\np {p[scores.argmin()]:.3g}"
    readable(figure, tmp_path)


@pytest.mark.parametrize("normal", [np.random.default_rng(0).normal(size=50), np.zeros(3)])
def test_strips_have_a_dot_for_each_row_and_the_line(tmp_path, normal):
    figure = pictures.strips(
        {"good": normal, "bad": np.array([0.0, 5.0, 6.0])}, 3.0, title="Scores", meaning="alarm"
    )
    (axes,) = figure.axes
    drawn = [len(strip.get_offsets()) for strip in axes.collections]
    assert drawn == [len(normal), 0, 1, 2]  # hollow and filled dots of either kind
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        f"good\n0 of {len(normal)} raise an alarm", "bad\n2 of 3 raise an alarm",
    ]  # fmt: skip
    dots = np.concatenate([strip.get_offsets() for strip in axes.collections])
    assert len(np.unique(dots, axis=0)) == len(dots)  # none hides another
    assert axes.lines[0].get_xdata() == [3.0, 3.0]
    readable(figure, tmp_path)


def test_captions_are_names_of_files_whatever_these_are(tmp_path):
    names = ["$a^$b.png", "gr\udcf6sse\t.png", f"{'folder/' * 9}020.png", "良品.png"]
    images = np.zeros((4, 1, 8, 8))
    figure = pictures.reasons(images, images, images, [f"{name}\nscore 1" for name in names])
    shown = [axes.get_xlabel() for axes in figure.axes[::3]]
    assert shown == [
        f"{name}\nscore 1"
        for name in ("$a^$b.png", "gr?sse?.png", "...older/folder/folder/020.png", "良品.png")
    ]
    readable(figure, tmp_path)


def readable(figure, folder):
    pictures.save_png(figure, folder / "picture.png")
    with Image.open(folder / "picture.png") as picture:
        picture.load()
        assert picture.format == "PNG"


def test_picture_without_matplotlib_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'anograd\[report\]'"):
        pictures.extremes(np.zeros((2, 1, 4, 4)), np.zeros(2), np.ones(2), title="Rows")
    with pytest.raises(ImportError, match=r"pip install 'anograd\[report\]'"):
        pictures.strips({"good": np.zeros(2)}, 1.0, title="Scores", meaning="alarm")

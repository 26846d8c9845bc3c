"""GradCon on scikit-learn's digits: one digit is normal, nine are odd."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from anograd.demo.outcome import Outcome, Ranked, judged, prepared, written
from anograd.detectors import GradCon
from anograd.pictures import extremes
from anograd.train import Observer

PICTURE = "most_and_least_anomalous.png"


def run(
    folder: str | Path,
    *,
    seed: int = 0,
    digit: int = 0,
    epochs: int = 100,
    progress: bool | Observer = False,
) -> Outcome:
    """Return what GradCon with its default settings finds when it knows one digit only.

    A third of the digit's rows is held out and scored together with all rows of the other digits. The
    model, the scores and a picture (where matplotlib is installed) are written to the folder.

    Parameters
    ----------
    folder : path
        Made where it is not there; a model, scores and picture of an earlier run are replaced.
    seed : int
        Of the split and of the fit.
    digit : int
        The normal one, 0 to 9.
    epochs : int
        At most so many.
    progress : bool or callable
        As for `GradCon`.
    """
    began = time.perf_counter()
    place = prepared(folder)
    data = load_digits()
    images = (data.images[:, None] / 16).astype(np.float32)
    normal = np.random.default_rng(seed).permutation(np.flatnonzero(data.target == digit))
    held_out, fitted = np.split(normal, [len(normal) // 3])
    detector = GradCon(epochs=epochs, random_state=seed, progress=progress).fit(images[fitted])
    rows = np.sort(np.concatenate([held_out, np.flatnonzero(data.target != digit)]))
    X, odd = images[rows], data.target[rows] != digit
    scores, p, alarms, found = judged(detector, X, odd)
    title = f"GradCon on digits: {digit} is normal (seed {seed})"
    # A row is called by its index in load_digits().
    files, missing = written(
        place, detector, rows.tolist(), (scores, p, alarms), PICTURE,
        lambda: extremes(X, scores, p, title=title),
    )  # fmt: skip
    alignment = -detector.alignment(X).mean(axis=1)
    return Outcome(
        regime=(
            f"GradCon on scikit-learn's digits (8 x 8 pixels). Digit {digit} is normal, all others are "
            f"anomalies.\nRegime: clean training data, no labels, one split, seed {seed}; "
            f"{len(fitted)} rows of digit {digit} to fit ({detector.split_['calibration']} of them for p "
            f"values), {found.normal} others of it and {found.anomalous:,} anomalies to score."
        ),
        fitted=len(fitted),
        found=found,
        twin=Ranked.by(detector.twin_score(X), odd, "its forward-only twin", "reconstruction error"),
        beside=Ranked.by(alignment, odd, "minus the mean alignment", "gradients alone"),
        of="error and alignment",
        precise=False,
        scope="One digit and one seed",
        files=files,
        missing=missing,
        seconds=time.perf_counter() - began,
    )

"""R2-AD2 on scikit-learn's breast cancer data: benign rows are normal, ten malignant ones are known."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from sklearn.datasets import load_breast_cancer

from anograd.demo.outcome import ALPHA, Outcome, Ranked, judged, prepared, written
from anograd.detectors import R2AD2
from anograd.pictures import strips
from anograd.train import Observer

KNOWN = 10
MALIGNANT, BENIGN = 0, 1  # in the data's target
PICTURE = "benign_and_malignant.png"


def run(folder: str | Path, *, seed: int = 0, progress: bool | Observer = False) -> Outcome:
    """Return what R2-AD2 with its default settings finds when it knows ten anomalies.

    A third of the benign rows is held out and scored together with all malignant rows but the ten. The
    model, the scores and a picture (where matplotlib is installed) are written to the folder.

    Parameters
    ----------
    folder : path
        Made where it is not there; a model, scores and picture of an earlier run are replaced.
    seed : int
        Of the split and of the fit.
    progress : bool or callable
        As for `R2AD2`.
    """
    began = time.perf_counter()
    place = prepared(folder)
    data = load_breast_cancer()
    draw = np.random.default_rng(seed)
    benign = draw.permutation(np.flatnonzero(data.target == BENIGN))
    malignant = draw.permutation(np.flatnonzero(data.target == MALIGNANT))
    held_out, normal = np.split(benign, [len(benign) // 3])
    known, unknown = np.split(malignant, [KNOWN])
    fitted = np.concatenate([normal, known])
    labels = np.repeat([0, 1], [len(normal), len(known)])
    detector = R2AD2(random_state=seed, progress=progress).fit(data.data[fitted], labels)
    rows = np.sort(np.concatenate([held_out, unknown]))
    X, odd = data.data[rows], data.target[rows] == MALIGNANT
    scores, p, alarms, found = judged(detector, X, odd)
    # A row is called by its index in load_breast_cancer().
    files, missing = written(
        place, detector, rows.tolist(), (scores, p, alarms), PICTURE,
        lambda: strips(
            {"benign": scores[~odd], "malignant": scores[odd]}, detector.calibration_.threshold(ALPHA),
            title=f"R2-AD2 on breast cancer data: rows that it has not seen (seed {seed})",
            meaning=f"alarm at alpha {ALPHA}",
        ),
    )  # fmt: skip
    return Outcome(
        regime=(
            f"R2-AD2 on scikit-learn's breast cancer data ({X.shape[1]} numbers a row). Benign is normal, "
            f"malignant is an anomaly.\nRegime: clean training data, {KNOWN} known anomalies, one split, "
            f"seed {seed}; {len(normal)} benign rows ({detector.split_['calibration']} of them for p values) "
            f"and {KNOWN} malignant ones to fit, {found.normal} other benign and {found.anomalous} other "
            "malignant ones to score."
        ),
        fitted=len(fitted),
        found=found,
        twin=Ranked.by(detector.twin_score(X), odd, "its forward-only twin", "error alone, no labels"),
        beside=Ranked.by(detector.novelty_score(X), odd, "the novelty alone", "gradients, no labels"),
        of="trees, networks, novelty",
        precise=True,
        scope="One table and one seed",
        files=files,
        missing=missing,
        seconds=time.perf_counter() - began,
    )

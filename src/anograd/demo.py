"""The demonstration: GradCon on scikit-learn's digits, one digit normal, told as it comes out."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from scipy.stats import binomtest
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

from anograd import report
from anograd.detectors import GradCon

ALPHA = 0.05
MODEL, SCORES, PICTURE = "model", "scores.csv", "most_and_least_anomalous.png"


@dataclass(frozen=True)
class Outcome:
    """What the demonstration found.

    Attributes
    ----------
    digit, seed : int
        The normal digit, and the seed of split and fit.
    fitted, normal, anomalous : int
        Rows given to fit, normal rows and anomalies scored.
    calibrated : int
        Of the rows given to fit, those held out for p values.
    score, twin, alignment : float
        AUROC of the score, of the reconstruction error alone, and of minus the mean alignment.
    false_alarms, found : int
        Normal rows and anomalies that raise an alarm at alpha 0.05.
    files : dict of str to Path
        What was written, by what it is.
    missing : str
        Why there is no picture; empty when there is one.
    seconds : float
    """

    digit: int
    seed: int
    fitted: int
    normal: int
    anomalous: int
    calibrated: int
    score: float
    twin: float
    alignment: float
    false_alarms: int
    found: int
    files: dict[str, Path]
    missing: str
    seconds: float

    def regime(self) -> str:
        """Return under which conditions the numbers were found."""
        return (
            f"GradCon on scikit-learn's digits (8 x 8 pixels). Digit {self.digit} is normal, all others are "
            f"anomalies.\nRegime: clean training data, no labels, one split, seed {self.seed}; "
            f"{self.fitted} rows of digit {self.digit} to fit ({self.calibrated} of them for p values), "
            f"{self.normal} others of it and {self.anomalous:,} anomalies to score."
        )

    def table(self) -> Table:
        """Return the figures as a table for the terminal."""
        low, high = binomtest(self.false_alarms, self.normal).proportion_ci(0.95, method="exact")
        drawn = Table("measure", "value", "of")
        drawn.columns[1].justify = "right"
        drawn.add_row("AUROC of the score", f"{self.score:.4f}", "error and alignment")
        drawn.add_row("AUROC of its forward-only twin", f"{self.twin:.4f}", "reconstruction error")
        drawn.add_row("AUROC of minus the mean alignment", f"{self.alignment:.4f}", "gradients alone")
        drawn.add_row(
            f"false alarms at alpha {ALPHA}",
            f"{self.false_alarms / self.normal:.3f}",
            f"{self.false_alarms} of {self.normal} normal rows",
        )
        drawn.add_row("  its exact 95 % interval", f"{low:.3f}..{high:.3f}", "binomial")
        drawn.add_row(
            f"anomalies found at alpha {ALPHA}",
            f"{self.found / self.anomalous:.3f}",
            f"{self.found:,} of {self.anomalous:,} anomalies",
        )
        return drawn

    def verdict(self) -> str:
        """Return in a sentence whether the gradients added anything to the reconstruction error."""
        ahead = round(self.score - self.twin, 4)
        if ahead > 0:
            said = f"beats its forward-only twin by {ahead:.4f} AUROC"
        elif ahead < 0:
            said = f"does NOT beat its forward-only twin, it is behind by {-ahead:.4f} AUROC"
        else:
            said = "does NOT beat its forward-only twin, they are level"
        return f"The score {said}. One digit and one seed: a first look, no comparison of methods."


def run(
    folder: str | Path,
    *,
    seed: int = 0,
    digit: int = 0,
    epochs: int = 100,
    progress: bool | Callable[[str, Mapping[str, Any]], None] = False,
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
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    report.check_writable(place)
    data = load_digits()
    images = (data.images[:, None] / 16).astype(np.float32)
    normal = np.random.default_rng(seed).permutation(np.flatnonzero(data.target == digit))
    held_out, fitted = np.split(normal, [len(normal) // 3])
    detector = GradCon(epochs=epochs, random_state=seed, progress=progress).fit(images[fitted])
    rows = np.sort(np.concatenate([held_out, np.flatnonzero(data.target != digit)]))
    odd = data.target[rows] != digit
    scores = detector.anomaly_score(images[rows])
    p = detector.calibration_.p_values(scores)
    alarms = detector.calibration_.detect(scores, alpha=ALPHA)
    files = {"model": place / MODEL, "scores": place / SCORES}
    detector.save(files["model"])
    # A row is called by its index in load_digits().
    report.write_scores(files["scores"], rows.tolist(), scores, p, alarms)
    missing = ""
    try:
        title = f"GradCon on digits: {digit} is normal (seed {seed})"
        report.save_png(report.extremes(images[rows], scores, p, title=title), place / PICTURE)
        files["picture"] = place / PICTURE
    except ImportError as error:
        missing = str(error)
    return Outcome(
        digit=digit,
        seed=seed,
        fitted=len(fitted),
        normal=int((~odd).sum()),
        anomalous=int(odd.sum()),
        calibrated=len(detector.calibration_.scores),
        score=float(roc_auc_score(odd, scores)),
        twin=float(roc_auc_score(odd, detector.twin_score(images[rows]))),
        alignment=float(roc_auc_score(odd, -detector.alignment(images[rows]).mean(axis=1))),
        false_alarms=int(alarms[~odd].sum()),
        found=int(alarms[odd].sum()),
        files=files,
        missing=missing,
        seconds=time.perf_counter() - began,
    )

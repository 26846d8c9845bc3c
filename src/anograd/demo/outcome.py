"""What one half of the demonstration found: files, figures, a table and a verdict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from anograd import report
from anograd.evaluate import Evaluation, evaluate, ranking
from anograd.pictures import save_png
from anograd.whole import check_writable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from anograd.detectors import Detector

ALPHA = 0.05
MODEL, SCORES = "model", "scores.csv"
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Ranked:
    """How well one score ranks the rows.

    Attributes
    ----------
    name, of : str
        The score's name, and what it is made of.
    auroc, average_precision : float
    """

    name: str
    of: str
    auroc: float
    average_precision: float

    @classmethod
    def by(cls, scores: Floats, odd: NDArray[np.bool_], name: str, of: str) -> Ranked:
        """Return how well scores (n,), high = anomalous, rank rows whose truth is known."""
        return cls(name, of, *ranking(scores, odd))


@dataclass(frozen=True)
class Outcome:
    """What one half of the demonstration found.

    Attributes
    ----------
    regime : str
        Under which conditions.
    fitted : int
        Rows given to fit.
    found : Evaluation
        What score and alarms are worth on rows that were not given to fit.
    twin : Ranked
        The score without gradients.
    beside : Ranked
        A part of the score alone.
    of : str
        What the score is made of.
    precise : bool
        Whether the table tells average precisions.
    scope : str
        What the verdict rests on, such as "One digit and one seed".
    files : dict of str to Path
        What was written, by what it is.
    missing : str
        Why there is no picture; empty when there is one.
    seconds : float
    """

    regime: str
    fitted: int
    found: Evaluation
    twin: Ranked
    beside: Ranked
    of: str
    precise: bool
    scope: str
    files: dict[str, Path]
    missing: str
    seconds: float

    def table(self) -> Table:
        """Return the figures as a table for the terminal."""
        found = self.found
        low, high = found.interval
        drawn = Table("measure", "value", "of")
        drawn.columns[1].justify = "right"
        score = Ranked("the score", self.of, found.auroc, found.average_precision)
        for one in (score, self.twin, self.beside):
            drawn.add_row(f"AUROC of {one.name}", f"{one.auroc:.4f}", one.of)
            if self.precise:
                drawn.add_row("  its average precision", f"{one.average_precision:.4f}", "")
        drawn.add_row(
            f"false alarms at alpha {ALPHA}",
            f"{found.false_alarm_rate:.3f}",
            f"{found.alarms - found.found} of {found.normal} normal rows",
        )
        drawn.add_row("  its exact 95 % interval", f"{low:.3f}..{high:.3f}", "binomial")
        drawn.add_row(
            f"anomalies found at alpha {ALPHA}",
            f"{found.recall:.3f}",
            f"{found.found:,} of {found.anomalous:,} anomalies",
        )
        return drawn

    def verdict(self) -> str:
        """Return in a sentence whether the gradients added anything to the reconstruction error."""
        ahead = round(self.found.auroc - self.twin.auroc, 4)
        if ahead > 0:
            said = f"beats its forward-only twin by {ahead:.4f} AUROC"
        elif ahead < 0:
            said = f"does NOT beat its forward-only twin, it is behind by {-ahead:.4f} AUROC"
        else:
            said = "does NOT beat its forward-only twin, they are level"
        return f"The score {said}. {self.scope}: a first look, no comparison of methods."


def prepared(folder: str | Path) -> Path:
    """Return the folder, made where it is not there, once it is known that it can be written to."""
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    check_writable(place)
    return place


def judged(
    detector: Detector, X: Any, odd: NDArray[np.bool_]
) -> tuple[Floats, Floats, NDArray[np.bool_], Evaluation]:
    """Return scores, p values, alarms at alpha 0.05, and what they are worth."""
    scores = detector.anomaly_score(X)
    p = detector.calibration_.p_values(scores)
    alarms = detector.calibration_.detect(scores, alpha=ALPHA)
    return scores, p, alarms, evaluate(scores, odd, alarms)


def written(
    place: Path,
    detector: Detector,
    rows: Sequence[int],
    told: tuple[Floats, Floats, NDArray[np.bool_]],
    name: str,
    draw: Callable[[], Figure],
) -> tuple[dict[str, Path], str]:
    """Return the files that were written, by what they are, and why there is no picture, or nothing.

    Parameters
    ----------
    place : Path
        The folder.
    detector : Detector
    rows : sequence of int
        What the scored rows are called.
    told : tuple
        Their scores, p values and alarms.
    name : str
        The picture's file.
    draw : callable
        Draws it; raises ImportError where that takes a package that is not there.
    """
    files = {"model": place / MODEL, "scores": place / SCORES}
    detector.save(files["model"])
    report.write_scores(files["scores"], [(rows, *told)])
    try:
        save_png(draw(), place / name)
    except ImportError as error:
        return files, str(error)
    return files | {"picture": place / name}, ""

"""ECOD and COPOD: how far out in the tails of each column a row lies."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from anograd.bench.entrants import Entrant, Fitted, Floats, Known, Rows
from anograd.bench.rivals.network import naming
from anograd.detectors.paper import Paper

SCORED_AT_ONCE = 1024
INDUCTIVE = "the rows to learn from and the row in question make the distribution, not others that are scored"

ECOD = Paper(
    title="ECOD: Unsupervised Outlier Detection Using Empirical Cumulative Distribution Functions",
    authors="Zheng Li, Yue Zhao, Xiyang Hu, Nicola Botta, Cezar Ionescu, George H. Chen",
    venue="TKDE",
    year=2022,
    arxiv="2201.00382",
    differences=(INDUCTIVE, "the largest tail is taken column by column, as in the published code"),
)
COPOD = Paper(
    title="COPOD: Copula-Based Outlier Detection",
    authors="Zheng Li, Yue Zhao, Nicola Botta, Cezar Ionescu, Xiyang Hu",
    venue="ICDM",
    year=2020,
    arxiv="2009.09463",
    differences=(INDUCTIVE, "the larger of both tails' mean and the skewed tail, as in the published code"),
)


def ecod(left: Floats, right: Floats, skewed: Floats) -> Floats:
    """Return what ECOD makes of the negative log tail probabilities, (n, p), high = anomalous."""
    return np.maximum(np.maximum(left, right), skewed)


def copod(left: Floats, right: Floats, skewed: Floats) -> Floats:
    """Return what COPOD makes of the negative log tail probabilities, (n, p), high = anomalous."""
    return np.maximum((left + right) / 2, skewed)


def fitting(join: Callable[[Floats, Floats, Floats], Floats]) -> Callable[..., Fitted]:
    """Return the fit of a detector that reads tails.

    Parameters
    ----------
    join : function
        From negative log probabilities of the left, right and skewed tail to one array, (n, p), which is
        summed over the columns.
    """

    def fit(X: Rows, y: Known, *, seed: int) -> Fitted:
        # The sign of the third moment is that of the skewness; a column that never moves has none.
        moment = ((X - X.mean(0, np.float64)) ** 3).mean(0)
        asymmetry = np.where(np.ptp(X, 0) > 0, np.sign(moment), 0)
        columns = np.sort(X, axis=0)
        total = len(X) + 1

        def tails(rows: Rows) -> Floats:
            counts = [
                (np.searchsorted(column, values, "right") + 1, len(X) - np.searchsorted(column, values) + 1)
                for column, values in zip(columns.T, rows.T, strict=True)
            ]
            left, right = -np.log(np.array(counts).transpose(1, 2, 0) / total)
            skewed = left * (asymmetry <= 0) + right * (asymmetry >= 0)
            summed: Floats = join(left, right, skewed).sum(1)
            return summed

        def score(rows: Rows) -> Floats:
            starts = range(0, len(rows), SCORED_AT_ONCE)
            return np.concatenate([tails(rows[start : start + SCORED_AT_ONCE]) for start in starts])

        return Fitted({"score": score})

    return fit


ENTRANTS = {
    "ecod": Entrant(naming(fitting(ecod)), "ECOD", "it has none", paper=ECOD),
    "copod": Entrant(naming(fitting(copod)), "COPOD", "it has none", paper=COPOD),
}

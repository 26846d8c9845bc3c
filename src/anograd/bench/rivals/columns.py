"""R2AD2's scorer on columns in place of gradients: what gradients add is R2AD2's lead over it."""

from __future__ import annotations

import torch

from anograd.alarm import BalancedPlan, BalancedScorer, Gradients, learners
from anograd.alarm import noise as noises
from anograd.bench.entrants import Entrant, Fitted, Known, Rows
from anograd.bench.rivals.a3 import batch_size
from anograd.bench.rivals.network import naming, parted, score_by, weights
from anograd.detectors.published import PAPER as R2AD2
from anograd.train import seeded

RATE = 1e-3
VALIDATION, CALIBRATION = 0.1, 0.2  # R2AD2's own; the second part is not learned from


def fit_columns(
    X: Rows, y: Known, *, seed: int, epochs: int = 15, networks: int = 4, trees: int = 100
) -> Fitted:
    """Return the score of R2AD2's default scorer with a row's columns in place of its gradients.

    Parameters
    ----------
    X : ndarray of float32, (n, ...)
        Scaled rows. As in R2AD2, a tenth of the normal ones chooses the epoch and a fifth is set aside.
    y : ndarray of int8, (n,)
    seed : int
    epochs, networks, trees : int
        As in R2AD2.
    """
    normal, known = parted(X, y)
    rows = torch.cat([normal, known]).flatten(1)
    n, entries = len(normal), rows.shape[1]
    rows = torch.cat([rows, rows], dim=1)  # in place of gradients, and as what they are
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    validating, held_out = max(1, round(VALIDATION * n)), round(CALIBRATION * n)
    train, validation = order[: n - validating - held_out], order[n - validating - held_out : n - held_out]
    gradients = Gradients.gather(
        lambda index: rows[index],
        lambda count: noises.gaussian((entries,))(count).repeat(1, 2),
        train,
        validation,
        torch.arange(n, len(rows)),
        memory=2**30,
    )
    several = learners(len(known), networks, trees, noise=True, table=X.ndim == 2)
    with seeded(seed):
        scorer = BalancedScorer(1, entries, entries, (100, 50), recurrent=False, **several)
    plan = BalancedPlan(epochs, batch_size(len(train)), RATE)
    scorer.learn(gradients, plan, weight=None, seed=seed, observe=lambda name, data: None)
    scorer.double().eval()
    return Fitted({"score": score_by(lambda x: scorer(x.double().flatten(1).repeat(1, 2)))}, weights(scorer))


ENTRANTS = {
    "columns": Entrant(
        naming(fit_columns),
        "columns",
        "R2AD2's default scorer: 15 epochs at most, four networks, 100 trees, novelty weighed by left-outs",
        known="used",
        rows="any",
        paper=R2AD2,
    )
}

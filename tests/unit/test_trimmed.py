"""Where no anomaly is known, what is normal is learned a second time, without the rows that look least so."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from anograd import R2AD2
from anograd.alarm.balanced import BalancedPlan
from anograd.alarm.scorer import BalancedScorer, Gradients, learners
from anograd.train import seeded

with seeded(0):
    NORMAL, ODD = torch.randn(90, 4), 9 * torch.randn(10, 4).sign() + torch.randn(10, 4)
    ROWS = torch.cat([NORMAL, ODD])[torch.randperm(100)]
PLAN = BalancedPlan(epochs=1, batch_size=16, learning_rate=1e-3)


def learned(rows: Tensor, known: Tensor, trees: int) -> BalancedScorer:
    every = torch.cat([rows, known])
    several = learners(len(known), 2, trees, noise=bool(trees), table=True)
    scorer = BalancedScorer(1, 4, 4, (4,), recurrent=False, **several)
    index = torch.arange(len(every))
    gradients = Gradients(
        lambda i: torch.cat([every[i], every[i]], 1), None, index[: len(rows)], index[: len(rows)],
        index[len(rows) :],
    )  # fmt: skip
    scorer.learn(gradients, PLAN, weight=None, seed=0, observe=lambda name, data: None)
    return scorer


@pytest.mark.parametrize("trees", [0, 100])
def test_without_known_anomalies_a_tenth_of_the_rows_is_left_out(trees: int) -> None:
    found = learned(ROWS, ROWS[:0], trees).standard.mean[:4]
    torch.testing.assert_close(found, NORMAL.mean(0))


def test_with_known_anomalies_all_rows_count() -> None:
    found = learned(ROWS, 5 * torch.ones(4, 4), 20).standard.mean[:4]
    torch.testing.assert_close(found, ROWS.mean(0))


def test_few_rows_are_all_kept() -> None:
    found = learned(ROWS[:9], ROWS[:0], 5).standard.mean[:4]
    torch.testing.assert_close(found, ROWS[:9].mean(0))


def test_anomalies_among_the_rows_are_found_although_nobody_told() -> None:
    rng = np.random.default_rng(0)
    normal, odd = (rng.normal(size=(600, 2)) @ rng.normal(size=(2, 6)) for _ in range(2))
    rows = np.concatenate([normal, odd[:50] + 4 * rng.normal(size=(50, 6))])
    detector = R2AD2(random_state=0).fit(rows)
    truth = np.arange(650) >= 600
    assert roc_auc_score(truth, detector.anomaly_score(rows)) > 0.95

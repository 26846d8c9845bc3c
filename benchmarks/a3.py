"""Forward-only rivals of R2-AD2: A3, which reads activations, and our own scorer on the columns themselves.

Neither makes a backward pass to score a row; both learn from normal rows, known anomalies and noise. Each
function fits and returns the score, high = anomalous.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from anograd.alarm import AlarmNetwork, BalancedPlan, BalancedScorer, Gradients
from anograd.alarm import noise as noises
from anograd.spill import Rows
from anograd.train import seeded
from anograd.trajectory import TrajectoryPlan, build, describe, draw_holdout, train_checkpoints

CHECKPOINTS = 3  # 20 epochs, as R2-AD2's last one has
DROPOUT, HOLDOUT = 0.2, 0.25  # R2AD2's own
RATE = 1e-3
VALIDATION, CALIBRATION = 0.1, 0.2  # R2AD2's own; the second part is not learned from
SCORED_AT_ONCE = 1024
Floats = NDArray[np.float64]
Score = Callable[[NDArray[np.float32]], Floats]


def batch_size(n: int) -> int:
    """Return R2AD2's batch size for n rows to learn from."""
    return min(256, max(16, n // 50))


def fit_a3(
    normal: NDArray[np.float32],
    known: NDArray[np.float32],
    *,
    widths: tuple[int, ...],
    batch: int,
    epochs: int = 100,
    seed: int = 0,
) -> Score:
    """Return A3's score: an alarm network on all hidden activations of R2AD2's autoencoder.

    Parameters
    ----------
    normal, known : ndarray, (n, ...)
        Scaled rows.
    widths : tuple of int
        Of the alarm network.
    batch : int
        Of the alarm network; as many noise rows are added.
    epochs : int, default 100
        Of the alarm network.
    seed : int, default 0

    Notes
    -----
    The loss is that of R2-AD2's alarm network: the mean over the rows plus the mean over noise. **Differs
    from the paper**: the autoencoder and its training are R2-AD2's, as are dropout in the alarm network
    and the noise; activations are standardised.

    References
    ----------
    Sperl, Schulze, Böttinger: Activation Anomaly Analysis. ECML PKDD 2020, arXiv:2003.01801.
    """
    rows = torch.from_numpy(np.concatenate([normal, known]))
    shape = tuple(rows.shape[1:])
    target = build(describe("auto", shape, None, DROPOUT), seed)
    seen, _ = draw_holdout(torch.arange(len(normal)), HOLDOUT, seed)
    plan = TrajectoryPlan(CHECKPOINTS, batch_size(len(normal)), RATE)
    read = activations(train_checkpoints(target, Rows.of(rows), seen, plan, seed=seed)[-1].module)
    mean, spread = _moments(read, rows[: len(normal)])
    labels = torch.zeros(len(rows))
    labels[len(normal) :] = 1
    draw = noises.gaussian(shape)

    def standard(x: Tensor) -> Tensor:
        return (read(x) - mean) / spread

    with seeded(seed):
        alarm = AlarmNetwork(len(mean), 1, widths)
    optimizer = torch.optim.Adam(alarm.parameters(), lr=RATE, fused=True)
    alarm.train()
    for epoch in range(1, epochs + 1):
        with seeded(seed + epoch):
            for index in torch.split(torch.randperm(len(rows)), batch):
                x = standard(torch.cat([rows[index], draw(len(index))]))
                logits = alarm(x)
                loss = F.binary_cross_entropy_with_logits(logits[: len(index)], labels[index])
                loss = loss + F.softplus(-logits[len(index) :]).mean()
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
    alarm.eval()
    return _scoring(lambda x: alarm(standard(x)))


def activations(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return the map from rows to all hidden activations, (n, k), taken after each ReLU."""
    relus = [layer for layer in module.modules() if isinstance(layer, nn.ReLU)]
    found: list[Tensor] = []

    def keep(layer: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> None:
        found.append(made.flatten(1))

    for relu in relus:
        relu.register_forward_hook(keep)

    @torch.no_grad()
    def read(x: Tensor) -> Tensor:
        found.clear()
        module(x)
        return torch.cat(found, 1)

    return read


def _moments(read: Callable[[Tensor], Tensor], rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each activation; where it never moves, the latter is 1."""
    count, total, square = 0, torch.zeros(()), torch.zeros(())
    for piece in torch.split(rows, SCORED_AT_ONCE):
        made = read(piece).double()
        count, total, square = count + len(made), total + made.sum(0), square + made.square().sum(0)
    mean = total / count
    spread = (square / count - mean.square()).clamp_min(0).sqrt()
    return mean.float(), torch.where(spread > 1e-6 * spread.max(), spread, 1.0).float()


def fit_columns(
    normal: NDArray[np.float32],
    known: NDArray[np.float32],
    *,
    epochs: int = 15,
    networks: int = 4,
    seed: int = 0,
) -> Score:
    """Return the score of R2AD2's default scorer with a row's columns in place of its gradients.

    What gradients add beyond labels, noise, cross-fitting and novelty is R2AD2's lead over this one.

    Parameters
    ----------
    normal, known : ndarray, (n, ...)
        Scaled rows. As in R2AD2, a tenth of the normal ones chooses the epoch and a fifth is set aside.
    epochs, networks : int
        As in R2AD2.
    seed : int, default 0
    """
    rows = torch.from_numpy(np.concatenate([normal, known])).flatten(1)
    n, entries = len(normal), rows.shape[1]
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    validating, held_out = max(1, round(VALIDATION * n)), round(CALIBRATION * n)
    train, validation = order[: n - validating - held_out], order[n - validating - held_out : n - held_out]
    draw = noises.gaussian((entries,))
    gradients = Gradients.gather(
        lambda index: rows[index],
        draw,
        train,
        validation,
        torch.arange(n, len(rows)),
        memory=2**30,
    )
    with seeded(seed):
        scorer = BalancedScorer(1, entries, 0, (100, 50), recurrent=False, networks=min(networks, len(known)))
    plan = BalancedPlan(epochs, batch_size(len(train)), RATE)
    scorer.learn(gradients, plan, weight=None, seed=seed, observe=lambda name, data: None)
    scorer.double().eval()
    return _scoring(lambda x: scorer(x.double().flatten(1)))


def _scoring(function: Callable[[Tensor], Tensor]) -> Score:
    @torch.no_grad()
    def score(rows: NDArray[np.float32]) -> Floats:
        pieces = torch.split(torch.from_numpy(rows), SCORED_AT_ONCE)
        return torch.cat([function(piece).double() for piece in pieces]).numpy()

    return score

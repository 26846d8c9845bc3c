"""A3: an alarm network on all hidden activations of an autoencoder; no backward pass scores a row."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anograd.alarm import AlarmNetwork
from anograd.alarm import noise as noises
from anograd.bench.entrants import Entrant, Fitted, Known
from anograd.bench.entrants import Rows as Array
from anograd.bench.rivals.network import SCORED_AT_ONCE, naming, parted, score_by, step, weights
from anograd.detectors.paper import Paper
from anograd.detectors.published import SMALL
from anograd.spill import Rows
from anograd.train import seeded
from anograd.trajectory import TrajectoryPlan, build, describe, draw_holdout, train_checkpoints

CHECKPOINTS = 3  # 20 epochs, as R2-AD2's last one has
DROPOUT, HOLDOUT = 0.2, 0.25  # R2AD2's own
RATE = 1e-3

PAPER = Paper(
    title="Activation Anomaly Analysis",
    authors="Philip Sperl, Jan-Philipp Schulze, Konstantin Böttinger",
    venue="ECML PKDD",
    year=2020,
    arxiv="2003.01801",
    differences=(
        "the autoencoder and its training are R2-AD2's, as are dropout in the alarm network and the noise",
        "activations are standardised on normal rows",
        "the loss is that of R2-AD2's alarm network: the mean over the rows plus the mean over noise",
    ),
)


def batch_size(n: int) -> int:
    """Return R2AD2's batch size for n rows to learn from."""
    return min(256, max(16, n // 50))


def fit_a3(
    X: Array,
    y: Known,
    *,
    seed: int,
    widths: Sequence[int] = SMALL,
    batch: int | None = None,
    epochs: int = 100,
) -> Fitted:
    """Return A3's score: an alarm network on all hidden activations of R2AD2's autoencoder.

    Parameters
    ----------
    X : ndarray of float32, (n, p) or (n, C, H, W)
        Scaled rows.
    y : ndarray of int8, (n,)
    seed : int
    widths : sequence of int
        Of the alarm network.
    batch : int, optional
        Of the alarm network; as many noise rows are added. R2AD2's when left out.
    epochs : int, default 100
        Of the alarm network.
    """
    normal, known = parted(X, y)
    rows = torch.cat([normal, known])
    shape = tuple(rows.shape[1:])
    batch = batch if batch is not None else batch_size(len(normal))
    target = build(describe("auto", shape, None, DROPOUT), seed)
    seen, _ = draw_holdout(torch.arange(len(normal)), HOLDOUT, seed)
    plan = TrajectoryPlan(CHECKPOINTS, batch_size(len(normal)), RATE)
    network = train_checkpoints(target, Rows.of(rows), seen, plan, seed=seed)[-1].module
    read = activations(network)
    mean, spread = _moments(read, normal)
    labels = torch.zeros(len(rows))
    labels[len(normal) :] = 1
    draw = noises.gaussian(shape)

    def standard(x: Tensor) -> Tensor:
        return (read(x) - mean) / spread

    with seeded(seed):
        alarm = AlarmNetwork(len(mean), 1, tuple(widths))
    optimizer = torch.optim.Adam(alarm.parameters(), lr=RATE, fused=True)
    alarm.train()
    for epoch in range(1, epochs + 1):
        with seeded(seed + epoch):
            for index in torch.split(torch.randperm(len(rows)), batch):
                x = standard(torch.cat([rows[index], draw(len(index))]))
                logits = alarm(x)
                loss = F.binary_cross_entropy_with_logits(logits[: len(index)], labels[index])
                loss = loss + F.softplus(-logits[len(index) :]).mean()
                step(optimizer, loss)
    alarm.eval()
    return Fitted({"score": score_by(lambda x: alarm(standard(x)))}, weights(network, alarm))


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


ENTRANTS = {
    "a3": Entrant(
        naming(fit_a3),
        "A3",
        "alarm network of 100, 50, 25 and 10 units, 100 epochs, on R2-AD2's autoencoder after 20 epochs",
        known="used",
        rows="any",
        paper=PAPER,
    )
}

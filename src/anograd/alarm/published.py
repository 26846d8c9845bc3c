"""R2-AD2's training of the alarm network and its batch norm, with two optimisers, as published.

Small letters in shapes: n rows, B rows of a batch, T checkpoints, k gradient features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from anograd.alarm.network import AlarmNetwork, PooledBatchNorm
from anograd.checkpoint import Keeper, pack, unpack
from anograd.train import KerasAdam, Observer, check_loss, seeded

NOISE_ROWS = 8192  # made at once, since each call has a cost of its own
NOISE_ENTRIES = 2**26  # at most held at once: 256 MiB as float32
STAGE = "alarm"
LOSSES = ("loss_rows", "loss_noise", "loss", "loss_normalisation")


@dataclass(frozen=True)
class AlarmPlan:
    """How to train the alarm network.

    Attributes
    ----------
    epochs : int
        Passes over the rows; the last one counts.
    batch_size : int
    learning_rate : float
        Of both optimisers.
    """

    epochs: int
    batch_size: int
    learning_rate: float


def published_step(
    norm: PooledBatchNorm,
    alarm: AlarmNetwork,
    features: Tensor,
    labels: Tensor,
    noise_features: Tensor | None,
    alarm_optimizer: torch.optim.Optimizer,
    norm_optimizer: torch.optim.Optimizer,
) -> Tensor:
    """Return the losses of one step, taken in place: real rows, noise, their sum, batch norm's; (4,).

    First the alarm network learns to tell the rows by their labels and to call noise anomalous, its
    dropout on, the batch norm as it is in use. Then gamma and beta learn on the rows alone, the network's
    dropout off, with the statistics of the batch, which also enter the moving averages.

    Parameters
    ----------
    norm : PooledBatchNorm
    alarm : AlarmNetwork
    features : torch.Tensor, (B, T, k)
        Gradients of the rows; nothing flows back into them.
    labels : torch.Tensor, (B,)
        0 = normal, 1 = anomalous, as floats.
    noise_features : torch.Tensor, (any, T, k), or None
        Gradients of noise. It counts as much as all rows together, and never enters the statistics.
    alarm_optimizer, norm_optimizer : torch.optim.Optimizer
        Over the trained weights of `alarm`, and over gamma and beta.

    Notes
    -----
    **Differs from the paper** in that the cross entropy is taken of logits. The published code takes it of
    probabilities, clipped at 1e-7, so that its gradient ends where a logit passes 16.

    References
    ----------
    Schulze et al., "R2-AD2: Detecting Anomalies by Analysing the Raw Gradient", ECML PKDD 2022.
    """
    first = _train_alarm(norm, alarm, features, labels, noise_features, alarm_optimizer)
    second = _train_norm(norm, alarm, features, labels, norm_optimizer)
    return torch.stack([*first, second])


def _train_alarm(
    norm: PooledBatchNorm,
    alarm: AlarmNetwork,
    features: Tensor,
    labels: Tensor,
    noise: Tensor | None,
    optimizer: torch.optim.Optimizer,
) -> tuple[Tensor, Tensor, Tensor]:
    norm.eval()
    alarm.train()
    # In this step every row stands for itself, so that rows and noise can share one pass.
    both = features if noise is None else torch.cat([features, noise])
    with torch.no_grad():
        normalised = norm(both)
    logits = alarm(normalised)
    of_rows = F.binary_cross_entropy_with_logits(logits[: len(labels)], labels)
    of_noise = torch.zeros_like(of_rows)
    if noise is not None:
        of_noise = F.softplus(-logits[len(labels) :]).mean()  # cross entropy with the label 1
    total = of_rows + of_noise
    total.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return of_rows.detach(), of_noise.detach(), total.detach()


def _train_norm(
    norm: PooledBatchNorm,
    alarm: AlarmNetwork,
    features: Tensor,
    labels: Tensor,
    optimizer: torch.optim.Optimizer,
) -> Tensor:
    norm.train()
    alarm.eval()
    loss = F.binary_cross_entropy_with_logits(alarm(norm(features)), labels)
    norm.gamma.grad, norm.beta.grad = torch.autograd.grad(loss, (norm.gamma, norm.beta))
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.detach()


def train_as_published(
    norm: PooledBatchNorm,
    alarm: AlarmNetwork,
    features_of: Callable[[Tensor], Tensor],
    labels: Tensor,
    noise_of: Callable[[int], Tensor] | None,
    plan: AlarmPlan,
    *,
    seed: int = 0,
    observe: Observer = lambda name, data: None,
    keep: Keeper | None = None,
) -> list[dict[str, float]]:
    """Train both in place and return the history, one dict of mean losses an epoch.

    Each has "loss_rows", "loss_noise", their sum "loss", and "loss_normalisation", the batch norm's.

    Parameters
    ----------
    norm : PooledBatchNorm
    alarm : AlarmNetwork
    features_of : callable
        ``features_of(indices) -> (B, T, k)``: gradients of the rows of these indices.
    labels : torch.Tensor, (n,)
        0 = normal, 1 = anomalous, as floats, on the networks' device.
    noise_of : callable or None
        ``noise_of(count) -> (count, T, k)``: gradients of fresh noise; None trains without noise. What it
        draws from torch's global generators is seeded here.
    plan : AlarmPlan
    seed : int
        Draws the order of the rows, the noise and dropout.
    observe : callable
        Called as ``observe("epoch", {"epoch": ..., "epochs": ..., **losses})`` after each epoch.
    keep : Keeper, optional
        Where each epoch is kept under "alarm", and whence an interrupted training goes on.

    Raises
    ------
    FloatingPointError
        When the loss stops being a number.

    References
    ----------
    Schulze et al., "R2-AD2: Detecting Anomalies by Analysing the Raw Gradient", ECML PKDD 2022.
    """
    alarm_optimizer = KerasAdam([p for p in alarm.parameters() if p.requires_grad], plan.learning_rate)
    norm_optimizer = KerasAdam([norm.gamma, norm.beta], plan.learning_rate)
    a_row = alarm.checkpoints * alarm.features
    at_once = max(plan.batch_size, min(NOISE_ROWS, NOISE_ENTRIES // a_row))
    learners = {"alarm": (alarm, alarm_optimizer), "norm": (norm, norm_optimizer)}
    history: list[dict[str, float]] = []
    if keep and (kept := keep.load(STAGE)):
        numbers, groups = kept
        unpack(groups, learners)
        history = numbers["history"]
    for epoch in range(len(history) + 1, plan.epochs + 1):
        with seeded(seed + epoch, labels.device):
            batches = torch.split(torch.randperm(len(labels)).to(labels.device), plan.batch_size)
            sums = torch.zeros(len(LOSSES), device=labels.device)
            noises = _noise_batches(noise_of, [len(rows) for rows in batches], at_once)
            for rows, noise in zip(batches, noises, strict=True):
                losses = published_step(
                    norm, alarm, features_of(rows), labels[rows], noise, alarm_optimizer, norm_optimizer
                )
                sums += len(rows) * losses
        report = dict(zip(LOSSES, (sums / len(labels)).tolist(), strict=True))
        for loss in report.values():
            check_loss("alarm network's ", loss, epoch, plan.learning_rate)
        history.append(report)
        if keep:
            keep.save(STAGE, {"epoch": epoch, "history": history}, pack(learners))
        observe("epoch", {"epoch": epoch, "epochs": plan.epochs, **report})
    norm.eval()
    alarm.eval()
    return history


def _noise_batches(
    noise_of: Callable[[int], Tensor] | None, sizes: list[int], at_once: int
) -> Iterator[Tensor | None]:
    """Give noise for each batch, made for as many batches at once as the limit allows."""
    if noise_of is None:
        yield from [None] * len(sizes)
        return
    waiting: list[int] = []
    for size in [*sizes, None]:
        if waiting and (size is None or sum(waiting) + size > at_once):
            yield from torch.split(noise_of(sum(waiting)), waiting)
            waiting = []
        if size is not None:
            waiting.append(size)

"""Alarm networks that see few known anomalies often: balanced batches, cross-fitted.

Each of some networks leaves out another part of the known anomalies. What they say of those chooses the
epoch, and later the weight of the novelty, so that no label is spent on validation alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anograd.alarm.fusion import ranking
from anograd.checkpoint import Keeper, copied, pack, unpack
from anograd.train import Observer, adam, check_loss, seeded

ANOMALY_SHARE, NOISE_SHARE = 0.2, 0.1  # of each batch; anomalies are drawn with replacement
SLACK = 0.03  # of AUROC plus average precision
SCORED_AT_ONCE = 1024
STAGE = "alarm"


@dataclass(frozen=True)
class BalancedPlan:
    """How to train.

    Attributes
    ----------
    epochs : int
        Passes over the normal rows, at most.
    batch_size : int
        Normal rows, anomalies and noise together.
    learning_rate : float
        Of Adam.
    """

    epochs: int
    batch_size: int
    learning_rate: float

    def counts(self, known: int, noise: int) -> tuple[int, int, int]:
        """Return how many normal rows, known anomalies and noise rows make a batch: one of each at least."""
        anomalous = max(1, round(ANOMALY_SHARE * self.batch_size)) if known else 0
        nothing = max(1, round(NOISE_SHARE * self.batch_size)) if noise else 0
        return max(1, self.batch_size - anomalous - nothing), anomalous, nothing


@dataclass(frozen=True)
class Material:
    """What the networks learn from.

    Attributes
    ----------
    features_of : callable
        Row numbers -> features, (b, k).
    train, validation : torch.Tensor of int64
        Numbers of normal rows to learn from, and to choose the epoch by.
    known : torch.Tensor, (a, k)
        Features of the known anomalies.
    noise : torch.Tensor, (c, k)
        Features of noise.
    """

    features_of: Callable[[Tensor], Tensor]
    train: Tensor
    validation: Tensor
    known: Tensor
    noise: Tensor


def parts(known: int, networks: int) -> list[Tensor]:
    """Return which known anomalies each network leaves out, int64; none where one must learn from all."""
    count = min(networks, known)
    if count < 2:
        return [torch.arange(0)]
    return [torch.arange(first, known, count) for first in range(count)]


def train_balanced(
    alarms: Sequence[nn.Module],
    left_out: Sequence[Tensor],
    material: Material,
    plan: BalancedPlan,
    *,
    seed: int = 0,
    observe: Observer = lambda name, data: None,
    keep: Keeper | None = None,
) -> tuple[list[dict[str, float]], int]:
    """Train the networks in place; return the history, one dict an epoch, and the epoch that was kept.

    The kept one is the last of those that rank the left-out anomalies best against the validation rows, by
    AUROC plus average precision to within 0.03; where nothing is left out, it is the last of all.

    Parameters
    ----------
    alarms : sequence of torch.nn.Module
        Features (b, k) -> logits (b,), high = anomalous; in training those of its members, (members, b).
    left_out : sequence of torch.Tensor of int64
        For each network the known anomalies that it does not see, from `parts`.
    material : Material
    plan : BalancedPlan
    seed : int
        Draws the order of the rows, which anomalies and noise, and dropout.
    observe : callable
        Called as ``observe("epoch", {...})`` after each epoch.
    keep : Keeper, optional
        Where each epoch is kept under "alarm", and whence an interrupted training goes on.

    Raises
    ------
    FloatingPointError
        When the loss stops being a number.
    """
    device = material.known.device
    seen = [without(len(material.known), out) for out in left_out]
    normal, anomalous, nothing = plan.counts(min(map(len, seen)), len(material.noise))
    optimizers = [adam(alarm, plan.learning_rate) for alarm in alarms]
    labels = torch.cat([torch.zeros(normal), torch.ones(anomalous + nothing)]).to(device)
    history: list[dict[str, float]] = []
    best, best_epoch, weights = -math.inf, 0, [copied(alarm.state_dict()) for alarm in alarms]
    learners = {f"network{i}": both for i, both in enumerate(zip(alarms, optimizers, strict=True))}
    if keep and (kept := keep.load(STAGE)):
        numbers, groups = kept
        unpack(groups, learners)
        history, best, best_epoch = numbers["history"], numbers["best"], numbers["best_epoch"]
        weights = [groups[f"best{i}"] for i in range(len(alarms))]
    for epoch in range(len(history) + 1, plan.epochs + 1):
        with seeded(seed + epoch, device):
            loss = _run_epoch(alarms, optimizers, seen, material, labels, (normal, anomalous, nothing))
        check_loss("alarm network's ", loss, epoch, plan.learning_rate)
        report = {"loss": loss}
        quality = float(epoch)
        if any(map(len, left_out)):
            rows = logits(alarms, material.features_of, material.validation).numpy()
            with torch.no_grad():
                odd = [a(material.known[o]).cpu().numpy() for a, o in zip(alarms, left_out, strict=True)]
            found = [ranking(one, other) for one, other in zip(rows, odd, strict=True)]
            auroc, precision = (sum(values) / len(found) for values in zip(*found, strict=True))
            report |= {"validation_auroc": auroc, "validation_average_precision": precision}
            quality = auroc + precision
        history.append(report)
        if quality >= best - SLACK:  # of epochs that are about as good, the last
            best, best_epoch = max(best, quality), epoch
            weights = [copied(alarm.state_dict()) for alarm in alarms]
        if keep:
            numbers = {"epoch": epoch, "history": history, "best": best, "best_epoch": best_epoch}
            keep.save(STAGE, numbers, pack(learners) | {f"best{i}": one for i, one in enumerate(weights)})
        observe("epoch", {"epoch": epoch, **report})
    for alarm, state in zip(alarms, weights, strict=True):
        alarm.load_state_dict(state)
        alarm.eval().zero_grad(set_to_none=True)
    return history, best_epoch


def logits(alarms: Sequence[nn.Module], features_of: Callable[[Tensor], Tensor], index: Tensor) -> Tensor:
    """Return each network's logits of the rows with these numbers, (networks, n), high = anomalous."""
    found = []
    for alarm in alarms:
        alarm.eval()
    with torch.no_grad():
        for batch in torch.split(index, SCORED_AT_ONCE):
            features = features_of(batch)
            found.append(torch.stack([alarm(features) for alarm in alarms]).cpu())
    return torch.cat(found, dim=1)


def _run_epoch(
    alarms: Sequence[nn.Module],
    optimizers: Sequence[torch.optim.Optimizer],
    seen: Sequence[Tensor],
    material: Material,
    labels: Tensor,
    counts: tuple[int, int, int],
) -> float:
    normal, anomalous, nothing = counts
    for alarm in alarms:
        alarm.train()
    total, steps = torch.zeros((), dtype=torch.float64, device=labels.device), 0
    for batch in torch.split(material.train[torch.randperm(len(material.train))], normal):
        if steps and len(batch) < normal:
            break  # a last, smaller batch would be out of balance
        rows = [material.features_of(batch)]
        if nothing:
            rows.append(material.noise[torch.randint(len(material.noise), (nothing,))])
        for alarm, optimizer, own in zip(alarms, optimizers, seen, strict=True):
            drawn = own[torch.randint(len(own), (anomalous,))] if anomalous else own[:0]
            x = torch.cat([rows[0], material.known[drawn], *rows[1:]])
            found = alarm(x)
            own_labels = labels[-anomalous - nothing - len(batch) :].expand_as(found)
            loss = F.binary_cross_entropy_with_logits(found, own_labels)
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            optimizer.step()
            total += loss.detach() / len(alarms)
        steps += 1
    return float(total) / steps


def without(count: int, left_out: Tensor) -> Tensor:
    """Return the numbers 0 to count - 1 that are not left out, int64."""
    kept = torch.ones(count, dtype=torch.bool)
    kept[left_out] = False
    return torch.nonzero(kept).ravel()

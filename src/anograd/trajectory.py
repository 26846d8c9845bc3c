"""One network at several moments of its training: the checkpoints whose gradients R2-AD2 reads."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from anograd.checkpoint import Keeper, pack, unpack
from anograd.networks import DropoutAutoencoder, DropoutConvAutoencoder, choose_kind
from anograd.ranks import together
from anograd.spill import Rows
from anograd.target import Target
from anograd.train import KerasAdam, Observer, adam, check_loss, seeded, shuffled

HIDDEN = (40, 20, 10)  # the paper's for Covertype and NSL-KDD; on few columns its smaller ones often die
FIRST_EPOCHS, FURTHER_EPOCHS = 10, 5  # as published
STAGE = "autoencoder"


@dataclass(frozen=True)
class TrajectoryPlan:
    """How to train a network through its checkpoints.

    Attributes
    ----------
    checkpoints : int
        The first is taken after 10 epochs, each further one after 5 more.
    batch_size : int
    learning_rate : float
        Of Adam, whose moments are kept from one checkpoint to the next.
    keras : bool
        Whether Adam is Keras', as in the published code.
    """

    checkpoints: int
    batch_size: int
    learning_rate: float
    keras: bool = False

    def epochs(self) -> int:
        """Return the passes over the rows in all."""
        return FIRST_EPOCHS + FURTHER_EPOCHS * (self.checkpoints - 1)


def describe(
    kind: str, shape: tuple[int, ...], hidden: Sequence[int] | None, dropout: float
) -> dict[str, Any]:
    """Return an autoencoder for rows of a shape as plain data, from which `build` makes it.

    Parameters
    ----------
    kind : {"auto", "dense", "conv"}
    shape : tuple of int
        Of one row: (p,) or (C, H, W).
    hidden : sequence of int or None
        Encoder widths of the dense one, code last.
    dropout : float

    Raises
    ------
    ValueError
        For rows that are neither a table's nor images, or not of the kind asked for.
    """
    kind = choose_kind(kind, shape, "conv")
    if kind == "dense":
        return {
            "kind": kind, "features": shape[0], "dropout": dropout,
            "hidden": [int(width) for width in (HIDDEN if hidden is None else hidden)],
        }  # fmt: skip
    channels, height, width = shape
    return {"kind": kind, "channels": channels, "height": height, "width": width, "dropout": dropout}


def build(network: Mapping[str, Any], seed: int) -> Target:
    """Return the autoencoder that a description stands for, freshly drawn, with its loss."""
    given = {name: value for name, value in network.items() if name != "kind"}
    with seeded(seed):
        made: nn.Module
        made = DropoutAutoencoder(**given) if network["kind"] == "dense" else DropoutConvAutoencoder(**given)
    return Target.adopt(made, loss="bce_with_logits")


def draw_holdout(train: Tensor, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return the row numbers that the network is trained on, and those held out from it, drawn once.

    Parameters
    ----------
    train : torch.Tensor of int64
        Numbers of normal rows.
    share : float
        Share to hold out, 0 to below 1; one row at least is trained on.
    seed : int

    Notes
    -----
    **Differs from the published code**, which draws anew for each checkpoint, so that hardly a row is unseen.
    """
    seen = max(1, len(train) - round(share * len(train)))
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
    return train[order[:seen]], train[order[seen:]]


def train_checkpoints(
    target: Target,
    rows: Rows,
    index: Tensor,
    plan: TrajectoryPlan,
    *,
    seed: int = 0,
    observe: Observer = lambda name, data: None,
    keep: Keeper | None = None,
) -> list[Target]:
    """Return frozen copies of the target, one a checkpoint, the least trained first.

    Parameters
    ----------
    target : Target
        Network and loss; the network ends as the last checkpoint.
    rows : Rows
    index : torch.Tensor of int64
        Which rows to train on.
    plan : TrajectoryPlan
    seed : int
        Draws the order of the rows and dropout.
    observe : callable
        Called as ``observe("epoch", {...})`` after each epoch.
    keep : Keeper, optional
        Where each epoch is kept under "autoencoder", and whence an interrupted training goes on.

    Raises
    ------
    FloatingPointError
        When the loss stops being a number.

    Notes
    -----
    Ranks (`anograd.ranks`) get the same rows; each takes its share of every batch and draws its own dropout.

    References
    ----------
    Schulze et al., "R2-AD2: Detecting Anomalies by Analysing the Raw Gradient", ECML PKDD 2022.
    """
    ranks = together()
    module = target.module
    found: list[Target] = []
    device = next(module.parameters()).device
    rate = plan.learning_rate
    optimizer = KerasAdam(module.parameters(), rate) if plan.keras else adam(module, rate)
    learners = {"network": (module, optimizer)}
    done = 0
    if keep and (kept := keep.load(STAGE)):
        numbers, groups = kept
        for i in range(numbers["checkpoints"]):
            module.load_state_dict(groups[f"checkpoint{i}"])
            found.append(_frozen(target))
        unpack(groups, learners)
        done = numbers["epoch"]
    ranks.start_alike(module, f"{keep.fingerprint if keep else ''} {seed} {done}")
    for epoch in range(done + 1, plan.epochs() + 1):
        module.train()
        total = torch.zeros((), dtype=torch.float64, device=device)
        # Seeded by the epoch, as in all training here.
        with shuffled(len(index), seed + epoch, device, ranks) as order:
            for batch in torch.split(index[order], plan.batch_size):
                x = rows.take(ranks.share(batch)).to(device)
                optimizer.zero_grad(set_to_none=True)
                loss = target.loss(module(x), x).sum() / len(batch)
                torch.autograd.backward(loss)
                ranks.sum([p.grad for p in module.parameters() if p.grad is not None])
                optimizer.step()
                total += loss.detach() * len(batch)
        ranks.sum([total])
        mean = float(total) / len(index)
        check_loss("autoencoder's ", mean, epoch, plan.learning_rate)
        if epoch >= FIRST_EPOCHS and (epoch - FIRST_EPOCHS) % FURTHER_EPOCHS == 0:
            found.append(_frozen(target))
        if keep:
            taken = {f"checkpoint{i}": one.module.state_dict() for i, one in enumerate(found)}
            keep.save(STAGE, {"epoch": epoch, "checkpoints": len(found)}, pack(learners) | taken)
        observe("epoch", {"epoch": epoch, "loss": mean})
    module.eval()
    module.zero_grad(set_to_none=True)
    return found


def _frozen(target: Target) -> Target:
    still = copy.deepcopy(target.module).eval()
    still.zero_grad(set_to_none=True)
    return Target(still.requires_grad_(False), target.loss, target.layers)

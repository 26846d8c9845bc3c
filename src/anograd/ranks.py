"""Processes that train one network together, as torchrun starts them: each takes its share of every batch.

Sums over ranks are taken here, by hand, and nowhere else. DistributedDataParallel takes them in hooks of the
backward pass, which the constraint's double backward would set off before its time, and before the constraint
knows the gradient of the whole batch.
"""

from __future__ import annotations

import atexit
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn

APART = 1_000_003  # between the seeds of two ranks


@dataclass(frozen=True)
class Ranks:
    """How many processes train together, and which of them this is.

    Attributes
    ----------
    rank : int
        From 0; rank 0 writes files.
    world : int
        1 where a process trains alone. Then nothing below does anything.
    """

    rank: int = 0
    world: int = 1

    def share(self, batch: Tensor) -> Tensor:
        """Return this rank's rows of a batch, which may be none: as many as the others', or one more."""
        return batch if self.world == 1 else batch.tensor_split(self.world)[self.rank]

    def seed(self, seed: int) -> int:
        """Return a seed of this rank's own for what is drawn row by row: dropout, noise, hidden columns."""
        return seed + APART * self.rank

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Put the sums over all ranks in the place of tensors, in one exchange.

        Parameters
        ----------
        tensors : sequence of torch.Tensor
            Of one dtype and device, in the same order on every rank.
        """
        if self.world == 1 or not tensors:
            return
        with torch.no_grad():
            flat = torch.cat([one.flatten() for one in tensors])
            distributed.all_reduce(flat)
            for one, total in zip(tensors, torch.split(flat, [one.numel() for one in tensors]), strict=True):
                one.copy_(total.view_as(one))

    def total(self, shares: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the sums over all ranks of what this one has a share of, so that gradients flow back to it.

        What is made of the sums is made alike by every rank and shall count once: each divides it by `world`.
        What the others' quotients would send back here is the same as its own, and is counted in.

        Parameters
        ----------
        shares : sequence of torch.Tensor
        """
        if self.world == 1:
            return tuple(shares)
        sums = [one.detach().clone() for one in shares]
        self.sum(sums)
        return tuple(
            total + self.world * (one - one.detach()) for one, total in zip(shares, sums, strict=True)
        )

    def start_alike(self, module: nn.Module, told: str) -> None:
        """Give every rank the weights of rank 0, once it is known that all are at the same work.

        Parameters
        ----------
        module : torch.nn.Module
        told : str
            What must be the same on every rank.

        Raises
        ------
        ValueError
            On every rank, where it is not.
        """
        if self.world == 1:
            return
        device = next(module.parameters()).device
        least = torch.tensor(list(hashlib.sha256(told.encode()).digest()), device=device)
        most = least.clone()
        distributed.all_reduce(least, distributed.ReduceOp.MIN)
        distributed.all_reduce(most, distributed.ReduceOp.MAX)
        if not torch.equal(least, most):
            raise ValueError(
                f"the {self.world} ranks that torchrun started were not given the same: every rank needs all "
                "rows, the same settings, random_state=0 or another number, and the same checkpoint, if any"
            )
        with torch.no_grad():
            for value in module.state_dict().values():
                distributed.broadcast(value, 0)


ALONE = Ranks()


def together() -> Ranks:
    """Return the ranks of this process: those that torchrun started, or of a group that was set up before."""
    if not distributed.is_available():
        return ALONE
    if not distributed.is_initialized():
        if not distributed.is_torchelastic_launched() or int(os.environ["WORLD_SIZE"]) == 1:
            return ALONE
        distributed.init_process_group()
        atexit.register(distributed.destroy_process_group)
    return Ranks(distributed.get_rank(), distributed.get_world_size())


def gpu() -> torch.device:
    """Return the GPU of this process: the current one; under torchrun the one of its number there."""
    if distributed.is_available() and distributed.is_torchelastic_launched():
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    return torch.device("cuda")

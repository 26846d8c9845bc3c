"""GradCon's gradient constraint: the running mean of gradients, and how well a gradient points along it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from anograd.ranks import ALONE, Ranks
from anograd.spill import Some, in_turn
from anograd.target import Target, detached, forward_pass, in_precision_of, losses, standing_in

COSINE_FLOOR = 1e-8
EMA_DECAY = 0.99


class RunningMean:
    """Mean of the gradients seen so far, by parameter: GradCon's reference."""

    def __init__(self, target: Target, averaging: str) -> None:
        self.sums = {name: torch.zeros_like(p) for name, p in target.parameters().items()}
        self.steps = 0
        self.decay = EMA_DECAY if averaging == "ema" else None

    def mean(self) -> dict[str, Tensor]:
        """Return the mean by parameter name; zeros before the first step."""
        weight = self.weight(self.steps)
        return {name: total / weight for name, total in self.sums.items()}

    def weight(self, steps: int) -> float:
        """Return what the sums of so many steps are divided by."""
        return float(max(steps, 1)) if self.decay is None else 1 - self.decay ** max(steps, 1)

    def add(self, gradients: Sequence[Tensor]) -> None:
        """Take in one step's gradients, in the order of the parameters."""
        with torch.no_grad():
            for total, gradient in zip(self.sums.values(), gradients, strict=True):
                if self.decay is None:
                    total += gradient
                else:
                    total.mul_(self.decay).add_(gradient, alpha=1 - self.decay)
        self.steps += 1


def alignment(gradients: Sequence[Tensor], reference: Sequence[Tensor]) -> Tensor:
    """Return the mean cosine between gradients and reference over the parameters, in -1..1.

    Each parameter counts as one flattened vector, not entry by entry.
    """
    cosines = [
        F.cosine_similarity(g.flatten(), r.flatten(), dim=0, eps=COSINE_FLOOR)
        for g, r in zip(gradients, reference, strict=True)
    ]
    return torch.stack(cosines).mean()


def mean_gradient(
    target: Target, x: Tensor | Some, batch_size: int, ranks: Ranks = ALONE
) -> dict[str, Tensor]:
    """Return the gradient of the mean loss over all rows, by parameter name: a reference after the fact.

    The network is used in evaluation mode and given back as it was. Ranks share each batch.
    """
    with forward_pass(target):
        every = detached(target)
    stand_ins = {name: every[name].requires_grad_() for name in target.layers}
    total = {name: torch.zeros_like(p) for name, p in stand_ins.items()}
    for whole in in_turn(x, batch_size):
        batch = ranks.share(whole)
        with forward_pass(target), torch.enable_grad(), standing_in(target, every):
            loss = losses(target, in_precision_of(target, batch)).sum()
            gradients = torch.autograd.grad(loss, list(stand_ins.values()), materialize_grads=True)
        for name, gradient in zip(total, gradients, strict=True):
            total[name] += gradient / len(x)
    ranks.sum(list(total.values()))
    return total

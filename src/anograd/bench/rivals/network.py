"""What the rivals written here share: a step of training, from a network to a score, and how large it is."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from anograd.bench.entrants import Fit, Fitted, Floats, Known, Rows, Score

SCORED_AT_ONCE = 1024


def naming(fit: Callable[..., Fitted]) -> Fit:
    """Return a fit that names its own settings as what it is: other names are refused by Python itself."""
    return fit


def step(optimizer: torch.optim.Optimizer, loss: Tensor, longest: float | None = None) -> None:
    """Move the weights one step down.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
    loss : torch.Tensor, ()
    longest : float, optional
        Each weight's gradient is cut to this length.
    """
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    if longest is not None:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                nn.utils.clip_grad_norm_([parameter], longest)
    optimizer.step()


def score_by(function: Callable[[Tensor], Tensor]) -> Score:
    """Return the score that a function of tensors gives, rows taken a piece at a time.

    Parameters
    ----------
    function : callable
        From rows (n, ...) to one number a row, (n,).
    """

    @torch.no_grad()
    def score(rows: Rows) -> Floats:
        pieces = torch.split(torch.tensor(rows), SCORED_AT_ONCE)
        return torch.cat([function(piece).double() for piece in pieces]).numpy()

    return score


def weights(*modules: nn.Module) -> int:
    """Return how many numbers the networks were trained to."""
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def parted(X: Rows, y: Known) -> tuple[Tensor, Tensor]:
    """Return the rows that are not marked and the known anomalies, two tensors."""
    return torch.tensor(X[y == 0]), torch.tensor(X[y == 1])

"""Per-sample gradients of anything: ``vmap(grad)``, and row by row where a layer refuses ``vmap``.

Slower than the rules and stores every gradient; it is also what the rules are tested against.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import grad, vmap

from anograd.gradients.tape import recording
from anograd.target import Target, detached, forward_pass, losses, standing_in, usable


def vmap_gradients(
    target: Target, x: Tensor, names: Sequence[str], autocast: torch.dtype | None = None
) -> dict[str, Tensor]:
    """Return the gradient of each row's loss for the named parameters, each (n, *shape), by ``vmap(grad)``.

    Raises
    ------
    RuntimeError
        Where a layer does not support ``vmap``, as GRU and plain RNN in PyTorch 2.13.
    """
    with forward_pass(target), warnings.catch_warnings():
        x, every = usable(x), detached(target)
        chosen = {name: every.pop(name) for name in names}
        # Layers without a batching rule of their own are looped over inside vmap; the plan says what is slow.
        warnings.filterwarnings("ignore", message="There is a performance drop")
        gradients: dict[str, Tensor] = _by_row(target, autocast)(chosen, every, x)
    return {name: gradients[name].detach() for name in names}


def row_gradients(
    target: Target, x: Tensor, names: Sequence[str], autocast: torch.dtype | None = None
) -> dict[str, Tensor]:
    """Return the same as `vmap_gradients` by one ordinary backward pass a row."""
    rows = []
    for row in torch.split(x, 1):
        with recording(target, row, (), names, autocast) as tape:
            rows.append(tape.of_parameters())
    return {name: torch.stack([row[name] for row in rows]) for name in names}


def stacked_gradients(targets: Sequence[Target], x: Tensor) -> Tensor:
    """Return the full gradients of one network at several moments, (n, T, g), from one batched pass.

    For linear layers this beats a pass a checkpoint, which copies every gradient twice on its way.

    Parameters
    ----------
    targets : sequence of Target
        The same network, loss and layers with other weights.
    x : torch.Tensor, (n, ...)
    """
    over_checkpoints = vmap(_by_row(targets[0], None), in_dims=(0, 0, None), out_dims=1)
    with forward_pass(targets[0]):
        named = [dict(target.module.named_parameters()) for target in targets]
        weights = {name: torch.stack([one[name].detach() for one in named]) for name in named[0]}
        chosen = {name: weights.pop(name) for name in targets[0].layers}
        found: dict[str, Tensor] = over_checkpoints(chosen, weights, x)
    return torch.cat([found[name].flatten(2) for name in targets[0].layers], dim=2)


def _by_row(target: Target, autocast: torch.dtype | None) -> Callable[..., dict[str, Tensor]]:
    """Return a function of chosen parameters, the other ones and rows that gives the gradients by row."""

    def loss_of_row(chosen: dict[str, Tensor], others: dict[str, Tensor], row: Tensor) -> Tensor:
        batch = row.unsqueeze(0)
        with standing_in(target, {**others, **chosen}):
            return losses(target, batch, autocast).sum()

    return vmap(grad(loss_of_row), in_dims=(None, None, 0))


def only_linear(module: nn.Module) -> bool:
    """Tell whether all weights of a network are those of linear layers."""
    owners = [part for part in module.modules() if any(True for _ in part.parameters(recurse=False))]
    return all(type(owner) is nn.Linear for owner in owners)

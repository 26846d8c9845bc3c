"""What the forward pass alone shows at the layers whose gradients are read: their inputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from anograd.losses import check_rows
from anograd.target import Target, evaluating


def activations(target: Target, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Return each row's loss, (n,), and the flattened inputs (n, m) of the layers of the chosen parameters.

    Parameters
    ----------
    target : Target
    x : torch.Tensor, (n, ...)

    Returns
    -------
    loss : torch.Tensor, (n,)
    inputs : dict of str to torch.Tensor
        By the name of the layer's first chosen parameter. Layers that are not called, or that read
        no numbers (an embedding reads indices), or whose first axis is not the rows, are left out; where that
        leaves none, the network's own input, or its output, stands under "".

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> loss, inputs = activations(Target.adopt(net), torch.zeros(5, 2))
    >>> {name: tuple(value.shape) for name, value in inputs.items()}
    {'0.weight': (5, 2), '2.weight': (5, 3)}
    """
    seen: dict[str, list[Tensor]] = {}

    def note(name: str) -> Any:
        def hook(layer: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
            a = args[0] if args else next(iter(named.values()), None)
            if isinstance(a, Tensor) and a.is_floating_point() and a.ndim and len(a) == len(x):
                seen.setdefault(name, []).append(a.detach().flatten(1))

        return hook

    hooks = [layer.register_forward_pre_hook(note(name), with_kwargs=True) for name, layer in _layers(target)]
    with evaluating(target.module), torch.no_grad():
        try:
            output = target.module(x)
        finally:
            for hook in hooks:
                hook.remove()
        loss = check_rows(target.loss(output, x), len(x))
    found = {name: torch.cat(parts, dim=1) for name, parts in seen.items()}
    if not found:
        shown = x if x.is_floating_point() else output[0] if isinstance(output, tuple) else output
        found = {"": shown.detach().flatten(1)}
    return loss, found


def _layers(target: Target) -> list[tuple[str, nn.Module]]:
    """Return the layers that hold a chosen parameter, each under the name of the first one it holds."""
    name_of = {id(p): name for name, p in target.parameters().items()}
    found = []
    for layer in target.module.modules():
        own = [name_of[id(p)] for p in layer.parameters(recurse=False) if id(p) in name_of]
        if own:
            found.append((own[0], layer))
    return found

"""What the forward pass alone shows at the layers whose gradients are read: their inputs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from anograd.losses import check_rows
from anograd.target import Target, detached, forward_pass, output_of, standing_in, untraced


def activations(
    target: Target, x: Tensor, layers: Collection[str] | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return each row's loss, (n,), and the flattened inputs (n, m) of the layers of the chosen parameters.

    Parameters
    ----------
    target : Target
    x : torch.Tensor, (n, ...)
    layers : collection of str, optional
        The only ones to look at, as an earlier call named them: a layer that some rows go to may be given
        all of this batch, and not of the next.

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
    with forward_pass(target):
        output, calls = _run(target, x)
        # Some other axis may be as long as this batch, but not as long as a batch of one and one of two.
        passes = [(n, _run(target, torch.cat([x[:1]] * n))[1]) for n in (1, 2)] + [(len(x), calls)]
        with standing_in(target, detached(target)), torch.enable_grad():
            loss = check_rows(target.loss(output, x), len(x)).detach()
    seen: dict[str, list[Tensor]] = {}
    for i, (name, a) in enumerate(calls):
        wanted = layers is None or name in layers
        if wanted and all(i < len(others) and others[i][1].shape[:1] == (n,) for n, others in passes):
            seen.setdefault(name, []).append(a.reshape(len(a), -1))
    found = {name: torch.cat(parts, dim=1) for name, parts in seen.items()}
    if not found:
        shown = x if x.is_floating_point() else _first(output).detach()
        found = {"": shown.reshape(len(x), -1)}
    return loss, found


def _run(target: Target, x: Tensor) -> tuple[Any, list[tuple[str, Tensor]]]:
    """Return the output, and the input of every call of a layer that holds a chosen parameter."""
    calls: list[tuple[str, Tensor]] = []

    def note(name: str) -> Callable[..., None]:
        def hook(layer: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
            a = args[0] if args else next(iter(named.values()), None)
            if isinstance(a, Tensor) and a.is_floating_point():
                calls.append((name, a.detach()))

        return hook

    hooks = [
        layer.register_forward_pre_hook(untraced(note(name)), with_kwargs=True)
        for name, layer in _layers(target)
    ]
    try:
        return output_of(target, x), calls
    finally:
        for hook in hooks:
            hook.remove()


def _first(output: Any) -> Tensor:
    """Return the first tensor of an output, which may be a tuple or a mapping of them."""
    while not isinstance(output, Tensor):
        output = next(iter(output.values() if isinstance(output, Mapping) else output))
    return output


def _layers(target: Target) -> list[tuple[str, nn.Module]]:
    """Return the layers that hold a chosen parameter, each under the name of the first one it holds."""
    name_of = {id(p): name for name, p in target.parameters().items()}
    found = []
    for layer in target.module.modules():
        own = [name_of[id(p)] for p in layer.parameters(recurse=False) if id(p) in name_of]
        if own:
            found.append((own[0], layer))
    return found

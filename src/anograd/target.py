"""Target: a network, a loss for each row, and the parameters whose gradients are read."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.func import functional_call

from anograd.losses import Loss, resolve

# Hooks and stand-ins sit on the module for the length of a forward pass: one thread at a time.
_FORWARD = threading.RLock()


@dataclass(frozen=True, eq=False)
class Target:
    """A network, its per-sample loss, and the names of the parameters to read gradients of.

    Made by :meth:`adopt`. Nothing about the network is changed, then or later.

    Attributes
    ----------
    module : torch.nn.Module
        The network. Called with a batch of rows; its output goes to `loss`.
    loss : callable
        ``(output, input) -> (n,)``.
    layers : tuple of str
        Names of the chosen parameters, in their order in the module.
    """

    module: nn.Module
    loss: Loss
    layers: tuple[str, ...]

    @classmethod
    def adopt(
        cls, module: nn.Module, *, loss: str | Loss = "mse", layers: str | Sequence[str] = "*"
    ) -> Target:
        """Return a target over any network, which stays as it is.

        Parameters
        ----------
        module : torch.nn.Module
            Any network that takes a batch whose first axis is the rows.
        loss : str or callable, default "mse"
            For autoencoders "mse", "bce", "bce_with_logits", "vae", "vae_reconstruction"; for models of
            tokens "cross_entropy"; for classifiers, whose labels are not needed, "uniform", "confounding",
            "predicted"; or a callable ``(output, input) -> (n,)``.
        layers : str or sequence of str, default "*"
            Glob or globs over parameter names, such as ``"decoder.*.weight"``.

        Returns
        -------
        Target

        Raises
        ------
        TypeError
            Where the network is no module.
        ValueError
            When no parameter matches (the names there are get listed) or the loss is unknown.

        Examples
        --------
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 4))
        >>> Target.adopt(net, layers="*.weight").layers
        ('0.weight', '2.weight')
        """
        if not isinstance(module, nn.Module):
            raise TypeError(f"the network is a {type(module).__name__}; a torch.nn.Module is wanted")
        return cls(module, resolve(loss), choose_layers(module, layers))

    def parameters(self) -> dict[str, Tensor]:
        """Return the chosen parameters by name, in order."""
        with _FORWARD:  # in which stand-ins may be in their place
            named = dict(self.module.named_parameters())
        return {name: named[name] for name in self.layers}


# Whether a network writes over its input, as its first pass shows: to copy rows takes a twentieth of a pass.
_WRITES: WeakKeyDictionary[Target, bool] = WeakKeyDictionary()


def choose_layers(module: nn.Module, layers: str | Sequence[str]) -> tuple[str, ...]:
    """Return the names of the parameters that match any of the globs, in the module's order.

    A parameter that is shared under several names is chosen once, under its first name, when any of
    its names matches.
    """
    globs = [layers] if isinstance(layers, str) else list(layers)
    first_name: dict[int, str] = {}
    chosen: dict[str, None] = {}
    every = list(module.named_parameters(remove_duplicate=False))
    for name, parameter in every:
        first = first_name.setdefault(id(parameter), name)
        if any(fnmatchcase(name, glob) for glob in globs):
            chosen[first] = None
    if not chosen:
        names = ", ".join(name for name, _ in every) or "none: the module has no parameters"
        raise ValueError(f"layers={layers!r} matches no parameter. The names there are: {names}")
    return tuple(name for name in first_name.values() if name in chosen)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode and give every part back its own flag."""
    were_training = [part for part in module.modules() if part.training]
    for part in were_training:
        part.training = False
    try:
        yield
    finally:
        for part in were_training:
            part.training = True


@contextmanager
def forward_pass(target: Target) -> Iterator[None]:
    """Let one thread at a time run the network in evaluation mode, through the ordinary kernels.

    The fused ones of `nn.TransformerEncoder` set padded positions to zero, and are taken only where no
    gradient is asked for: a row's loss would depend on which parameters were chosen.
    """
    with _FORWARD, evaluating(target.module):
        fused = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fused)


def output_of(target: Target, x: Tensor, parameters: Mapping[str, Tensor] | None = None) -> Any:
    """Return what the network makes of rows, with these parameters in place of its own.

    What it writes in place, its input or a counter among its buffers, are copies. Call it in `forward_pass`.
    """
    buffers = {name: buffer.clone() for name, buffer in target.module.named_buffers()}
    given = x.clone() if _WRITES.get(target, True) else x
    output = functional_call(target.module, {**buffers, **(parameters or {})}, (given,))
    if target not in _WRITES and not torch._C._functorch.is_functorch_wrapped_tensor(given):
        _WRITES[target] = given._version > 0
    return output


@contextmanager
def undisturbed() -> Iterator[None]:
    """Compute as if the caller had set no ``inference_mode``, ``no_grad``, ``autocast`` or default dtype.

    Under the first two there would be no gradients, under the third others, under the last networks of
    another precision than their rows.
    """
    before = torch.get_default_dtype()
    with (
        torch.inference_mode(False), torch.enable_grad(),
        torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False),
    ):  # fmt: skip
        if before is torch.float32:
            yield
            return
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(before)


def usable(tensor: Tensor) -> Tensor:
    """Return a tensor that gradients may be taken with: a copy of one that was made in inference mode."""
    return tensor.clone() if tensor.is_inference() else tensor

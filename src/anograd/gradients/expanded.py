"""Layers that multiply by several weights inside one call, written out so that each product can be noted.

A forward hook sees the input and the output of a module. That is enough for a rule where the module is one
product; attention and recurrent layers are several. While a pass is recorded their forward is exchanged for
an equal one, of plain tensor operations, which notes the products as it comes by: the input `a` of each and
the tensor `z` that it adds up to. The exchange sits on the instance, and is undone in any case.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

Forward = Callable[..., Any]  # (layer, notes, *args, **named), otherwise the module's own
REPLACED = "its forward was replaced"
TRANSFORMED = "called inside a transform of torch.func"
TWICE = "the network takes a gradient through it itself"


@dataclass(frozen=True)
class Notes:
    """Takes down what an expanded forward does.

    Attributes
    ----------
    product : callable
        Takes (layer within this one, part, a, z): a product, its input and what it adds up to, both with
        the rows first. The layer is "" where the product is this one's own.
    refuse : callable
        Takes why this layer's products are not all that its parameters are in.
    """

    product: Callable[[str, str, Tensor, Tensor], None]
    refuse: Callable[[str], None]


@dataclass(frozen=True)
class _Expansion:
    forward: Forward
    unless: Callable[..., str]
    ruled_alone: str


_EXPANSIONS: dict[type[nn.Module], _Expansion] = {}


def expands(
    *layers: type[nn.Module], unless: Callable[..., str], ruled_alone: str = ""
) -> Callable[[Forward], Forward]:
    """Return a decorator that registers an equal forward which notes its products.

    It is called with the layer, `Notes` and what the layer was called with. Of a product, `z` is on the way
    from the parameters to the output.

    Parameters
    ----------
    *layers : type
        Module types, exactly these.
    unless : callable
        Takes what the module's forward takes, the module first; says what the expanded forward cannot
        do about it, or nothing. The module then goes through its own forward.
    ruled_alone : str, default ""
        A glob of parameters whose gradient the expanded forward leaves to their rule: autograd finds none.
    """

    def register(forward: Forward) -> Forward:
        for layer in layers:
            _EXPANSIONS[layer] = _Expansion(forward, unless, ruled_alone)
        return forward

    return register


def expandable(layer: nn.Module) -> bool:
    """Tell whether a layer is several products, which an expanded forward notes."""
    return type(layer) in _EXPANSIONS


def part_of(layer: nn.Module, parameter: str) -> str:
    """Return the product that a parameter belongs to: "ih_l0" for "weight_ih_l0", "" in an ordinary layer."""
    if not expandable(layer):
        return ""
    return re.sub(r"(^|_)(weight|bias)(_|$)", "", parameter)


def left_to_rules(layer: nn.Module, parameter: str) -> bool:
    """Tell whether autograd finds no gradient of a parameter while its layer is expanded."""
    expansion = _EXPANSIONS.get(type(layer))
    return expansion is not None and fnmatchcase(parameter, expansion.ruled_alone)


def transformed(value: Any) -> bool:
    """Tell whether a tensor is one of a transform of `torch.func` that runs now."""
    return isinstance(value, Tensor) and torch._C._functorch.is_functorch_wrapped_tensor(value)


@contextmanager
def expanding(
    module: nn.Module, layers: Collection[str], note: Callable[[str, str, Tensor, Tensor], None]
) -> Iterator[dict[str, str]]:
    """Exchange the forward of each layer that can be expanded and is one of `layers` or holds one.

    Parameters
    ----------
    module : torch.nn.Module
    layers : collection of str
        Names of modules that are to be noted.
    note : callable
        Takes (layer, part, a, z).

    Yields
    ------
    dict of str to str
        Fills with the layers whose own forward was taken after all, and why.
    """
    refused: dict[str, str] = {}

    def exchange(name: str, layer: nn.Module, expansion: _Expansion) -> None:
        own_forward = layer.forward
        notes = Notes(
            lambda within, *product: note(f"{name}.{within}".strip("."), *product),
            lambda why: refused.update({name: why}),
        )

        def forward(*args: Any, **named: Any) -> Any:
            wrapped = any(map(transformed, (*args, *named.values())))
            if why := TRANSFORMED if wrapped else expansion.unless(layer, *args, **named):
                refused[name] = why
                return own_forward(*args, **named)
            return expansion.forward(layer, notes, *args, **named)

        undo.callback(vars(layer).pop, "forward")
        layer.forward = forward

    with ExitStack() as undo:
        for name, layer in module.named_modules():
            expansion = _EXPANSIONS.get(type(layer))
            if expansion is None or not any(_within(one, name) for one in layers):
                continue
            if "forward" in vars(layer):
                refused[name] = REPLACED
            else:
                exchange(name, layer, expansion)
        yield refused


def why_refused(refused: dict[str, str], layer: str) -> str:
    """Return why a layer, or one that holds it, went through its own forward; empty where none did."""
    return next((why for name, why in refused.items() if _within(layer, name)), "")


def _within(layer: str, name: str) -> bool:
    return layer == name or name == "" or layer.startswith(f"{name}.")

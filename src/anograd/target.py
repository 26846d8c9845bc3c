"""Target: a network, a loss for each row, and the parameters whose gradients are read."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from copy import copy, deepcopy
from dataclasses import dataclass, fields, is_dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from anograd.losses import Loss, resolve

# Hooks and stand-ins sit on the module for the length of a forward pass: one thread at a time.
FORWARD = threading.RLock()
Hook = TypeVar("Hook", bound=Callable[..., Any])


@dataclass(frozen=True, eq=False)
class Target:
    """A network, its per-sample loss, and the names of the parameters to read gradients of.

    Made by :meth:`adopt`. Nothing about the network is changed, then or later; only `load` gives it the
    weights that were saved.

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
            Where the network is no module, or scripted, or has a scripted part.
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
        for name, part in module.named_modules():
            try:
                part.get_submodule("")
            except RuntimeError as error:
                which = f"the network's part {name!r}" if name else "the network"
                raise TypeError(
                    f"{which} is a scripted one: its layers cannot be looked into; adopt what it was made of"
                ) from error
        return cls(module, resolve(loss), choose_layers(module, layers))

    def __sklearn_clone__(self) -> Target:
        """Return itself: no fit changes an adopted network, and a loss may look into this very one."""
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Target:
        with FORWARD:  # no other thread's stand-ins are copied
            made = replace(self, module=deepcopy(self.module, memo), loss=deepcopy(self.loss, memo))
        memo[id(self)] = made
        return made

    def parameters(self) -> dict[str, Tensor]:
        """Return the chosen parameters by name, in order."""
        with FORWARD:  # in which stand-ins may be in their place
            named = dict(self.module.named_parameters())
        return pick(named, self.layers)

    def shapes(self) -> dict[str, torch.Size]:
        """Return the shapes in which their gradients are read by name, in order: complex ones are pairs."""
        read = {name: torch.view_as_real(p) if p.is_complex() else p for name, p in self.parameters().items()}
        return {name: one.shape for name, one in read.items()}


def pick(named: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, Tensor]:
    """Return those of a network's parameters that have these names, in order."""
    if missing := [name for name in names if name not in named]:
        raise ValueError(
            f"the network has no parameter {', '.join(map(repr, missing))} any more: adopt it anew"
        )
    return {name: named[name] for name in names}


def choose_layers(module: nn.Module, layers: str | Sequence[str]) -> tuple[str, ...]:
    """Return the names of the parameters that match any of the globs, in the module's order.

    A parameter that is shared under several names is chosen once, under its first name, when any of
    its names matches. Whole numbers, and parameters without an entry, have no gradient and are left out.
    """
    globs = [layers] if isinstance(layers, str) else list(layers)
    first_name: dict[int, str] = {}
    chosen: dict[str, None] = {}
    every = [one for one in module.named_parameters(remove_duplicate=False) if _has_gradient(*one)]
    for name, parameter in every:
        first = first_name.setdefault(id(parameter), name)
        if any(fnmatchcase(name, glob) for glob in globs):
            chosen[first] = None
    if not chosen:
        names = ", ".join(name for name, _ in every) or "none: the module has no parameters"
        raise ValueError(f"layers={layers!r} matches no parameter. The names there are: {names}")
    return tuple(name for name in first_name.values() if name in chosen)


def _has_gradient(name: str, parameter: Tensor) -> bool:
    if is_lazy(parameter):
        raise ValueError(
            f"parameter '{name}' has no shape yet: call the network once, with rows like those to come, "
            f"and adopt it then"
        )
    return parameter.numel() > 0 and (parameter.is_floating_point() or parameter.is_complex())


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
    with FORWARD, evaluating(target.module):
        fused = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fused)


def detached(target: Target) -> dict[str, Tensor]:
    """Return the network's parameters by name, without a graph; copies of those that a pass may write over.

    Those are the tables of embeddings with ``max_norm``, which shorten their entries as they look them up.
    """
    module = target.module
    shortened = {
        id(part.weight)
        for part in module.modules()
        if isinstance(part, nn.Embedding | nn.EmbeddingBag) and part.max_norm is not None
    }
    return {
        name: p.detach().clone() if id(p) in shortened else usable(p.detach())
        for name, p in module.named_parameters()
    }


@contextmanager
def standing_in(target: Target, parameters: Mapping[str, Tensor]) -> Iterator[None]:
    """Put these tensors in the place of the parameters of these names, and copies in that of all buffers.

    `torch.func.functional_call` does so by name, and a module that has two of them gets its stand-ins back
    for good instead of its own parameters. Call it in `forward_pass`.
    """
    parts = list(target.module.modules())
    named = dict(target.module.named_parameters())
    stand_ins = {id(named[name]): tensor for name, tensor in parameters.items()}
    for part in parts:
        stand_ins |= {id(one): one.clone() for one in part._buffers.values() if one is not None}
    own = [
        (place, name, tensor)
        for part in parts
        for place in (part._parameters, part._buffers)
        for name, tensor in place.items()
        if id(tensor) in stand_ins
    ]
    before = [(vars(part), _attributes(part)) for part in parts]
    try:
        for place, name, tensor in own:
            place[name] = stand_ins[id(tensor)]  # type: ignore[assignment]
        yield
    finally:
        for place, name, tensor in own:
            place[name] = tensor  # type: ignore[assignment]
        for attributes, held in before:
            _put_back(attributes, held)


# What `nn.Module` itself keeps on a module, and what may hold a tensor of a pass.
OF_MODULES = frozenset(vars(nn.Module()))
HOLDERS = (Tensor, list, dict, set, tuple, type(None))
MOST_HELD = 1000  # entries: what has more is no list of activations but a vocabulary, or data


def _attributes(part: nn.Module) -> dict[str, tuple[Any, Any]]:
    """Return a module's own attributes, each with a copy of what it holds where that may be added to."""
    return {
        name: (value, copy(value) if type(value) in (list, dict, set) and len(value) <= MOST_HELD else None)
        for name, value in vars(part).items()
        if name not in OF_MODULES
    }


def _put_back(attributes: dict[str, Any], held: dict[str, tuple[Any, Any]]) -> None:
    """Put back what a pass changed: a network may keep what it made of stand-ins, as old `weight_norm` does.

    The next pass would take it for something that no parameter has a part in.
    """
    for name in [name for name in attributes if name not in OF_MODULES and name not in held]:
        if isinstance(attributes[name], HOLDERS):
            del attributes[name]
    for name, (value, content) in held.items():
        now = attributes.get(name)
        if now is not value and isinstance(now, HOLDERS):
            attributes[name] = value
        if isinstance(value, list) and content is not None:
            value[:] = content
        elif content is not None:
            value.clear()
            value.update(content)


def output_of(target: Target, x: Tensor) -> Any:
    """Return what the network makes of rows; it may take gradients itself. Call it in `forward_pass`."""
    with standing_in(target, detached(target)), torch.enable_grad(), _SINGLE.but_for(target):
        return target.module(x.clone())


def real_type(module: nn.Module, default: torch.dtype = torch.float32) -> torch.dtype:
    """Return the type of a network's first real parameter, or another where it has none."""
    return next((p.dtype for p in module.parameters() if p.is_floating_point()), default)


def in_precision_of(target: Target, x: Tensor) -> Tensor:
    """Return real rows in the type of the network's first real parameter, and others as they are."""
    return x.to(real_type(target.module, x.dtype)) if x.is_floating_point() else x


def losses(target: Target, x: Tensor, autocast: torch.dtype | None = None) -> Tensor:
    """Return the loss of each row. Call it in `standing_in`: the loss may use the network once more."""
    # Without a cache each use of a weight is seen as one.
    lower = torch.autocast(x.device.type, autocast, cache_enabled=False) if autocast else nullcontext()
    with _SINGLE.but_for(target):
        with lower:
            output = target.module(x.clone())  # which the network may write over
        return target.loss(_in_float32(output) if autocast else output, x)


def _in_float32(output: Any) -> Any:
    """Return an output of the same kind with all its real tensors in single precision, if it can be made."""
    try:
        return _made_single(output)
    except TypeError:  # a container of the network's own, which is made otherwise
        return output


def _made_single(output: Any) -> Any:
    if isinstance(output, Tensor):
        return output.float() if output.is_floating_point() else output
    if isinstance(output, dict):
        made = copy(output)
        for name, one in output.items():
            made[name] = _made_single(one)
        return made
    if isinstance(output, tuple | list):
        inside = [_made_single(one) for one in output]
        return type(output)._make(inside) if hasattr(output, "_make") else type(output)(inside)
    if is_dataclass(output) and not isinstance(output, type):
        held = {one.name: getattr(output, one.name) for one in fields(output) if one.init}
        return replace(output, **{name: _made_single(one) for name, one in held.items()})
    return output


@contextmanager
def undisturbed() -> Iterator[None]:
    """Compute as if the caller had set no ``inference_mode``, ``no_grad``, ``autocast`` or default dtype.

    Under the first two there would be no gradients, under the third others, under the last networks of
    another precision than their rows.
    """
    with (
        torch.inference_mode(False), torch.enable_grad(),
        torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False), _SINGLE.default(),
    ):  # fmt: skip
        yield


class _Single:
    """Single precision as the default type, which is the process's, while any thread is inside."""

    def __init__(self) -> None:
        self.lock, self.inside, self.callers = threading.Lock(), 0, torch.float32

    @contextmanager
    def default(self) -> Iterator[None]:
        """Set it with the first that comes, and give the caller's back with the last that goes."""
        with self.lock:
            if not self.inside:
                self.callers = torch.get_default_dtype()
                self._set(torch.float32)
            self.inside += 1
        try:
            yield
        finally:
            with self.lock:
                self.inside -= 1
                if not self.inside:
                    self._set(self.callers)

    @contextmanager
    def but_for(self, target: Target) -> Iterator[None]:
        """Let an adopted network make tensors of the type that its caller has set, if that is its own."""
        callers = self.callers
        apart = self.inside and callers is not torch.float32
        if not apart or all(p.dtype is not callers for p in target.module.parameters()):
            yield
            return
        torch.set_default_dtype(callers)
        try:
            yield
        finally:
            torch.set_default_dtype(torch.float32)

    def _set(self, dtype: torch.dtype) -> None:
        if torch.get_default_dtype() is not dtype:
            torch.set_default_dtype(dtype)


_SINGLE = _Single()


def untraced(hook: Hook) -> Hook:
    """Return a hook as `torch.compile` leaves it alone, which else looks into what it calls, and recompiles.

    Where nothing was compiled yet, asking for that would load the compiler, a second or two.
    """
    if "torch._dynamo" not in sys.modules:
        return hook
    return torch.compiler.disable(hook)  # type: ignore[no-any-return, no-untyped-call]


def usable(tensor: Tensor) -> Tensor:
    """Return a tensor that gradients may be taken with: a copy of one that was made in inference mode."""
    return tensor.clone() if tensor.is_inference() else tensor

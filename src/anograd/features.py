"""What a score reads of each row: losses and gradients, or losses and what the forward pass alone shows.

The two readers answer alike, so that any score can be fed on either; what it loses without gradients is
what gradients had added.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from anograd.activations import activations
from anograd.gradients import PerSample, Sketch, per_sample, plan
from anograd.represent import SHORTEST, angle, cosine, width
from anograd.target import Target

ALIKE = Sketch(size=32)
KINDS = ("norm", "cosine", "sketch", "full")
References = Sequence[Mapping[str, Tensor]]
Sampler = Callable[..., PerSample]


@dataclass(frozen=True)
class Features:
    """What is known of some rows.

    Attributes
    ----------
    loss : torch.Tensor, (n,)
        Of each row.
    values : torch.Tensor, (n, k)
        Its gradient's features.
    widths : tuple of int
        How many of these are each layer's, in order; empty where it is not known.
    """

    loss: Tensor
    values: Tensor
    widths: tuple[int, ...] = ()

    def double(self) -> Features:
        """Return the same in double precision."""
        return Features(self.loss.double(), self.values.double(), self.widths)


Reader = Callable[[Tensor], Features]
Pieces = Callable[[], Iterator[Features]]


@dataclass(frozen=True)
class Samples:
    """What a score learns from.

    Attributes
    ----------
    train : callable
        Gives an iterator over features of the normal rows that the network learned from.
    held : callable
        The same of normal rows that it did not learn from, which set scales.
    known : Features
        Of known anomalies; of none where no anomaly is known.
    """

    train: Pieces
    held: Pieces
    known: Features


def read_gradients(
    target: Target,
    x: Tensor,
    kind: str,
    *,
    unit: bool = False,
    references: References = (),
    sketch: Sketch = ALIKE,
    memory: str | int = "1GiB",
    sample: Sampler = per_sample,
) -> Features:
    """Return losses and gradient features of rows.

    Parameters
    ----------
    target : Target
    x : torch.Tensor, (n, ...)
    kind : {"norm", "cosine", "sketch", "full"}
        Length of each parameter's gradient, (n, l); its cosine with each reference's, (n, l) a reference;
        a random projection; or the gradient itself.
    unit : bool, default False
        For "sketch" and "full": divide each parameter's gradient by its length, so that only where it
        points is left.
    references : sequence of mappings of str to torch.Tensor
        For "cosine": tensors of the parameters' shapes by name.
    sketch : Sketch, optional
        For "sketch".
    memory : str or int, default "1GiB"
        As in `anograd.per_sample`.
    sample : callable, optional
        What finds the gradients' quantities: `anograd.per_sample`, or another of its kind.

    Examples
    --------
    >>> from torch import nn
    >>> target = Target.adopt(nn.Linear(3, 3))
    >>> read_gradients(target, torch.rand(5, 3), "norm").values.shape
    torch.Size([5, 2])
    """
    if kind != "cosine":
        unit = unit and kind in ("sketch", "full")
        wanted = ("loss", kind, "norm") if unit else ("loss", kind)
        found = sample(target, x, wanted, sketch=sketch, memory=memory)
        values = getattr(found, kind)
        assert found.loss is not None
        widths = tuple(_width(kind, shape, sketch) for shape in target.shapes().values())
        if unit:
            assert found.norm is not None
            for block, length in zip(values.split(widths, dim=1), found.norm.unbind(1), strict=True):
                block /= length.clamp_min(SHORTEST).unsqueeze(1)
        return Features(found.loss, values, widths)
    found = sample(target, x, ("loss", "norm", "inner"), reference=references, memory=memory)
    assert found.loss is not None
    assert found.inner is not None
    columns = [
        cosine(replace(found, inner=inner), reference)
        for inner, reference in zip(found.inner.unbind(2), references, strict=True)
    ]
    return Features(found.loss, torch.cat(columns, dim=1))


def _width(kind: str, shape: torch.Size, sketch: Sketch) -> int:
    if kind == "norm":
        return 1
    return width(shape, sketch if kind == "sketch" else None)


def read_activations(
    target: Target,
    x: Tensor,
    kind: str,
    *,
    unit: bool = False,
    references: References = (),
    sketch: Sketch = ALIKE,
    layers: Collection[str] | None = None,
) -> Features:
    """Return the same of the inputs of the chosen layers, which a forward pass alone shows.

    Parameters
    ----------
    target : Target
    x : torch.Tensor, (n, ...)
    kind : {"norm", "cosine", "sketch", "full"}
    unit : bool, default False
    references : sequence of mappings of str to torch.Tensor
        For "cosine": flattened inputs by name, such as `mean_activation` gives.
    sketch : Sketch, optional
        What has no text here is as in `read_gradients`, each layer's input, flattened, in the place of its
        gradient.
    layers : collection of str, optional
        As for `activations`.
    """
    loss, found = activations(target, x, layers)
    columns = []
    if kind == "cosine":
        for reference in references:
            for name, value in found.items():
                other = reference[name].to(value)
                # Not a product of matrix and vector, in which a row's rounding would depend on its place.
                columns.append(angle((value * other).sum(1), value.norm(dim=1), other.norm()).unsqueeze(1))
        return Features(loss, torch.cat(columns, dim=1))
    for name, value in found.items():
        if unit and kind in ("sketch", "full"):
            value = value / value.norm(dim=1, keepdim=True).clamp_min(SHORTEST)
        if kind == "norm":
            value = value.norm(dim=1, keepdim=True)
        elif kind == "sketch" and (p := sketch.projections(name, value[0])[0]) is not None:
            value = value @ p.T
        columns.append(value)
    return Features(loss, torch.cat(columns, dim=1), tuple(one.shape[1] for one in columns))


def within_memory(read: Reader, target: Target, x: Tensor, memory: str | int) -> Features:
    """Return what a reader makes of rows, of so many at once as a plan of the network says.

    Parameters
    ----------
    read : callable
        Rows to their features.
    target : Target
    x : torch.Tensor, (n, ...)
    memory : str or int
    """
    pieces = [read(rows) for rows in torch.split(x, plan(target, x).chunk(memory))]
    if len(pieces) == 1:
        return pieces[0]
    loss, values = (torch.cat([getattr(one, name) for one in pieces]) for name in ("loss", "values"))
    return Features(loss, values, pieces[0].widths)


def mean_activation(
    target: Target, pieces: Iterable[Tensor], layers: Collection[str] | None = None
) -> dict[str, Tensor]:
    """Return the mean input of each chosen layer over rows in pieces: a reference without gradients."""
    count, total = 0, dict[str, Tensor]()
    for piece in pieces:
        count += len(piece)
        for name, value in activations(target, piece, layers)[1].items():
            total[name] = total.get(name, torch.zeros_like(value[0])) + value.sum(0)
    return {name: value / count for name, value in total.items()}

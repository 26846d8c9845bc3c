"""Per-sample losses: functions of (output, input) that give one number a row, and their names."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Loss = Callable[[Any, Tensor], Tensor]

PROBABILITY_FLOOR = 1e-7  # keeps log finite; the clip that Keras, and so R2-AD2, uses
BEYOND = 1e-3  # of 0..1 that a probability may be rounded


def mse(output: Tensor, x: Tensor) -> Tensor:
    """Return the mean squared error of each row, (n,), high = badly reconstructed."""
    _check_shapes(output, x)
    return F.mse_loss(output, x, reduction="none").flatten(1).mean(1)


def bce(output: Tensor, x: Tensor) -> Tensor:
    """Return the mean binary cross entropy of each row, (n,), for outputs that are probabilities."""
    _check_shapes(output, x)
    p = output.clamp(PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR)
    return -(x * p.log() + (1 - x) * (1 - p).log()).flatten(1).mean(1)


def bce_with_logits(output: Tensor, x: Tensor) -> Tensor:
    """Return the mean binary cross entropy of each row, (n,), for outputs that are logits."""
    _check_shapes(output, x)
    return F.binary_cross_entropy_with_logits(output, x, reduction="none").flatten(1).mean(1)


def cross_entropy(output: Tensor, x: Tensor) -> Tensor:
    """Return the mean cross entropy of each row, (n,): logits (n, c, ...), integer classes (n, ...)."""
    if x.dtype.is_floating_point:
        raise TypeError(
            f"the loss 'cross_entropy' compares logits (n, c, ...) with integer classes (n, ...), "
            f"but the input is {x.dtype}: use loss='mse' for numbers, or a callable (output, input) -> (n,)"
        )
    if not isinstance(output, torch.Tensor) or output.shape[:1] + output.shape[2:] != x.shape:
        raise ValueError(
            f"the network turns classes of shape {tuple(x.shape)} into {_what(output)}, but the loss "
            f"'cross_entropy' wants logits (n, c, ...) for classes (n, ...): where c comes last, hand over "
            f"loss=lambda logits, x: F.cross_entropy(logits.mT, x, reduction='none').mean(1)"
        )
    return F.cross_entropy(output, x.long(), reduction="none").reshape(len(x), -1).mean(1)


def kl_divergence(output: tuple[Tensor, Tensor, Tensor], x: Tensor) -> Tensor:
    """Return KL(q(z|x), N(0, I)) of each row in nats per input value, (n,).

    Divided by the number of input values, so that it stands in the right proportion to a
    reconstruction loss that is a mean over them: their sum is then the evidence bound, rescaled.
    """
    _, mean, log_variance = output
    kl = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).flatten(1).sum(1)
    return kl / x[0].numel()


def vae(output: tuple[Tensor, Tensor, Tensor], x: Tensor) -> Tensor:
    """Return binary cross entropy plus KL of each row, (n,), of (xhat, mean, log variance)."""
    return bce(_check_vae(output)[0], x) + kl_divergence(output, x)


def vae_reconstruction(output: tuple[Tensor, Tensor, Tensor], x: Tensor) -> Tensor:
    """Return the binary cross entropy alone of each row, (n,), of (xhat, mean, log variance)."""
    return bce(_check_vae(output)[0], x)


def uniform(output: Tensor, x: Tensor) -> Tensor:
    """Return KL(uniform, softmax) of each row's logits, (n,), high = the classifier is sure."""
    classes = _check_logits(output).shape[1]
    return -F.log_softmax(output, 1).mean(1) - math.log(classes)


def confounding(output: Tensor, x: Tensor) -> Tensor:
    """Return the binary cross entropy of each row's logits to the label "all classes at once", (n,)."""
    every = torch.ones_like(_check_logits(output))
    return F.binary_cross_entropy_with_logits(output, every, reduction="none").mean(1)


def predicted(output: Tensor, x: Tensor) -> Tensor:
    """Return the cross entropy of each row's logits to the class they predict, (n,), high = unsure."""
    return F.cross_entropy(output, _check_logits(output).argmax(1), reduction="none")


OF_PROBABILITIES, OF_LOGITS = (bce, vae, vae_reconstruction), (uniform, confounding, predicted)
LOSSES: dict[str, Loss] = {
    "mse": mse,
    "bce": bce,
    "bce_with_logits": bce_with_logits,
    "cross_entropy": cross_entropy,
    "vae": vae,
    "vae_reconstruction": vae_reconstruction,
    "uniform": uniform,
    "confounding": confounding,
    "predicted": predicted,
}


def resolve(loss: str | Loss) -> Loss:
    """Return the loss of that name, or the callable itself.

    Raises
    ------
    ValueError
        When no loss has that name; the message lists those there are.
    """
    if callable(loss):
        return loss
    if loss not in LOSSES:
        raise ValueError(
            f"no loss is called {loss!r}: use one of {', '.join(map(repr, LOSSES))}, "
            f"or a callable (output, input) -> (n,)"
        )
    return LOSSES[loss]


def refuse_outputs(loss: Loss, output: Any) -> None:
    """Raise ValueError for logits where a loss takes probabilities, and would clip them, and the reverse."""
    output = output[0] if isinstance(output, tuple) and output else output
    if not isinstance(output, Tensor):
        return  # which the loss refuses
    output = output.detach()
    low, high = float(output.min()), float(output.max())
    if loss in OF_LOGITS:
        sums = output.flatten(1).sum(1)
        if low >= 0 and high <= 1 and torch.allclose(sums, torch.ones_like(sums), atol=1e-3):
            raise ValueError(
                f"the network gives numbers from 0 to 1 that sum to 1, probabilities, but the loss "
                f"{loss.__name__!r} takes logits: adopt the network without its last nn.Softmax()"
            )
        return
    if low < -BEYOND or high > 1 + BEYOND:
        raise ValueError(
            f"the network gives numbers from {low:.4g} to {high:.4g}, but the loss {loss.__name__!r} takes "
            f"probabilities, 0 to 1: let it end in nn.Sigmoid(), or for logits take loss='bce_with_logits'"
        )


def _check_shapes(output: Any, x: Tensor) -> None:
    if not isinstance(output, torch.Tensor) or output.shape != x.shape:
        raise ValueError(
            f"the network turns an input of shape {tuple(x.shape)} into {_what(output)}, but a "
            f"reconstruction loss compares the two: for another kind of network hand over loss=, "
            f"a callable (output, input) -> (n,)"
        )


def _check_vae(output: Any) -> tuple[Tensor, Tensor, Tensor]:
    if not isinstance(output, tuple | list) or len(output) != 3:
        what = f"{len(output)} outputs" if isinstance(output, tuple | list) else _what(output)
        raise ValueError(
            f"the network gives {what}, but the losses 'vae' and 'vae_reconstruction' want three of a row: "
            f"what it makes of it, and mean and log variance of its code, return xhat, mean, log_variance"
        )
    return output[0], output[1], output[2]


def _what(output: Any) -> str:
    return str(tuple(output.shape)) if isinstance(output, torch.Tensor) else f"a {type(output).__name__}"


def _check_logits(output: Tensor) -> Tensor:
    if not isinstance(output, torch.Tensor) or output.ndim != 2 or output.shape[1] < 2:
        given = f"shape {tuple(output.shape)}" if isinstance(output, torch.Tensor) else type(output).__name__
        raise ValueError(
            f"the network gives {given}, but this loss reads a classifier's logits, (n, classes) with 2 "
            f"classes or more: for another kind of network hand over another loss="
        )
    return output


def check_rows(loss: Tensor, n: int) -> Tensor:
    """Return `loss` when it holds one number a row, else say what it should be."""
    if not isinstance(loss, torch.Tensor) or loss.shape != (n,):
        given = f"shape {tuple(loss.shape)}" if isinstance(loss, torch.Tensor) else type(loss).__name__
        raise ValueError(
            f"the loss gave {given} for {n} rows, but one number a row, shape ({n},), is wanted: "
            f"take the mean over everything but the first axis, e.g. `.flatten(1).mean(1)`"
        )
    if not loss.is_floating_point():
        raise ValueError(
            f"the loss is {str(loss.dtype).removeprefix('torch.')}, but a real number a row is wanted, as "
            "a float: of a complex one its size, `.abs()`"
        )
    return loss

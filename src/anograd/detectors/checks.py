"""What constructor parameters may be; each error says what was given and what to write."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator

from anograd.ranks import gpu
from anograd.target import Target


class HandedIn(ValueError):
    """What was handed in along with a stored model, a network or a device, does not serve it."""


def is_number(value: Any) -> bool:
    """Tell whether a parameter is a number, which a truth value is not."""
    return isinstance(value, Real) and not isinstance(value, bool)


def one_of(detector: BaseEstimator, name: str, allowed: Sequence[Any]) -> None:
    """Raise ValueError where the parameter is none of the allowed values."""
    value = getattr(detector, name)
    if value not in allowed:
        given = "Target(...), a network of your own," if isinstance(value, Target) else repr(value)
        raise ValueError(f"{name}={given} was given: write one of {', '.join(map(repr, allowed))}")


def count(detector: BaseEstimator, name: str, *words: str | None) -> None:
    """Raise ValueError where the parameter is neither a number of 1 or more nor one of the words."""
    value = getattr(detector, name)
    if value in words:
        return
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        also = "".join(f", or {word!r}" for word in words)
        raise ValueError(f"{name}={value!r} must be 1 or more{also}: a whole number")


def share(detector: BaseEstimator, name: str) -> None:
    """Raise ValueError where the parameter is not a share of 0 to below 1."""
    value = getattr(detector, name)
    if not is_number(value) or not 0 <= value < 1:
        raise ValueError(f"{name}={value!r} is a share: 0 to below 1")


def widths(detector: BaseEstimator, name: str, example: str) -> None:
    """Raise ValueError where the parameter is not a sequence of widths."""
    value = getattr(detector, name)
    whole = isinstance(value, Sequence | np.ndarray) and all(isinstance(one, Integral) for one in value)
    if isinstance(value, str) or not whole or not len(value) or min(value) < 1:
        raise ValueError(f"{name}={value!r}: give widths of 1 or more, such as {example}")


def weight(detector: BaseEstimator, name: str, word: str) -> None:
    """Raise ValueError where the parameter is neither a weight of 0 or more nor the word."""
    value = getattr(detector, name)
    if value != word and not (is_number(value) and 0 <= value < math.inf):
        raise ValueError(f"{name}={value!r} is a weight: 0 or more, or {word!r}")


def above_zero(detector: BaseEstimator, name: str, hint: str) -> None:
    """Raise ValueError where the parameter is not above 0."""
    value = getattr(detector, name)
    if not is_number(value) or not 0 < value < math.inf:
        raise ValueError(f"{name}={value!r} must be above 0: {hint}")


def learning_rate(detector: BaseEstimator) -> None:
    """Raise ValueError where the learning rate is not above 0."""
    above_zero(detector, "learning_rate", "1e-3 suits most")


def seed(random_state: Any) -> int:
    """Return a seed from an int, a RandomState, a Generator or None; the global generator is not asked."""
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31 - 1))
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(2**31 - 1))
    whole = isinstance(random_state, int | np.integer) and random_state >= 0
    if random_state is None or whole:
        return int(np.random.default_rng(random_state).integers(2**31 - 1))
    raise ValueError(
        f"random_state={random_state!r}: give an int from 0 up for the same result each time, a numpy "
        f"RandomState or Generator, or None"
    )


def no_more_than(parts: int, tensors: int) -> None:
    """Raise ValueError where a stored description names more parts of a network than it has tensors."""
    if parts > tensors:
        raise ValueError(f"a network of {parts:,} parts is described, but there are {tensors:,} tensors")


def available(device: str) -> torch.device:
    """Return a device, "auto" being a GPU where there is one; raise ValueError where it is not to be had."""
    if device == "auto":
        return gpu() if torch.cuda.is_available() else torch.device("cpu")
    try:
        found = gpu() if device == "cuda" else torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        here = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        raise HandedIn(
            f"device={device!r} is not to be had here; there is {', '.join(here)}: "
            f"write device='auto' to take the best"
        ) from error
    return found


def plain(value: Any) -> Any:
    """Return a constructor parameter as JSON can hold it, without what only this process can use."""
    if isinstance(value, Sequence | np.ndarray) and not isinstance(value, str):
        return [plain(one) for one in value]
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, torch.device):
        return str(value)
    if isinstance(value, Target):
        return "auto"  # handed in again at loading
    if isinstance(value, bool | int | float | str):
        return value
    return float(value) if isinstance(value, Real) else None  # such as a Fraction

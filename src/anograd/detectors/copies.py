"""Copies of a detector, made between the passes of other threads."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, Self

from sklearn.base import BaseEstimator

from anograd.target import FORWARD


class Copied(BaseEstimator):  # type: ignore[misc]
    """An estimator that is copied, and pickled, while no thread has its hooks and stand-ins in a network."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        made = memo[id(self)] = type(self).__new__(type(self))
        with FORWARD:
            made.__dict__.update(deepcopy(self.__dict__, memo))
        return made

    def __getstate__(self) -> dict[str, Any]:
        with FORWARD:  # which cannot be held until all is pickled
            state: dict[str, Any] = deepcopy(super().__getstate__())
        return state

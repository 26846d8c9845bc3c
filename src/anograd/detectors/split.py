"""Which row does what: to learn from, to choose the epoch by, to refer p values to; all drawn by the seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anograd.decide import size_of_calibration


@dataclass(frozen=True)
class Split:
    """Which row does what: int64 numbers of rows, each tensor in an order drawn by the seed.

    Parameters
    ----------
    train : torch.Tensor
        Normal rows to learn from.
    validation : torch.Tensor
        Normal rows to choose the epoch by; those of `train` where no share was set aside.
    calibration : torch.Tensor
        Normal rows that p values refer to; those of `validation` where no share was set aside.
    known : torch.Tensor
        Known anomalies, all of them, in their own order.
    """

    train: Tensor
    validation: Tensor
    calibration: Tensor
    known: Tensor

    def learned(self, n: int) -> NDArray[np.bool_]:
        """Return which of all rows scales and levels may be learned from, (n,): none held out for p values.

        In a row that was learned from no column lies outside the range that was learned, in a new row one
        may, and the two would not be exchangeable.

        Parameters
        ----------
        n : int
            Rows in all.
        """
        found = np.zeros(n, dtype=bool)
        found[torch.cat([self.train, self.validation]).numpy()] = True
        return found


def drawn(known: Tensor, validation: float, calibration: float, seed: int) -> tuple[dict[str, int], Split]:
    """Return how many normal rows do what, and which.

    Parameters
    ----------
    known : torch.Tensor of bool, (n,)
        Which rows are known anomalies.
    validation, calibration : float
        Shares of the normal rows.
    seed : int

    Raises
    ------
    ValueError
        Fewer than 4 normal rows, or shares that leave none to learn from.
    """
    normal = torch.nonzero(~known).ravel()
    n = len(normal)
    if n < 4:
        others = f"; y marks the other {len(known) - n:,} as known anomalies" if n < len(known) else ""
        raise ValueError(
            f"n_samples={n} normal rows are too few to fit and to calibrate on: at least 4 are wanted{others}"
        )
    held_out = size_of_calibration(n, calibration) if calibration else 0
    validating = max(1, round(validation * n)) if validation else 0
    training = n - validating - held_out
    if training < 1:
        raise ValueError(
            f"of n_samples={n} normal rows validation={validation:g} takes {validating} and "
            f"calibration={calibration:g} {held_out}: none is left to learn from. Lower them, or give more"
        )
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed), device="cpu")
    train, choosing, held = torch.split(normal[order], [training, validating, held_out])
    # A share of 0 means: the rows before it in the line do its work as well.
    choosing = choosing if validating else train
    sizes = {"train": training, "validation": validating, "calibration": held_out}
    return sizes, Split(train, choosing, held if held_out else choosing, torch.nonzero(known).ravel())

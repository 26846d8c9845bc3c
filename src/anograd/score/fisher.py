"""The score test: how much larger a row's gradient is than normal rows let expect."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from anograd.alarm.fusion import Surprise
from anograd.features import Features, Samples
from anograd.represent import SHORTEST
from anograd.spectrum import spectrum

TINY = 1e-30
NO_LOSS = 1e-18  # in whatever units a loss is: what is called none where all normal rows have none
CANCELLED = 1e6  # of what is subtracted, beside 1: of the 16 digits of double precision 10 are left
ROUNDING = 1e-12  # of a mean squared gradient: what normal rows vary by less, they vary by rounding


class ScoreTest(nn.Module):
    """(g - m)' (F + ridge)^-1 (g - m), joined by Fisher's method with the loss; high = anomalous.

    m and F, the Fisher information, are mean and covariance of normal rows' gradients: of F its diagonal,
    or all of it where gradients are projected to few numbers. Statistic and loss become surprises (1 - log
    of a smooth p value) by normal rows that F was not fitted to, and the surprises are added.

    Parameters
    ----------
    features : int
        Gradient entries k.
    projected : bool, default False
        Take all of F instead of its diagonal.
    ridge : float, default 1e-3
        In units of the mean diagonal entry of F.
    typicality : bool, default False
        Whether a loss far below its mean counts like one as far above it.

    Attributes
    ----------
    mean : torch.Tensor, (k,)
        m.
    directions : torch.Tensor, (k, r)
        Eigenvectors of F, orthonormal; (0, 0) for the diagonal.
    precision : torch.Tensor, (r,) or (k,)
        One over (F + ridge).
    rest : torch.Tensor, ()
        The same for what lies outside the directions.
    typical : torch.Tensor, ()
        Mean loss of normal rows.

    References
    ----------
    Bergamin et al., "Model-agnostic out-of-distribution detection using combined statistical tests",
    AISTATS 2022, arXiv:2203.01097.
    """

    mean: Tensor
    directions: Tensor
    precision: Tensor
    rest: Tensor
    typical: Tensor

    def __init__(
        self, features: int, *, projected: bool = False, ridge: float = 1e-3, typicality: bool = False
    ) -> None:
        super().__init__()
        self.projected, self.ridge, self.typicality = projected, ridge, typicality
        self.register_buffer("mean", torch.zeros(features, dtype=torch.float64))
        self.register_buffer("directions", torch.zeros(0, 0, dtype=torch.float64))
        self.register_buffer("precision", torch.ones(features, dtype=torch.float64))
        self.register_buffer("rest", torch.ones((), dtype=torch.float64))
        self.register_buffer("typical", torch.zeros((), dtype=torch.float64))
        self.of_gradient, self.of_loss = Surprise(), Surprise()

    def fit(self, samples: Samples) -> None:
        """Learn m and F from rows of the network's training, and both scales from rows held out from it."""
        if self.projected:
            pieces = (piece.values.double() for piece in samples.train())
            self.take(*spectrum(pieces, len(self.mean), self.precision.device))
        else:
            self._fit_diagonal(samples)
        held = [(self.statistic(piece.values), piece.loss.double()) for piece in samples.held()]
        statistics, losses = (torch.cat(parts) for parts in zip(*held, strict=True))
        self.scale(statistics, losses)

    def scale(self, statistics: Tensor, losses: Tensor) -> None:
        """Learn both scales from statistics (m,) and losses (m,) of normal rows held out from F's fit."""
        self.typical = losses.mean()
        self.of_gradient.fit(statistics)
        self.of_loss.fit(self._oddity(losses), unit=NO_LOSS)

    def _fit_diagonal(self, samples: Samples) -> None:
        count, total, squares = 0, torch.zeros_like(self.mean), torch.zeros_like(self.mean)
        shift = total
        for piece in samples.train():
            if not count:  # sums of squares far from zero would lose digits
                shift = piece.values.mean(0, dtype=torch.float64)
            values = piece.values - shift  # in double precision
            count += len(values)
            total += values.sum(0)
            squares += values.square_().sum(0)
        mean = total / count
        information = (squares / count - mean.square()).clamp_min(0)
        self.mean = shift + mean
        self.precision = 1 / (information + self.ridge * information.mean() + self._least())

    def take(self, information: Tensor, axes: Tensor, mean: Tensor) -> None:
        """Take m and all of F from the `spectrum` of normal rows' gradients."""
        self.mean = mean
        ridge = self.ridge * information.sum() / len(self.mean) + self._least()
        # Contiguous, as it will be when loaded: the layout decides how a product is rounded.
        self.directions, self.precision, self.rest = axes.contiguous(), 1 / (information + ridge), 1 / ridge

    def _least(self) -> Tensor:
        return ROUNDING * self.mean.square().mean() + TINY

    def statistic(self, values: Tensor) -> Tensor:
        """Return (g - m)' (F + ridge)^-1 (g - m) / k, (n,) float64, high = anomalous, of gradients (n, k)."""
        g = values - self.mean  # in double precision
        if not self.projected:
            return g.square_().mul_(self.precision).mean(1)
        along = (g @ self.directions).square()
        outside = (g.square().sum(1) - along.sum(1)).clamp_min(0)
        return ((along * self.precision).sum(1) + outside * self.rest) / g.shape[1]

    def part(self, gradients: Tensor, entries: slice, unit: bool) -> Tensor:
        """Return what some entries contribute to the statistic with the diagonal, (b, 1).

        Parameters
        ----------
        gradients : torch.Tensor, (b, ...)
            Of one parameter.
        entries : slice
            Its place among all.
        unit : bool
            Whether it is divided by its length first.
        """
        g = gradients.flatten(1)
        root = self.precision[entries].sqrt()
        centre, root = (self.mean[entries] * root).to(g), root.to(g)
        length: Tensor = g.new_ones(1, 1)
        if unit:
            length = torch.linalg.vector_norm(g, dim=1, keepdim=True).clamp_min(SHORTEST)
        # One tensor that is written over, and its length: each further one of its size costs as much as both.
        apart = (g * root).addcmul_(length, centre, value=-1)
        distance: Tensor = torch.linalg.vector_norm(apart, dim=1, keepdim=True) / length
        return distance.square() / len(self.mean)

    def cancels(self) -> bool:
        """Tell whether normal gradients differ so little that `expanded` would lose the digits that count."""
        return bool((self.mean.square() * self.precision).amax() > CANCELLED)

    def expanded(self, weighted: Tensor, inner: Tensor, lengths: Tensor, fixed: Tensor) -> Tensor:
        """Return each parameter's part of the statistic with the diagonal, (n, l), no gradient being built.

        Parameters
        ----------
        weighted, inner : torch.Tensor, (n, l)
            Squared entries times `precision`, summed; inner products with `precision` times `mean`.
        lengths : torch.Tensor, (n, l) or ()
            What each parameter's gradient is divided by.
        fixed : torch.Tensor, (l,)
            Squared entries of `mean` times `precision`, summed.
        """
        distance = weighted / lengths.square() - 2 * inner / lengths + fixed
        return distance.clamp_min(0) / len(self.mean)

    def _oddity(self, loss: Tensor) -> Tensor:
        return (loss.double() - self.typical).abs() if self.typicality else loss.double()

    def forward(self, features: Features) -> Tensor:
        """Return the scores, (n,) float64, of losses and gradients (n, k)."""
        return self.join(self.statistic(features.values), features.loss)

    def join(self, statistic: Tensor, loss: Tensor) -> Tensor:
        """Return the scores, (n,) float64, of statistics (n,) and losses (n,)."""
        surprise: Tensor = self.of_gradient(statistic) + self.surprise_of_loss(loss)
        return surprise

    def surprise(self, values: Tensor) -> Tensor:
        """Return how rare the statistic of gradients (n, k) is, (n,) float64, high = rare."""
        found: Tensor = self.of_gradient(self.statistic(values))
        return found

    def surprise_of_loss(self, loss: Tensor) -> Tensor:
        """Return the same of losses, (n,)."""
        found: Tensor = self.of_loss(self._oddity(loss))
        return found

"""Parameters of a detector that were set after its fit, and so do not go with what it learned."""

from __future__ import annotations

from typing import Any, Self

from anograd.detectors.copies import Copied

# What a fit may go on with although it has changed; a seed counts as what `random_state` gave.
CHANGEABLE = ("epochs", "false_alarm_rate", "memory", "device", "random_state", "progress", "checkpoint")


class Settled(Copied):
    """An estimator whose parameters may be set at any time, but count for the next fit alone."""

    def set_params(self, **params: Any) -> Self:
        """Return the estimator itself with these parameters; they count from the next `fit` on.

        Parameters
        ----------
        **params
            Constructor parameters by name.
        """
        before = self.get_params(deep=False)
        super().set_params(**params)
        if self.__sklearn_is_fitted__():
            fitted = {name: before[name] for name in params if name not in CHANGEABLE} | self._fitted_with()
            now = self.get_params(deep=False)
            self._before = {name: old for name, old in fitted.items() if not _same(now[name], old)}
        return self

    def _settle_parameters(self) -> None:
        """Take the parameters as they are for those of the fit."""
        self.__dict__.pop("_before", None)

    def _check_settled(self) -> None:
        """Raise ValueError where parameters were set since the fit."""
        if changed := self._fitted_with():
            now = self.get_params(deep=False)
            told = ", ".join(f"{name}={now[name]!r} (fitted with {old!r})" for name, old in changed.items())
            raise ValueError(
                f"{type(self).__name__} was given {told} after its fit, which what it learned does not go "
                "with: fit it again, or set the parameter back"
            )

    def _fitted_with(self) -> dict[str, Any]:
        found: dict[str, Any] = self.__dict__.get("_before", {})
        return found

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "fitted_by_")  # which is set last: not by a fit that was interrupted


def _same(one: Any, other: Any) -> bool:
    return one is other or (type(one) is type(other) and bool(repr(one) == repr(other)))

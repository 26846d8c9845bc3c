"""How a fit reports: a bar, the caller's own function, or nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from anograd.train import Observer


@contextmanager
def observer(progress: bool | Observer, epochs: int) -> Iterator[Observer]:
    """Give the function that training calls with ``(event name, dict)``.

    Parameters
    ----------
    progress : bool or callable
        True shows a bar on stderr; a callable is handed on; False is silent.
    epochs : int
        Length of the bar.
    """
    if callable(progress):
        yield progress
        return
    if not progress:
        yield lambda name, data: None
        return
    from tqdm.auto import tqdm

    with tqdm(total=epochs, unit="epoch", dynamic_ncols=True) as bar:

        def show(name: str, data: Mapping[str, Any]) -> None:
            bar.n = data["epoch"]
            if name == "epoch":
                shown = {name: data[name] for name in ("loss", "validation_loss") if name in data}
                bar.set_postfix({name: f"{value:.4g}" for name, value in shown.items()})
            bar.refresh()

        yield show


def counting(observe: Observer, before: int, epochs: int, stage: str) -> Observer:
    """Return an observer that counts the epochs of several stages in one line.

    Parameters
    ----------
    observe : callable
    before : int
        Epochs of the stages before.
    epochs : int
        Of all stages.
    stage : str
        Its name, under "stage" in what is observed.
    """

    def count(name: str, found: Mapping[str, Any]) -> None:
        observe(name, {**found, "epoch": before + found["epoch"], "epochs": epochs, "stage": stage})

    return count

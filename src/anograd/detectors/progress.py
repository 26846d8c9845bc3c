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
                bar.set_postfix(loss=f"{data['loss']:.4g}", validation=f"{data['validation_loss']:.4g}")
            bar.refresh()

        yield show

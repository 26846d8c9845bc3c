"""The bar that shows how far a fit, or another long work, has come."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def moving(epochs: int | None, of: str = "epoch") -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Give a function that moves a bar on stderr, where somebody watches; elsewhere it does nothing.

    Parameters
    ----------
    epochs : int or None
        Length of the bar, where it is known before training says so.
    of : str
        What is counted.
    """
    console = Console(stderr=True)
    looks = TextColumn(of), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    losses = TextColumn("{task.fields[loss]}")
    bar = Progress(*looks, losses, console=console, disable=not console.is_terminal)
    task = bar.add_task("", total=epochs, loss="")

    def show(found: Mapping[str, Any]) -> None:
        bar.start()  # not before: what is said first would be written across it
        loss = f"validation loss {found['validation_loss']:.4g}" if "validation_loss" in found else ""
        bar.update(task, completed=found["epoch"], total=found.get("epochs", epochs), loss=loss)

    try:
        yield show
    finally:
        bar.stop()

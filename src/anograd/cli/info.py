"""``anograd info``: what a model is, and which detectors there are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from anograd import report, store
from anograd._version import __version__
from anograd.cli.app import argument, print_parts
from anograd.detectors import DETECTORS


def info(
    model: Annotated[
        Path | None, argument("MODEL", "A model's folder; without it: the detectors there are.")
    ] = None,
) -> None:
    """Say what a model is, or which detectors there are."""
    if model is not None:
        print_parts([("model", [str(model)]), *report.describe(store.read(model))])
        return
    found = [("anograd", [__version__])]
    for name, kind in DETECTORS.items():
        summary = (kind.__doc__ or "").partition("\n")[0]
        found.append((name, [summary, kind.paper.cite()]))
    print_parts(found)

"""``anograd info``: what a model is, and which detectors there are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from anograd import report, store
from anograd._version import __version__
from anograd.cli.answer import answered
from anograd.cli.options import argument, print_parts
from anograd.detectors import DETECTORS


def info(
    model: Annotated[
        Path | None, argument("MODEL", "A model's folder; without it: the detectors there are.")
    ] = None,
) -> None:
    """Say what a model is, or which detectors there are."""
    if model is not None:
        stored = store.read(model)
        parts = report.describe(stored)
        if not answered({"model": model, **_facts(stored), "described": dict(parts)}):
            print_parts([("model", [str(model)]), *parts])
        return
    found: list[dict[str, Any]] = [
        {
            "name": name,
            "class": kind.__name__,
            "summary": (kind.__doc__ or "").partition("\n")[0],
            "paper": kind.paper.cite(),
            "learns_from_known": kind.learns_from_known,
        }
        for name, kind in DETECTORS.items()
    ]
    if not answered({"anograd": __version__, "detectors": found}):
        print_parts(
            [
                ("anograd", [__version__]),
                *((one["name"], [one["summary"], one["paper"]]) for one in found),
            ]
        )


def _facts(stored: store.Stored) -> dict[str, Any]:
    """Return what programs ask of a model: its kind, parameters and rows, and when it was fitted."""
    manifest = stored.manifest
    return {
        **{name: manifest.get(name) for name in ("detector", "parameters", "split", "fitted_by")},
        "calibration_rows": len(stored.tensors["calibration/scores"]),
    }

"""R2-AD2's paper: the record of it, and its settings on ten data sets as in the published code."""

from __future__ import annotations

from typing import Any

from anograd.detectors.paper import Paper

PAPER = Paper(
    title="R2-AD2: Detecting Anomalies by Analysing the Raw Gradient",
    authors="Jan-Philipp Schulze, Philip Sperl, Ana Răduțoiu, Carla Sagebiel, Konstantin Böttinger",
    venue="ECML PKDD",
    year=2022,
    arxiv="2206.10259",
    differences=(
        "gradients are standardised, put on a signed log scale and, where large, sketched",
        "known anomalies are a fifth of each batch instead of as rare as they are",
        "four dense alarm networks, cross-fitted, of the epoch that serves, instead of a recurrent one",
        "beside each stands one that reads the columns of the row itself, and beside all a forest of them",
        "the gradients' distance from normal ones is added, its weight chosen by left-out anomalies",
        "the rows held out from the autoencoder are drawn once; the published code draws anew each time",
        "a fifth of the normal rows is held out for p values",
    ),
    limits=(
        "what it learns from known anomalies holds for anomalies of their kinds",
        "with many labelled anomalies of all kinds to come, a classifier on the columns does better",
    ),
)

BIG, SMALL = (1000, 500, 200, 75), (100, 50, 25, 10)

# Encoder widths (None: the convolutional autoencoder), widths of the alarm network, batch size.
SIZES: dict[str, tuple[tuple[int, ...] | None, tuple[int, ...], int]] = {
    "covtype": ((40, 20, 10), BIG, 2048),
    "creditcard": ((20, 10, 5), BIG, 4096),
    "darknet": ((60, 30, 15), BIG, 1024),
    "doh": ((20, 10, 5), BIG, 512),
    "ids": ((60, 40, 20), BIG, 8192),
    "nsl_kdd": ((40, 20, 10), BIG, 512),
    "mammography": ((5, 3, 2), SMALL, 128),
    "url": ((60, 30, 15), BIG, 64),
    "mnist": (None, BIG, 256),
    "fashion_mnist": (None, BIG, 512),
}


def settings(data: str | None) -> dict[str, Any]:
    """Return the constructor's parameters as published, with the sizes for a data set where one is named.

    Raises
    ------
    ValueError
        The paper has no such data set; the message lists those it has.
    """
    if data is not None and data not in SIZES:
        raise ValueError(f"the paper has no data set {data!r}: name one of {', '.join(SIZES)}, or none")
    hidden, widths, batch_size = SIZES[data if data is not None else "nsl_kdd"]
    return {
        "hidden": hidden, "dropout": 0.4, "checkpoints": 3, "holdout": 0.25, "sketch": None,
        "training": "published", "recurrent": True, "widths": widths, "networks": 1, "columns": False,
        "trees": None, "noise": "gaussian", "novelty": 0.0, "epochs": 100, "batch_size": batch_size,
        "learning_rate": 1e-3, "validation": 0.0, "calibration": 0.0,
    }  # fmt: skip

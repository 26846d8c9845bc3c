"""Detectors of PyOD through one adapter, so that they neither print nor touch the global generators.

Some of version 3.6.7 are not taken. DevNet hands its loss labels and scores the wrong way round and draws no
balanced batches; `anograd.bench.rivals.devnet` takes its place. In AnoGAN the search for a latent point moves
generator and discriminator as well, and all rows share one point; `anograd.bench.rivals.anogan` takes its
place. ALAD ranks an easy task by chance after its 200 steps, and worse after more. ECOD and COPOD let the
rows that are scored together change each other's scores; `anograd.bench.rivals.tails` takes their place.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import warnings
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import numpy as np

from anograd.bench.entrants import Entrant, Fit, Fitted, Floats, Known, Rows
from anograd.bench.rivals.network import weights
from anograd.train import seeded

HASH = "PYTHONHASHSEED"  # set by PyOD's networks


@contextlib.contextmanager
def alone(seed: int) -> Iterator[None]:
    """Seed Python's, NumPy's and PyTorch's generators inside, silently, and restore them after.

    Parameters
    ----------
    seed : int
    """
    state, legacy, variable = random.getstate(), np.random.get_state(), os.environ.get(HASH)
    quiet = io.StringIO()
    try:
        with contextlib.ExitStack() as within:
            within.enter_context(seeded(seed))
            within.enter_context(contextlib.redirect_stdout(quiet))
            within.enter_context(contextlib.redirect_stderr(quiet))
            within.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
            random.seed(seed)
            np.random.seed(seed % 2**32)
            yield
    finally:
        random.setstate(state)
        np.random.set_state(legacy)
        os.environ.pop(HASH, None)
        if variable is not None:
            os.environ[HASH] = variable


def fitting(module: str, kind: str, own: Callable[[Rows, int], dict[str, Any]], *networks: str) -> Fit:
    """Return the fit of one of PyOD's detectors.

    Parameters
    ----------
    module, kind : str
        Such as "auto_encoder" and "AutoEncoder".
    own : function
        From rows and a seed to parameters; a run file's settings override them.
    *networks : str
        Attributes that hold networks once it is fitted.
    """

    def fit(X: Rows, y: Known, *, seed: int, **settings: Any) -> Fitted:
        with alone(seed):
            made = getattr(import_module(f"pyod.models.{module}"), kind)
            detector = made(**{**own(X, seed), **settings}).fit(X, y)

        def score(rows: Rows) -> Floats:
            with alone(seed):
                return np.asarray(detector.decision_function(rows), dtype=np.float64).ravel()

        found = [getattr(detector, name) for name in networks]
        return Fitted({"score": score}, weights(*found) if found else None)

    return fit


def _deep(X: Rows, seed: int) -> dict[str, Any]:
    """Return parameters of a network on batches of 32 rows; fewer rows than that make one batch."""
    return {"batch_size": min(32, len(X)), "random_state": seed, "device": "cpu", "verbose": 0}


def _svdd(X: Rows, seed: int) -> dict[str, Any]:
    return {"n_features": X.shape[1], "random_state": seed, "verbose": 0}


def _boosted(X: Rows, seed: int) -> dict[str, Any]:
    return {"random_state": seed, "n_jobs": 1}


ENTRANTS = {
    "autoencoder": Entrant(
        fitting("auto_encoder", "AutoEncoder", _deep, "model"),
        "autoencoder (PyOD)",
        "PyOD's defaults: 64 and 32 units, ten epochs, standardised columns",
        needs="pyod",
    ),
    "vae": Entrant(
        fitting("vae", "VAE", _deep, "model"),
        "VAE (PyOD)",
        "PyOD's defaults: 128, 64 and 32 units, code of 2 and drawn, 30 epochs, standardised columns",
        needs="pyod",
    ),
    "deep-svdd": Entrant(
        fitting("deep_svdd", "DeepSVDD", _svdd, "model_"),
        "Deep SVDD (PyOD)",
        "PyOD's defaults: 64 and 32 units, 100 epochs, standardised columns",
        needs="pyod",
    ),
    "xgbod": Entrant(
        fitting("xgbod", "XGBOD", _boosted),
        "XGBOD (PyOD)",
        "PyOD's defaults: 41 unsupervised scores beside the columns, 100 trees of depth 3",
        known="needed",
        needs="pyod",
    ),
}

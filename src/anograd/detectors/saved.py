"""A fitted detector's way to its folder and back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from anograd import store
from anograd.checkpoint import grouped
from anograd.costs import Anomalies
from anograd.data import Pixels
from anograd.decide import Calibration
from anograd.detectors import golden
from anograd.detectors.checks import plain
from anograd.detectors.rows import Encoder
from anograd.target import FORWARD, Target
from anograd.whole import clear

if TYPE_CHECKING:
    from anograd.detectors.base import Detector

OF_THE_PROCESS = ("progress", "checkpoint")  # parameters that a stored model says nothing of


def save(detector: Detector, folder: str | Path) -> None:
    """Write a fitted detector to a folder, and remove the checkpoint that its fit would have gone on from."""
    with FORWARD:  # in which another thread's stand-ins may be in the weights' place
        described, tensors = detector._state()
    encoder, parameters = detector.encoder_, detector.get_params(deep=False)
    manifest = {
        "detector": type(detector).__name__,
        "parameters": {
            name: plain(value) for name, value in parameters.items() if name not in OF_THE_PROCESS
        },
        "encoder": {
            "kind": encoder.kind,
            "shape": list(encoder.shape),
            "pixels": encoder.pixels.to_state() if encoder.pixels is not None else None,
            "names": encoder.names,
            "double": encoder.double,
        },
        "features": detector.n_features_in_,
        "split": detector.split_,
        "fitted_by": detector.fitted_by_,
        "fitted": described,
        "golden": golden.circumstances(detector),
    }
    tensors["calibration/scores"] = torch.from_numpy(detector.calibration_.scores.copy())
    known = detector.calibration_.anomalies
    if known is not None:
        manifest["prevalence"] = known.prevalence
        tensors["calibration/anomalies"] = torch.from_numpy(known.scores.copy())
    tensors |= {"usual/values": detector.usual_, **golden.scored(detector)}
    store.write(folder, manifest, tensors, encoder.table)
    if parameters.get("checkpoint") is not None:
        checkpoint = Path(parameters["checkpoint"])
        checkpoint.unlink(missing_ok=True)
        clear(checkpoint.resolve())


def restored(
    kind: type[Detector], stored: store.Stored, target: Target | None, device: str | None
) -> Detector:
    """Return the detector that a folder holds, in no more memory than that takes, whatever the folder says.

    Parameters
    ----------
    kind : type
        Of the detector.
    stored : Stored
    target : Target or None
        The network of a detector that was fitted on one that was handed in.
    device : str or None
        In place of the stored one.

    Raises
    ------
    Exception
        Of any kind, where what is stored does not fit together; `HandedIn` for `target` and `device`.
    """
    manifest, groups = stored.manifest, grouped(stored.tensors)
    detector = kind()
    # Not those of the process: `save` removes the file that `checkpoint` names.
    own = set(detector.get_params(deep=False)) - set(OF_THE_PROCESS)
    if unknown := sorted(set(manifest["parameters"]) - own):
        raise ValueError(f"{kind.__name__} has no parameter {', '.join(unknown)}")
    elsewhere = {} if device is None else {"device": device}
    detector.set_params(**{**manifest["parameters"], **elsewhere})
    detector._check_parameters()
    encoder = manifest["encoder"]
    pixels = Pixels.from_state(encoder["pixels"]) if encoder["pixels"] else None
    names, shape, double = encoder["names"], tuple(encoder["shape"]), bool(encoder.get("double", False))
    detector.encoder_ = Encoder(encoder["kind"], shape, stored.table, pixels, names, double)
    detector.n_features_in_, detector.split_ = manifest["features"], manifest["split"]
    detector.fitted_by_ = manifest["fitted_by"]
    if stored.table is not None:
        names = stored.table.names_in
    if names is not None:
        detector.feature_names_in_ = np.array(names, dtype=object)
    detector._restore(manifest["fitted"], groups, target)
    detector.usual_ = groups["usual"]["values"]
    detector.made_up_ = golden.kept(groups, detector.encoder_.shape)
    kept = {name: tensor.numpy() for name, tensor in groups["calibration"].items()}
    known = Anomalies(kept["anomalies"], manifest["prevalence"]) if "anomalies" in kept else None
    detector.calibration_ = Calibration(kept["scores"], known)
    return detector

"""Made-up rows and the scores they had when a detector was saved, to compare with when it is loaded."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from anograd._version import __version__
from anograd.checkpoint import Groups
from anograd.detectors.rows import RAW
from anograd.store import Stored

if TYPE_CHECKING:
    from anograd.detectors.base import Detector

ROWS, MOST = 8, 2**20  # as many rows, and bytes of them, at most
TOLERANCE = 1e-4  # of the largest score
LEAST = 1e-12  # what the largest score counts as at least
ON_GPUS = 1e-2  # whose convolutions round to ten bits, some of them


def made_up(kind: str, rows: Tensor) -> Tensor:
    """Return encoded rows that are nobody's, (8 or fewer, *shape), to be kept with a model.

    For tables and images they are drawn from 0..1, which is where the encoder puts normal rows, so that
    nothing of the rows is kept. What a network that was handed in takes is known by its rows alone: each
    number lies between the least and the largest of its place, each integer (a word) occurs in its place.

    Parameters
    ----------
    kind : {"images", "table", "raw"}
    rows : torch.Tensor, (n, *shape)
        Some normal ones, encoded.
    """
    generator = torch.Generator().manual_seed(0)
    one = max(1, rows[0].numel() * rows.element_size())
    shape = (min(ROWS, max(1, MOST // one)), *rows.shape[1:])
    if not rows.is_floating_point():
        return rows.gather(0, torch.randint(len(rows), shape, generator=generator, device="cpu"))
    drawn = torch.rand(shape, generator=generator, device="cpu")
    return torch.lerp(rows.amin(0), rows.amax(0), drawn.to(rows.dtype)) if kind == RAW else drawn


def scored(detector: Detector) -> dict[str, Tensor]:
    """Return a fitted detector's made-up rows and their scores, to be stored; none where it has none."""
    rows = detector.made_up_
    if not len(rows):
        return {}
    try:
        scores = detector._batched(detector._score_batch, [rows])
    except (RuntimeError, ValueError, IndexError) as error:
        warnings.warn(
            f"the network that was handed in does not take made-up rows ({error}), so that loading the model "
            f"cannot check that it scores as it does here",
            UserWarning,
            stacklevel=3,
        )
        return {}
    return {"golden/rows": rows, "golden/scores": torch.from_numpy(scores)}


def kept(groups: Groups, shape: tuple[int, ...]) -> Tensor:
    """Return the made-up rows that were stored, (8 or fewer, *shape), or (0, *shape) where none were."""
    rows = groups.get("golden", {}).get("rows", torch.zeros(0, *shape))
    if rows.shape[1:] != shape:
        raise ValueError(f"the rows have shape {tuple(shape)}, but those made up {tuple(rows.shape[1:])}")
    return rows


def circumstances(detector: Detector) -> dict[str, str]:
    """Return what scores may depend on beside the weights, fit for JSON."""
    return {"anograd": __version__, "torch": torch.__version__, "device": detector._device().type}


def difference(detector: Detector, stored: Stored) -> str | None:
    """Return how a detector that was just loaded scores otherwise than when it was saved, else None.

    Parameters
    ----------
    detector : Detector
    stored : Stored
        What it was loaded from.
    """
    if "golden/scores" not in stored.tensors:
        return None
    there, here = stored.manifest["golden"], circumstances(detector)
    was = stored.tensors["golden/scores"].double()
    now = torch.from_numpy(detector._batched(detector._score_batch, [detector.made_up_]))
    if was.shape != now.shape:
        raise ValueError(f"{was.numel()} scores for {now.numel()} rows")
    tolerance = TOLERANCE if there["device"] == here["device"] == "cpu" else ON_GPUS
    scale = was.abs().nan_to_num(0, 0, 0).max().clamp_min(LEAST)
    alike = ((now - was).abs() <= tolerance * scale) | (now == was) | (now.isnan() & was.isnan())
    if alike.all():
        return None
    row = int((~alike).nonzero()[0])
    adopted = detector.encoder_.kind == RAW
    way_out = "hand over the network and the loss that it was fitted with, " if adopted else ""
    return (
        f"made-up row {row} had {float(was[row]):.6g} and has {float(now[row]):.6g} now. Its files are as "
        f"they were; it was saved by {_told(there)}, and this is {_told(here)}: {way_out}load it with the "
        "versions it was saved by, or fit it again"
    )


def _told(found: dict[str, str]) -> str:
    return f"anograd {found['anograd']} with torch {found['torch']} on {found['device']}"

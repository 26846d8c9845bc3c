"""What changes while training, and its way to a file and back, so that an interrupted fit goes on."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor

from anograd.constraint import RunningMean
from anograd.target import Target


class TrainingState:
    """Everything that changes while training, and its way to a file and back."""

    def __init__(self, target: Target, optimizer: torch.optim.Optimizer, mean: RunningMean) -> None:
        self.target, self.optimizer, self.mean = target, optimizer, mean
        self.epoch = self.best_epoch = 0
        self.best = math.inf
        self.best_weights = _copy(target.module.state_dict())
        self.best_reference = mean.mean()
        self.history: list[dict[str, float]] = []

    def note(self, report: dict[str, float], keep: str) -> None:
        """Remember the epoch, and its weights and reference together where they are the best so far."""
        self.history.append(report)
        by = {"objective": "validation_loss", "reconstruction": "validation_reconstruction"}.get(keep)
        value = -self.epoch if by is None else report[by]
        if value < self.best:
            self.best, self.best_epoch = value, self.epoch
            self.best_weights = _copy(self.target.module.state_dict())
            self.best_reference = self.mean.mean()

    def save(self, path: Path, fingerprint: str) -> None:
        """Write the state to a temporary name, then rename: the file is whole or not there."""
        tensors: dict[str, Tensor] = {}
        groups = {
            "weights": self.target.module.state_dict(),
            "sums": self.mean.sums,
            "best_weights": self.best_weights,
            "best_reference": self.best_reference,
        }
        for i, moments in self.optimizer.state_dict()["state"].items():
            groups[f"adam{i}"] = moments
        for group, named in groups.items():
            tensors |= {f"{group}/{name}": value.contiguous().clone() for name, value in named.items()}
        numbers = {
            "fingerprint": fingerprint,
            "epoch": self.epoch,
            "steps": self.mean.steps,
            "best": self.best,
            "best_epoch": self.best_epoch,
            "history": self.history,
        }
        temporary = path.with_name(path.name + ".tmp")
        try:
            temporary.write_bytes(serialise(tensors, metadata={"state": json.dumps(numbers)}))
            os.replace(temporary, path)
        except OSError as error:
            raise type(error)(
                error.errno, f"the checkpoint {str(path)!r} could not be written: {error.strerror or error}"
            ) from error
        finally:
            temporary.unlink(missing_ok=True)

    def load(self, path: Path, fingerprint: str) -> None:
        """Take up the state in the file."""
        try:
            with safe_open(path, "pt") as file:
                numbers = json.loads(file.metadata()["state"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path} is no checkpoint of a fit ({error}): remove it to start afresh"
            ) from error
        if numbers["fingerprint"] != fingerprint:
            raise ValueError(
                f"{path} was left by a fit with other data or settings: remove it to start afresh, "
                f"or repeat that fit's settings to go on"
            )
        groups = grouped(tensors)
        self.target.module.load_state_dict(groups["weights"])
        device = next(self.target.module.parameters()).device
        with torch.no_grad():
            for name, total in self.mean.sums.items():
                total.copy_(groups["sums"][name])
        adam = self.optimizer.state_dict()
        adam["state"] = {
            int(group[4:]): moments for group, moments in groups.items() if group.startswith("adam")
        }
        self.optimizer.load_state_dict(adam)
        self.best_weights = {name: value.to(device) for name, value in groups["best_weights"].items()}
        self.best_reference = {name: value.to(device) for name, value in groups["best_reference"].items()}
        self.epoch, self.mean.steps = numbers["epoch"], numbers["steps"]
        self.best, self.best_epoch = numbers["best"], numbers["best_epoch"]
        self.history = numbers["history"]


def grouped(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Return tensors named "group/name" by group and name."""
    groups: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        group, _, rest = name.partition("/")
        groups.setdefault(group, {})[rest] = tensor
    return groups


def _copy(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in state.items()}

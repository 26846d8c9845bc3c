"""What changes while training, and its way to a file and back, so that an interrupted fit goes on."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor, nn

from anograd.constraint import RunningMean
from anograd.ranks import ALONE, Ranks
from anograd.target import Target
from anograd.whole import write_whole

Numbers = dict[str, Any]  # what JSON can hold
Groups = dict[str, dict[str, Tensor]]  # tensors by group and name; no group has a "/" in its name
Learners = Mapping[str, tuple[nn.Module, torch.optim.Optimizer]]


class TrainingState:
    """Everything that changes while training, and its way to a file and back."""

    def __init__(self, target: Target, optimizer: torch.optim.Optimizer, mean: RunningMean) -> None:
        self.target, self.mean = target, mean
        self.learners = {"weights": (target.module, optimizer)}
        self.epoch = self.best_epoch = 0
        self.best = math.inf
        self.best_weights = copied(target.module.state_dict())
        self.best_reference = mean.mean()
        self.history: list[dict[str, float]] = []

    def note(self, report: dict[str, float], keep: str) -> None:
        """Remember the epoch, and its weights and reference together where they are the best so far."""
        self.history.append(report)
        by = {"objective": "validation_loss", "reconstruction": "validation_reconstruction"}.get(keep)
        value = -self.epoch if by is None else report[by]
        if value < self.best:
            self.best, self.best_epoch = value, self.epoch
            self.best_weights = copied(self.target.module.state_dict())
            self.best_reference = self.mean.mean()

    def save(self, path: Path, fingerprint: str) -> None:
        """Write the state to the file, whole or not at all."""
        numbers = {
            "epoch": self.epoch,
            "steps": self.mean.steps,
            "best": self.best,
            "best_epoch": self.best_epoch,
            "history": self.history,
        }
        groups = pack(self.learners) | {
            "sums": self.mean.sums,
            "best_weights": self.best_weights,
            "best_reference": self.best_reference,
        }
        write_state(path, fingerprint, numbers, groups)

    def load(self, path: Path, fingerprint: str) -> None:
        """Take up the state in the file."""
        numbers, groups = read_state(path, fingerprint)
        unpack(groups, self.learners)
        device = next(self.target.module.parameters()).device
        with torch.no_grad():
            for name, total in self.mean.sums.items():
                total.copy_(groups["sums"][name])
        self.best_weights = {name: value.to(device) for name, value in groups["best_weights"].items()}
        self.best_reference = {name: value.to(device) for name, value in groups["best_reference"].items()}
        self.epoch, self.mean.steps = numbers["epoch"], numbers["steps"]
        self.best, self.best_epoch = numbers["best"], numbers["best_epoch"]
        self.history = numbers["history"]


class Keeper:
    """What each stage of a fit has reached, in one file; without a path nothing is kept.

    A stage that was done is kept along with the one that is going on, so that a fit that is started again
    runs through all stages and finds each where it was.

    Parameters
    ----------
    path : path or None
        A file, which may be there already.
    fingerprint : str
        What the file must have been made with: settings and data.
    ranks : Ranks
        All read the file, and rank 0 alone writes it.

    Attributes
    ----------
    fingerprint : str
    epoch : int
        Epochs of all stages that were kept in the file when it was opened.

    Raises
    ------
    ValueError
        The file is damaged, or belongs to another fit.
    """

    def __init__(self, path: str | os.PathLike[str] | None, fingerprint: str, ranks: Ranks = ALONE) -> None:
        self._path = Path(path) if path is not None else None
        self.fingerprint = fingerprint
        self._numbers: dict[str, Numbers] = {}
        self._groups: dict[str, Groups] = {}
        if self._path is not None and self._path.exists():
            self._numbers, joined = read_state(self._path, fingerprint)
            for name, tensors in joined.items():
                stage, _, group = name.partition(":")
                self._groups.setdefault(stage, {})[group] = tensors
        if ranks.rank:
            self._path = None
        self.epoch = sum(numbers["epoch"] for numbers in self._numbers.values())

    def load(self, stage: str) -> tuple[Numbers, Groups] | None:
        """Return what a stage has reached: plain data, "epoch" among it, and tensors; None: nothing yet."""
        return (self._numbers[stage], self._groups[stage]) if stage in self._numbers else None

    def save(self, stage: str, numbers: Numbers, groups: Groups) -> None:
        """Write what a stage has reached to the file, whole or not at all.

        Parameters
        ----------
        stage : str
        numbers : dict
            Plain data; "epoch" says how many epochs of this stage are done.
        groups : dict of dict of torch.Tensor
        """
        if self._path is None:
            return
        self._numbers[stage], self._groups[stage] = numbers, groups
        joined = {f"{s}:{group}": tensors for s, of in self._groups.items() for group, tensors in of.items()}
        write_state(self._path, self.fingerprint, self._numbers, joined)


def pack(learners: Learners) -> Groups:
    """Return the weights of modules, and the moments of their Adams, as groups of tensors."""
    groups: Groups = {}
    for name, (module, optimizer) in learners.items():
        groups[name] = module.state_dict()
        groups |= {f"{name}.{i}": moments for i, moments in optimizer.state_dict()["state"].items()}
    return groups


def unpack(groups: Groups, learners: Learners) -> None:
    """Put what `pack` returned back into the modules and their optimizers."""
    for name, (module, optimizer) in learners.items():
        module.load_state_dict(groups[name])
        state = optimizer.state_dict()
        parts = [(group.rpartition("."), moments) for group, moments in groups.items()]
        state["state"] = {int(i): moments for (owner, _, i), moments in parts if owner == name}
        optimizer.load_state_dict(state)
        for parameter, moments in optimizer.state.items():
            for kind, moment in moments.items():
                if moment.shape == parameter.shape:  # fused Adam takes both to lie in the same order
                    moments[kind] = torch.empty_like(parameter).copy_(moment)


def write_state(path: Path, fingerprint: str, numbers: Numbers, groups: Groups) -> None:
    """Write a state to a file, whole or not at all."""
    tensors = {
        f"{group}/{name}": value.contiguous().clone()
        for group, named in groups.items()
        for name, value in named.items()
    }
    state = json.dumps({"fingerprint": fingerprint, "numbers": numbers})
    write_whole(path, serialise(tensors, metadata={"state": state}))


def read_state(path: Path, fingerprint: str) -> tuple[Numbers, Groups]:
    """Return the state in a file; one that is damaged or belongs to another fit is refused by name."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder; a file is wanted: checkpoint={str(path / 'fit.checkpoint')!r}")
    try:
        with safe_open(path, "pt") as file:
            state = json.loads(file.metadata()["state"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        left_by, numbers = state["fingerprint"], state["numbers"]
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no checkpoint of a fit ({error}): remove it to start afresh") from error
    if left_by != fingerprint:
        raise ValueError(
            f"{path} was left by a fit with other data or settings: remove it to start afresh, "
            f"or repeat that fit's settings to go on"
        )
    return numbers, grouped(tensors)


def digest(described: Any, tensors: Iterable[Tensor]) -> str:
    """Return the fingerprint of settings, which are plain data, and of the contents of tensors."""
    found = hashlib.sha256(json.dumps(described, default=str).encode())
    for tensor in tensors:
        found.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def grouped(tensors: Mapping[str, Tensor]) -> Groups:
    """Return tensors named "group/name" by group and name."""
    groups: Groups = {}
    for name, tensor in tensors.items():
        group, _, rest = name.partition("/")
        groups.setdefault(group, {})[rest] = tensor
    return groups


def copied(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict that later training does not change."""
    return {name: value.detach().clone() for name, value in state.items()}

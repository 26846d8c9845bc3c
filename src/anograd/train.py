"""The one training loop: seeded, resumable, observable, with GradCon's gradient constraint as an option.

It trains networks that anograd built; a network that a user adopted is never trained.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor

from anograd.losses import Loss
from anograd.target import Target, evaluating

Observer = Callable[[str, Mapping[str, Any]], None]
COSINE_FLOOR = 1e-8
EMA_DECAY = 0.99


@dataclass(frozen=True)
class Plan:
    """How to train.

    Attributes
    ----------
    epochs : int
        Passes over the training rows, at most.
    batch_size : int
    learning_rate : float
        Of Adam.
    alpha : float
        Weight of the gradient constraint; 0 trains the plain autoencoder.
    reference : {"total", "recon"}
        Which loss's gradient is averaged into the reference.
    averaging : {"cumulative", "ema", "final"}
        Mean of all steps so far; exponential moving average; or all steps while training and the mean
        gradient of the finished network over the training rows afterwards.
    keep : {"objective", "reconstruction", "last"}
        Which epoch's weights count: best validation objective, best validation reconstruction, or the last.
    patience : int or None
        Stop after so many epochs without an improvement.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    alpha: float
    reference: str
    averaging: str
    keep: str
    patience: int | None


@dataclass
class Trained:
    """What training leaves beside the weights, which are in the module.

    Attributes
    ----------
    reference : dict of str to torch.Tensor
        Mean training gradient of each chosen parameter, at the kept epoch.
    history : list of dict
        One an epoch: training and validation losses.
    kept_epoch : int
        Counted from 1.
    """

    reference: dict[str, Tensor]
    history: list[dict[str, float]] = field(default_factory=list)
    kept_epoch: int = 0


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from a seeded global generator inside, and leave the generator's state untouched outside."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


class RunningMean:
    """Mean of the gradients seen so far, by parameter: GradCon's reference."""

    def __init__(self, target: Target, averaging: str) -> None:
        self.sums = {name: torch.zeros_like(p) for name, p in target.parameters().items()}
        self.steps = 0
        self.decay = EMA_DECAY if averaging == "ema" else None

    def mean(self) -> dict[str, Tensor]:
        """Return the mean by parameter name; zeros before the first step."""
        if self.decay is None:
            weight = float(max(self.steps, 1))
        else:
            weight = 1 - self.decay ** max(self.steps, 1)
        return {name: total / weight for name, total in self.sums.items()}

    def add(self, gradients: Sequence[Tensor]) -> None:
        """Take in one step's gradients, in the order of the parameters."""
        with torch.no_grad():
            for total, gradient in zip(self.sums.values(), gradients, strict=True):
                if self.decay is None:
                    total += gradient
                else:
                    total.mul_(self.decay).add_(gradient, alpha=1 - self.decay)
        self.steps += 1


def alignment(gradients: Sequence[Tensor], reference: Sequence[Tensor]) -> Tensor:
    """Return the mean cosine between gradients and reference over the parameters, in -1..1.

    Each parameter counts as one flattened vector, not entry by entry.
    """
    cosines = [
        F.cosine_similarity(g.flatten(), r.flatten(), dim=0, eps=COSINE_FLOOR)
        for g, r in zip(gradients, reference, strict=True)
    ]
    return torch.stack(cosines).mean()


@dataclass(frozen=True)
class Objective:
    """J of one batch and its parts, and the reconstruction gradients where they were needed."""

    total: Tensor
    reconstruction: Tensor
    alignment: Tensor  # L_grad, in -1..1, low = aligned
    gradients: tuple[Tensor, ...] | None

    def numbers(self) -> Tensor:
        """Return (J, L, L_grad), (3,)."""
        return torch.stack([self.total, self.reconstruction, self.alignment]).detach().double().cpu()


def objective(
    target: Target, penalty: Loss | None, x: Tensor, mean: RunningMean, plan: Plan, create_graph: bool
) -> Objective:
    """Return J = L + penalty + alpha * L_grad of one batch.

    L_grad, minus the mean cosine between the gradient of L and the running mean, is 0 before the first
    step. No gradient flows through the running mean itself.
    """
    output = target.module(x)
    reconstruction = target.loss(output, x).mean()
    total = reconstruction if penalty is None else reconstruction + penalty(output, x).mean()
    aligned, gradients = torch.zeros_like(reconstruction), None
    constrained = plan.alpha != 0 and mean.steps > 0
    if constrained or plan.reference == "recon":
        kernels = list(target.parameters().values())
        gradients = torch.autograd.grad(
            reconstruction, kernels, create_graph=create_graph and constrained, retain_graph=True
        )
    if constrained and gradients is not None:
        aligned = -alignment(gradients, list(mean.mean().values()))
        total = total + plan.alpha * aligned
    return Objective(total, reconstruction, aligned, gradients)


def step(
    target: Target,
    penalty: Loss | None,
    x: Tensor,
    mean: RunningMean,
    optimizer: torch.optim.Optimizer,
    plan: Plan,
) -> Tensor:
    """Take one training step and return (J, L, L_grad) as they were before it, (3,)."""
    optimizer.zero_grad(set_to_none=True)
    found = objective(target, penalty, x, mean, plan, create_graph=True)
    torch.autograd.backward(found.total)
    if plan.reference == "recon" and found.gradients is not None:
        mean.add([gradient.detach() for gradient in found.gradients])
    else:
        mean.add([p.grad for p in target.parameters().values() if p.grad is not None])
    optimizer.step()
    return found.numbers()


def train(
    target: Target,
    x: Tensor,
    x_validation: Tensor,
    plan: Plan,
    *,
    penalty: Loss | None = None,
    seed: int = 0,
    observe: Observer = lambda name, data: None,
    checkpoint: str | os.PathLike[str] | None = None,
    fingerprint: str = "",
) -> Trained:
    """Train the target's network in place and return the reference gradients and the history.

    Parameters
    ----------
    target : Target
        Network, reconstruction loss, and the parameters of the constraint.
    x, x_validation : torch.Tensor, (n, ...)
        Rows to train on and rows to choose the epoch by.
    plan : Plan
    penalty : callable, optional
        Added to the loss: a VAE's KL term.
    seed : int
        Draws the order of the rows and a VAE's noise.
    observe : callable
        Called as ``observe("epoch", {...})`` after each epoch.
    checkpoint : path, optional
        A file that is written after each epoch; if it is there, training goes on from it and ends
        with the same numbers as without the break. The caller removes it.
    fingerprint : str
        What the checkpoint must have been made with: settings and data.

    Raises
    ------
    FloatingPointError
        When the loss stops being a number.
    ValueError
        When the checkpoint belongs to another fit.
    """
    optimizer = torch.optim.Adam(target.module.parameters(), lr=plan.learning_rate)
    state = _State(target, optimizer, RunningMean(target, plan.averaging))
    path = Path(checkpoint) if checkpoint is not None else None
    if path is not None and path.exists():
        state.load(path, fingerprint)
        observe("resumed", {"epoch": state.epoch})
    while state.epoch < plan.epochs and not _out_of_patience(state, plan):
        state.epoch += 1
        # Seeded by the epoch, so that a fit that was interrupted goes on with the same draws.
        with seeded(seed + state.epoch):
            report = _run_epoch(target, penalty, x, state.mean, optimizer, plan)
        report |= _validate(target, penalty, x_validation, state.mean, plan)
        if not math.isfinite(report["loss"]):
            raise FloatingPointError(
                f"the training loss became {report['loss']} in epoch {state.epoch}: lower learning_rate "
                f"(it is {plan.learning_rate}) or check the scale of the rows"
            )
        state.note(report, plan.keep)
        if path is not None:
            state.save(path, fingerprint)
        observe("epoch", {"epoch": state.epoch, "epochs": plan.epochs, **report})
    target.module.load_state_dict(state.best_weights)
    target.module.eval()
    target.module.zero_grad(set_to_none=True)
    reference = state.best_reference
    if plan.averaging == "final":
        reference = mean_gradient(target, x, plan.batch_size)
    return Trained(reference, state.history, state.best_epoch)


def mean_gradient(target: Target, x: Tensor, batch_size: int) -> dict[str, Tensor]:
    """Return the gradient of the mean loss over all rows, by parameter name: a reference after the fact.

    The network is used in evaluation mode and given back as it was.
    """
    stand_ins = {name: p.detach().requires_grad_() for name, p in target.parameters().items()}
    others = {name: p.detach() for name, p in target.module.named_parameters() if name not in stand_ins}
    total = {name: torch.zeros_like(p) for name, p in stand_ins.items()}
    for batch in torch.split(x, batch_size):
        with evaluating(target.module), torch.enable_grad():
            output = torch.func.functional_call(target.module, {**others, **stand_ins}, (batch,))
            loss = target.loss(output, batch).sum()
        gradients = torch.autograd.grad(loss, list(stand_ins.values()), materialize_grads=True)
        for name, gradient in zip(total, gradients, strict=True):
            total[name] += gradient / len(x)
    return total


def _run_epoch(
    target: Target,
    penalty: Loss | None,
    x: Tensor,
    mean: RunningMean,
    optimizer: torch.optim.Optimizer,
    plan: Plan,
) -> dict[str, float]:
    target.module.train()
    sums = torch.zeros(3, dtype=torch.float64)
    for rows in torch.split(torch.randperm(len(x)), plan.batch_size):
        sums += len(rows) * step(target, penalty, x[rows.to(x.device)], mean, optimizer, plan)
    return dict(zip(("loss", "reconstruction", "alignment"), (sums / len(x)).tolist(), strict=True))


def _out_of_patience(state: _State, plan: Plan) -> bool:
    return plan.patience is not None and state.epoch - state.best_epoch >= plan.patience and state.epoch > 0


def _validate(
    target: Target, penalty: Loss | None, x: Tensor, mean: RunningMean, plan: Plan
) -> dict[str, float]:
    target.module.eval()
    sums = torch.zeros(3, dtype=torch.float64)
    for batch in torch.split(x, plan.batch_size):
        with torch.set_grad_enabled(plan.alpha != 0 or plan.reference == "recon"):
            found = objective(target, penalty, batch, mean, plan, create_graph=False)
        sums += len(batch) * found.numbers()
    names = ("validation_loss", "validation_reconstruction", "validation_alignment")
    return dict(zip(names, (sums / len(x)).tolist(), strict=True))


class _State:
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
        groups: dict[str, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            group, _, rest = name.partition("/")
            groups.setdefault(group, {})[rest] = tensor
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


def _copy(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in state.items()}

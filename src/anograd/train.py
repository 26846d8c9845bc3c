"""The one training loop: seeded, resumable, observable, with GradCon's gradient constraint as an option.

It trains networks that anograd built; a network that a user adopted is never trained. Several processes that
torchrun started train one network together, to the same numbers as one alone.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from anograd.checkpoint import TrainingState
from anograd.constraint import RunningMean, alignment, mean_gradient
from anograd.losses import Loss
from anograd.ranks import ALONE, Ranks, together
from anograd.spill import Some, in_turn
from anograd.target import Target

Observer = Callable[[str, Mapping[str, Any]], None]
KERAS_EPSILON = 1e-7  # of its Adam
# The generators belong to the whole process: one thread at a time draws from them.
_DRAWING = threading.RLock()


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """How to train.

    Attributes
    ----------
    epochs : int
        Passes over the training rows, at most.
    batch_size : int
    learning_rate : float
        Of Adam.
    alpha : float, default 0.0
        Weight of the gradient constraint; 0 trains the plain autoencoder.
    reference : {"total", "recon"}, default "total"
        Which loss's gradient is averaged into the reference.
    averaging : {"cumulative", "ema", "final"}, default "cumulative"
        Mean of all steps so far; exponential moving average; or all steps while training and the mean
        gradient of the finished network over the training rows afterwards.
    keep : {"objective", "reconstruction", "last"}, default "last"
        Which epoch's weights count: best validation objective, best validation reconstruction, or the last.
    patience : int, optional
        Stop after so many epochs without an improvement.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    alpha: float = 0.0
    reference: str = "total"
    averaging: str = "cumulative"
    keep: str = "last"
    patience: int | None = None


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
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Draw from seeded global generators inside, and leave them untouched outside: the CPU's and a GPU's."""
    gpus = [device] if device is not None and device.type == "cuda" else []
    with _DRAWING, torch.random.fork_rng(gpus):
        torch.default_generator.manual_seed(seed)
        for one in gpus:
            with torch.cuda.device(one):
                torch.cuda.manual_seed(seed)
        yield


@contextmanager
def shuffled(n: int, seed: int, device: torch.device, ranks: Ranks) -> Iterator[Tensor]:
    """Give the numbers of n rows in an order that all ranks share; draws inside are each rank's own."""
    with seeded(seed, device):
        order = torch.randperm(n)
        with seeded(ranks.seed(seed), device) if ranks.rank else nullcontext():
            yield order


@dataclass(frozen=True)
class Objective:
    """J of one batch and its parts, and the reconstruction gradients where they were needed.

    Where several ranks share a batch the numbers are this rank's shares, which add up to those of the
    batch; the gradients are the batch's.
    """

    total: Tensor
    reconstruction: Tensor
    alignment: Tensor  # L_grad, in -1..1, low = aligned
    gradients: tuple[Tensor, ...] | None

    def numbers(self) -> Tensor:
        """Return (J, L, L_grad), (3,), left on the device: a step that reads them waits for it."""
        return torch.stack([self.total, self.reconstruction, self.alignment]).detach()


def objective(
    target: Target,
    penalty: Loss | None,
    batch: Tensor,
    mean: RunningMean,
    plan: TrainingPlan,
    create_graph: bool,
    ranks: Ranks = ALONE,
) -> Objective:
    """Return J = L + penalty + alpha * L_grad of one batch, whole on every rank.

    L_grad, minus the mean cosine between the gradient of L and the running mean, is 0 before the first
    step. No gradient flows through the running mean itself.
    """
    x, n = ranks.share(batch), len(batch)
    output = target.module(x)
    reconstruction = target.loss(output, x).sum() / n
    total = reconstruction if penalty is None else reconstruction + penalty(output, x).sum() / n
    aligned, gradients = torch.zeros_like(reconstruction), None
    constrained = plan.alpha != 0 and mean.steps > 0
    if constrained or plan.reference == "recon":
        kernels = list(target.parameters().values())
        gradients = torch.autograd.grad(
            reconstruction, kernels, create_graph=create_graph and constrained, retain_graph=True
        )
        gradients = ranks.total(gradients)
    if constrained and gradients is not None:
        aligned = -alignment(gradients, list(mean.mean().values())) / ranks.world
        total = total + plan.alpha * aligned
    return Objective(total, reconstruction, aligned, gradients)


def adam(module: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
    """Return the optimizer: Adam, its update of all weights fused, a twentieth off each step."""
    return torch.optim.Adam(module.parameters(), lr=learning_rate, fused=True)


class KerasAdam(torch.optim.Adam):
    """Adam as tf.keras has it: epsilon stands beside the root of the uncorrected second moment.

    PyTorch adds it to the corrected one. The two differ where gradients are as small as epsilon, and the
    more the earlier the step.

    Parameters
    ----------
    parameters : iterable of torch.Tensor
    learning_rate : float
    """

    def __init__(self, parameters: Iterable[Tensor], learning_rate: float) -> None:
        super().__init__(parameters, lr=learning_rate, eps=KERAS_EPSILON, fused=True)
        self.register_step_pre_hook(_set_epsilon)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up moments, and with them the number of steps that epsilon goes by."""
        super().load_state_dict(state_dict)
        for group in self.param_groups:
            group["taken"] = max(int(self.state[p].get("step", 0)) for p in group["params"])


def _set_epsilon(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    for group in optimizer.param_groups:
        group["taken"] = group.get("taken", 0) + 1
        group["eps"] = KERAS_EPSILON / math.sqrt(1 - group["betas"][1] ** group["taken"])


def check_loss(whose: str, loss: float, epoch: int, learning_rate: float) -> None:
    """Raise FloatingPointError where a training loss has stopped being a number."""
    if not math.isfinite(loss):
        raise FloatingPointError(
            f"the {whose}training loss became {loss} in epoch {epoch}: lower learning_rate (it is "
            f"{learning_rate}) or check the scale of the rows"
        )


def step(
    target: Target,
    penalty: Loss | None,
    batch: Tensor,
    mean: RunningMean,
    optimizer: torch.optim.Optimizer,
    plan: TrainingPlan,
    ranks: Ranks = ALONE,
) -> Tensor:
    """Take one training step and return (J, L, L_grad) as they were before it, (3,): this rank's shares."""
    optimizer.zero_grad(set_to_none=True)
    found = objective(target, penalty, batch, mean, plan, create_graph=True, ranks=ranks)
    torch.autograd.backward(found.total)
    ranks.sum([p.grad for p in target.module.parameters() if p.grad is not None])
    if plan.reference == "recon" and found.gradients is not None:
        mean.add([gradient.detach() for gradient in found.gradients])
    else:
        mean.add([p.grad for p in target.parameters().values() if p.grad is not None])
    optimizer.step()
    return found.numbers()


def train(
    target: Target,
    x: Tensor | Some,
    x_validation: Tensor | Some,
    plan: TrainingPlan,
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
    x, x_validation : torch.Tensor or Some, (n, ...)
        Rows to train on and rows to choose the epoch by.
    plan : TrainingPlan
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
        When the checkpoint belongs to another fit, or ranks were given other rows or checkpoints.

    Notes
    -----
    Ranks (`anograd.ranks`) get the same rows, and each takes its share of every batch. Only rank 0 writes the
    checkpoint, which all of them read.
    """
    ranks = together()
    # Convolutions need fewer copies then: measured, about a tenth off each step of an image network.
    lay_out(target.module, torch.channels_last)
    optimizer = adam(target.module, plan.learning_rate)
    state = TrainingState(target, optimizer, RunningMean(target, plan.averaging))
    path = Path(checkpoint) if checkpoint is not None else None
    if path is not None and path.exists():
        state.load(path, fingerprint)
        observe("resumed", {"epoch": state.epoch})
    ranks.start_alike(target.module, f"{fingerprint} {seed} {state.epoch}")
    while goes_on(state, plan):
        state.epoch += 1
        # Seeded by the epoch, so that a fit that was interrupted goes on with the same draws.
        with shuffled(len(x), seed + state.epoch, x.device, ranks) as order:
            report = _run_epoch(target, penalty, x, order, state.mean, optimizer, plan, ranks)
        report |= _validate(target, penalty, x_validation, state.mean, plan, ranks)
        check_loss("", report["loss"], state.epoch, plan.learning_rate)
        state.note(report, plan.keep)
        if path is not None and ranks.rank == 0:
            state.save(path, fingerprint)
        observe("epoch", {"epoch": state.epoch, "epochs": plan.epochs, **report})
    target.module.load_state_dict(state.best_weights)
    # Contiguous, as it will be when loaded: the layout decides how a product is rounded.
    lay_out(target.module, torch.contiguous_format)
    target.module.eval()
    target.module.zero_grad(set_to_none=True)
    # Copies, since strides and where a tensor begins decide, too; those of a checkpoint lie as in its file.
    copied = partial(torch.clone, memory_format=torch.contiguous_format)
    reference = {name: copied(mean) for name, mean in state.best_reference.items()}
    if plan.averaging == "final":
        reference = mean_gradient(target, x, plan.batch_size, ranks)
    return Trained(reference, state.history, state.best_epoch)


def lay_out(module: nn.Module, order: torch.memory_format) -> None:
    """Let the kernels of two-dimensional convolutions lie in this order."""
    for parameter in module.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.detach().clone(memory_format=order)


def _run_epoch(
    target: Target,
    penalty: Loss | None,
    x: Tensor | Some,
    order: Tensor,
    mean: RunningMean,
    optimizer: torch.optim.Optimizer,
    plan: TrainingPlan,
    ranks: Ranks,
) -> dict[str, float]:
    target.module.train()
    batches = torch.split(order.to(x.device), plan.batch_size)
    found = [step(target, penalty, x[rows], mean, optimizer, plan, ranks) for rows in batches]
    return _means(("loss", "reconstruction", "alignment"), found, batches, ranks)


def _means(
    names: Sequence[str], found: Sequence[Tensor], batches: Sequence[Tensor], ranks: Ranks
) -> dict[str, float]:
    """Return the means over rows of what each batch gave, by name; the device is asked once for all."""
    sizes = torch.tensor([len(batch) for batch in batches], dtype=torch.float64)
    numbers = torch.stack(list(found))
    ranks.sum([numbers])
    means = sizes @ numbers.cpu().double() / sizes.sum()
    return dict(zip(names, means.tolist(), strict=True))


def goes_on(state: TrainingState, plan: TrainingPlan) -> bool:
    """Tell whether another epoch is to come: neither epochs nor patience have run out."""
    patient = plan.patience is None or state.epoch == 0 or state.epoch - state.best_epoch < plan.patience
    return state.epoch < plan.epochs and patient


def _validate(
    target: Target,
    penalty: Loss | None,
    x: Tensor | Some,
    mean: RunningMean,
    plan: TrainingPlan,
    ranks: Ranks,
) -> dict[str, float]:
    target.module.eval()
    batches = torch.split(torch.arange(len(x)), plan.batch_size)
    with torch.set_grad_enabled(plan.alpha != 0 or plan.reference == "recon"):
        found = [
            objective(target, penalty, batch, mean, plan, create_graph=False, ranks=ranks).numbers()
            for batch in in_turn(x, plan.batch_size)
        ]
    names = ("validation_loss", "validation_reconstruction", "validation_alignment")
    return _means(names, found, batches, ranks)

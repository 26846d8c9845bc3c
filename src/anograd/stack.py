"""Several networks of one kind trained at once, each as it would be alone: one pass over stacked weights.

Where networks are small, a step's time is that of starting its many small operations, and stacked networks
share them. Small letters in shapes: m networks, s steps of an epoch, b rows of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from anograd.checkpoint import TrainingState
from anograd.constraint import RunningMean, alignment, mean_gradient
from anograd.target import Target
from anograd.train import Observer, Trained, TrainingPlan, adam, check_loss, goes_on

TRAINING = ("loss", "reconstruction", "alignment")
Weights = dict[str, Tensor]  # by parameter name, networks first: (m, ...)


@dataclass
class _Learner:
    """One of the networks: its rows' numbers among all rows, and what its training has reached."""

    name: str
    rows: Tensor
    validation: Tensor
    seed: int
    state: TrainingState
    observe: Observer

    def order(self, epoch: int) -> Tensor:
        """Return the numbers of its rows in the order in which it would see them alone."""
        drawn = torch.Generator().manual_seed(self.seed + epoch)
        return self.rows[torch.randperm(len(self.rows), generator=drawn)]


@dataclass(frozen=True)
class _Batches:
    """The batches of all networks; what has fewer of them, or a smaller one, is filled up with its first row.

    Attributes
    ----------
    index : torch.Tensor of int64, (s, m, b)
        Numbers of rows.
    share : torch.Tensor, (s, m, b)
        How much each row counts in its batch's mean: 0 for what fills up.
    sizes : torch.Tensor, (s, m)
        Rows that count, float64, on the CPU.
    """

    index: Tensor
    share: Tensor
    sizes: Tensor

    @classmethod
    def of(cls, orders: Sequence[Tensor], size: int, device: torch.device) -> _Batches:
        """Return the batches of orders of rows, one a network, in one copy to the device."""
        steps = max(-(-len(order) // size) for order in orders)
        index = torch.stack([torch.cat([o, o[:1].expand(steps * size - len(o))]) for o in orders])
        counts = torch.stack([torch.arange(steps * size) < len(o) for o in orders])
        index, counts = (one.view(-1, steps, size).transpose(0, 1) for one in (index, counts))
        sizes = counts.sum(2)
        share = counts / sizes.clamp_min(1).unsqueeze(2)
        return cls(index.to(device), share.to(device), sizes.double())

    def active(self) -> list[int]:
        """Return how many networks have rows at each step: the first ones, where they are in order."""
        return (self.sizes > 0).sum(1).tolist()


class _Stack:
    """Weights and running means of learners, stacked; each network's own parameters are views of them."""

    def __init__(self, learners: Sequence[_Learner], plan: TrainingPlan) -> None:
        self.learners, self.plan = learners, plan
        self.targets = [learner.state.target for learner in learners]
        self.means = [learner.state.mean for learner in learners]
        self.weights: Weights = {}
        for name, _ in self.targets[0].module.named_parameters():
            own = [target.module.get_parameter(name) for target in self.targets]
            self.weights[name] = torch.stack([p.detach() for p in own])
            for parameter, view in zip(own, self.weights[name].unbind(0), strict=True):
                parameter.data = view
        self.sums: Weights = {}
        for name in self.targets[0].layers:
            self.sums[name] = torch.stack([mean.sums[name] for mean in self.means])
            for mean, view in zip(self.means, self.sums[name].unbind(0), strict=True):
                mean.sums[name] = view

    def divisors(self, steps: int) -> Tensor:
        """Return what the sums are divided by before each of the next steps, (s, m), on the device."""
        found = [[mean.weight(mean.steps + step) for mean in self.means] for step in range(steps)]
        return torch.tensor(found).to(next(iter(self.weights.values())).device)

    def objective(
        self, x: Tensor, share: Tensor, divisor: Tensor, *, constrained: bool, training: bool
    ) -> tuple[Tensor, Weights, dict[str, Tensor]]:
        """Return (J, L, L_grad) of each network, (3, m), with graph, its weights, and the gradients of L.

        As `train.objective`, of the first networks, as many as `x` (m, b, ...) has batches for.
        """
        target, plan, count = self.targets[0], self.plan, len(x)
        weights = {name: w[:count].detach().requires_grad_() for name, w in self.weights.items()}

        def losses(own: Weights, rows: Tensor) -> Tensor:
            return target.loss(functional_call(target.module, own, (rows,)), rows)

        reconstruction = (vmap(losses)(weights, x) * share).sum(1)
        aligned, gradients = torch.zeros_like(reconstruction), {}
        if constrained or (training and plan.reference == "recon"):
            found = torch.autograd.grad(
                reconstruction.sum(), [weights[name] for name in self.sums],
                create_graph=training and constrained, retain_graph=training,
            )  # fmt: skip
            gradients = dict(zip(self.sums, found, strict=True))
        if constrained:
            means = [_over(total[:count], divisor[:count]) for total in self.sums.values()]
            aligned = -vmap(alignment)(list(gradients.values()), means)
        total = reconstruction + plan.alpha * aligned
        return torch.stack([total, reconstruction, aligned]), weights, gradients

    def step(
        self, x: Tensor, share: Tensor, divisor: Tensor, optimizer: torch.optim.Optimizer, constrained: bool
    ) -> Tensor:
        """Take one step of the first networks and return their (J, L, L_grad) before it, (3, m)."""
        numbers, weights, gradients = self.objective(
            x, share, divisor, constrained=constrained, training=True
        )
        found = torch.autograd.grad(numbers[0].sum(), list(weights.values()))
        whole = dict(zip(weights, found, strict=True))
        self._add(
            {name: (gradients if self.plan.reference == "recon" else whole)[name] for name in self.sums}
        )
        optimizer.zero_grad(set_to_none=True)
        for name, stacked in whole.items():
            # Contiguous, as fused Adam takes weights and gradients to lie in the same order.
            for target, gradient in zip(self.targets, stacked.contiguous().unbind(0), strict=False):
                target.module.get_parameter(name).grad = gradient
        optimizer.step()  # which passes over networks without a gradient
        return numbers.detach()

    @torch.no_grad()
    def _add(self, gradients: Weights) -> None:
        decay = self.means[0].decay
        for name, gradient in gradients.items():
            total = self.sums[name][: len(gradient)]
            if decay is None:
                total += gradient
            else:
                total.mul_(decay).add_(gradient, alpha=1 - decay)


def train_together(
    targets: Sequence[Target],
    rows: Sequence[Tensor],
    validations: Sequence[Tensor],
    plan: TrainingPlan,
    *,
    seeds: Sequence[int],
    observers: Sequence[Observer],
) -> list[Trained]:
    """Train networks of one shape in place; return what `train` returns for each, in order.

    Each sees the batches that it would see alone and stops where it would stop alone. Weights agree with
    those of `train` but for rounding, which more steps make more of.

    Parameters
    ----------
    targets : sequence of Target
        Of one architecture, loss and choice of parameters, with other weights; no buffers, no random numbers.
    rows, validations : sequence of torch.Tensor, (n, ...)
        Of each network; the number of rows may differ.
    plan : TrainingPlan
    seeds : sequence of int
    observers : sequence of callable

    Raises
    ------
    FloatingPointError
        When a loss stops being a number; networks are counted from 0.
    """
    every = torch.cat([*rows, *validations])
    numbers = torch.split(torch.arange(len(every)), [len(one) for one in (*rows, *validations)])
    optimizer = adam(nn.ModuleList(target.module for target in targets), plan.learning_rate)
    learners = [
        _Learner(
            f"network {i}'s ", own, held, seed,
            TrainingState(target, optimizer, RunningMean(target, plan.averaging)), tell,
        )
        for i, (target, own, held, seed, tell) in enumerate(
            zip(targets, numbers[: len(rows)], numbers[len(rows) :], seeds, observers, strict=True)
        )
    ]  # fmt: skip
    # Those with the most batches first, so that at each step the first ones are those that still have one.
    going_on = sorted(learners, key=lambda one: -len(one.rows))
    epoch = 0
    while going_on:
        stack = _Stack(going_on, plan)
        held = _Batches.of([one.validation for one in going_on], plan.batch_size, every.device)
        while len(going_on) == len(stack.learners):
            epoch += 1
            reports = _run_epoch(stack, every, optimizer, epoch), _validate(stack, every, held)
            for learner, trained, validated in zip(going_on, *reports, strict=True):
                report = trained | {f"validation_{name}": value for name, value in validated.items()}
                check_loss(learner.name, report["loss"], epoch, plan.learning_rate)
                learner.state.epoch = epoch
                learner.state.note(report, plan.keep)
                learner.observe("epoch", {"epoch": epoch, "epochs": plan.epochs, **report})
            going_on = [one for one in going_on if goes_on(one.state, plan)]
    return [_finished(one, every, plan) for one in learners]


def _run_epoch(
    stack: _Stack, every: Tensor, optimizer: torch.optim.Optimizer, epoch: int
) -> list[dict[str, float]]:
    plan = stack.plan
    stack.targets[0].module.train()
    batches = _Batches.of([one.order(epoch) for one in stack.learners], plan.batch_size, every.device)
    active = batches.active()
    divisors = stack.divisors(len(active))
    found = every.new_zeros(len(active), 3, len(stack.learners))
    for step, count in enumerate(active):
        constrained = plan.alpha != 0 and (epoch > 1 or step > 0)
        index, share = batches.index[step, :count], batches.share[step, :count]
        found[step, :, :count] = stack.step(every[index], share, divisors[step], optimizer, constrained)
    for mean, own in zip(stack.means, batches.sizes.unbind(1), strict=True):
        mean.steps += int((own > 0).sum())
    return _reports(found, batches.sizes)


def _validate(stack: _Stack, every: Tensor, batches: _Batches) -> list[dict[str, float]]:
    plan = stack.plan
    stack.targets[0].module.eval()
    divisor = stack.divisors(1)[0]
    found = []
    for index, share in zip(batches.index, batches.share, strict=True):
        with torch.set_grad_enabled(plan.alpha != 0 or plan.reference == "recon"):
            numbers, _, _ = stack.objective(
                every[index], share, divisor, constrained=plan.alpha != 0, training=False
            )
        found.append(numbers.detach())
    return _reports(torch.stack(found), batches.sizes)


def _reports(found: Tensor, sizes: Tensor) -> list[dict[str, float]]:
    """Return each network's means over its rows; the device is asked once for all."""
    weights = sizes.unsqueeze(1)  # (s, 1, m)
    means = (found.cpu().double() * weights).sum(0) / weights.sum(0)
    return [dict(zip(TRAINING, own, strict=True)) for own in means.T.tolist()]


def _finished(learner: _Learner, every: Tensor, plan: TrainingPlan) -> Trained:
    state, module = learner.state, learner.state.target.module
    for parameter in module.parameters():
        parameter.data = parameter.detach().clone()  # no longer a view of all networks'
    module.load_state_dict(state.best_weights)
    module.eval().zero_grad(set_to_none=True)
    reference = state.best_reference
    if plan.averaging == "final":
        own = every[learner.rows[0] : learner.rows[-1] + 1]
        reference = mean_gradient(state.target, own, plan.batch_size)
    return Trained(reference, state.history, state.best_epoch)


def _over(total: Tensor, divisor: Tensor) -> Tensor:
    """Return sums of networks (m, ...) over numbers (m,)."""
    return total / divisor.reshape(-1, *[1] * (total.ndim - 1))

"""One network at several moments: what is held out, what is kept, and the gradients that are read."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anograd import Target
from anograd.checkpoint import Keeper
from anograd.gradients import Sketch
from anograd.gradients.sketch import matrix_shape
from anograd.represent import checkpoint_gradients, choose_sketch
from anograd.spill import Rows
from anograd.train import KerasAdam, seeded
from anograd.trajectory import TrajectoryPlan, build, describe, draw_holdout, train_checkpoints

PLAN = TrajectoryPlan(checkpoints=2, batch_size=16, learning_rate=1e-2)
ROWS = torch.rand(50, 6, generator=torch.Generator().manual_seed(0))
INDEX = torch.arange(3, 48)
TABLE = describe("auto", (6,), None, 0.3)
IMAGE = describe("auto", (1, 8, 8), None, 0.3)


def trained(plan: TrajectoryPlan = PLAN, seed: int = 5, **changes: Any) -> list[Target]:
    return train_checkpoints(build(TABLE, 1), Rows.of(ROWS), INDEX, plan, seed=seed, **changes)


def weights(target: Target) -> Tensor:
    return torch.cat([p.detach().flatten() for p in target.module.parameters()])


@pytest.fixture(scope="module")
def targets() -> list[Target]:
    return trained()


def test_the_holdout_is_drawn_once_by_the_seed() -> None:
    train = torch.randperm(40, generator=torch.Generator().manual_seed(1)) + 100
    seen, unseen = draw_holdout(train, 0.25, seed=3)
    assert (len(seen), len(unseen)) == (30, 10)
    assert torch.equal(torch.cat([seen, unseen]).sort().values, train.sort().values)
    again, other = draw_holdout(train, 0.25, seed=3), draw_holdout(train, 0.25, seed=4)
    assert torch.equal(again[1], unseen)
    assert not torch.equal(other[1].sort().values, unseen.sort().values)


@pytest.mark.parametrize(("n", "share", "held"), [(40, 0.0, 0), (1, 0.9, 0), (2, 0.99, 1), (5, 0.5, 2)])
def test_one_row_at_least_is_trained_on(n: int, share: float, held: int) -> None:
    seen, unseen = draw_holdout(torch.arange(n), share, seed=0)
    assert (len(seen), len(unseen)) == (n - held, held)


def test_all_checkpoints_see_the_same_rows_and_never_the_others() -> None:
    read: list[list[Tensor]] = []

    class Noting(Rows):
        def take(self, index: Tensor | slice) -> Tensor:
            assert isinstance(index, Tensor)
            read[-1].append(index)
            return super().take(index)

    rows = Noting(len(ROWS), (6,), ROWS)
    read.append([])
    train_checkpoints(
        build(TABLE, 1), rows, INDEX, PLAN, observe=lambda name, found: read.append([])
    )  # fmt: skip
    epochs = [torch.cat(epoch) for epoch in read if epoch]
    assert len(epochs) == PLAN.epochs() == 15
    assert all(torch.equal(epoch.sort().values, INDEX) for epoch in epochs)
    assert not torch.equal(epochs[0], epochs[1])


def test_checkpoints_differ_and_are_frozen(targets: list[Target]) -> None:
    first, second = targets
    assert (weights(first) - weights(second)).abs().max() > 1e-3
    for target in targets:
        assert not target.module.training
        assert all(not p.requires_grad and p.grad is None for p in target.module.parameters())
    shared = {p.data_ptr() for p in first.module.parameters()}
    assert not shared & {p.data_ptr() for p in second.module.parameters()}


@pytest.mark.parametrize("keras", [False, True])
def test_checkpoints_are_moments_of_one_uninterrupted_training(keras: bool) -> None:
    """By hand: 15 epochs with one Adam, whose moments are never reset; looked at after 10 and 15."""
    targets = trained(replace(PLAN, keras=keras))
    target = build(TABLE, 1)
    module = target.module.train()
    kind = KerasAdam if keras else partial(torch.optim.Adam, fused=True)
    optimizer = kind(module.parameters(), 1e-2)
    moments = []
    for epoch in range(1, 16):
        with seeded(5 + epoch):
            order = INDEX[torch.randperm(len(INDEX))]
            for i in range(0, len(order), 16):
                x = ROWS[order[i : i + 16]]
                optimizer.zero_grad()
                F.binary_cross_entropy_with_logits(module(x), x, reduction="none").mean(1).mean().backward()
                optimizer.step()
        if epoch in (10, 15):
            moments.append(weights(target).clone())
    assert torch.equal(weights(targets[0]), moments[0])
    assert torch.equal(weights(targets[1]), moments[1])


def test_more_checkpoints_begin_with_the_fewer(targets: list[Target]) -> None:
    more = trained(TrajectoryPlan(4, 16, 1e-2))
    assert len(more) == 4
    for few, many in zip(targets, more, strict=False):
        assert torch.equal(weights(few), weights(many))


def test_seeds_and_the_global_generator(targets: list[Target]) -> None:
    before = torch.get_rng_state()
    again, other = trained(), trained(seed=6)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(weights(again[1]), weights(targets[1]))
    assert not torch.equal(weights(other[1]), weights(targets[1]))


def test_epochs_are_told() -> None:
    told: list[tuple[str, dict[str, Any]]] = []
    trained(observe=lambda name, found: told.append((name, dict(found))))
    assert [(name, found["epoch"]) for name, found in told] == [("epoch", i) for i in range(1, 16)]
    assert told[-1][1]["loss"] < told[0][1]["loss"]


@pytest.mark.parametrize("last", [1, 9, 10, 12, 15])
def test_an_interrupted_training_goes_on(last: int, targets: list[Target], tmp_path: Path) -> None:
    def stop(name: str, found: Any) -> None:
        if found["epoch"] == last:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(observe=stop, keep=Keeper(tmp_path / "fit", "a"))
    keep, epochs = Keeper(tmp_path / "fit", "a"), []
    assert keep.epoch == last
    found = trained(observe=lambda name, found: epochs.append(found["epoch"]), keep=keep)
    assert epochs == list(range(last + 1, 16))
    assert [torch.equal(weights(a), weights(b)) for a, b in zip(found, targets, strict=True)] == [True, True]
    assert all(not p.requires_grad for target in found for p in target.module.parameters())
    assert [path.name for path in tmp_path.iterdir()] == ["fit"]


def test_a_loss_that_is_no_number_is_an_error() -> None:
    broken = ROWS.clone()
    broken[7] = torch.nan
    with pytest.raises(
        FloatingPointError,
        match=r"autoencoder's training loss became nan in epoch 1: lower learning_rate \(it is 0.01\)",
    ):
        train_checkpoints(build(TABLE, 1), Rows.of(broken), INDEX, PLAN)


@pytest.mark.parametrize("features", [1, 2, 6, 29, 500])
def test_default_widths_are_those_for_every_table(features: int) -> None:
    """Autoencoders of the paper's smaller sizes often die on few columns."""
    made = describe("dense", (features,), None, 0.2)
    assert made["hidden"] == [40, 20, 10]
    assert describe("dense", (features,), (5, 3, 2), 0.2) == {**made, "hidden": [5, 3, 2]}


def test_a_description_names_the_network() -> None:
    assert TABLE == {"kind": "dense", "features": 6, "hidden": [40, 20, 10], "dropout": 0.3}
    assert IMAGE == {"kind": "conv", "channels": 1, "height": 8, "width": 8, "dropout": 0.3}
    with pytest.raises(ValueError, match=r"target='dense' takes tables, but a row has shape \(1, 8, 8\)"):
        describe("dense", (1, 8, 8), None, 0.2)
    with pytest.raises(ValueError, match=r"target='conv' takes images.*write target='dense' for a table"):
        describe("conv", (6,), None, 0.2)


def by_autograd(target: Target, row: Tensor) -> list[Tensor]:
    module = copy.deepcopy(target.module).eval().requires_grad_(True)
    loss = F.binary_cross_entropy_with_logits(module(row[None]), row[None])
    return list(torch.autograd.grad(loss, list(module.parameters())))


@pytest.mark.parametrize("network", [TABLE, IMAGE], ids=["dense", "conv"])
def test_raw_gradients_are_autograds_with_dropout_off(network: dict[str, Any]) -> None:
    with seeded(0):
        x = torch.rand(4, *((6,) if network is TABLE else (1, 8, 8)))
    found = [build(network, seed) for seed in (1, 2, 3)]
    for target in found:
        target.module.train()  # left so by the caller; it makes no difference
    gradients = checkpoint_gradients(found, x)
    assert torch.equal(gradients, checkpoint_gradients(found, x))
    assert all(target.module.training for target in found)
    for n in range(len(x)):
        for t, target in enumerate(found):
            expected = torch.cat([g.flatten() for g in by_autograd(target, x[n])])
            torch.testing.assert_close(gradients[n, t], expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("network", [TABLE, IMAGE], ids=["dense", "conv"])
def test_sketches_are_one_projection_of_the_raw_gradients(network: dict[str, Any]) -> None:
    with seeded(0):
        x = torch.rand(3, *((6,) if network is TABLE else (1, 8, 8)))
    found, sketch = [build(network, seed) for seed in (1, 2)], Sketch(8, seed=3)
    sketched = checkpoint_gradients(found, x, sketch)
    reduced = False
    for n in range(len(x)):
        for t, target in enumerate(found):
            expected = []
            for (name, p), g in zip(target.parameters().items(), by_autograd(target, x[n]), strict=True):
                P, Q = sketch.projections(name, p)
                matrix = g.reshape(matrix_shape(p.shape))
                matrix = matrix if P is None else P @ matrix
                matrix = matrix if Q is None else matrix @ Q.T
                reduced |= matrix.numel() < g.numel()
                expected.append(matrix.flatten())
            torch.testing.assert_close(sketched[n, t], torch.cat(expected), rtol=1e-4, atol=1e-6)
    assert reduced
    assert not torch.allclose(sketched, checkpoint_gradients(found, x, Sketch(8, seed=4)))


def test_the_memory_bound_changes_no_gradient() -> None:
    target = build(TABLE, 1)
    # In double precision: in single, a product of fewer rows is rounded otherwise on some processors.
    target.module.double()
    many = torch.rand(300, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    whole = checkpoint_gradients([target], many)
    torch.testing.assert_close(
        checkpoint_gradients([target], many, memory="20KiB"), whole, rtol=1e-9, atol=1e-15
    )


def test_small_gradients_are_not_sketched() -> None:
    small, large = Target.adopt(nn.Linear(15, 16)), Target.adopt(nn.Linear(16, 16))
    assert choose_sketch(small, "auto", 7) is None  # 256 numbers
    assert choose_sketch(large, "auto", 7) == Sketch(32, 7)
    assert choose_sketch(small, 5, 7) == Sketch(5, 7)
    assert choose_sketch(large, None, 7) is None

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from anograd import GradCon, Target
from anograd.constraint import RunningMean, mean_gradient
from anograd.losses import kl_divergence
from anograd.networks import ConvAutoencoder, DenseAutoencoder
from anograd.train import TrainingPlan, seeded, train

ROWS = torch.linspace(0, 1, 240).reshape(60, 4).sin()


def plan(**changes: Any) -> TrainingPlan:
    settings = {
        "epochs": 4, "batch_size": 16, "learning_rate": 1e-3, "alpha": 0.03, "reference": "total",
        "averaging": "cumulative", "keep": "objective", "patience": None,
    }  # fmt: skip
    return TrainingPlan(**{**settings, **changes})


def target() -> Target:
    with seeded(0):
        return Target.adopt(DenseAutoencoder(4, (3, 2)), layers="up.*.weight")


def weights(one: Target) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in one.module.parameters()])


class Stop(Exception):
    pass


def stop_after(epoch: int) -> Any:
    def observe(name: str, data: Any) -> None:
        if name == "epoch" and data["epoch"] == epoch:
            raise Stop

    return observe


@pytest.mark.parametrize("variational", [False, True])
@pytest.mark.parametrize("averaging", ["cumulative", "ema"])
def test_an_interrupted_fit_goes_on_to_the_same_result(
    tmp_path: Path, averaging: str, variational: bool
) -> None:
    path = tmp_path / "fit"
    settings = plan(averaging=averaging)

    def fresh() -> Target:
        if not variational:
            return target()
        with seeded(0):
            net = ConvAutoencoder(1, 8, 8, variational=True)
        return Target.adopt(net, loss="vae_reconstruction", layers="up.*.weight")

    rows = ROWS if not variational else torch.rand(60, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    penalty = kl_divergence if variational else None
    whole = fresh()
    expected = train(whole, rows[:50], rows[50:], settings, penalty=penalty)
    broken = fresh()
    with pytest.raises(Stop):
        train(broken, rows[:50], rows[50:], settings, penalty=penalty, checkpoint=path, observe=stop_after(2))
    events: list[str] = []
    again = fresh()
    resumed = train(
        again, rows[:50], rows[50:], settings, penalty=penalty, checkpoint=path,
        observe=lambda name, data: events.append(name),
    )  # fmt: skip
    assert events == ["resumed", "epoch", "epoch"]
    torch.testing.assert_close(weights(again), weights(whole), rtol=0, atol=0)
    assert resumed.history == expected.history
    assert resumed.kept_epoch == expected.kept_epoch
    for name, r in expected.reference.items():
        torch.testing.assert_close(resumed.reference[name], r, rtol=0, atol=0)
    assert [file.name for file in tmp_path.iterdir()] == ["fit"]


def test_a_checkpoint_of_another_fit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "fit"
    with pytest.raises(Stop):
        train(target(), ROWS, ROWS, plan(), checkpoint=path, fingerprint="a", observe=stop_after(1))
    with pytest.raises(ValueError, match="was left by a fit with other data or settings: remove it"):
        train(target(), ROWS, ROWS, plan(), checkpoint=path, fingerprint="b")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="is a folder; a file is wanted: checkpoint="):
        train(target(), ROWS, ROWS, plan(), checkpoint=tmp_path, fingerprint="a")
    with pytest.raises(ValueError, match="is no checkpoint of a fit"):
        train(target(), ROWS, ROWS, plan(), checkpoint=path, fingerprint="a")


def test_every_improvement_is_kept_weights_and_reference_together() -> None:
    """The best validation objective of the history is the kept epoch, and stopping there gives the same."""
    one = target()
    trained = train(one, ROWS[:50], ROWS[50:], plan(epochs=12, learning_rate=0.05))
    objectives = [epoch["validation_loss"] for epoch in trained.history]
    assert trained.kept_epoch == objectives.index(min(objectives)) + 1
    shorter = target()
    last = train(
        shorter, ROWS[:50], ROWS[50:], plan(epochs=trained.kept_epoch, learning_rate=0.05, keep="last")
    )
    torch.testing.assert_close(weights(one), weights(shorter), rtol=0, atol=0)
    for name, r in trained.reference.items():
        torch.testing.assert_close(r, last.reference[name], rtol=0, atol=0)


def test_keep_by_reconstruction() -> None:
    trained = train(
        target(), ROWS[:50], ROWS[50:], plan(epochs=12, learning_rate=0.05, alpha=0.5, keep="reconstruction")
    )
    losses = [epoch["validation_reconstruction"] for epoch in trained.history]
    assert trained.kept_epoch == losses.index(min(losses)) + 1


def test_patience_stops_after_so_many_epochs_without_improvement() -> None:
    trained = train(target(), ROWS[:50], ROWS[50:], plan(epochs=200, learning_rate=0.2, patience=3))
    assert len(trained.history) == trained.kept_epoch + 3
    assert len(trained.history) < 200


@pytest.mark.parametrize("averaged", ["total", "recon"])
def test_the_constraint_aligns_the_gradients(averaged: str) -> None:
    """On real images, batch gradients point along their running mean far more with it than without."""
    images, digit = load_digits(return_X_y=True)
    x = torch.from_numpy(images[digit == 0]).float().reshape(-1, 1, 8, 8) / 16
    found = []
    for alpha in (1e-9, 0.03):
        with seeded(0):
            one = Target.adopt(ConvAutoencoder(1, 8, 8), layers="up.*.weight")
        settings = plan(epochs=8, alpha=alpha, reference=averaged, keep="last")
        found.append(-train(one, x[:128], x[128:], settings).history[-1]["alignment"])
    without, constrained = found
    assert constrained > without + 0.3


def test_a_loss_that_explodes_is_reported() -> None:
    with pytest.raises(FloatingPointError, match=r"became (nan|inf) in epoch \d+: lower learning_rate"):
        train(target(), ROWS * 1e20, ROWS, plan(epochs=3))


def test_running_means() -> None:
    gradients = torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(0))
    one = Target.adopt(nn.Linear(3, 2, bias=False))
    plain, moving = RunningMean(one, "cumulative"), RunningMean(one, "ema")
    for g in gradients:
        plain.add([g])
        moving.add([g])
    torch.testing.assert_close(plain.mean()["weight"], gradients.mean(0))
    powers = 0.99 ** torch.arange(4.0, -1, -1)
    expected = (gradients * powers[:, None, None]).sum(0) / powers.sum()
    torch.testing.assert_close(moving.mean()["weight"], expected)


def test_the_final_reference_is_the_finished_networks_mean_gradient() -> None:
    one = target()
    trained = train(one, ROWS[:50], ROWS[50:], plan(averaging="final"))
    loss = one.loss(one.module(ROWS[:50]), ROWS[:50]).mean()
    gradients = torch.autograd.grad(loss, list(one.parameters().values()))
    for ours, theirs in zip(trained.reference.values(), gradients, strict=True):
        torch.testing.assert_close(ours, theirs)
    again = mean_gradient(one, ROWS[:50], batch_size=7)
    torch.testing.assert_close(list(again.values()), list(trained.reference.values()))


@pytest.mark.parametrize("stop", [1, 5])
def test_a_resumed_fit_on_grey_images_scores_the_same_to_the_last_bit(tmp_path, stop):
    # Of one channel, tensors have strides of either layout, and those decide how a product is rounded.
    x = np.random.default_rng(0).integers(0, 255, (60, 8, 8)).astype(np.uint8)

    def fit(stop=None):
        def see(name, found):
            if name == "epoch" and found["epoch"] == stop:
                raise KeyboardInterrupt

        return GradCon(epochs=6, random_state=0, checkpoint=tmp_path / "partial", progress=see).fit(x)

    whole = fit()
    (tmp_path / "partial").unlink()
    with pytest.raises(KeyboardInterrupt):
        fit(stop)
    again = fit()
    assert whole.kept_epoch_ == again.kept_epoch_
    np.testing.assert_array_equal(again.usual_, whole.usual_)
    np.testing.assert_array_equal(again.anomaly_score(x), whole.anomaly_score(x))

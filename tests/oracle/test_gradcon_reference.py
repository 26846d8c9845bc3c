"""GradCon against numbers from the authors' own code, to 1e-5, and against a step written by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tests.conftest import arrays

from anograd import Target, per_sample
from anograd.constraint import RunningMean, alignment
from anograd.networks import ConvAutoencoder
from anograd.represent import cosine
from anograd.score import gradcon_score
from anograd.train import TrainingPlan, adam, step

CLOSE = {"rtol": 1e-5, "atol": 1e-5}
AS_PUBLISHED = TrainingPlan(
    epochs=1, batch_size=16, learning_rate=1e-3, alpha=0.03, reference="total", averaging="cumulative",
    keep="last", patience=None,
)  # fmt: skip


def test_loss_cosine_and_score_of_200_images(reference: Path) -> None:
    path = reference / "gradcon_mnist_0_last.npz"
    net = ConvAutoencoder(1, 28, 28)
    net.load_state_dict(arrays(path, "weights/"))
    expected = arrays(path)
    x = expected["x_test_uint8"].unsqueeze(1).float() / 255
    mean_gradient = arrays(path, "ref_grad/")
    target = Target.adopt(net, loss="mse", layers="up.*.weight")
    found = per_sample(target, x, ("loss", "norm", "inner"), reference=mean_gradient)
    cosines = cosine(found, mean_gradient)
    torch.testing.assert_close(found.loss.double(), expected["recon_loss"], **CLOSE)
    torch.testing.assert_close(cosines.mean(1).double(), expected["mean_cosine"], **CLOSE)
    score = gradcon_score(found.loss, cosines, beta=0.12)
    torch.testing.assert_close(score.double(), -expected["score"], **CLOSE)


def test_three_training_steps(reference: Path) -> None:
    path = reference / "gradcon_train_steps_mnist.npz"
    net = ConvAutoencoder(1, 28, 28)
    net.load_state_dict(arrays(path, "init/"))
    target = Target.adopt(net, loss="mse", layers="up.*.weight")
    x = arrays(path)["x_uint8"].unsqueeze(1).float() / 255
    mean = RunningMean(target, "cumulative")
    optimizer = adam(net, learning_rate=1e-3)
    for k, batch in enumerate(x.split(16)):
        losses = step(target, None, batch, mean, optimizer, AS_PUBLISHED)
        torch.testing.assert_close(losses.double(), arrays(path)[f"step{k}/loss_recon_grad"], **CLOSE)
        for name, expected in arrays(path, f"step{k}/ref_grad/").items():
            torch.testing.assert_close(mean.mean()[name], expected, rtol=1e-5, atol=1e-7)
    for name, expected in arrays(path, "final/").items():
        torch.testing.assert_close(net.state_dict()[name], expected, **CLOSE)


@pytest.mark.parametrize("averaged", ["total", "recon"])
def test_a_step_equals_a_double_backward_written_by_hand(averaged: str) -> None:
    torch.manual_seed(0)
    net = ConvAutoencoder(2, 10, 12).double()
    by_hand = ConvAutoencoder(2, 10, 12).double()
    by_hand.load_state_dict(net.state_dict())
    target = Target.adopt(net, loss="mse", layers="up.*.weight")
    plan = TrainingPlan(epochs=1, batch_size=4, learning_rate=1e-3, alpha=0.03, reference=averaged)
    mean = RunningMean(target, "cumulative")
    optimizer = adam(net, learning_rate=1e-3)
    theirs = torch.optim.Adam(by_hand.parameters(), lr=1e-3)
    kernels = [by_hand.up[i].weight for i in (0, 2, 4, 6)]
    sums = [torch.zeros_like(kernel) for kernel in kernels]
    for k in range(1, 4):
        x = torch.rand(4, 2, 10, 12, dtype=torch.float64)
        loss = F.mse_loss(by_hand(x), x)
        gradients = torch.autograd.grad(loss, kernels, create_graph=True)
        aligned = torch.zeros(())
        if k > 1:
            pairs = zip(gradients, sums, strict=True)
            cosines = [(g * s / (k - 1)).sum() / (g.norm() * (s / (k - 1)).norm()) for g, s in pairs]
            aligned = -sum(cosines) / 4
        theirs.zero_grad()
        (loss + 0.03 * aligned).backward()
        for total, kernel, gradient in zip(sums, kernels, gradients, strict=True):
            total += kernel.grad if averaged == "total" else gradient.detach()
        theirs.step()
        losses = step(target, None, x, mean, optimizer, plan)
        torch.testing.assert_close(losses[2], torch.as_tensor(aligned).double(), rtol=1e-6, atol=1e-9)
        assert (losses[2] == 0) == (k == 1)
        for found, total in zip(mean.mean().values(), sums, strict=True):
            torch.testing.assert_close(found, total / k, rtol=1e-6, atol=1e-12)
    for found, expected in zip(net.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


def test_the_cosine_is_over_the_flattened_parameter_not_entry_by_entry() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(5, 4, 3), torch.randn(5, 4, 3)
    expected = (a * b).sum() / (a.norm() * b.norm())
    torch.testing.assert_close(alignment([a], [b]), expected)
    assert abs(expected - torch.sign(a * b).mean()) > 0.01


@pytest.mark.parametrize(
    ("channels", "variational", "count"),
    [(1, False, 230_721), (3, False, 232_771), (1, True, 1_227_777), (3, True, 1_229_827)],
)
def test_parameter_counts_as_published(channels: int, variational: bool, count: int) -> None:
    net = ConvAutoencoder(channels, 28, 28, variational=variational)
    assert sum(p.numel() for p in net.parameters()) == count


def test_decoder_shapes_as_published() -> None:
    net = ConvAutoencoder(1, 28, 28)
    x = net.down(torch.rand(1, 1, 28, 28))
    shapes = [tuple(x.shape[1:])]
    for layer in net.up:
        x = layer(x)
        shapes.append(tuple(x.shape[1:]))
    assert shapes[::2] == [(64, 3, 3), (64, 4, 4), (32, 8, 8), (32, 14, 14), (1, 28, 28)]

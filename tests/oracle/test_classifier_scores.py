"""Scores of classifiers against a gradient a row, by plain autograd."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import norm
from torch import Tensor, nn

from anograd import GradLabels, GradNorm, Target
from anograd.losses import confounding, predicted, uniform


def a_classifier() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
    net.add_module("head", nn.Linear(64, 5))
    net(torch.rand(32, 1, 6, 6))  # gives the batch norm some statistics
    return net.eval()


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).random((60, 1, 6, 6)).astype("float32")


def gradients(net: nn.Module, rows: np.ndarray, loss, names: list[str]) -> list[list[Tensor]]:
    """Return the gradients of the named parameters, one list a row."""
    parameters = dict(net.named_parameters())
    return [
        list(torch.autograd.grad(loss(net(row[None])).sum(), [parameters[name] for name in names]))
        for row in torch.from_numpy(rows)
    ]


def test_gradnorm_is_the_length_of_the_gradient_under_a_uniform_label(images: np.ndarray) -> None:
    net = a_classifier()
    detector = GradNorm(target=Target.adopt(net, loss="uniform", layers="head.weight"), random_state=0)
    detector.fit(images)

    def divergence(logits: Tensor) -> Tensor:
        return F.kl_div(logits.log_softmax(1), torch.full_like(logits, 0.2), reduction="batchmean")

    lengths = [g.abs().sum().item() for (g,) in gradients(net, images, divergence, ["head.weight"])]
    np.testing.assert_allclose(detector.anomaly_score(images), -np.array(lengths), rtol=1e-5)
    probabilities = net(torch.from_numpy(images)).softmax(1).detach().numpy()
    expected = -np.abs(probabilities - 0.2).sum(1)
    np.testing.assert_allclose(detector.twin_score(images), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("labels", "loss"),
    [
        ("confounding", lambda z: F.binary_cross_entropy_with_logits(z, torch.ones_like(z))),
        ("uniform", lambda z: F.kl_div(z.log_softmax(1), torch.full_like(z, 0.2), reduction="batchmean")),
        ("predicted", lambda z: F.cross_entropy(z, z.argmax(1))),
    ],
)
def test_made_up_labels_are_the_density_of_gradient_lengths(images: np.ndarray, labels: str, loss) -> None:
    net = a_classifier()
    names = [name for name, _ in net.named_parameters()]
    detector = GradLabels(labels=labels, target=Target.adopt(net), calibration=0, random_state=0).fit(images)
    found = gradients(net, images, loss, names)
    logs = np.log([[max(g.double().square().sum().item(), 1e-12) for g in row] for row in found])
    # Without rows held out, and with none to choose an epoch by, all rows but a tenth are learned from.
    order = torch.randperm(60, generator=torch.Generator().manual_seed(_seed(0)))
    learned = logs[order[: detector.split_["train"]].numpy()]
    expected = -norm.logpdf(logs, learned.mean(0), np.maximum(learned.std(0), 1e-2)).sum(1)
    np.testing.assert_allclose(detector.anomaly_score(images), expected, rtol=1e-4, atol=1e-4)


def _seed(random_state: int) -> int:
    return int(np.random.default_rng(random_state).integers(2**31 - 1))


def test_losses_of_logits() -> None:
    logits = torch.randn(7, 4, dtype=torch.float64)
    x = torch.zeros(7, 1)
    ones = torch.full_like(logits, 0.25)
    expected = F.kl_div(logits.log_softmax(1), ones, reduction="none").sum(1)
    torch.testing.assert_close(uniform(logits, x), expected)
    torch.testing.assert_close(predicted(logits, x), -logits.log_softmax(1).amax(1))
    torch.testing.assert_close(confounding(logits, x), F.softplus(-logits).mean(1))
    with pytest.raises(ValueError, match=r"shape \(7,\), but this loss reads a classifier's logits"):
        uniform(logits[:, 0], x)


def test_gradnorm_says_which_layer_it_needs(images: np.ndarray) -> None:
    net = a_classifier()
    with pytest.raises(ValueError, match=r"last linear layer, but the last chosen parameter is 'head\.bias'"):
        GradNorm(target=Target.adopt(net), random_state=0).fit(images)


def test_a_classifier_of_clusters_is_trained_where_none_is_given() -> None:
    rng = np.random.default_rng(0)
    centres = 4 * rng.normal(size=(6, 8))
    rows = (centres[rng.integers(6, size=400)] + 0.3 * rng.normal(size=(400, 8))).astype("float32")
    detector = GradLabels(labels="uniform", epochs=30, random_state=0).fit(rows)
    odd = (centres.mean(0) + 0.3 * rng.normal(size=(50, 8))).astype("float32")  # between the clusters
    assert detector.network_["kind"] == "clusters"
    assert np.median(detector.p_values(odd)) < 0.1
    assert np.median(detector.p_values(rows)) > 0.3


def test_known_anomalies_turn_the_density_into_a_regression(images: np.ndarray) -> None:
    net = a_classifier()
    odd = images[:10, :, ::-1] * np.float32(3)
    X, y = np.concatenate([images, odd]), np.repeat([0, 1], [60, 10])
    target = Target.adopt(net)
    without = GradLabels(target=target, random_state=0).fit(images)
    known = GradLabels(target=target, random_state=0).fit(X, y)
    assert known.known_ == 10
    assert known.anomaly_score(odd).min() > np.median(known.anomaly_score(images))
    assert not np.allclose(known.anomaly_score(images), without.anomaly_score(images))

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import anograd as ag
from anograd import GradScoreTest, Target, per_sample, plan
from anograd.rotations import RotationAutoencoder, turned
from anograd.train import seeded


@given(side=st.integers(1, 9), channels=st.integers(1, 3))
@settings(max_examples=20, deadline=None)
def test_turned_by_quarters(side: int, channels: int) -> None:
    x = torch.rand(2, channels, side, side)
    expected = torch.stack([torch.rot90(x, k, (2, 3)) for k in range(4)], dim=1)
    torch.testing.assert_close(turned(x), expected, rtol=0, atol=0)


def a_network(*size: int) -> RotationAutoencoder:
    with seeded(0):
        return RotationAutoencoder(*size).double().eval()


def test_loss_is_error_plus_cross_entropy_of_four_turns() -> None:
    net, x = a_network(2, 10, 10), torch.rand(5, 2, 10, 10, dtype=torch.float64)
    reconstruction, logits = net(x)
    assert logits.shape == (5, 4, 4)
    expected = []
    for i in range(5):
        error = (net.up(net.down(x[i : i + 1])) - x[i]).square().mean()
        told = torch.stack([net(torch.rot90(x[i : i + 1], k, (2, 3)))[1][0, 0] for k in range(4)])
        expected.append(error + F.cross_entropy(told, torch.arange(4)))
    torch.testing.assert_close(net.loss((reconstruction, logits), x), torch.stack(expected))


def test_of_a_wide_image_the_middle_is_turned() -> None:
    net, x = a_network(1, 9, 14), torch.rand(3, 1, 9, 14, dtype=torch.float64)
    other = x.clone()
    other[:, :, :, :2] = other[:, :, :, 11:] = 0
    assert net(x)[0].shape == x.shape
    torch.testing.assert_close(net(x)[1], net(other)[1], rtol=0, atol=0)
    other[:, :, 4, 2] += 1
    assert not torch.allclose(net(x)[1], net(other)[1])


def test_gradients_of_both_heads_follow_rules_and_agree_with_autograd() -> None:
    net, x = a_network(1, 12, 12), torch.rand(3, 1, 12, 12, dtype=torch.float64)
    target = Target.adopt(net, loss=net.loss, layers=["up.0.weight", "head.weight"])
    assert [one.by for one in plan(target, x).served] == ["rule", "rule"]
    found = per_sample(target, x, ("full",)).full
    for row, one in zip(x.split(1), found, strict=True):
        gradients = torch.autograd.grad(net.loss(net(row), row)[0], [net.up[0].weight, net.head.weight])
        torch.testing.assert_close(one, torch.cat([gradient.flatten() for gradient in gradients]))


def test_images_too_small_to_be_told_apart() -> None:
    images = np.random.default_rng(0).random((20, 1, 12, 7), dtype=np.float32)
    with pytest.raises(ValueError, match=r"of 12 x 7 pixels .* which takes 8 x 8: write target='cae'"):
        GradScoreTest(target="rotations", epochs=1).fit(images)
    with pytest.raises(ValueError, match=r"target='rotations' takes images"):
        GradScoreTest(target="rotations", epochs=1).fit(np.zeros((20, 3)))


def bars(n: int, rng: np.random.Generator) -> np.ndarray:
    """Bright in their upper half, more or less."""
    images = rng.random((n, 1, 12, 12), dtype=np.float32) / 3
    images[:, :, :6] += rng.random((n, 1, 1, 1), dtype=np.float32) / 2
    return images


def test_images_upside_down_are_noticed(tmp_path: Path) -> None:
    """To reconstruct them is as easy, or as hard; what is up tells them apart. Saved and loaded alike."""
    rng = np.random.default_rng(0)
    detector = GradScoreTest.for_images(target="rotations", size=256, epochs=20, random_state=0, device="cpu")
    detector.fit(bars(300, rng))
    assert detector.target_.layers == ("up.0.weight", "head.weight")
    new = bars(100, rng)
    scores, fallen = detector.anomaly_score(new), detector.anomaly_score(new[:, :, ::-1].copy())
    assert np.median(fallen) > np.quantile(scores, 0.9)
    detector.save(tmp_path / "model")
    np.testing.assert_array_equal(ag.load(tmp_path / "model").anomaly_score(new), scores)
    explained = detector.explain(new[:3])
    assert explained.part_names == ("loss", "up.0.weight", "head.weight", "inputs")
    assert explained.expected.shape == new[:3].shape

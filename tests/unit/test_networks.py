from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from anograd import Target, per_sample, plan
from anograd.gradients.fallback import vmap_gradients
from anograd.networks import (
    ConvAutoencoder,
    Crop,
    DenseAutoencoder,
    DropoutAutoencoder,
    DropoutConvAutoencoder,
    decoder_sizes,
    fit_padding,
)
from anograd.train import seeded


@given(axis=st.integers(1, 200))
@settings(deadline=None)
def test_paddings_that_torch_accepts_for_every_size(axis: int) -> None:
    sizes = decoder_sizes(axis)
    for small, large in pairwise(sizes):
        padding, output_padding = fit_padding(small, large)
        assert 0 <= padding <= 3
        assert output_padding in (0, 1)
        assert 2 * (small - 1) - 2 * padding + 4 + output_padding == large


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (32, 32), (28, 45), (101, 64)])
@pytest.mark.parametrize("variational", [False, True])
def test_images_come_back_in_their_size(size: tuple[int, int], variational: bool) -> None:
    x = torch.rand(2, 3, *size)
    output = ConvAutoencoder(3, *size, variational=variational)(x)
    if variational:
        output, mean, log_variance = output
        assert mean.shape == log_variance.shape
    assert output.shape == x.shape
    assert output.min() >= 0
    assert output.max() <= 1


def test_the_vae_draws_in_training_and_takes_the_mean_in_evaluation() -> None:
    net, x = ConvAutoencoder(1, 12, 12, variational=True), torch.rand(2, 1, 12, 12)
    assert not torch.equal(net(x)[0], net(x)[0])
    net.eval()
    torch.testing.assert_close(net(x)[0], net(x)[0])


def test_the_dense_decoder_mirrors_the_encoder() -> None:
    net = DenseAutoencoder(7, (5, 2))
    shapes = [tuple(p.shape) for name, p in net.named_parameters() if name.endswith("weight")]
    assert shapes == [(5, 7), (2, 5), (5, 2), (7, 5)]
    assert net(torch.randn(3, 7)).shape == (3, 7)


@pytest.mark.parametrize(
    ("features", "hidden", "count"),
    [(54, (40, 20, 10), 6504), (29, (20, 10, 5), 1754), (122, (40, 20, 10), 12012), (6, (5, 3, 2), 126)],
)
def test_gradients_as_long_as_published(features: int, hidden: tuple[int, ...], count: int) -> None:
    net = DropoutAutoencoder(features, hidden)
    assert sum(p.numel() for p in net.parameters()) == count
    full = per_sample(Target.adopt(net, loss="bce_with_logits"), torch.rand(3, features), ("full",)).full
    assert full.shape == (3, count)


def test_the_dense_code_is_not_dropped() -> None:
    net = DropoutAutoencoder(7, (5, 4, 3))
    step, drop = [nn.Linear, nn.ReLU], [nn.Dropout]
    assert [type(layer) for layer in net.down] == 2 * (step + drop) + step
    assert [type(layer) for layer in net.up] == 2 * (step + drop) + [nn.Linear]
    assert [p.shape[0] for p in net.parameters() if p.ndim == 2] == [5, 4, 3, 4, 5, 7]


def test_the_convolutional_layers_and_sizes_as_published() -> None:
    net = DropoutConvAutoencoder(1, 28, 28)
    assert sum(p.numel() for p in net.parameters()) == 9657
    x, shapes = torch.rand(2, 1, 28, 28), []
    for layer in [*net.down, *net.up]:
        x = layer(x)
        if not isinstance(layer, nn.ReLU | nn.Dropout | nn.Dropout2d):
            shapes.append(tuple(x.shape[1:]))
    assert shapes == [
        (8, 28, 28), (8, 14, 14), (8, 14, 14), (8, 7, 7), (392,), (8,),
        (512,), (8, 8, 8), (8, 17, 17), (8, 16, 16), (8, 14, 14), (1, 29, 29), (1, 28, 28),
    ]  # fmt: skip


@pytest.mark.parametrize("size", [(4, 4), (5, 6), (28, 28), (32, 32), (30, 45)])
@pytest.mark.parametrize("channels", [1, 3])
def test_logits_in_the_size_of_the_image(size: tuple[int, int], channels: int) -> None:
    with seeded(0):
        net, x = DropoutConvAutoencoder(channels, *size, code=32).eval(), torch.rand(2, channels, *size)
    output = net(x)
    assert output.shape == x.shape
    assert output.min() < 0 < output.max()


@pytest.mark.parametrize("size", [(28, 28), (9, 6)])
def test_convolutional_gradients_by_rule_agree_with_vmap(size: tuple[int, int]) -> None:
    with seeded(0):
        target = Target.adopt(DropoutConvAutoencoder(2, *size).double(), loss="bce_with_logits")
        x = torch.rand(4, 2, *size, dtype=torch.float64)
    assert plan(target, x).by("rule") == target.layers
    oracle = vmap_gradients(target, x, target.layers)
    expected = torch.cat([oracle[name].flatten(1) for name in target.layers], 1)
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(per_sample(target, x, ("full",)).full, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("images", [False, True])
def test_dropout_is_on_in_training_alone(images: bool) -> None:
    with seeded(0):
        net = DropoutConvAutoencoder(1, 8, 8, code=32) if images else DropoutAutoencoder(64, (40, 20))
        x = torch.rand(3, 1, 8, 8) if images else torch.rand(3, 64)
        assert not torch.equal(net.train()(x), net(x))
    assert torch.equal(net.eval()(x), net(x))
    kinds = {type(m) for m in net.modules() if "Dropout" in type(m).__name__ and not list(m.children())}
    assert nn.Dropout in kinds
    assert (nn.Dropout2d in kinds) == images


def test_kernels_start_as_in_keras() -> None:
    with seeded(0):
        net = DropoutConvAutoencoder(3, 28, 28)
    for name, p in net.named_parameters():
        if p.ndim == 1:
            assert not p.any(), name
        else:
            limit = math.sqrt(6 / ((p.shape[0] + p.shape[1]) * p[0, 0].numel()))
            assert 0.95 * limit < p.abs().max() <= limit, name


def test_a_crop_keeps_the_upper_left_part() -> None:
    x = torch.arange(20).reshape(1, 1, 4, 5)
    assert torch.equal(Crop(2, 3)(x), x[:, :, :2, :3])

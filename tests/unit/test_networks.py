from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anograd.networks import ConvAutoencoder, DenseAutoencoder, decoder_sizes, fit_padding


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

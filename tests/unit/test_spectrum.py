"""Variances and directions of features against numpy, whole and from a sample."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from anograd import spectrum as module
from anograd.spectrum import spectrum
from anograd.train import seeded

CPU = torch.device("cpu")
with seeded(0):
    FEATURES = torch.randn(50, 6, dtype=torch.float64) @ torch.randn(6, 6, dtype=torch.float64) + 3


def agrees(found: tuple[Tensor, Tensor, Tensor], rows: Tensor, centred: bool) -> None:
    """Variances, descending, along orthonormal directions, which together make up the second moments."""
    variance, axes, mean = found
    x = rows.numpy()
    moments = np.cov(x.T, bias=True) if centred else x.T @ x / len(x)
    np.testing.assert_allclose(mean, x.mean(0), rtol=1e-12)
    assert (variance >= 0).all()
    assert (variance.diff() <= 0).all()
    np.testing.assert_allclose(axes.T @ axes, np.eye(axes.shape[1]), atol=1e-9)
    np.testing.assert_allclose(axes * variance @ axes.T, moments, atol=1e-9 * abs(moments).max())
    assert {one.dtype for one in found} == {torch.float64}


@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(1, 49), max_size=6, unique=True), centred=st.booleans())
def test_pieces_give_the_spectrum_of_all_rows(cuts: list[int], centred: bool) -> None:
    found = spectrum(torch.tensor_split(FEATURES, sorted(cuts)), 6, CPU, centred=centred)
    agrees(found, FEATURES, centred)


def test_it_is_centred_unless_told_otherwise() -> None:
    torch.testing.assert_close(spectrum([FEATURES], 6, CPU), spectrum([FEATURES], 6, CPU, centred=True))


@pytest.mark.parametrize("centred", [True, False])
def test_of_many_features_the_first_rows_count(centred: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_FEATURES", 5)
    monkeypatch.setattr(module, "SAMPLE", 17)
    drawn = []

    def pieces():
        for piece in FEATURES.split(10):
            drawn.append(len(piece))
            yield piece

    found = spectrum(pieces(), 6, CPU, centred=centred)
    agrees(found, FEATURES[:17], centred)
    assert drawn == [10, 10]  # no more is read than is wanted


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("most", [5, 6])
@pytest.mark.parametrize("rows", [1, 2, 3])
def test_few_rows_are_all_directions_there_are(
    rows: int, most: int, centred: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_FEATURES", most)
    found = spectrum(FEATURES[:rows].split(1), 6, CPU, centred=centred)
    assert found[0].shape == (rows,)
    assert found[1].shape == (6, rows)
    agrees(found, FEATURES[:rows], centred)


def test_as_many_rows_as_features_nearly() -> None:
    found = spectrum(FEATURES[:5].split(2), 6, CPU)
    assert found[0].shape == (6,)
    agrees(found, FEATURES[:5], True)


def test_constant_features_have_no_variance() -> None:
    variance, _, mean = spectrum([torch.full((20, 3), 0.5)], 3, CPU)
    assert variance.tolist() == [0, 0, 0]
    assert mean.tolist() == [0.5, 0.5, 0.5]


def test_single_precision_is_summed_in_double() -> None:
    rows = FEATURES.float()
    variance, _, mean = spectrum(rows.split(1), 6, CPU)
    exact = spectrum([rows.double()], 6, CPU)
    torch.testing.assert_close(variance, exact[0], rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(mean, exact[2], rtol=1e-12, atol=0)

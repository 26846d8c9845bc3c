"""Operations written out for ONNX give what PyTorch's own give."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from anograd import Sketch, Target, per_sample, plan
from anograd.onnx.file import count_below
from anograd.onnx.operations import DECOMPOSITIONS
from anograd.onnx.passes import check_rules, one_pass, projections

aten = torch.ops.aten
numbers = st.integers


@settings(max_examples=40, deadline=None)
@given(
    kernel=numbers(1, 3), stride=numbers(1, 3), padding=numbers(0, 1), dilation=numbers(1, 2),
    groups=st.sampled_from([1, 2]), transposed=st.booleans(), extra=numbers(0, 1), axes=numbers(1, 2),
)  # fmt: skip
def test_convolution_and_its_backward(kernel, stride, padding, dilation, groups, transposed, extra, axes):
    padding, extra = min(padding, kernel - 1), min(extra, max(stride, dilation) - 1) if transposed else 0
    draw = torch.Generator().manual_seed(0)
    sides = (7, 6)[:axes]
    x = torch.randn(3, 4, *sides, generator=draw, dtype=torch.float64).requires_grad_()
    weight = torch.randn(4, 4 // groups, *(kernel,) * axes, generator=draw, dtype=torch.float64)
    bias = torch.randn(4 // groups * groups, generator=draw, dtype=torch.float64)
    named = ([stride], [padding], [dilation], transposed, [extra], groups)
    expected = aten.convolution(x, weight, bias, *named)
    found = DECOMPOSITIONS[aten.convolution.default](x, weight, bias, *named)
    torch.testing.assert_close(found, expected)
    d = torch.randn(expected.shape, generator=draw, dtype=torch.float64)
    (slope,) = torch.autograd.grad(expected, x, d)
    back = DECOMPOSITIONS[aten.convolution_backward.default]
    torch.testing.assert_close(back(d, x, weight, None, *named, (True, False, False))[0], slope)


@settings(max_examples=20, deadline=None)
@given(groups=st.sampled_from([1, 2, 3, 6]), axes=numbers(0, 2), affine=st.booleans())
def test_group_norm(groups, axes, affine):
    draw = torch.Generator().manual_seed(2)
    x = 3 + torch.randn(4, 6, *(5, 3)[:axes], generator=draw, dtype=torch.float64)
    weight, bias = (torch.randn(6, generator=draw, dtype=torch.float64) if affine else None for _ in range(2))
    named = (4, 6, x[0, 0].numel(), groups, 1e-3)
    expected = aten.native_group_norm(x, weight, bias, *named)
    found = DECOMPOSITIONS[aten.native_group_norm.default](x, weight, bias, *named)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


@settings(max_examples=40, deadline=None)
@given(
    kernel=numbers(1, 3), stride=numbers(1, 3), padding=numbers(0, 1), dilation=numbers(1, 2),
    ceil_mode=st.booleans(), tied=st.booleans(),
)  # fmt: skip
def test_max_pooling_and_its_backward(kernel, stride, padding, dilation, ceil_mode, tied):
    named = ([kernel], [stride], [min(padding, kernel // 2)], [dilation], ceil_mode)
    x = torch.randn(2, 3, 8, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = (x.round() if tied else x).requires_grad_()
    expected, places = aten.max_pool2d_with_indices(x, *named)
    found, _ = DECOMPOSITIONS[aten.max_pool2d_with_indices.default](x, *named)
    torch.testing.assert_close(found, expected)
    d = torch.arange(expected.numel(), dtype=torch.float64).reshape(expected.shape)
    (slope,) = torch.autograd.grad(expected, x, d)
    back = DECOMPOSITIONS[aten.max_pool2d_with_indices_backward.default]
    torch.testing.assert_close(back(d, x, *named, places), slope)


@settings(max_examples=60, deadline=None)
@given(
    size=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    kind=st.sampled_from(["nearest", "nearest-exact", "linear"]),
    align=st.booleans(),
    factor=st.sampled_from([0.5, 1.5, 2.0, 2.7, None]),
)
def test_upsampling_and_its_backward(size, kind, align, factor):
    axes = len(size)
    linear = kind == "linear"
    mode = ("linear", "bilinear", "trilinear")[axes - 1] if linear else kind
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    given = {"size": [7] * axes} if factor is None else {"scale_factor": factor}
    assume(factor is None or min(size) * factor >= 1)
    x.requires_grad_()
    expected = nn.functional.interpolate(x, mode=mode, align_corners=align if linear else None, **given)
    d = torch.arange(expected.numel(), dtype=torch.float64).reshape(expected.shape)
    (slope,) = torch.autograd.grad(expected, x, d)
    name = f"upsample_{mode}{axes}d" if kind != "nearest-exact" else f"_upsample_nearest_exact{axes}d"
    named = (expected.shape[2:], x.shape, *([align] if linear else []), *[factor] * axes)
    found = DECOMPOSITIONS[getattr(aten, name).default](x, named[0], *named[2:])
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(DECOMPOSITIONS[getattr(aten, name + "_backward").default](d, *named), slope)


@given(st.lists(st.floats(-9, 9), min_size=1, max_size=40), st.lists(st.floats(allow_nan=False), max_size=9))
def test_count_below_is_searchsorted(ordered, values):
    ordered = np.sort(np.array(ordered))
    values = np.concatenate([np.array(values), ordered])
    found = count_below(torch.from_numpy(ordered), torch.from_numpy(values))
    assert found.tolist() == np.searchsorted(ordered, values, side="left").tolist()


class Twice(nn.Module):
    """A layer that is called twice, and one that is not called."""

    def __init__(self):
        super().__init__()
        self.inner, self.idle = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return self.inner(torch.tanh(self.inner(x)))


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.LayerNorm(3), nn.Linear(3, 4)), (4,)),
        (nn.Sequential(nn.Conv2d(2, 4, 3, 2, 1, groups=2), nn.ConvTranspose2d(4, 2, 2, 2)), (2, 4, 4)),
        (nn.Sequential(nn.Conv1d(2, 4, 3, padding=1), nn.BatchNorm1d(4), nn.Conv1d(4, 2, 1)), (2, 9)),
        (Twice(), (4,)),
    ],
)  # fmt: skip
def test_one_pass_finds_what_per_sample_finds(network, shape):
    target = Target.adopt(network.double())
    x = torch.randn(5, *shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    reference = {name: torch.randn_like(p) for name, p in target.parameters().items()}
    want = ("loss", "norm", "inner", "full", "sketch")
    expected = per_sample(target, x, want, reference=reference, sketch=Sketch(4))
    planned = check_rules(plan(target, x))
    drawn = projections(target, Sketch(4))
    together = one_pass(target, planned, x, want, reference=reference, sketch=drawn)
    for name in want:
        torch.testing.assert_close(getattr(together, name), getattr(expected, name))
    for name in ("norm", "inner", "sketch"):  # and where gradients need not be built
        alone = one_pass(target, planned, x, ("loss", name), reference=reference, sketch=drawn)
        torch.testing.assert_close(getattr(alone, name), getattr(expected, name))
    one = one_pass(target, planned, x, ("loss", "full"), unit=True).full
    sizes = [p.numel() for p in target.parameters().values()]
    lengths = torch.stack([part.norm(dim=1) for part in one.split(sizes, dim=1)], 1)
    assert ((lengths - 1).abs() < 1e-9).logical_or(lengths == 0).all()


def test_padding_is_as_many_zeros():
    d = torch.ones(2, 3, 4)
    found = DECOMPOSITIONS[aten.slice_backward.default](d, [2, 6, 4], 1, 1, 4, 1)
    torch.testing.assert_close(found, F.pad(d, (0, 0, 1, 2)))

"""Every rule against ``vmap(grad)`` and, where it has the layer, Opacus: float64, to 1e-9."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from anograd import Sketch, Target, per_sample, plan
from anograd.gradients import layers
from anograd.gradients.fallback import vmap_gradients
from anograd.represent import cosine

CLOSE = {"rtol": 1e-9, "atol": 1e-9}
EVERYTHING = ("loss", "norm", "inner", "weighted", "full", "sketch")
SEEDS = st.integers(0, 2**31)


def squared(output: Tensor, x: Tensor) -> Tensor:
    """A loss that no layer's output leaves untouched."""
    return (output.flatten(1).square() * torch.linspace(0.5, 1.5, output[0].numel(), dtype=output.dtype)).sum(
        1
    )


def agrees_with_vmap(module: nn.Module, x: Tensor, *, by: str = "rule", size: int = 6) -> None:
    module = module.double()
    target = Target.adopt(module, loss=squared)
    planned = plan(target, x)
    assert {one.by for one in planned.served} == {by}, str(planned)

    oracle = vmap_gradients(target, x, target.layers)
    full = torch.cat([oracle[name].flatten(1) for name in target.layers], dim=1)
    norm = torch.stack([oracle[name].flatten(1).norm(dim=1) for name in target.layers], dim=1)
    reference = {name: torch.randn_like(p) for name, p in target.parameters().items()}
    inner = torch.stack(
        [oracle[name].flatten(1) @ reference[name].flatten() for name in target.layers], dim=1
    )
    weight = {name: torch.rand_like(p) for name, p in target.parameters().items()}
    weighted = torch.stack(
        [oracle[name].flatten(1).square() @ weight[name].flatten() for name in target.layers], dim=1
    )
    sketch = Sketch(size=size, seed=3)
    sketched = torch.cat([sketch_of(sketch, name, oracle[name]) for name in target.layers], dim=1)

    found = per_sample(target, x, EVERYTHING, reference=reference, weight=weight, sketch=sketch)
    torch.testing.assert_close(found.full, full, **CLOSE)
    torch.testing.assert_close(found.weighted, weighted, **CLOSE)
    torch.testing.assert_close(found.loss, squared(module.eval()(x), x).detach(), **CLOSE)
    # Without "full" the other reductions take their own ways, which never build the gradient.
    ways = (("norm", "inner", "sketch"), ("inner", "sketch"), ("norm",), ("inner", "weighted"), ("weighted",))
    for want in ways:
        found = per_sample(target, x, want, reference=reference, weight=weight, sketch=sketch)
        if "norm" in want:
            # The length comes from its square: 1e-9 holds for the square.
            torch.testing.assert_close(found.norm.square(), norm.square(), **CLOSE)
        if "inner" in want:
            torch.testing.assert_close(found.inner, inner, **CLOSE)
        if "weighted" in want:
            torch.testing.assert_close(found.weighted, weighted, **CLOSE)
        if "sketch" in want:
            torch.testing.assert_close(found.sketch, sketched, **CLOSE)


def agrees_with_opacus(module: nn.Module, x: Tensor) -> None:
    """All four quantities against Opacus' stored gradients."""
    opacus = pytest.importorskip("opacus.grad_sample")
    module = module.double()
    target = Target.adopt(module, loss=squared)
    reference = {name: torch.randn_like(p) for name, p in target.parameters().items()}
    sketch = Sketch(size=6, seed=3)
    found = per_sample(target, x, ("full",))
    reduced = per_sample(target, x, ("norm", "inner", "sketch"), reference=reference, sketch=sketch)
    # A module that Opacus serves has to be a child of what it wraps.
    wrapped = opacus.GradSampleModule(nn.Sequential(copy.deepcopy(module)), loss_reduction="sum")
    squared(wrapped(x), x).sum().backward()
    theirs = [p.grad_sample for p in wrapped.parameters()]
    torch.testing.assert_close(found.full, torch.cat([g.flatten(1) for g in theirs], dim=1), **CLOSE)
    for i, (name, g) in enumerate(zip(target.layers, theirs, strict=True)):
        torch.testing.assert_close(reduced.norm[:, i].square(), g.flatten(1).square().sum(1), **CLOSE)
        torch.testing.assert_close(reduced.inner[:, i], g.flatten(1) @ reference[name].flatten(), **CLOSE)
    sketched = [sketch_of(sketch, name, g) for name, g in zip(target.layers, theirs, strict=True)]
    torch.testing.assert_close(reduced.sketch, torch.cat(sketched, dim=1), **CLOSE)


def sketch_of(sketch: Sketch, name: str, gradient: Tensor) -> Tensor:
    """P G Q' of full gradients (n, *shape), written with dense matrices."""
    n, r = gradient.shape[:2]
    matrix = gradient.reshape(n, r, -1)
    p, q = sketch.projections(name, gradient[0])
    p = torch.eye(r, dtype=matrix.dtype) if p is None else p
    q = torch.eye(matrix.shape[2], dtype=matrix.dtype) if q is None else q
    return torch.einsum("pr,nrc,qc->npq", p, matrix, q).flatten(1)


@given(n=st.integers(1, 5), i=st.integers(1, 6), o=st.integers(1, 6), bias=st.booleans(),
       positions=st.lists(st.integers(1, 7), max_size=2), size=st.integers(1, 40), seed=SEEDS)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_linear(n: int, i: int, o: int, bias: bool, positions: list[int], size: int, seed: int) -> None:
    torch.manual_seed(seed)
    agrees_with_vmap(
        nn.Linear(i, o, bias=bias), torch.randn(n, *positions, i, dtype=torch.float64), size=size
    )


CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[nn.Module, tuple[int, ...]]:
    axes = draw(st.integers(1, 3))
    groups = draw(st.integers(1, 3))

    def each(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw(st.integers(low, high)) for _ in range(axes))

    kernel, dilation = each(1, 3), each(1, 2)
    mode = draw(st.sampled_from(["zeros", "zeros", "reflect", "replicate", "circular"]))
    padding: str | tuple[int, ...] = each(0, 2)
    stride = each(1, 3)
    if draw(st.booleans()):
        padding, stride = draw(st.sampled_from(["same", "valid"])), (1,) * axes
    size = tuple(s + d * (k - 1) + 3 for k, d, s in zip(kernel, dilation, each(0, 3), strict=True))
    layer = CONV[axes](groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 3)), kernel, stride,
                       padding, dilation, groups, draw(st.booleans()), mode)  # fmt: skip
    return layer, (layer.in_channels, *size)


def limits(name: str, **values: int) -> Any:
    """Return a fixture that lets a limit of the rules be each of these, so that both ways are taken."""

    @pytest.fixture(scope="module", params=values.values(), ids=values.keys())
    def limit(request: pytest.FixtureRequest) -> Iterator[int]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(layers, name, request.param)
            yield request.param

    return limit


# Kernel gradients of a row with few windows are a product, of one with many a convolution.
windows = limits("MOST_WINDOWS", few_windows=2**18, many_windows=0)
# Norm layers' inputs are normalised anew a few rows at a time.
normalised_at_once = limits("NORMALISED", all_at_once=2**17, row_by_row=1)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.usefixtures("windows")
@given(layer=convolutions(), n=st.integers(1, 3), size=st.integers(1, 30), seed=SEEDS)
@settings(max_examples=60, deadline=None)
def test_convolution(layer: tuple[nn.Module, tuple[int, ...]], n: int, size: int, seed: int) -> None:
    torch.manual_seed(seed)
    agrees_with_vmap(layer[0], torch.randn(n, *layer[1], dtype=torch.float64), size=size)


@st.composite
def transposed_convolutions(draw: st.DrawFn) -> tuple[nn.Module, tuple[int, ...]]:
    axes = draw(st.integers(1, 3))
    groups = draw(st.integers(1, 3))

    def each(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw(st.integers(low, high)) for _ in range(axes))

    kernel, stride, dilation = each(1, 4), each(1, 3), each(1, 2)
    padding = tuple(draw(st.integers(0, d * (k - 1) // 2)) for k, d in zip(kernel, dilation, strict=True))
    output_padding = tuple(draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True))
    before, after = groups * draw(st.integers(1, 3)), groups * draw(st.integers(1, 2))
    bias = draw(st.booleans())
    layer = TRANSPOSED[axes](before, after, kernel, stride, padding, output_padding, groups, bias, dilation)
    return layer, (layer.in_channels, *each(1, 4))


@pytest.mark.usefixtures("windows")
@given(layer=transposed_convolutions(), n=st.integers(1, 3), size=st.integers(1, 30), seed=SEEDS)
@settings(max_examples=60, deadline=None)
def test_transposed_convolution(
    layer: tuple[nn.Module, tuple[int, ...]], n: int, size: int, seed: int
) -> None:
    torch.manual_seed(seed)
    agrees_with_vmap(layer[0], torch.randn(n, *layer[1], dtype=torch.float64), size=size)


@pytest.mark.usefixtures("normalised_at_once")
@given(
    n=st.integers(1, 4), channels=st.integers(1, 4), grid=st.lists(st.integers(1, 4), max_size=3), seed=SEEDS
)
@settings(max_examples=40, deadline=None)
def test_batch_norm(n: int, channels: int, grid: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    layer = {0: nn.BatchNorm1d, 1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[len(grid)](channels)
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.running_mean)
    nn.init.uniform_(layer.running_var, 0.5, 2)
    layer.train()  # scored in evaluation mode all the same
    agrees_with_vmap(layer, torch.randn(n, channels, *grid, dtype=torch.float64), size=2)


@pytest.mark.usefixtures("normalised_at_once")
@given(n=st.integers(1, 4), shape=st.lists(st.integers(1, 4), min_size=1, max_size=3),
       normalised=st.integers(1, 3), bias=st.booleans(), seed=SEEDS)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_layer_norm(n: int, shape: list[int], normalised: int, bias: bool, seed: int) -> None:
    torch.manual_seed(seed)
    layer = nn.LayerNorm(shape[-min(normalised, len(shape)) :], bias=bias)
    nn.init.normal_(layer.weight)
    agrees_with_vmap(layer, torch.randn(n, *shape, dtype=torch.float64), size=3)


@pytest.mark.usefixtures("normalised_at_once")
@given(n=st.integers(1, 4), groups=st.integers(1, 3), each=st.integers(1, 3),
       grid=st.lists(st.integers(2, 4), min_size=1, max_size=2), seed=SEEDS)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_group_norm(n: int, groups: int, each: int, grid: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    layer = nn.GroupNorm(groups, groups * each)
    nn.init.normal_(layer.weight)
    agrees_with_vmap(layer, torch.randn(n, groups * each, *grid, dtype=torch.float64) * 3, size=3)


@pytest.mark.parametrize("layer", [nn.LayerNorm(4), nn.GroupNorm(2, 4), nn.BatchNorm1d(4)], ids=str)
def test_a_norm_of_no_position(layer: nn.Module) -> None:
    class Rest(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.rest = nn.Linear(4, 4), layer

        def forward(self, x: Tensor) -> Tensor:
            rest = x[:, 2:]
            rest = self.rest(rest) if isinstance(layer, nn.LayerNorm) else self.rest(rest.mT).mT
            return torch.cat([self.first(x[:, :2]), rest], 1)

    torch.manual_seed(0)
    module = Rest().double()
    agrees_with_vmap(module, torch.randn(3, 5, 4, dtype=torch.float64))
    found = per_sample(Target.adopt(module, loss=squared), torch.randn(3, 2, 4, dtype=torch.float64), "norm")
    assert (found.norm[:, 2:] == 0).all()
    assert (found.norm[:, :2] > 0).all()


@given(n=st.integers(1, 4), entries=st.integers(1, 6), width=st.integers(1, 5), padding=st.booleans(),
       positions=st.lists(st.integers(1, 5), max_size=2), size=st.integers(1, 30), seed=SEEDS)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_embedding(
    n: int, entries: int, width: int, padding: bool, positions: list[int], size: int, seed: int
) -> None:
    torch.manual_seed(seed)
    layer = nn.Embedding(entries, width, padding_idx=entries - 1 if padding else None)
    agrees_with_vmap(layer, torch.randint(entries, (n, *positions)), size=size)


def test_an_in_place_activation_after_a_layer() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(inplace=True), nn.Linear(3, 4), nn.ReLU(inplace=True))
    agrees_with_vmap(net, torch.randn(6, 4, dtype=torch.float64))


@pytest.mark.parametrize("positions", [(1,), (3,), (2, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_an_in_place_activation_after_a_layer_of_positions(positions: tuple[int, ...], bias: bool) -> None:
    """There the output is a view, which leaves the graph when it is written to."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 3, bias=bias), nn.ReLU(inplace=True), nn.Linear(3, 4))
    agrees_with_vmap(net, torch.randn(5, *positions, 4, dtype=torch.float64))


def test_an_output_that_is_written_to_in_part() -> None:
    class Blanks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            hidden = self.layer(x)
            hidden[:, 0] = 0
            return hidden

    torch.manual_seed(0)
    agrees_with_vmap(Blanks(), torch.randn(5, 3, 4, dtype=torch.float64))


class Tied(nn.Module):
    """Encoder and decoder that share one weight, as a parameter of two modules."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(4, 4)
        self.decoder = nn.Linear(4, 4)
        self.decoder.weight = self.encoder.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(torch.tanh(self.encoder(x)))


class TiedBehindTheBack(nn.Module):
    """The decoder uses the encoder's weight without calling its module."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.encoder(x)) @ self.encoder.weight


class CalledTwice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv1d(2, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(torch.tanh(self.layer(x)))


@pytest.mark.parametrize("net", [Tied(), CalledTwice()], ids=["tied", "called twice"])
def test_shared_parameters_add_up(net: nn.Module) -> None:
    torch.manual_seed(0)
    x = torch.randn(5, 4) if isinstance(net, Tied) else torch.randn(5, 2, 6)
    agrees_with_vmap(net, x.double())


def test_a_weight_used_behind_its_layers_back_is_noticed() -> None:
    torch.manual_seed(0)
    net = TiedBehindTheBack().double()
    target = Target.adopt(net, loss=squared)
    x = torch.randn(5, 4).double()
    assert [one.by for one in plan(target, x).served] == ["vmap", "rule"]
    assert "also used outside its layer" in str(plan(target, x))
    oracle = vmap_gradients(target, x, target.layers)
    full = torch.cat([oracle[name].flatten(1) for name in target.layers], dim=1)
    torch.testing.assert_close(per_sample(target, x, ("full",)).full, full, **CLOSE)


def test_rows_that_are_not_first_are_noticed() -> None:
    """A transformer that takes (time, rows, features): a batch as long as the series must not fool us."""
    torch.manual_seed(0)

    class TimeFirst(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x.transpose(0, 1)).transpose(0, 1)

    target = Target.adopt(TimeFirst().double(), loss=squared)
    x = torch.randn(4, 4, 3).double()
    assert {one.by for one in plan(target, x).served} == {"vmap"}
    oracle = vmap_gradients(target, x, target.layers)
    torch.testing.assert_close(
        per_sample(target, x).norm[:, 0], oracle["layer.weight"].flatten(1).norm(dim=1), **CLOSE
    )


@st.composite
def layers_of_opacus(draw: st.DrawFn) -> tuple[nn.Module, Tensor]:
    """A layer that both have, and rows for it."""
    torch.manual_seed(draw(SEEDS))
    n = draw(st.integers(1, 4))
    kind = draw(st.sampled_from(["linear", "convolution", "layer norm", "group norm", "embedding"]))
    grid = draw(st.lists(st.integers(2, 5), min_size=1, max_size=2))
    if kind == "linear":
        i, o = draw(st.integers(1, 5)), draw(st.integers(1, 5))
        return nn.Linear(i, o, bias=draw(st.booleans())), torch.randn(n, *grid, i, dtype=torch.float64)
    if kind == "convolution":
        layer, shape = draw(convolutions().filter(lambda drawn: drawn[0].padding_mode == "zeros"))
        return layer, torch.randn(n, *shape, dtype=torch.float64)
    if kind == "layer norm":
        layer = nn.LayerNorm(grid)
    elif kind == "group norm":
        groups = draw(st.integers(1, 3))
        layer, grid = nn.GroupNorm(groups, 2 * groups), [2 * groups, *grid]
    else:
        entries = draw(st.integers(1, 6))
        return nn.Embedding(entries, draw(st.integers(1, 5))), torch.randint(entries, (n, *grid))
    nn.init.normal_(layer.weight)
    return layer, torch.randn(n, *grid, dtype=torch.float64)


@pytest.mark.filterwarnings("ignore:Full backward hook is firing", "ignore:Using padding='same' with even")
@given(drawn=layers_of_opacus())
@settings(max_examples=100, deadline=None)
def test_agrees_with_opacus(drawn: tuple[nn.Module, Tensor]) -> None:
    agrees_with_opacus(*drawn)


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
def test_agrees_with_opacus_on_a_whole_network() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3, 2, 1), nn.GroupNorm(2, 4), nn.ReLU(), nn.Conv2d(4, 2, 2),
        nn.Flatten(), nn.Linear(18, 5), nn.LayerNorm(5), nn.Tanh(), nn.Linear(5, 3),
    )  # fmt: skip
    agrees_with_opacus(net, torch.randn(6, 2, 8, 8, dtype=torch.float64))


class Alike(nn.Module):
    """Two inputs go through one network, and what counts is how far apart they come out."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(16, 12)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x[:, 0]) - self.inner(x[:, 1])


class Words(nn.Module):
    """The mean of the words looked up, of which some stand there with both signs."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(9, 16), nn.Linear(16, 12)

    def forward(self, x: Tensor) -> Tensor:
        signs = 1.0 - 2.0 * (torch.arange(x.shape[1]) % 2)
        return self.head((self.table(x.long()) * signs[:, None]).sum(1))


@pytest.mark.parametrize(
    ("net", "moved"),
    [
        (nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 12)), True),
        (nn.Sequential(nn.Conv1d(6, 40, 3, padding=1, groups=2), nn.Tanh(), nn.Conv1d(40, 6, 1)), True),
        (Alike(), True),
        (Words(), False),
    ],
    ids=["positions", "convolution", "shared", "words"],
)
def test_a_length_of_what_cancels_is_that_of_the_sum(net: nn.Module, moved: bool) -> None:
    """Rows whose positions hardly differ, where a loss reads differences: little is left of large squares."""
    torch.manual_seed(0)
    for p in net.parameters():
        nn.init.normal_(p, std=0.3)
    apart = torch.tensor([1.0, 1e-1, 1e-2, 3e-3, 1e-3, 3e-4])[:, None, None]
    x = (
        (torch.randn(6, 1, 16) + apart * torch.randn(6, 6, 16))
        if moved
        else torch.tensor([[3, 3, 4, 4, 5, 1]])
    )

    def differing(output: Tensor, x: Tensor) -> Tensor:
        steps = output[:, 1:] - output[:, :-1] if output.ndim == 3 else output
        return steps.abs().flatten(1).sum(1)

    target = Target.adopt(net, layers="*.weight", loss=differing)
    reference = {name: torch.randn_like(p) for name, p in target.parameters().items()}
    built = per_sample(target, x, ("full", "norm")).norm
    found = per_sample(target, x, ("norm", "inner"), reference=reference)
    torch.testing.assert_close(found.norm, built, rtol=2e-3, atol=1e-9)
    exact = per_sample(
        Target.adopt(copy.deepcopy(net).double(), layers="*.weight", loss=differing), x.double(), "norm"
    ).norm
    torch.testing.assert_close(found.norm[:4].double(), exact[:4], rtol=1e-3, atol=0)
    assert cosine(found, reference).abs().max() <= 1

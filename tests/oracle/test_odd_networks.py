"""Networks that do more than call one layer after the other, against autograd on the network itself."""

from __future__ import annotations

import ctypes
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.checkpoint import DefaultDeviceType, checkpoint

from anograd import Sketch, Target, per_sample, plan

X = torch.randn(7, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def squares(output: Tensor, x: Tensor) -> Tensor:
    return (output.flatten(1).square() * torch.linspace(0.5, 1.5, output[0].numel(), dtype=x.dtype)).sum(1)


def agrees(net: nn.Module, x: Tensor = X, loss: Callable[[Tensor, Tensor], Tensor] = squares) -> Target:
    """Assert that gradients are autograd's, row by row, and that network and rows stay as they were."""
    target = Target.adopt(net, loss=loss)
    held = {name: id(p) for name, p in net.named_parameters(remove_duplicate=False)}
    before = {name: value.clone() for name, value in net.state_dict().items()}
    given = x.clone()
    found = per_sample(target, x, ("full", "norm"))
    assert held == {name: id(p) for name, p in net.named_parameters(remove_duplicate=False)}
    for name, value in net.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    torch.testing.assert_close(x, given, rtol=0, atol=0, equal_nan=True)
    rows = []
    for row in given.split(1):
        net.load_state_dict(before)  # which the network's own pass may write over
        own = list(target.parameters().values())
        alone = torch.autograd.grad(loss(net(row.clone()), row).sum(), own, materialize_grads=True)
        dense = [d.to_dense() if d.is_sparse else d for d in alone]
        rows.append([torch.view_as_real(d) if d.is_complex() else d for d in dense])
    expected = torch.stack([torch.cat([d.flatten() for d in row]) for row in rows])
    torch.testing.assert_close(found.full, expected, rtol=1e-9, atol=1e-11)
    lengths = torch.stack([torch.stack([d.norm() for d in row]) for row in rows])
    torch.testing.assert_close(found.norm, lengths, rtol=1e-9, atol=1e-11)
    return target


def served(target: Target, x: Tensor = X) -> dict[str, str]:
    return {one.name: one.by for one in plan(target, x).served}


class TwoNames(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)
        self.chain = nn.Sequential(self.inner, nn.Tanh(), self.inner, nn.BatchNorm1d(4))
        self.norm = self.chain[3]

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.chain(x))


def test_a_module_with_two_names_keeps_its_parameters() -> None:
    agrees(TwoNames().double().eval())


class Sorted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inside, self.outside = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        order = x[:, 0].argsort()
        hidden = self.inside(x[order]).clamp(-1, 1)  # beyond which nothing passes on
        return self.outside(torch.empty_like(hidden).index_copy(0, order, hidden))


SATURATED = torch.tensor([[900.0], [5], [-4]], dtype=torch.float64) * torch.ones(4, dtype=torch.float64)


@pytest.mark.parametrize("x", [X, X[X[:, 0].argsort()], X[X[:, 0].argsort(descending=True)], SATURATED])
def test_rows_sorted_inside_a_network(x: Tensor) -> None:
    target = agrees(Sorted().double(), x)
    by = served(target, x)
    assert by["inside.weight"] != "rule"
    assert by["outside.weight"] == "rule"


class Experts(nn.Module):
    """Each row goes through one of two layers, one of which the first rows may not need."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        chosen, output = x[:, 0] > 0, torch.zeros_like(x)
        output[chosen] = self.one(x[chosen])
        if not chosen.all():
            output[~chosen] = self.other(x[~chosen])
        return output


@pytest.mark.parametrize("first", [0, 2, 6])
def test_rows_that_go_different_ways(first: int) -> None:
    x = X.clone()
    x[:first, 0] = x[:first, 0].abs() + 0.1
    x[first, 0] = -1
    agrees(Experts().double(), x)
    for layers in ("one.*", "other.*"):
        target = Target.adopt(Experts().double(), loss=squares, layers=layers)
        idle = (x[:, 0] > 0) == (layers == "other.*")
        torch.testing.assert_close(per_sample(target, x).norm[:, 0] == 0, idle)


class Checkpointed(nn.Module):
    def __init__(self, kind: type[nn.Module], reentrant: bool = False) -> None:
        super().__init__()
        self.first, self.last, self.reentrant = nn.Linear(4, 6), nn.Linear(6, 4), reentrant
        self.inside = (
            nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6)) if kind is nn.Linear else None
        )
        self.recurrent = nn.LSTM(6, 6, batch_first=True) if kind is nn.LSTM else None

    def _inside(self, x: Tensor) -> Tensor:
        if self.recurrent is not None:
            return self.recurrent(x[:, None].repeat(1, 3, 1))[0].sum(1)
        assert self.inside is not None
        return self.inside(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(checkpoint(self._inside, self.first(x), use_reentrant=self.reentrant))


@pytest.fixture
def without_another_device() -> Iterator[None]:
    """Keep checkpoints from asking the pretended device for its random numbers."""
    before = DefaultDeviceType.get_device_type()
    DefaultDeviceType.set_device_type("cpu")
    yield
    DefaultDeviceType.set_device_type(before)


@pytest.mark.usefixtures("without_another_device")
@pytest.mark.parametrize("kind", [nn.Linear, nn.LSTM])
def test_checkpoints_that_run_layers_again(kind: type[nn.Module]) -> None:
    target = agrees(Checkpointed(kind).double())
    assert set(served(target).values()) == {"rule"}


@pytest.mark.usefixtures("without_another_device")
@pytest.mark.parametrize("layers", ["first.*", "inside.0.*", "last.*"])
def test_checkpoints_around_layers_that_are_not_chosen(layers: str) -> None:
    net = Checkpointed(nn.Linear).double()
    every = per_sample(Target.adopt(net, loss=squares), X, ("full",)).full
    for p in net.parameters():
        p.requires_grad_(False)
    chosen = Target.adopt(net, loss=squares, layers=layers)
    sizes = [p.numel() for p in net.parameters()]
    names = [name for name, _ in net.named_parameters()]
    expected = torch.cat(
        [d for d, name in zip(every.split(sizes, 1), names, strict=True) if name in chosen.layers], 1
    )
    torch.testing.assert_close(per_sample(chosen, X, ("full",)).full, expected)


@pytest.mark.usefixtures("without_another_device")
def test_checkpoints_of_the_old_kind_are_refused() -> None:
    with pytest.raises(ValueError, match="use_reentrant=False"):
        per_sample(Target.adopt(Checkpointed(nn.Linear, reentrant=True).double()), X)


def test_losses_that_use_the_network_once_more() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4)).double()
    agrees(net, loss=lambda output, x: squares(net(output), x))
    agrees(net, loss=lambda output, x: squares(output, x) * net[0].weight.square().sum())


def test_a_layer_whose_forward_was_replaced() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4)).double()
    net[0].forward = types.MethodType(lambda layer, x: F.linear(2 * x, layer.weight, layer.bias), net[0])
    target = agrees(net)
    assert served(target)["0.weight"] != "rule"
    assert served(target)["2.weight"] == "rule"
    assert "its forward was replaced" in str(plan(target))


class Odd(nn.Module):
    """Holds whole numbers and nothing at all among its parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.order = nn.Parameter(torch.tensor([2, 0, 1, 3]), requires_grad=False)
        self.layer, self.none = nn.Linear(4, 4), nn.Linear(0, 4)
        self.empty = nn.Parameter(torch.zeros(0, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x[:, self.order]) + self.none(x[:, :0]) + self.empty.sum()


def test_parameters_without_a_gradient_are_left_out() -> None:
    with pytest.warns(UserWarning, match="zero-element"):
        net = Odd().double()
    target = agrees(net)
    assert target.layers == ("layer.weight", "layer.bias", "none.bias")
    with pytest.raises(ValueError, match=r"layers='order' matches no parameter\. The names there are: layer"):
        Target.adopt(net, layers="order")


def test_a_network_without_shapes_is_refused() -> None:
    with pytest.raises(ValueError, match=r"parameter '0\.weight' has no shape yet: call the network once"):
        Target.adopt(nn.Sequential(nn.LazyLinear(3)))


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_scripted_network_is_refused() -> None:
    with pytest.raises(TypeError, match="the network is a scripted one"):
        Target.adopt(torch.jit.script(nn.Sequential(nn.Linear(4, 4))))


class Complex(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.phase = nn.Parameter(torch.randn(4, 4, dtype=torch.complex128))

    def forward(self, x: Tensor) -> Tensor:
        return torch.view_as_real(self.layer(x).to(torch.complex128) @ self.phase).flatten(1)


def test_complex_parameters_count_as_pairs_of_real_ones() -> None:
    torch.manual_seed(0)
    net = Complex().double()
    target = agrees(net)
    want = ("full", "inner", "weighted", "sketch")
    references = {name: torch.randn_like(p) for name, p in target.parameters().items()}
    weights = {name: torch.rand(p.shape, dtype=torch.float64) for name, p in target.parameters().items()}
    found = per_sample(target, X, want, reference=references, weight=weights, sketch=Sketch(1000))
    assert target.layers[0] == "phase"
    phase = torch.view_as_complex(found.full[:, :32].reshape(7, 4, 4, 2))
    torch.testing.assert_close(found.inner[:, 0], (phase.conj() * references["phase"]).real.sum((1, 2)))
    torch.testing.assert_close(found.weighted[:, 0], (phase.abs().square() * weights["phase"]).sum((1, 2)))
    torch.testing.assert_close(found.sketch, found.full)


class Tables(nn.Module):
    def __init__(self, table: nn.Module) -> None:
        super().__init__()
        self.table = table

    def forward(self, x: Tensor) -> Tensor:
        return self.table((2 * x.abs()).long().clamp(0, 4)).flatten(1)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("max_norm", [None, 0.5])
@pytest.mark.parametrize("kind", [nn.Embedding, nn.EmbeddingBag])
def test_tables_with_sparse_gradients_and_bounded_entries(
    kind: type[nn.Module], max_norm: float | None, sparse: bool
) -> None:
    torch.manual_seed(0)
    agrees(Tables(kind(5, 4, max_norm=max_norm, sparse=sparse)).double())


class Filling(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        if x.isnan().any():
            x[x.isnan()] = 0
        return self.layer(x)


def test_rows_that_are_written_over_only_sometimes() -> None:
    net = Filling().double()
    x = X.clone()
    x[6, 0] = torch.nan
    target = Target.adopt(net, loss=lambda output, rows: output.square().sum(1))
    per_sample(target, X)
    assert per_sample(target, x).norm.isfinite().all()
    assert x[6, 0].isnan()


class Twice(nn.Module):
    """Uses its layer twice, writes over what comes out, and multiplies by the weight behind its back."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu_(self.layer(self.layer(x).tanh_()))
        return F.linear(hidden, self.layer.weight) + x


class OneByOne(nn.Module):
    """Has a call for each row, and one for pairs of positions."""

    def __init__(self) -> None:
        super().__init__()
        self.row, self.positions = nn.Linear(4, 4), nn.GRU(2, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        rows = torch.cat([self.row(row) for row in x.split(1)])
        return self.positions(rows.unflatten(1, (2, 2)))[0].flatten(1)


BLOCKS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(4, 4),
    "norm": lambda: nn.LayerNorm(4),
    "slopes": lambda: nn.PReLU(4),
    "two names": TwoNames,
    "sorted": Sorted,
    "experts": Experts,
    "checkpointed": lambda: Checkpointed(nn.Linear),
    "twice": Twice,
    "one by one": OneByOne,
}


@pytest.mark.usefixtures("without_another_device")
@given(
    names=st.lists(st.sampled_from(list(BLOCKS)), min_size=1, max_size=4),
    shared=st.booleans(),
    seed=st.integers(0, 2**16),
    n=st.integers(2, 9),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_blocks_one_after_the_other(names: list[str], shared: bool, seed: int, n: int) -> None:
    torch.manual_seed(seed)
    blocks = {name: BLOCKS[name]() for name in dict.fromkeys(names)}
    net = nn.Sequential(*(blocks[name] if shared else BLOCKS[name]() for name in names)).double().eval()
    for p in net.parameters():
        nn.init.normal_(p, std=0.6)
    agrees(net, torch.randn(n, 4, dtype=torch.float64))


class Squares(torch.autograd.Function):
    """A loss whose backward pass reads its gradient where it lies, as one in C or Triton does."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(output)
        return output.square().sum(1)

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor, None]:
        (output,) = ctx.saved_tensors
        numbers = (ctypes.c_double * given[0].numel()).from_address(given[0].data_ptr())
        return 2 * torch.tensor(list(numbers), dtype=output.dtype)[:, None] * output, None


class Overwrites(Squares):
    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor, None]:
        (output,) = ctx.saved_tensors
        return given[0].mul_(2)[:, None] * output, None


@pytest.mark.parametrize("kind", [Squares, Overwrites])
def test_the_gradient_at_each_loss_has_memory_of_its_own(kind: type[Squares]) -> None:
    loss: Any = kind.apply
    agrees(nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)).double(), loss=loss)


class Neighbours(nn.Module):
    """Mixes columns by a sparse matrix, as networks on graphs do."""

    def __init__(self, layout: torch.layout) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)
        matrix = torch.eye(4, dtype=torch.float64).roll(1, 0)
        self.register_buffer("matrix", matrix.to_sparse(layout=layout))

    def forward(self, x: Tensor) -> Tensor:
        return torch.sparse.mm(self.matrix, self.inner(x).T).T


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state")
@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
def test_products_with_a_sparse_matrix(layout: torch.layout) -> None:
    target = agrees(Neighbours(layout).double())
    assert set(served(target).values()) == {"rule"}

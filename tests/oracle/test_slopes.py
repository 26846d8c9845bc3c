"""Networks and losses that take gradients themselves, against autograd on the network itself."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from anograd import Target, per_sample, plan

X = torch.randn(5, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
HIDDEN = 6
LAYERS: dict[str, Callable[[], nn.Module]] = {
    "attention": lambda: nn.MultiheadAttention(HIDDEN, 2, batch_first=True),
    "LSTM": lambda: nn.LSTM(HIDDEN, HIDDEN, 2, batch_first=True),
    "GRU": lambda: nn.GRU(HIDDEN, HIDDEN, batch_first=True),
    "RNN": lambda: nn.RNN(HIDDEN, HIDDEN, batch_first=True),
}


def loss(output: Tensor, x: Tensor) -> Tensor:
    return (output + x).square().flatten(1).mean(1)


def agrees(net: nn.Module, loss: Callable[[Tensor, Tensor], Tensor] = loss, layers: str = "*") -> Target:
    target = Target.adopt(net, loss=loss, layers=layers)
    own = list(target.parameters().values())
    rows = [
        torch.autograd.grad(loss(net(row.clone()), row).sum(), own, materialize_grads=True)
        for row in X.split(1)
    ]
    expected = torch.stack([torch.cat([d.flatten() for d in row]) for row in rows])
    torch.testing.assert_close(per_sample(target, X, ("full",)).full, expected, rtol=1e-9, atol=1e-12)
    return target


class Energy(nn.Module):
    """One number a row, after a layer that several products are made of."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.first, self.layer, self.last = nn.Linear(3, HIDDEN), layer, nn.Linear(HIDDEN, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        attends = isinstance(self.layer, nn.MultiheadAttention)
        hidden = self.layer(hidden, hidden, hidden)[0] if attends else self.layer(hidden)[0]
        return self.last(hidden.tanh()).flatten(1).sum(1)


class Slope(nn.Module):
    """The gradient of an energy by its input, as in score matching."""

    def __init__(self, energy: nn.Module) -> None:
        super().__init__()
        self.energy = energy

    def forward(self, x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        return torch.autograd.grad(self.energy(x).sum(), x, create_graph=True)[0]


@pytest.mark.parametrize("layer", LAYERS)
def test_the_slope_of_an_energy(layer: str) -> None:
    torch.manual_seed(0)
    agrees(Slope(Energy(LAYERS[layer]())).double())


@pytest.mark.parametrize("layer", LAYERS)
def test_a_loss_that_weighs_the_slope(layer: str) -> None:
    torch.manual_seed(0)
    net = Energy(LAYERS[layer]()).double()

    def steep(output: Tensor, x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        slope = torch.autograd.grad(net(x).sum(), x, create_graph=True)[0]
        return output.square() + slope.square().flatten(1).sum(1)

    agrees(net, steep)


class Start(nn.Module):
    """Learns what a recurrent layer begins with, by the slope there: its input is no part of that graph."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.first, self.layer = nn.Linear(3, HIDDEN), layer

    def forward(self, x: Tensor) -> Tensor:
        begin = torch.full((1, len(x), HIDDEN), 0.1, dtype=x.dtype, requires_grad=True)
        energy = self.layer(self.first(x), begin)[0].square().sum()
        (slope,) = torch.autograd.grad(energy, begin, create_graph=True)
        return slope[0, :, None, :3].expand(x.shape)


@pytest.mark.parametrize("layer", ["GRU", "RNN"])
def test_a_slope_that_the_input_of_the_layer_is_no_part_of(layer: str) -> None:
    torch.manual_seed(0)
    agrees(Start(LAYERS[layer]()).double())


class Corrected(nn.Module):
    """What a layer makes of rows, and the slope of an energy of it: the layer's backward pass runs twice."""

    def __init__(self, layer: nn.Module, create_graph: bool) -> None:
        super().__init__()
        self.layer, self.out, self.create_graph = layer, nn.Linear(HIDDEN, 3), create_graph

    def forward(self, x: Tensor) -> Tensor:
        x = x.clone().requires_grad_()
        output = self.out(self.layer(x)[0])
        energy = output.square().sum()
        (slope,) = torch.autograd.grad(energy, x, create_graph=self.create_graph, retain_graph=True)
        return output + 0.3 * slope


@pytest.mark.parametrize("layers", ["*", "layer.*", "out.*"])
@pytest.mark.parametrize("create_graph", [True, False])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_an_output_that_its_own_slope_corrects(
    kind: type[nn.RNNBase], create_graph: bool, layers: str
) -> None:
    torch.manual_seed(0)
    net = Corrected(kind(3, HIDDEN, batch_first=True), create_graph).double()
    agrees(net, layers=layers)


TRANSFORMS: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "jvp": lambda net, x: torch.func.jvp(net, (x,), (torch.ones_like(x),))[1],
    "vjp": lambda net, x: torch.func.vjp(net, x)[1](torch.ones(len(x), dtype=x.dtype))[0].flatten(1).sum(1),
    "jacrev": lambda net, x: (
        torch.func.vmap(torch.func.jacrev(lambda r: net(r[None])[0]))(x).flatten(1).sum(1)
    ),
    "hessian": lambda net, x: (
        torch.func.vmap(torch.func.hessian(lambda r: net(r[None])[0]))(x).flatten(1).square().sum(1)
    ),
}


class Transformed(nn.Module):
    def __init__(self, energy: nn.Module, transform: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.energy, self.transform = energy, transform

    def forward(self, x: Tensor) -> Tensor:
        return self.transform(self.energy, x)


def flat() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.Tanh(), nn.Linear(5, 1), nn.Flatten(0))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # which torch itself calls here
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_a_network_that_calls_a_transform(transform: str) -> None:
    torch.manual_seed(0)
    net = Transformed(flat(), TRANSFORMS[transform]).double()
    target = agrees(net, lambda output, x: output.square())
    assert not plan(target, X).by("rule")
    assert plan(target, X).bytes_a_row > 8 * 12


@pytest.mark.parametrize("layer", ["attention", "GRU", "RNN"])
def test_a_transform_of_layers_that_are_several_products(layer: str) -> None:
    torch.manual_seed(0)
    net = Transformed(Energy(LAYERS[layer]()), TRANSFORMS["vjp"]).double()
    agrees(net, lambda output, x: output.square())

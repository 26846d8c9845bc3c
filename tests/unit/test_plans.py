"""A plan stays right when the network is changed after it was made."""

from __future__ import annotations

import types
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anograd import Target, per_sample, plan
from anograd.gradients import planning

X = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def loss(output: Tensor, x: Tensor) -> Tensor:
    return (output.square() * torch.linspace(0.5, 1.5, 4, dtype=x.dtype)).sum(1)


class Switched(nn.Module):
    """Goes another way by its flag."""

    def __init__(self, otherwise: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.layer, self.otherwise, self.flag = nn.Linear(4, 4), otherwise, False

    def forward(self, x: Tensor) -> Tensor:
        return self.otherwise(self.layer, x) if self.flag else self.layer(x)


def agrees(target: Target, x: Tensor = X) -> None:
    own = list(target.parameters().values())
    rows = [torch.autograd.grad(loss(target.module(row), row).sum(), own) for row in x.split(1)]
    expected = torch.stack([torch.cat([d.flatten() for d in row]) for row in rows])
    torch.testing.assert_close(per_sample(target, x, ("full",)).full, expected)


def twice(layer: nn.Module, x: Tensor) -> Tensor:
    return layer(layer(x).tanh())


def behind_its_back(layer: nn.Module, x: Tensor) -> Tensor:
    hidden = layer(x)
    return hidden + F.linear(hidden.tanh(), layer.weight)


def in_longer_batches(layer: nn.Module, x: Tensor) -> Tensor:
    return layer(torch.cat([x, x]))[len(x) :]


@pytest.mark.parametrize("otherwise", [twice, behind_its_back, in_longer_batches])
def test_a_network_that_goes_another_way(otherwise: Callable[[nn.Module, Tensor], Tensor]) -> None:
    target = Target.adopt(Switched(otherwise).double(), loss=loss)
    agrees(target)
    target.module.flag = True
    agrees(target)
    target.module.flag = False
    agrees(target)


def test_rows_that_begin_to_influence_each_other() -> None:
    target = Target.adopt(Switched(lambda layer, x: layer(x) - layer(x).mean(0)).double(), loss=loss)
    per_sample(target, X)
    target.module.flag = True
    with pytest.raises(ValueError, match="rows influence each other in the network"):
        per_sample(target, X)


def test_a_forward_that_is_replaced_later() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4)).double()
    target = Target.adopt(net, loss=loss)
    agrees(target)
    net[0].forward = types.MethodType(lambda layer, x: F.linear(2 * x, layer.weight, layer.bias), net[0])
    agrees(target)
    del net[0].forward
    agrees(target)


class Doubled(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(2 * x)


def test_a_layer_that_is_exchanged_for_one_without_a_rule() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4)).double()
    target = Target.adopt(net, loss=loss)
    agrees(target)
    net[0] = Doubled(4, 4).double()
    agrees(target)


def test_a_parameter_that_is_taken_away() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)).double()
    target = Target.adopt(net, loss=loss)
    per_sample(target, X)
    net[1] = nn.Identity()
    with pytest.raises(ValueError, match=r"no parameter '1\.weight', '1\.bias' any more: adopt it anew"):
        per_sample(target, X)


def test_a_plan_is_made_once() -> None:
    """Whatever the size of the batch; also where a parameter is served by the fallback."""
    passes: list[int] = []
    for net in (nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.PReLU())):
        target = Target.adopt(net.double(), loss=lambda output, x: passes.append(len(x)) or loss(output, x))
        per_sample(target, X)
        passes.clear()
        for n in (6, 5, 1):
            per_sample(target, X[:n])
        assert passes.count(6) == passes.count(5)
        assert 2 not in passes[: passes.index(5)]


def test_rows_that_are_all_alike_do_not_settle_a_plan() -> None:
    """Neither as the first rows, nor as those of a piece."""
    net = Switched(lambda layer, x: layer(x.flip(0)).flip(0)).double()
    net.flag = True
    x = torch.cat([X[:1].expand(4, 4), X])
    for first in (X[:1].expand(4, 4), x):
        target = Target.adopt(net, loss=loss)
        per_sample(target, first)
        whole = per_sample(target, x, ("full",)).full
        agrees(target, x)
        in_pieces = per_sample(target, x, ("full",), memory=3 * plan(target, x).bytes_a_row).full
        torch.testing.assert_close(in_pieces, whole)


class Reading(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.reader = nn.LSTM(1, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.reader(x.unsqueeze(2))[0][:, -1]


def test_one_row_among_longer_batches_needs_no_new_plan() -> None:
    """Though autograd's graph of one row is another one."""
    passes: list[int] = []
    net = Reading().double()
    target = Target.adopt(net, loss=lambda output, x: passes.append(len(x)) or loss(output, x))
    per_sample(target, X)
    passes.clear()
    for n in (1, 6, 1, 2, 6):
        per_sample(target, X[:n])
    assert passes == [1, 6, 1, 2, 6]
    agrees(target)


class Sorting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        order = x[:, 0].argsort(stable=True)
        return torch.empty_like(x).index_copy(0, order, self.layer(x[order]))


def test_a_few_rows_in_order_do_not_settle_a_plan() -> None:
    target = Target.adopt(Sorting().double(), loss=loss)
    few = X[:3].clone()
    few[:, 0] = 1
    per_sample(target, few)
    agrees(target, X)


class Slope(nn.Module):
    """Gives back the gradient of an energy: each weight enters it twice through one node of the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.energy = nn.Linear(4, 8), nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        energy = self.energy(self.inner(x).tanh()).sum()
        return torch.autograd.grad(energy, x, create_graph=True)[0]


class Aiming(nn.Module):
    """Calls its layer once more for an aim, and uses its weight behind its back."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        aim = self.layer(0.9 * x).tanh().detach()
        return F.linear(self.layer(x).tanh() - 0.1 * aim, self.layer.weight.t())


@pytest.mark.parametrize("kind", [Slope, Aiming])
def test_a_weight_whose_uses_cannot_be_counted(kind: type[nn.Module]) -> None:
    net = kind().double()
    target = Target.adopt(net, loss=loss, layers="*.weight")
    agrees(target)
    assert not plan(target, X).by("rule")


class Pieces(nn.Module):
    """Normalises over so many rows at a time."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.layer, self.size = nn.Linear(4, 4), size

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([h - 0.5 * h.mean(0) for h in self.layer(x).split(self.size)])


class OddOrEven(nn.Module):
    """Rows influence each other where there are an odd number of them."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.layer(x)
        return h - h.mean(0) + h if len(x) % 2 else 0 * h.tanh() + h


class FromThree(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.layer(x)
        return h - 0.5 * h.mean(0) if len(x) > 2 else h


def test_rows_that_influence_each_other_by_their_number() -> None:
    net = Pieces(1).double()
    target = Target.adopt(net, loss=loss)
    per_sample(target, X)
    net.size = 64
    with pytest.raises(ValueError, match="rows influence each other"):
        per_sample(target, X)
    target = Target.adopt(OddOrEven().double(), loss=loss)
    per_sample(target, X)
    with pytest.raises(ValueError, match="rows influence each other"):
        per_sample(target, X[:5])
    with pytest.raises(ValueError, match=r"rows influence each other: the first has loss .* among 6"):
        per_sample(Target.adopt(FromThree().double(), loss=loss), X)


def test_a_batch_norm_that_loses_its_statistics_later() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).double()
    target = Target.adopt(net, loss=loss, layers="0.*")
    per_sample(target, X)
    net[1].running_mean = net[1].running_var = None
    with pytest.raises(ValueError, match="keeps no running statistics"):
        per_sample(target, X)


def test_plans_of_rows_of_ever_other_lengths_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "KEPT", 3)
    net = nn.Conv1d(1, 1, 3, padding=1).double()
    target = Target.adopt(net)
    for length in (*range(5, 12), 5):
        x = torch.rand(2, 1, length, dtype=torch.float64)
        per_sample(target, x)
        assert len(planning._PLANS[target]) <= 3
    expected = torch.autograd.grad((net(x[:1]) - x[:1]).square().mean(), net.weight)[0]
    torch.testing.assert_close(per_sample(target, x, ("full",)).full[0, :3], expected.flatten())

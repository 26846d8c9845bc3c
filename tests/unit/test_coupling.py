from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from anograd import Target, per_sample, plan

X = torch.linspace(-1, 1, 20).reshape(5, 4)


def squares(output: Tensor | tuple[Tensor, ...], x: Tensor) -> Tensor:
    output = (output[0] if isinstance(output, tuple) else output).flatten(1)
    return (output.square() * torch.linspace(0.5, 1.5, output.shape[1], dtype=output.dtype)).sum(1)


class OverTheBatch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - 0.5 * x.mean(0)


class Inner(nn.Module):
    """Couples rows in its own forward, not in that of a layer it holds."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.cumsum(0))


@pytest.mark.parametrize(
    ("net", "shape", "named"),
    [
        (nn.Sequential(nn.Linear(4, 4), OverTheBatch()), (5, 4), r"in layer '1' \(OverTheBatch\)"),
        (nn.Sequential(nn.Linear(4, 4), Inner()), (5, 4), r"in layer '1' \(Inner\)"),
        (Inner(), (5, 4), "in the network"),
        (
            nn.Sequential(nn.Linear(4, 4), nn.TransformerEncoderLayer(4, 2, 8)),
            (5, 3, 4),
            r"in layer '1\.self_attn' \(MultiheadAttention\).*batch_first=True",
        ),
        (nn.GRU(4, 4), (5, 3, 4), "in the network.*batch_first=True"),
        (nn.LSTM(4, 4), (5, 3, 4), "in the network.*batch_first=True"),
    ],
    ids=["mean", "inside", "itself", "attention", "gru", "lstm"],
)
def test_rows_that_influence_each_other_are_refused(
    net: nn.Module, shape: tuple[int, ...], named: str
) -> None:
    torch.manual_seed(0)
    for p in net.parameters():
        nn.init.normal_(p)
    target = Target.adopt(net, loss=squares)
    x = torch.randn(shape)
    with pytest.raises(ValueError, match=f"rows influence each other {named}"):
        per_sample(target, x)
    for part in net.modules():
        assert not part._forward_hooks
        assert "forward" not in vars(part)


def test_a_second_row_that_is_nearly_the_first_hides_no_influence() -> None:
    """Beside one of its own kind a row is what it is alone."""
    target = Target.adopt(nn.Sequential(nn.Linear(4, 4), OverTheBatch()), loss=squares)
    x = torch.cat([X[:1], X[:1] + 1e-5, X[1:]])
    with pytest.raises(ValueError, match=r"rows influence each other in layer '1' \(OverTheBatch\)"):
        plan(target, x)


@pytest.mark.parametrize(
    "net",
    [
        nn.Sequential(nn.Conv1d(3, 3, 1), nn.InstanceNorm1d(3)),
        nn.Sequential(nn.Conv1d(3, 3, 1), nn.BatchNorm1d(3), nn.Dropout(0.5)).train(),
        nn.Sequential(nn.Conv1d(3, 3, 1), nn.GroupNorm(1, 3)),
    ],
    ids=["instance norm", "batch norm in training mode", "group norm"],
)
def test_normalisation_of_a_row_by_itself_is_fine(net: nn.Module) -> None:
    torch.manual_seed(0)
    target = Target.adopt(net, loss=squares, layers="0.*")
    assert plan(target, torch.randn(4, 3, 6)).by("rule") == target.layers


class Positions(nn.Module):
    """Adds an embedding of positions, looked up once for all rows."""

    def __init__(self, axis: bool) -> None:
        super().__init__()
        self.axis = axis
        self.table, self.layer = nn.Embedding(9, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        positions = torch.arange(x.shape[1])
        return self.layer(x + self.table(positions[None] if self.axis else positions)).tanh()


@pytest.mark.parametrize("axis", [True, False])
@pytest.mark.parametrize("t", [1, 2, 3, 5])
def test_positions_looked_up_once_for_all_rows_fall_back(axis: bool, t: int) -> None:
    """Also where there are as many positions as rows in the probe, or in the batch."""
    torch.manual_seed(0)
    net, x = Positions(axis).double(), torch.randn(3, t, 4).double()
    target = Target.adopt(net, loss=squares)
    planned = plan(target, x)
    assert [one.by for one in planned.served] == ["vmap", "rule", "rule"]
    assert "its input does not have the rows first" in str(planned)
    found = per_sample(target, x, ("full",)).full
    for i, row in enumerate(x.split(1)):
        expected = torch.autograd.grad(squares(net(row), row).sum(), list(net.parameters()))
        torch.testing.assert_close(found[i], torch.cat([g.flatten() for g in expected]))


def test_a_network_that_draws_random_numbers_is_not_blamed_for_coupling() -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x + torch.randn_like(x))

    assert per_sample(Target.adopt(Noisy()), X).norm.shape == (5, 2)


class Mixed(nn.Module):
    """Its first layer is of one type, the others of another."""

    def __init__(self, first: torch.dtype, others: torch.dtype) -> None:
        super().__init__()
        self.first = nn.Linear(16, 64).to(first)
        body = [part for _ in range(3) for part in (nn.Linear(64, 64), nn.GELU(), nn.LayerNorm(64))]
        self.body = nn.Sequential(*body, nn.Linear(64, 16)).to(others)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x.to(self.first.weight.dtype))
        return self.body(hidden.to(self.body[0].weight.dtype)).float()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "types", [(torch.float64, torch.float32), (torch.float32, torch.bfloat16), (torch.float64, torch.float16)]
)
def test_what_is_rounding_goes_by_the_coarsest_type(types: tuple[torch.dtype, ...], seed: int) -> None:
    torch.manual_seed(seed)
    target, x = Target.adopt(Mixed(*types)), torch.randn(40, 16)
    assert {one.by for one in plan(target, x).served} == {"rule"}


def test_what_a_network_computes_in_lower_precision_by_itself_is_seen() -> None:
    class Lower(Mixed):
        def forward(self, x: Tensor) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                return super().forward(x)

    torch.manual_seed(0)
    target, x = Target.adopt(Lower(torch.float32, torch.float32)), torch.randn(40, 16)
    assert {one.by for one in plan(target, x).served} == {"rule"}


def test_weights_that_are_kept_in_eight_bits_do_not_loosen_what_is_rounding() -> None:
    class Kept(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            front = torch.randn(4, 4).to(torch.float8_e4m3fn)
            self.front, self.layer = nn.Parameter(front, requires_grad=False), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            hidden = self.layer(x @ self.front.to(x.dtype))
            return hidden - 0.05 * hidden.mean(0)

    torch.manual_seed(0)
    with pytest.raises(ValueError, match="rows influence each other"):
        plan(Target.adopt(Kept(), layers="layer.*"), torch.randn(20, 4))

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from anograd import Target, per_sample, plan

X = torch.linspace(-1, 1, 20).reshape(5, 4)


def squares(output: Tensor | tuple[Tensor, ...], x: Tensor) -> Tensor:
    output = (output[0] if isinstance(output, tuple) else output).flatten(1)
    return (output.square() * torch.linspace(0.5, 1.5, output.shape[1], dtype=output.dtype)).sum(1)


class Words(nn.Module):
    """A little of everything that is expanded or shared."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 8)
        self.attention = nn.TransformerEncoderLayer(8, 2, 8, batch_first=True)
        self.lstm = nn.LSTM(8, 8, batch_first=True)
        self.logits = nn.Linear(8, 11, bias=False)
        self.logits.weight = self.table.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(self.lstm(self.attention(self.table(x)))[0]).transpose(1, 2)


def can_run_lstm() -> bool:
    try:
        with torch.autocast("cpu", torch.bfloat16):
            nn.LSTM(1, 1)(torch.zeros(1, 1, 1))
    except RuntimeError:
        return False
    return True


@pytest.fixture
def half_lstm() -> Iterator[None]:
    """Let nn.LSTM run in bfloat16: with oneDNN it does on processors with AVX-512 only."""
    with torch.backends.mkldnn.flags(enabled=can_run_lstm()):
        yield


@pytest.mark.filterwarnings("ignore:TF32 acceleration")  # of another flag, which is set along with it
def test_autocast_agrees_with_float32_and_reduces_in_float32(half_lstm: None) -> None:
    torch.manual_seed(0)
    net, x = Words(), torch.randint(11, (5, 6))
    target = Target.adopt(net, loss="cross_entropy")
    reference = {name: torch.randn_like(p) for name, p in target.parameters().items()}
    wanted = ("loss", "norm", "inner", "full", "sketch")
    exact = per_sample(target, x, wanted, reference=reference)
    lower = per_sample(target, x, wanted, reference=reference, autocast=torch.bfloat16)
    assert {one.by for one in plan(target, x, autocast=torch.bfloat16).served} == {"rule"}
    for name in wanted:
        found, expected = getattr(lower, name), getattr(exact, name)
        assert found.dtype == torch.float32
        assert not torch.equal(found, expected)  # something was computed in bfloat16
        assert (found - expected).norm() < 0.05 * expected.norm(), name
    # Reductions agree among each other to float32's precision, not bfloat16's.
    sizes = [p.numel() for p in target.parameters().values()]
    lengths = torch.stack([part.norm(dim=1) for part in lower.full.split(sizes, 1)], 1)
    apart = per_sample(target, x, ("norm", "inner"), reference=reference, autocast=torch.bfloat16)
    torch.testing.assert_close(apart.norm, lengths, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(apart.inner, lower.inner, rtol=1e-4, atol=1e-5)


def test_autocast_of_one_layer_by_hand() -> None:
    """a and d are what autocast makes of them; what comes after is float32."""
    torch.manual_seed(0)
    net, x = nn.Linear(4, 3), torch.randn(5, 7, 4)
    found = per_sample(
        Target.adopt(net, loss=squares, layers="weight"), x, ("full",), autocast=torch.bfloat16
    )
    with torch.autocast("cpu", torch.bfloat16):
        output = net(x)
    assert output.dtype == torch.bfloat16
    weights = torch.linspace(0.5, 1.5, 21).reshape(7, 3)
    d = (2 * weights * output.float()).bfloat16().float()
    expected = torch.einsum("nto,nti->noi", d, x)
    torch.testing.assert_close(found.full, expected.flatten(1), rtol=1e-5, atol=1e-6)


def test_autocast_of_layers_that_fall_back() -> None:
    torch.manual_seed(0)
    target = Target.adopt(nn.Sequential(nn.Linear(4, 4), nn.PReLU(), nn.Linear(4, 4)))
    lower = per_sample(target, X, ("norm",), autocast=torch.bfloat16).norm
    assert lower.dtype == torch.float32
    torch.testing.assert_close(lower, per_sample(target, X, ("norm",)).norm, rtol=0.05, atol=0.01)


class Named(NamedTuple):
    logits: Tensor
    hidden: Tensor


@dataclasses.dataclass
class Held:
    logits: Tensor


class Output(OrderedDict[str, Tensor]):
    """A mapping whose entries are attributes, too."""

    def __setitem__(self, name: str, value: Tensor) -> None:
        super().__setitem__(name, value)
        super().__setattr__(name, value)


class Two(tuple[Any, ...]):
    """A tuple that is made of two things."""

    def __new__(cls, logits: Tensor, note: str) -> Two:
        made = super().__new__(cls, (logits, note))
        made.logits = logits  # type: ignore[attr-defined]
        return made


def test_an_output_that_cannot_be_made_anew_comes_as_it_is() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Two:
            return Two(self.layer(x), "note")

    target = Target.adopt(Net(), loss=lambda output, x: squares(output.logits.float(), x))
    found = per_sample(target, X, ("norm",), autocast=torch.bfloat16).norm
    torch.testing.assert_close(found, per_sample(target, X, ("norm",)).norm, rtol=0.05, atol=0.01)


KINDS: dict[str, Callable[[Tensor], Any]] = {
    "mapping": lambda h: Output(logits=h, hidden=h),
    "named tuple": lambda h: Named(h, h),
    "dataclass": Held,
}


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_of_every_kind_come_to_the_loss_as_they_are_and_in_single_precision(kind: str) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Any:
            return KINDS[kind](self.layer(x))

    seen: set[torch.dtype] = set()

    def loss(output: Any, x: Tensor) -> Tensor:
        seen.add(output.logits.dtype)
        if isinstance(output, Output):
            seen.add(output["hidden"].dtype)
        return squares(output.logits, x)

    found = per_sample(Target.adopt(Net(), loss=loss), X, ("loss", "norm"), autocast=torch.bfloat16)
    assert seen == {torch.float32}
    assert found.loss is not None
    assert found.loss.dtype == torch.float32


def test_autocast_to_something_else_is_refused() -> None:
    with pytest.raises(ValueError, match=r"autocast=torch\.float64.*use autocast=torch\.bfloat16"):
        per_sample(Target.adopt(nn.Linear(4, 4)), X, autocast=torch.float64)

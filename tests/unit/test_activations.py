"""Inputs of layers as the forward pass shows them: which are read, by which name, and which are left out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from anograd import Target
from anograd.activations import activations
from anograd.features import mean_activation, read_activations
from anograd.train import seeded


class Graph(nn.Module):
    """A network whose forward pass is a function of itself and the rows."""

    def __init__(self, forward: Any, **layers: nn.Module) -> None:
        super().__init__()
        self.call = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Any:
        return self.call(self, x)


class Scale(nn.Module):
    """A layer that no rule serves, for any shape."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((1,), 2.0))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


def squares(output: Any, x: Tensor) -> Tensor:
    return output.reshape(len(x), -1).square().mean(1)


def rows(*shape: int) -> Tensor:
    with seeded(0):
        return torch.randn(*shape)


def test_loss_and_inputs_in_evaluation_mode() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.9), nn.Linear(4, 3)).train()
    x = rows(5, 3)
    loss, found = activations(Target.adopt(net), x)
    hidden = net[0](x)
    torch.testing.assert_close(found["0.weight"], x)
    torch.testing.assert_close(found["2.weight"], hidden.detach())
    torch.testing.assert_close(loss, (net[2](hidden) - x).square().mean(1).detach())
    assert net.training
    assert not any(value.requires_grad for value in (loss, *found.values()))


def test_a_layer_goes_by_its_first_chosen_parameter() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 3))
    assert list(activations(Target.adopt(net, layers="*.bias"), rows(5, 3))[1]) == ["0.bias", "1.bias"]
    assert list(activations(Target.adopt(net, layers="1.*"), rows(5, 3))[1]) == ["1.weight"]


def test_images_are_flattened() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 1, 3, padding=1))
    found = activations(Target.adopt(net), rows(5, 1, 4, 6))[1]
    assert {name: tuple(value.shape) for name, value in found.items()} == {
        "0.weight": (5, 24), "1.weight": (5, 48),
    }  # fmt: skip


def test_a_layer_that_is_not_called_is_left_out() -> None:
    net = Graph(lambda self, x: self.used(x), used=nn.Linear(3, 3), spare=nn.Linear(3, 3))
    assert list(activations(Target.adopt(net), rows(5, 3))[1]) == ["used.weight"]
    loss, found = activations(Target.adopt(net, layers="spare.*"), rows(5, 3))
    torch.testing.assert_close(found[""], rows(5, 3))  # the network's own input
    assert loss.shape == (5,)


def test_inputs_of_a_layer_that_is_called_twice_are_joined() -> None:
    net = Graph(lambda self, x: self.layer(self.layer(x)), layer=nn.Linear(3, 3))
    x = rows(5, 3)
    found = activations(Target.adopt(net), x)[1]
    torch.testing.assert_close(found["layer.weight"], torch.cat([x, net.layer(x).detach()], dim=1))


def test_inputs_given_by_name_count() -> None:
    net = Graph(lambda self, x: self.layer(input=x), layer=nn.Linear(3, 3))
    torch.testing.assert_close(activations(Target.adopt(net), rows(5, 3))[1]["layer.weight"], rows(5, 3))


def test_indices_are_no_numbers() -> None:
    words = torch.arange(10).reshape(5, 2)
    net = nn.Sequential(nn.Embedding(10, 3), nn.Linear(3, 4))
    found = activations(Target.adopt(net, loss=squares), words)[1]
    assert list(found) == ["1.weight"]
    torch.testing.assert_close(found["1.weight"], net[0](words).flatten(1).detach())


@pytest.mark.parametrize(
    ("wrap", "unwrap"),
    [
        (lambda value: value, lambda output: output),
        (lambda value: (value, None), lambda output: output[0]),
        (lambda value: {"logits": value}, lambda output: output["logits"]),
        (lambda value: value.sum((1, 2)), lambda output: output),
    ],
    ids=["tensor", "tuple", "dict", "one number a row"],
)
def test_where_only_indices_are_read_the_output_stands_in(wrap: Any, unwrap: Any) -> None:
    net = Graph(lambda self, x: wrap(self.words(x)), words=nn.Embedding(10, 3))
    target = Target.adopt(net, loss=lambda output, x: squares(unwrap(output), x))
    words = torch.arange(10).reshape(5, 2)
    found = activations(target, words)[1]
    assert list(found) == [""]
    torch.testing.assert_close(found[""], unwrap(net(words)).reshape(5, -1).detach())


def test_one_number_a_row_is_a_column() -> None:
    net = Graph(lambda self, x: self.last(self.first(x)[:, 0]), first=nn.Linear(3, 1), last=Scale())
    found = activations(Target.adopt(net, loss=squares), rows(5, 3))[1]
    assert found["last.weight"].shape == (5, 1)


@pytest.mark.parametrize("n", [1, 2, 3, 7])
@pytest.mark.parametrize("side", [1, 2, 7])
def test_what_has_not_the_rows_first_is_left_out_whatever_the_batch(n: int, side: int) -> None:
    """Also where as many rows come at once as the axis that stands first is long."""

    def forward(self: Any, x: Tensor) -> Tensor:
        return self.after(self.turned(x.transpose(0, 1)).transpose(0, 1))

    target = Target.adopt(Graph(forward, turned=Scale(), after=Scale()))
    found = activations(target, rows(n, side, 3))[1]
    assert list(found) == ["after.weight"]
    torch.testing.assert_close(found["after.weight"], 2 * rows(n, side, 3).flatten(1))


def test_hooks_are_taken_off_when_something_fails() -> None:
    net = nn.Sequential(nn.Linear(3, 3))
    with pytest.raises(RuntimeError):
        activations(Target.adopt(net), rows(5, 4))
    with pytest.raises(ValueError, match=r"one number a row, shape \(5,\)"):
        activations(Target.adopt(net, loss=lambda output, x: output.sum()), rows(5, 3))
    assert not net[0]._forward_pre_hooks


def test_the_mean_is_over_all_pieces() -> None:
    target = Target.adopt(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 3)))
    x = rows(7, 3)
    mean = mean_activation(target, [x[:5], x[5:]])
    for name, value in activations(target, x)[1].items():
        torch.testing.assert_close(mean[name], value.mean(0))


def test_a_zero_input_has_cosine_0() -> None:
    target = Target.adopt(nn.Linear(3, 3))
    found = read_activations(target, torch.zeros(2, 3), "cosine", references=[{"weight": torch.ones(3)}])
    assert found.values.tolist() == [[0], [0]]

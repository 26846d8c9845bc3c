"""Fitting and scoring change nothing outside the detector: generators, gradients, hooks, flags."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from anograd import (
    GradCon,
    GradDensity,
    GradNeighbours,
    GradReferences,
    GradScoreTest,
    GradSubspace,
    GraN,
    Target,
    per_sample,
    plan,
)

POST_HOC = (GradDensity, GradScoreTest, GradSubspace, GradNeighbours, GradReferences, GraN)


def generators() -> tuple[Any, ...]:
    name, keys, *rest = np.random.get_state()  # noqa: NPY002 - the legacy generator is the one in question
    return random.getstate(), (name, keys.tobytes(), *rest), bytes(torch.get_rng_state().numpy())


def state(module: nn.Module) -> list[Any]:
    """Everything a user could see on a module: parameters, flags, gradients, modes, hooks, buffers."""
    seen: list[Any] = []
    for name, part in module.named_modules():
        hooks = {
            key: list(value) for key, value in vars(part).items() if "hooks" in key and hasattr(value, "keys")
        }
        seen.append((name, part.training, hooks, sorted(vars(part)), sorted(part._parameters)))
    for name, p in module.named_parameters():
        gradient = None if p.grad is None else p.grad.clone().numpy().tobytes()
        seen.append((name, id(p), p.requires_grad, gradient, p.detach().numpy().tobytes(), sorted(vars(p))))
    for name, buffer in module.named_buffers():
        seen.append((name, buffer.numpy().tobytes()))
    return seen


def a_network() -> nn.Module:
    """Training mode here, evaluation mode there, a frozen layer, an old gradient, a user's hook, dropout."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Dropout(),
        nn.ConvTranspose2d(4, 1, 3, padding=1),
    )  # fmt: skip
    net(torch.randn(4, 1, 6, 6)).sum().backward()
    net[0].weight.requires_grad_(False)
    net[0].bias.grad = None
    net[1].eval()
    net[4].register_forward_hook(lambda layer, args, output: None)
    return net


class CallsHome(Exception):
    pass


@pytest.mark.parametrize("want", [("loss", "norm"), ("full",), ("sketch", "inner")])
def test_the_engine_leaves_a_network_as_it_was(want: tuple[str, ...]) -> None:
    net = a_network()
    target = Target.adopt(net)
    reference = {name: torch.ones_like(p) for name, p in target.parameters().items()}
    before, drawn = state(net), generators()
    x = torch.linspace(0, 1, 5 * 36).reshape(5, 1, 6, 6)
    with torch.no_grad():  # the caller's own mode makes no difference, and is given back
        found = per_sample(target, x, want, reference=reference)
        assert not torch.is_grad_enabled()
    assert state(net) == before
    assert generators() == drawn
    quantities = (found.loss, found.norm, found.inner, found.full, found.sketch)
    assert not any(quantity.requires_grad for quantity in quantities if quantity is not None)


def test_the_engine_leaves_a_network_as_it_was_when_something_fails() -> None:
    net = a_network()
    before = state(net)

    def loss(output: Tensor, x: Tensor) -> Tensor:
        raise CallsHome

    with pytest.raises(CallsHome):
        per_sample(Target.adopt(net, loss=loss), torch.zeros(2, 1, 6, 6))
    with pytest.raises(RuntimeError):
        per_sample(Target.adopt(net), torch.zeros(2, 3, 6, 6))
    assert state(net) == before


def test_dropout_and_batch_statistics_play_no_part() -> None:
    """A network left in training mode is scored as in evaluation mode."""
    net = a_network()
    x = torch.rand(5, 1, 6, 6)
    in_training = per_sample(Target.adopt(net), x, ("full",)).full
    net.eval()
    torch.testing.assert_close(in_training, per_sample(Target.adopt(net), x, ("full",)).full)


def test_fit_and_score_touch_no_global_generator() -> None:
    images = np.random.default_rng(0).random((40, 1, 9, 9))
    table = np.random.default_rng(0).random((40, 3))
    before = generators()
    for target, rows in (("cae", images), ("vae", images), ("dense", table)):
        for random_state in (0, None):
            detector = GradCon(target=target, epochs=2, random_state=random_state).fit(rows)
            detector.anomaly_score(rows)
    assert generators() == before


@pytest.mark.parametrize("kind", POST_HOC)
@pytest.mark.parametrize("labelled", [False, True])
def test_post_hoc_scores_touch_no_global_generator(kind: Any, labelled: bool) -> None:
    """Not even where noise stands in for anomalies that nobody knows."""
    images = np.random.default_rng(0).random((20, 1, 6, 6))
    table = np.random.default_rng(0).random((20, 3))
    before = generators()
    for target, rows in (("vae", images), ("dense", table)):
        for random_state in (0, None):
            detector = kind(target=target, epochs=1, random_state=random_state)
            detector.fit(rows, np.arange(20) < 3 if labelled else None)
            detector.anomaly_score(rows)
            detector.twin_score(rows)
    assert generators() == before


@pytest.mark.parametrize("kind", [GradCon, *POST_HOC])
@pytest.mark.parametrize("layers", ["*", "4.weight"])
def test_fit_and_score_leave_an_adopted_network_as_it_was(kind: Any, layers: str) -> None:
    net = a_network()
    images = np.random.default_rng(0).random((40, 1, 6, 6)).astype("float32")
    images.flags.writeable = False
    before, drawn = state(net), generators()
    detector = kind(target=Target.adopt(net, layers=layers), random_state=0).fit(images, np.arange(40) < 3)
    detector.detect(images, alpha=0.2)
    detector.twin_score(images)
    assert detector.target_.module is net
    assert state(net) == before
    assert generators() == drawn


@pytest.mark.parametrize("kind", POST_HOC)
def test_an_adopted_network_is_as_it_was_when_its_loss_fails(kind: Any) -> None:
    net = a_network()
    images = np.random.default_rng(0).random((40, 1, 6, 6)).astype("float32")
    before, left = state(net), 99

    def loss(output: Tensor, x: Tensor) -> Tensor:
        nonlocal left
        left -= 1
        if not left:
            raise CallsHome
        return (output - x).square().flatten(1).mean(1)

    kind(target=Target.adopt(net, loss=loss), random_state=0).fit(images)
    for step in range(1, 99 - left, 2):
        left = step
        with pytest.raises(CallsHome):
            kind(target=Target.adopt(net, loss=loss), random_state=0).fit(images)
        assert state(net) == before


def test_input_arrays_are_not_written_to() -> None:
    images = np.random.default_rng(0).random((40, 1, 9, 9))
    images.flags.writeable = False
    GradCon(epochs=1, random_state=0).fit(images).anomaly_score(images)


class Expanded(nn.Module):
    """What is written out while a pass is recorded."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
        self.lstm = nn.LSTM(4, 4, batch_first=True)
        self.gru = nn.GRU(4, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.gru(self.lstm(self.attention(x))[0])[0]


def test_expanded_layers_get_their_forward_back() -> None:
    torch.manual_seed(0)
    net, x = Expanded(), torch.randn(5, 3, 4)
    net.lstm.register_forward_hook(lambda layer, args, output: None)
    net(x)
    before, fused = state(net), torch.backends.mha.get_fastpath_enabled()
    seen: list[set[str]] = []

    def loss(output: Tensor, x: Tensor) -> Tensor:
        seen.append({name for name, part in net.named_modules() if "forward" in vars(part)})
        return output.flatten(1).square().sum(1)

    def fails(output: Tensor, x: Tensor) -> Tensor:
        raise CallsHome

    with torch.no_grad():
        per_sample(Target.adopt(net, loss=loss), x)
    assert {"attention.self_attn", "lstm", "gru"} in seen  # they were exchanged at all
    assert state(net) == before
    with pytest.raises(CallsHome):
        per_sample(Target.adopt(net, loss=fails), x)
    assert state(net) == before
    with pytest.raises(RuntimeError):  # inside an expanded forward
        per_sample(Target.adopt(net.lstm, loss=fails), x[..., :3])
    assert state(net) == before
    assert torch.backends.mha.get_fastpath_enabled() == fused
    assert net.lstm(x)[0].requires_grad


def test_a_forward_of_the_users_own_is_left_alone() -> None:
    torch.manual_seed(0)
    net, x = nn.GRU(4, 4, batch_first=True), torch.randn(5, 3, 4)
    own = net.forward

    def doubled(*args: Any) -> Any:
        output, last = own(*args)
        return 2 * output, last

    net.forward = doubled
    target = Target.adopt(net, loss=lambda output, x: output[0].flatten(1).square().sum(1))
    expected = doubled(x)[0].flatten(1).square().sum(1).detach()
    torch.testing.assert_close(per_sample(target, x, ("loss", "norm")).loss, expected)
    assert "its forward was replaced" in str(plan(target, x))
    assert net.forward is doubled

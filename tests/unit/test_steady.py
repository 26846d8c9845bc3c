"""Rows that single precision cannot tell are computed again in double precision."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import anograd as ag
from anograd import Sketch, Target, per_sample
from anograd.gradients import doubled, steady
from anograd.score import LabelledNorms, NormDensity

ROWS = torch.tensor([[1.0, 1e-9], [1.0, 0.5], [0.0, 0.5]])


def bent() -> Target:
    """Return a network whose ReLU is given 1e-9 by the first row, which float32 rounds to 0."""
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    for parameter, value in zip(
        net.parameters(),
        ([[1.0, 1.0], [0.5, 0.0]], [-1.0, 0.25], [[2.0, 1.0], [1.0, -1.0]], [0.0, 0.5]),
        strict=True,
    ):
        parameter.data = torch.tensor(value)
    return Target.adopt(net)


def test_a_kink_is_measured_in_units_of_the_largest_input() -> None:
    found = per_sample(bent(), ROWS, ("kink",))
    # Inputs of the ReLU: (1e-9, 0.75), (0.5, 0.75), (-0.5, 0.25).
    torch.testing.assert_close(found.kink, torch.tensor([0.0, 0.5 / 0.75, 0.5]))
    assert found.loss is None
    assert found.norm is None


def test_the_nearest_of_several_kinks_counts_and_none_is_infinitely_far() -> None:
    torch.manual_seed(0)
    one, two = nn.Linear(4, 8), nn.Linear(8, 4)
    x = torch.randn(6, 4)
    both = per_sample(Target.adopt(nn.Sequential(one, nn.ReLU(), two, nn.ReLU())), x, ("kink", "loss"))

    def nearness(z: Tensor) -> Tensor:
        return z.abs().amin(1) / z.abs().amax(1)

    wanted = torch.minimum(nearness(one(x)), nearness(two(one(x).relu())))
    torch.testing.assert_close(both.kink, wanted.detach())
    none = per_sample(Target.adopt(nn.Sequential(one, nn.Tanh(), two)), x, ("kink",))
    assert none.kink.isinf().all()
    assert not one._forward_pre_hooks


class Called(nn.Module):
    """Calls its ReLU in some way."""

    def __init__(self, way: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.layer, self.relu, self.way = nn.Linear(4, 4), nn.ReLU(), way

    def forward(self, x: Tensor) -> Tensor:
        return self.way(self.relu, self.layer(x))


def test_a_kink_however_the_relu_is_called() -> None:
    torch.manual_seed(0)
    x = torch.randn(6, 4)
    net = Called(lambda relu, h: relu(input=h))
    wanted = per_sample(Target.adopt(nn.Sequential(net.layer, nn.ReLU())), x, ("kink",)).kink
    torch.testing.assert_close(per_sample(Target.adopt(net), x, ("kink",)).kink, wanted)
    net.way = lambda relu, h: torch.cat([relu(h), relu(h[:, :0])], 1)
    torch.testing.assert_close(per_sample(Target.adopt(net), x, ("kink",)).kink, wanted)
    net.way = lambda relu, h: relu(h.t()).t()
    with pytest.raises(ValueError, match="called with 4 of something for 6 rows: leave 'kink' out of want"):
        per_sample(Target.adopt(net), x, ("kink",))


@pytest.mark.parametrize("memory", ["1GiB", 1])
def test_a_row_at_a_kink_has_the_gradient_of_double_precision(memory: str | int) -> None:
    target = bent()
    reference = {name: torch.ones_like(p) for name, p in target.parameters().items()}
    how = {
        "reference": reference, "sketch": Sketch(3, 0), "memory": memory,
        "fold": lambda name, gradients: gradients.flatten(1),
    }  # fmt: skip
    want = ("loss", "norm", "inner", "full", "sketch", "fold")
    single, ours = per_sample(target, ROWS, want, **how), steady(target, ROWS, want, **how)
    exact = per_sample(doubled(target), ROWS.double(), want, **how)
    assert (single.full[0] - exact.full[0]).abs().max() > 0.5  # the bent unit passes nothing on
    for name in want:
        own = getattr(ours, name)
        assert own.dtype == torch.float32
        torch.testing.assert_close(own, getattr(exact, name).float())
        assert torch.equal(own[1:], getattr(single, name)[1:])


def test_what_a_caller_is_unsure_of_is_computed_again() -> None:
    torch.manual_seed(0)
    target = Target.adopt(nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 4)))
    x = torch.randn(9, 4)
    odd = torch.arange(9) % 2 == 1
    ours = steady(target, x, ("norm",), unsure=lambda found: odd & (found.norm > 0).all(1))
    single = per_sample(target, x, ("norm",))
    exact = per_sample(doubled(target), x.double(), ("norm",))
    assert torch.equal(ours.norm[odd], exact.norm[odd].float())
    assert torch.equal(ours.norm[~odd], single.norm[~odd])


def test_the_copy_in_double_precision_follows_the_weights_and_leaves_them_alone() -> None:
    target = bent()
    copy = doubled(target)
    assert doubled(target) is copy
    assert {p.dtype for p in copy.module.parameters()} == {torch.float64}
    assert {p.dtype for p in target.module.parameters()} == {torch.float32}
    with torch.no_grad():
        target.module[0].weight.mul_(3)
    again = doubled(target)
    assert again is not copy
    assert torch.equal(again.module[0].weight, target.module[0].weight.double())


@pytest.mark.parametrize("score", [NormDensity(2), LabelledNorms(2)])
def test_short_gradients_want_digits(score: NormDensity | LabelledNorms) -> None:
    score.mean[:2] = torch.tensor([0.0, 2 * np.log(100.0)])  # usual lengths 1 and 100
    norms = torch.tensor([[1.0, 100.0], [0.02, 100.0], [0.005, 100.0], [1.0, 0.5], [1.0, 2.0]])
    found = per_sample(bent(), ROWS, ("loss",))
    object.__setattr__(found, "norm", norms)
    assert score.unsure(found).tolist() == [False, False, True, True, False]


IMAGES = np.random.default_rng(0).integers(0, 256, (100, 1, 9, 10)).astype(np.uint8)


@pytest.mark.parametrize(
    "detector",
    [
        ag.GradCon(epochs=1, random_state=0),
        ag.GradCon(target="vae", epochs=1, random_state=0),
        ag.GradDensity(epochs=1, random_state=0),
        ag.GraN(epochs=1, random_state=0),
        ag.GradScoreTest(epochs=1, random_state=0),
        ag.GradSubspace(epochs=1, random_state=0),
        ag.GradReferences(epochs=1, random_state=0),
    ],
    ids=lambda one: f"{type(one).__name__} {one.target}",
)
def test_a_detector_of_images_takes_the_side_that_double_precision_takes(
    detector: ag.GradCon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Biases are moved until float32 takes inputs of ReLUs for positive that are not, or the reverse."""
    detector.fit(IMAGES)
    rows = torch.cat(list(detector._encode(IMAGES[:40])))
    layer = detector.target_.module.up[0]

    def inputs(network: nn.Module, x: Tensor) -> Tensor:
        heard: list[Tensor] = []
        hook = network.up[0].register_forward_hook(lambda one, args, out: heard.append(out.flatten(2)))
        with torch.no_grad():
            network(x)
        hook.remove()
        return heard[0]

    for channel in range(len(layer.bias)):
        with torch.no_grad():
            layer.bias[channel] -= inputs(detector.target_.module, rows)[channel % 40, channel, 0]
    precise = copy.deepcopy(detector)
    precise.target_.module.double()
    precise.dtype_ = torch.float64
    for reference in (getattr(precise, "reference_", {}), *getattr(precise, "references_", ())):
        reference.update({name: value.double() for name, value in reference.items()})
    wrong = (inputs(detector.target_.module, rows) > 0) != (inputs(precise.target_.module, rows.double()) > 0)
    assert wrong.any()
    exact = precise._score_batch(rows.double()).double()
    scale = exact.abs().clamp_min(float(np.median(np.abs(detector.calibration_.scores))))

    def farthest() -> float:
        return float(((detector._score_batch(rows).double() - exact).abs() / scale).max())

    steadily = farthest()
    monkeypatch.setattr(type(detector), "_is_steady", lambda self: False)
    assert steadily < 3e-5
    assert farthest() > 3 * steadily


def test_a_network_that_goes_another_way_is_copied_anew() -> None:
    class Tripled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.flag = bent().module, False

        def forward(self, x: Tensor) -> Tensor:
            return 3 * self.inner(x) if self.flag else self.inner(x)

    target = Target.adopt(Tripled())
    steady(target, ROWS, ("norm",))
    target.module.flag = True
    found = steady(target, ROWS, ("norm", "loss"))
    exact = per_sample(Target.adopt(copy.deepcopy(target.module).double()), ROWS.double(), ("norm", "loss"))
    torch.testing.assert_close(found.norm, exact.norm.float())
    torch.testing.assert_close(found.loss, exact.loss.float())


def test_rows_of_whole_numbers_at_a_kink() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Embedding(3, 4), nn.Flatten(), nn.ReLU(), nn.Linear(8, 2))
    net[0].weight.data[1, 2] = 1e-9
    target = Target.adopt(net, loss=lambda output, x: output.square().sum(1))
    x = torch.tensor([[0, 1], [2, 2]])
    exact = per_sample(Target.adopt(copy.deepcopy(net).double(), loss=target.loss), x, ("norm",)).norm
    torch.testing.assert_close(steady(target, x, ("norm",)).norm, exact.float())

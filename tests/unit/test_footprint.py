"""What a plan says that a row takes, where autograd keeps little of it."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from anograd import Target, per_sample, plan
from anograd.features import read_activations, within_memory

IMAGES = torch.rand(6, 1, 16, 16)
ACTIVATION = 4 * 32 * 16 * 16  # bytes a row


def front(wrapped: bool = False) -> list[nn.Module]:
    """Two convolutions, at each of which an input and an output of many numbers are there."""
    layers = [nn.Conv2d(1, 32, 3, padding=1), nn.Conv2d(32, 32, 3, padding=1)]
    made = [weight_norm(layer) if wrapped else layer for layer in layers]
    return [made[0], nn.ReLU(), made[1], nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]


def test_what_a_frozen_front_needs_on_the_way_counts() -> None:
    target = Target.adopt(nn.Sequential(*front(), nn.Linear(32, 4)), loss="uniform", layers="6.*")
    assert 2 * ACTIVATION < plan(target, IMAGES).bytes_a_row < 5 * ACTIVATION


def test_a_table_that_is_the_same_for_all_rows_is_none_of_a_rows() -> None:
    class Placed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.body(x) * torch.ones(1000, 1000).diagonal()[:4].cos()

    target = Target.adopt(Placed())
    assert plan(target, torch.rand(6, 4)).bytes_a_row < 1000


def test_what_other_parameters_keep_counts_beside_those_with_rules() -> None:
    ruled = Target.adopt(nn.Sequential(*front(), nn.Linear(32, 4)), loss="uniform")
    fallen = Target.adopt(nn.Sequential(*front(wrapped=True), nn.Linear(32, 4)), loss="uniform")
    assert set(plan(fallen, IMAGES).by("rule", "vmap")) == set(fallen.layers)
    assert len(plan(fallen, IMAGES).by("vmap")) == 6
    assert plan(fallen, IMAGES).bytes_a_row > 0.5 * plan(ruled, IMAGES).bytes_a_row


@pytest.mark.parametrize("kind", ["norm", "full"])
def test_memory_bounds_the_rows_that_show_their_activations(kind: str) -> None:
    seen: list[int] = []
    net = nn.Sequential(*front(), nn.Linear(32, 4))
    net.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    target = Target.adopt(net, loss="uniform", layers="6.*")
    whole = read_activations(target, IMAGES, kind)
    budget = 2 * plan(target, IMAGES).bytes_a_row
    seen.clear()
    found = within_memory(lambda x: read_activations(target, x, kind), target, IMAGES, budget)
    assert max(seen) == 2
    torch.testing.assert_close(found.values, whole.values)
    torch.testing.assert_close(found.loss, whole.loss)
    assert found.widths == whole.widths


class Eager(nn.Module):
    """Attention by plain products, within one module."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(16, 48)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.mix(x).chunk(3, 2)
        return x + (q @ k.mT).softmax(2) @ v


def test_what_one_module_makes_inside_counts() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.front, self.head = Eager(), nn.Linear(16, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.front(x).mean(1))

    target = Target.adopt(Net(), loss="uniform", layers="head.*")
    among_positions = 4 * 128 * 128  # bytes a row
    assert 2 * among_positions < plan(target, torch.rand(6, 128, 16)).bytes_a_row < 4 * among_positions


def test_a_plan_leaves_no_tensor_with_a_graph() -> None:
    """As a node that keeps its own output does, where it goes through a hook as it is."""

    def alive() -> int:
        gc.collect()
        tensors = [one for one in gc.get_objects() if issubclass(type(one), torch.Tensor)]
        return sum(one.grad_fn is not None for one in tensors)

    net = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Softmax(1), nn.Linear(4, 4), nn.Sigmoid())
    before = alive()
    for _ in range(3):
        plan(Target.adopt(net), torch.rand(6, 4))
    assert alive() == before


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_passes_through_recurrent_layers_leave_no_tensor_behind(kind: type[nn.RNNBase]) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = kind(3, 4, batch_first=True), kind(4, 4, batch_first=True)
            self.out = nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(self.second(self.first(x)[0])[0])

    def alive() -> int:
        gc.collect()
        return sum(issubclass(type(one), torch.Tensor) for one in gc.get_objects())

    target, x = Target.adopt(Net()), torch.rand(5, 6, 3)
    per_sample(target, x)
    before = alive()
    for _ in range(3):
        per_sample(target, x)
    assert alive() == before


def test_a_large_weight_hides_nothing_of_a_frozen_front() -> None:
    """It is the same for one row and for two, and larger than all that the front makes."""
    body = [*front(), nn.Linear(32, 4096), nn.ReLU(), nn.Linear(4096, 512), nn.ReLU(), nn.Linear(512, 4)]
    target = Target.adopt(nn.Sequential(*body), loss="uniform", layers="10.*")
    assert 2 * ACTIVATION < plan(target, IMAGES).bytes_a_row < 5 * ACTIVATION


@pytest.mark.filterwarnings("ignore")  # what torch warns itself of
def test_operations_that_call_others_are_planned() -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            hidden = self.layer(x)
            return torch.cond(hidden.isnan().any(), torch.sin, torch.cos, (hidden,))

    assert plan(Target.adopt(Branching()), torch.rand(6, 4)).bytes_a_row > 0


def test_a_plan_loads_no_compiler() -> None:
    """Which takes a second or two, and is what every command would wait for."""
    code = (
        "import sys, torch; from anograd import Target, plan; "
        "plan(Target.adopt(torch.nn.Linear(3, 3)), torch.rand(4, 3)); print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"

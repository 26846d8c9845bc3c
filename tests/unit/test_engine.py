from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from anograd import Sketch, Target, per_sample, plan
from anograd.gradients import Direct, rule
from anograd.gradients.rules import _RULES
from anograd.gradients.served import parse_memory


def mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 4))


X = torch.linspace(-1, 1, 20).reshape(5, 4)


def test_columns_follow_the_chosen_parameters() -> None:
    target = Target.adopt(mlp(), layers="*.weight")
    found = per_sample(target, X, ("loss", "norm", "full"))
    assert found.layers == ("0.weight", "2.weight")
    assert found.loss.shape == (5,)
    assert found.norm.shape == (5, 2)
    assert found.full.shape == (5, 24)
    assert found.inner is None
    assert found.sketch is None
    with pytest.raises(AttributeError):
        found.loss = None  # frozen


def test_references_are_found_by_name_whatever_their_order() -> None:
    target = Target.adopt(mlp(), layers="*.weight")
    reference = {name: torch.randn_like(p) for name, p in target.parameters().items()}
    turned = dict(reversed(reference.items()))
    ours = per_sample(target, X, ("inner",), reference=reference).inner
    torch.testing.assert_close(per_sample(target, X, ("inner",), reference=turned).inner, ours)


def test_several_references_cost_one_pass() -> None:
    passes = []
    net = nn.Sequential(nn.Conv2d(1, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(12, 9))
    target = Target.adopt(net, loss=lambda output, x: passes.append(1) or output.square().sum(1))
    x = torch.linspace(-1, 1, 45).reshape(5, 1, 3, 3)
    references = [{n: torch.randn_like(p) for n, p in target.parameters().items()} for _ in range(3)]
    plan(target, x)
    passes.clear()
    found = per_sample(target, x, ("norm", "inner"), reference=references)
    assert len(passes) == 1
    assert found.inner.shape == (5, 4, 3)
    for i, reference in enumerate(references):
        alone = per_sample(target, x, ("norm", "inner"), reference=reference).inner
        torch.testing.assert_close(found.inner[..., i], alone)


def test_memory_bounds_the_chunk_and_not_the_result() -> None:
    target = Target.adopt(mlp())
    rows_seen: list[int] = []
    target.module[0].register_forward_hook(lambda layer, args, out: rows_seen.append(len(args[0])))
    whole = per_sample(target, X, ("loss", "norm", "full"))
    rows_seen.clear()
    one_row = plan(target, X).bytes_a_row
    parts = per_sample(target, X, ("loss", "norm", "full"), memory=2 * one_row)
    assert rows_seen == [2, 2, 1]
    for name in ("loss", "norm", "full"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name))


def test_memory_is_flat_in_the_number_of_rows() -> None:
    """The allocator's peak for 4,000 rows stays near that for 1,000 when memory= says so."""
    from torch.profiler import ProfilerActivity, profile

    net = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.ConvTranspose2d(8, 1, 3, padding=1))
    target = Target.adopt(net)
    reference = {name: torch.ones_like(p) for name, p in target.parameters().items()}

    def peak(rows: int) -> int:
        x = torch.rand(rows, 1, 16, 16)
        plan(target, x)
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
            per_sample(target, x, ("loss", "norm", "inner"), reference=reference, memory="8MiB")
        events = [e for e in found.profiler.kineto_results.events() if e.name() == "[memory]"]
        held = most = 0
        for event in sorted(events, key=lambda e: e.start_ns()):
            held += event.nbytes()
            most = max(most, held)
        return most

    small, large = peak(1000), peak(4000)
    assert large < 1.1 * small
    assert large < 24 * 2**20


@pytest.mark.parametrize(
    ("given", "bytes_"), [(1000, 1000), ("512MiB", 2**29), ("2GB", 2**31), ("1.5 kib", 1536), ("7", 7)]
)
def test_amounts_of_memory(given: str | int, bytes_: int) -> None:
    assert parse_memory(given) == bytes_


@pytest.mark.parametrize("given", ["lots", "", "-1GiB", 0, "0MB"])
def test_no_amount_of_memory(given: str | int) -> None:
    with pytest.raises(ValueError, match=r"is no amount of memory.*memory='1GiB'"):
        parse_memory(given)


def test_bad_calls_say_what_is_wanted() -> None:
    target = Target.adopt(mlp(), layers="*.weight")
    with pytest.raises(ValueError, match=r"want=\('grad',\).*'loss', 'norm', 'inner', 'weighted', 'full'"):
        per_sample(target, X, ("grad",))
    with pytest.raises(ValueError, match="'inner' is wanted without a reference"):
        per_sample(target, X, ("inner",), reference=[])
    with pytest.raises(ValueError, match="'inner' is wanted without a reference"):
        per_sample(target, X, ("inner",))
    with pytest.raises(ValueError, match=r"nothing for parameter '2\.weight'; it names 0\.weight"):
        per_sample(target, X, ("inner",), reference={"0.weight": torch.zeros(3, 4)})
    with pytest.raises(
        ValueError, match=r"'0\.weight' has shape \(4, 3\), but the parameter has shape \(3, 4\)"
    ):
        per_sample(target, X, ("inner",), reference={"0.weight": torch.zeros(4, 3), "2.weight": X})
    with pytest.raises(ValueError, match="'weighted' is wanted without a weight: pass weight="):
        per_sample(target, X, ("weighted",))
    with pytest.raises(ValueError, match=r"the weight has nothing for parameter '2\.weight'"):
        per_sample(target, X, ("weighted",), weight={"0.weight": torch.zeros(3, 4)})
    with pytest.raises(ValueError, match=r"no rows: x has shape \(0, 4\)"):
        per_sample(target, X[:0])


def test_what_is_no_tensor_is_refused() -> None:
    target = Target.adopt(nn.Linear(4, 4), layers="weight")
    for rows in (X.numpy(), X.tolist()):
        with pytest.raises(
            TypeError, match=r"x is a (ndarray|list); a tensor is wanted: torch\.as_tensor\(x\)"
        ):
            per_sample(target, rows)
    with pytest.raises(TypeError, match="the reference for 'weight' is a ndarray; a tensor is wanted"):
        per_sample(target, X, ("inner",), reference={"weight": np.zeros((4, 4))})
    with pytest.raises(TypeError, match=r"the network is a function; a torch\.nn\.Module is wanted"):
        Target.adopt(lambda rows: rows)


def test_batch_norm_without_running_statistics_is_named() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, track_running_stats=False))
    with pytest.raises(ValueError, match=r"layer '1' \(BatchNorm1d\) keeps no running statistics"):
        per_sample(Target.adopt(net), X)


def test_a_parameter_that_is_never_used_has_gradient_zero() -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.Linear(4, 4), nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x)

    target = Target.adopt(Idle(), layers="*.weight")
    found = per_sample(target, X, ("norm", "full", "sketch"), sketch=Sketch(3))
    assert (found.norm[:, 1] == 0).all()
    assert (found.norm[:, 0] > 0).all()
    assert (found.full[:, 16:] == 0).all()


def test_layers_called_by_keyword_or_without_gradients() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                hidden = self.first(x)
            return self.second(input=hidden)

    torch.manual_seed(0)
    net = Mixed()
    found = per_sample(Target.adopt(net, layers="*.weight"), X, ("full",)).full
    for i, row in enumerate(X.split(1)):
        loss = (net(row) - row).square().mean()
        (expected,) = torch.autograd.grad(loss, net.second.weight)
        torch.testing.assert_close(found[i, 16:], expected.flatten())
    assert (found[:, :16] == 0).all()


@pytest.mark.parametrize("size", [1e12, 1e-14])
def test_a_length_has_room_where_its_square_has_none(size: float) -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    x = size * torch.ones(2, 4)
    target = Target.adopt(net, loss=lambda output, x: output.square().sum(1))
    full = per_sample(target, x, ("full",)).full.double()
    own = torch.stack([part.norm(dim=1) for part in full.split([16, 4, 16, 4], 1)], 1)
    torch.testing.assert_close(per_sample(target, x).norm.double(), own, rtol=1e-6, atol=0)


def test_a_network_of_the_old_weight_norm_comes_back_as_it_was() -> None:
    with pytest.warns(FutureWarning):
        net = nn.Sequential(nn.utils.weight_norm(nn.Linear(4, 4)), nn.PReLU())
    with torch.no_grad():
        before = net(X.float())
    per_sample(Target.adopt(net), X.float())
    torch.testing.assert_close(copy.deepcopy(net)(X.float()).detach(), before)


def test_a_loss_that_does_not_depend_on_the_network_has_gradient_zero() -> None:
    target = Target.adopt(mlp(), loss=lambda output, x: x.square().sum(1))
    assert (per_sample(target, X).norm == 0).all()


def test_a_network_whose_path_depends_on_the_batch_is_refused() -> None:
    class Fickle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(self.layer(x)) if len(x) > 3 else self.layer(x)

    target = Target.adopt(Fickle())
    per_sample(target, X[:2])
    with pytest.raises(ValueError, match=r"rows influence each other: the first has loss .* among 5"):
        per_sample(target, X)


def test_the_plan_prints_rules_shapes_and_memory() -> None:
    net = nn.Sequential(nn.Linear(4, 3), nn.PReLU(), nn.Linear(3, 4))
    text = str(plan(Target.adopt(net), X))
    assert "0.weight   3x4    12            Linear  rule" in text
    assert "1.weight   1      1             PReLU   vmap (no rule for this layer)" in text
    assert "gradient: 32 floats a row when stored in full" in text
    assert "rows at once within memory='1GiB'" in text


def test_a_rule_of_the_users_own() -> None:
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = nn.Parameter(torch.full((4,), 2.0))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.factor

    x = X.double()
    net = nn.Sequential(nn.Linear(4, 4), Scale()).double()
    by_vmap = per_sample(Target.adopt(net), x, ("full",)).full
    try:

        @rule(Scale, parameter="factor")
        def scale_factor(layer: nn.Module, a: Tensor, d: Tensor) -> Direct:
            return Direct(a * d)

        target = Target.adopt(net)
        assert {one.by for one in plan(target, x).served} == {"rule"}
        torch.testing.assert_close(per_sample(target, x, ("full",)).full, by_vmap)
    finally:
        _RULES.pop((Scale, "factor"))


def test_a_subclass_is_not_served_by_its_parents_rule() -> None:
    class Doubled(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * x.sum(1, keepdim=True)

    target = Target.adopt(Doubled(4, 4).double())
    assert {one.by for one in plan(target, X.double()).served} == {"vmap"}


def test_threads_do_not_disturb_each_other() -> None:
    from concurrent.futures import ThreadPoolExecutor

    target = Target.adopt(mlp())
    expected = per_sample(target, X, ("full",)).full
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: per_sample(target, X, ("full",)).full, range(40)):
            torch.testing.assert_close(found, expected)


def test_integers_and_half_precision() -> None:
    net = mlp().to(torch.bfloat16)
    found = per_sample(Target.adopt(net), X.to(torch.bfloat16), ("loss", "norm"))
    exact = per_sample(Target.adopt(mlp()), X, ("loss", "norm"))
    torch.testing.assert_close(found.loss.float(), exact.loss, rtol=0.03, atol=0.03)
    torch.testing.assert_close(found.norm.float(), exact.norm, rtol=0.05, atol=0.03)


def test_a_reduction_of_ones_own_sees_every_gradient_once() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 2), nn.Linear(2, 36))
    target = Target.adopt(net, loss=lambda output, x: (output - x.flatten(1)).square().mean(1))
    x = torch.rand(40, 1, 6, 6)
    seen: dict[str, int] = {}

    def longest_entry(name: str, gradients: Tensor) -> Tensor:
        assert gradients.shape[1:] == target.parameters()[name].shape
        seen[name] = seen.get(name, 0) + len(gradients)
        flat = gradients.flatten(1)
        return torch.stack([flat.abs().amax(1), flat.sum(1)], dim=1)

    found = per_sample(target, x, ("fold", "full"), fold=longest_entry, memory="100KiB")
    sizes = [p.numel() for p in target.parameters().values()]
    parts = found.full.split(sizes, dim=1)
    expected = torch.cat([torch.stack([g.abs().amax(1), g.sum(1)], dim=1) for g in parts], dim=1)
    torch.testing.assert_close(found.fold, expected)
    assert seen == dict.fromkeys(target.layers, 40)
    with pytest.raises(ValueError, match="'fold' is wanted without one: pass fold="):
        per_sample(target, x, ("fold",))


@pytest.mark.parametrize("memory", ["1GiB", "2KiB"])
def test_a_fold_with_weights_of_its_own_keeps_no_graph_where_none_is_asked_for(memory: str) -> None:
    own, target = nn.Linear(25, 2), Target.adopt(nn.Linear(5, 5), layers="weight")
    fold = lambda name, gradients: own(gradients.flatten(1))  # noqa: E731
    for mode, kept in ((torch.enable_grad, True), (torch.no_grad, False), (torch.inference_mode, False)):
        with mode():
            found = per_sample(target, torch.ones(30, 5), ("fold", "norm"), fold=fold, memory=memory)
        assert found.fold.requires_grad == kept
        assert not found.norm.requires_grad
        assert not found.norm.is_inference()


class Listed(nn.Module):
    """A tied weight that is reached by a list."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(6, 4)
        self.tied = [self.encoder.weight]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.encoder(x)) @ self.tied[0]


@pytest.mark.parametrize("held", ["network", "loss"])
def test_a_parameter_that_is_held_past_its_module_is_named(held: str) -> None:
    """What stands in for it would not be seen there, and a part of the gradient would be missing."""
    net = Listed() if held == "network" else nn.Linear(6, 6)
    weights = list(net.parameters())

    def decayed(output: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return (output - x).square().mean(1) + sum(w.square().sum() for w in weights)

    def asked(output: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return (output - x).square().mean(1) + sum(w.square().sum() for w in net.parameters())

    x = torch.randn(5, 6)
    target = Target.adopt(net, loss="mse" if held == "network" else decayed)
    with pytest.raises(
        ValueError, match=r"holds '(encoder\.)?weight' itself, in a list or as a captured variable"
    ):
        per_sample(target, x)
    if held == "loss":
        found = per_sample(Target.adopt(net, loss=asked), x[:1]).norm
        slope = torch.autograd.grad(asked(net(x[:1]), x[:1]).sum(), list(net.parameters()))
        torch.testing.assert_close(found[0], torch.stack([one.norm() for one in slope]))

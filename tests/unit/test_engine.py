from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from anograd import Sketch, Target, per_sample, plan
from anograd.gradients import Direct, rule
from anograd.gradients.planning import parse_memory
from anograd.gradients.rules import _RULES


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
    with pytest.raises(ValueError, match=r"want=\('grad',\).*'loss', 'norm', 'inner', 'full', 'sketch'"):
        per_sample(target, X, ("grad",))
    with pytest.raises(ValueError, match="'inner' is wanted without a reference"):
        per_sample(target, X, ("inner",))
    with pytest.raises(ValueError, match=r"nothing for parameter '2\.weight'; it names 0\.weight"):
        per_sample(target, X, ("inner",), reference={"0.weight": torch.zeros(3, 4)})
    with pytest.raises(
        ValueError, match=r"'0\.weight' has shape \(4, 3\), but the parameter has shape \(3, 4\)"
    ):
        per_sample(target, X, ("inner",), reference={"0.weight": torch.zeros(4, 3), "2.weight": X})
    with pytest.raises(ValueError, match=r"no rows: x has shape \(0, 4\)"):
        per_sample(target, X[:0])


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
    with pytest.raises(ValueError, match="called its layers in another order than for the first row"):
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


def test_autocast_agrees_with_float32_and_reduces_in_float32() -> None:
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


def test_autocast_to_something_else_is_refused() -> None:
    with pytest.raises(ValueError, match=r"autocast=torch\.float64.*use autocast=torch\.bfloat16"):
        per_sample(Target.adopt(mlp()), X, autocast=torch.float64)

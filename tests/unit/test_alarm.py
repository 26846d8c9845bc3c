from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from anograd.alarm.network import AlarmNetwork, AlarmPair, Dropout, PooledBatchNorm
from anograd.alarm.published import (
    AlarmPlan,
    _noise_batches,
    _train_alarm,
    published_step,
    train_as_published,
)
from anograd.train import KerasAdam, seeded

BIG, SMALL = (1000, 500, 200, 75), (100, 50, 25, 10)
PLAN = AlarmPlan(epochs=3, batch_size=16, learning_rate=1e-2)
LABELS = (torch.arange(40) % 5 == 0).float()
FEATURES = (torch.arange(40 * 2 * 6).float() * 0.7).sin().reshape(40, 2, 6) + LABELS[:, None, None]


def pair(**changes: Any) -> tuple[PooledBatchNorm, AlarmNetwork]:
    settings = {"features": 6, "checkpoints": 2, "widths": (5, 4, 3), "dropout": 0.4}
    with seeded(0):
        return PooledBatchNorm(6), AlarmNetwork(**{**settings, **changes})


def noise_of(count: int) -> Tensor:
    return 5 + torch.randn(count, 2, 6)


def run(seed: int = 1, **changes: Any) -> tuple[PooledBatchNorm, AlarmNetwork, list[dict[str, float]]]:
    norm, alarm = pair()
    given = {"features_of": lambda rows: FEATURES[rows], "labels": LABELS, "noise_of": noise_of, "plan": PLAN}
    history = train_as_published(norm, alarm, **{**given, **changes}, seed=seed)
    return norm, alarm, history


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def optimizers(norm: nn.Module, alarm: nn.Module) -> tuple[KerasAdam, KerasAdam]:
    trained = [p for p in alarm.parameters() if p.requires_grad]
    return KerasAdam(trained, 1e-2), KerasAdam(norm.parameters(), 1e-2)


class Still(torch.optim.SGD):
    """An optimiser that takes no step."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module.parameters(), lr=0.0)


def test_statistics_are_pooled_over_rows_and_checkpoints() -> None:
    pooled, flat = PooledBatchNorm(6), PooledBatchNorm(6)
    torch.testing.assert_close(pooled(FEATURES).flatten(0, 1), flat(FEATURES.flatten(0, 1)))
    expected = FEATURES.flatten(0, 1)
    torch.testing.assert_close(pooled.mean, 0.01 * expected.mean(0))
    torch.testing.assert_close(pooled.variance, 0.99 + 0.01 * expected.var(0, correction=0))
    torch.testing.assert_close(flat.mean, pooled.mean)
    # Normalising each checkpoint by itself would be something else.
    alone = torch.stack([PooledBatchNorm(6)(FEATURES[:, t]) for t in range(2)], 1)
    assert (alone - pooled(FEATURES)).abs().max() > 0.01


def test_the_batch_norm_equals_torchs_in_both_modes_but_for_the_moving_variance() -> None:
    mine, theirs = PooledBatchNorm(6), nn.BatchNorm1d(6, eps=1e-3, momentum=0.01)
    x = FEATURES.flatten(0, 1)
    for _ in range(3):
        torch.testing.assert_close(mine(x), theirs(x))
    n = len(x)
    biased = 1 + (theirs.running_var - 1 + (1 - 0.99**3)) * (n - 1) / n - (1 - 0.99**3)
    torch.testing.assert_close(mine.mean, theirs.running_mean)
    torch.testing.assert_close(mine.variance, biased)
    theirs.running_var = mine.variance
    torch.testing.assert_close(mine.eval()(x), theirs.eval()(x))


def test_in_evaluation_mode_nothing_moves_and_a_row_stands_for_itself() -> None:
    norm, _ = pair()
    norm(FEATURES)
    before = state(norm.eval())
    torch.testing.assert_close(norm(FEATURES)[:3], norm(FEATURES[:3]), rtol=0, atol=0)
    assert same(before, state(norm))


def test_step_one_moves_only_the_alarm_network() -> None:
    norm, alarm = pair()
    before_norm, before_alarm = state(norm), state(alarm)
    _train_alarm(norm, alarm, FEATURES, LABELS, noise_of(40), optimizers(norm, alarm)[0])
    assert same(before_norm, state(norm))
    moved = [name for name, value in alarm.state_dict().items() if not torch.equal(value, before_alarm[name])]
    assert set(moved) == {name for name, p in alarm.named_parameters() if p.requires_grad}


def test_step_two_moves_only_the_batch_norm() -> None:
    norm, alarm = pair()
    before_norm, before_alarm = state(norm), state(alarm)
    still, second = Still(alarm), optimizers(norm, alarm)[1]
    published_step(norm, alarm, FEATURES, LABELS, noise_of(40), still, second)
    assert same(before_alarm, state(alarm))
    assert not any(torch.equal(value, before_norm[name]) for name, value in state(norm).items())


def test_a_step_leaves_no_gradient_behind() -> None:
    norm, alarm = pair()
    published_step(norm, alarm, FEATURES, LABELS, None, *optimizers(norm, alarm))
    assert all(p.grad is None for p in [*norm.parameters(), *alarm.parameters()])


def test_noise_never_enters_the_statistics_but_teaches_the_alarm_network() -> None:
    found = []
    for noise in (None, noise_of(40), 100 * noise_of(7)):
        norm, alarm = pair()
        losses = published_step(norm, alarm, FEATURES, LABELS, noise, *optimizers(norm, alarm))
        assert (losses[1] == 0) == (noise is None)
        torch.testing.assert_close(losses[2], losses[0] + losses[1])
        found.append((norm, alarm))
    for norm, alarm in found[1:]:
        assert torch.equal(norm.mean, found[0][0].mean)
        assert torch.equal(norm.variance, found[0][0].variance)
        assert not same(state(alarm), state(found[0][1]))


def test_losses_of_a_step_are_those_of_two_passes_by_hand() -> None:
    norm, alarm = pair(dropout=0.0)
    noise, still = noise_of(23), Still(alarm)
    with torch.no_grad():
        bce = nn.BCELoss()
        fresh, _ = pair()
        rows, of_noise = (alarm(fresh.eval()(x)).sigmoid() for x in (FEATURES, noise))
        expected = [bce(rows, LABELS), bce(of_noise, torch.ones(23))]
        second = bce(alarm(fresh.train()(FEATURES)).sigmoid(), LABELS)
    losses = published_step(norm, alarm, FEATURES, LABELS, noise, still, Still(norm))
    torch.testing.assert_close(losses, torch.stack([*expected, sum(expected), second]))
    assert abs(losses[0] - losses[3]) > 1e-5  # moving statistics in the first, the batch's in the second


def test_dropout_is_on_in_step_one_and_off_in_step_two() -> None:
    seen = []
    norm, alarm = pair()
    alarm.dropout.register_forward_hook(lambda module, given, output: seen.append(module.training))
    published_step(norm, alarm, FEATURES, LABELS, None, *optimizers(norm, alarm))
    assert seen == [True, True, False, False]


def test_keras_adam_is_the_formula_of_keras() -> None:
    weight, m, v = torch.tensor([1.0, 1.0, 1.0], dtype=torch.float64), 0.0, 0.0
    mine = weight.clone().requires_grad_()
    torchs = weight.clone().requires_grad_()
    optimizer, other = KerasAdam([mine], 1e-3), torch.optim.Adam([torchs], 1e-3, eps=1e-7)
    for t in range(1, 5):
        gradient = torch.tensor([1e-8, -1e-6, 1.0], dtype=torch.float64) * t
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        rate = 1e-3 * math.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        weight = weight - rate * m / (v.sqrt() + 1e-7)
        mine.grad, torchs.grad = gradient.clone(), gradient.clone()
        optimizer.step()
        other.step()
    torch.testing.assert_close(mine.detach(), weight, rtol=0, atol=1e-14)
    assert abs(torchs[1] - mine[1]) > 1e-4


@pytest.mark.parametrize(
    ("features", "checkpoints", "widths", "millions"),
    [
        (6504, 1, BIG, 7.1), (6504, 3, BIG, 33.2), (1754, 1, BIG, 2.4), (1754, 3, BIG, 14.1),
        (12012, 1, BIG, 12.7), (12012, 3, BIG, 55.2), (9657, 1, BIG, 10.3), (9657, 3, BIG, 45.8),
        (126, 1, SMALL, 0.02), (126, 3, SMALL, 0.12),
    ],
)  # fmt: skip
def test_as_many_trained_weights_as_published(
    features: int, checkpoints: int, widths: tuple[int, ...], millions: float
) -> None:
    with torch.device("meta"):  # counted without being held
        parts = (PooledBatchNorm(features), AlarmNetwork(features, checkpoints, widths))
    found = sum(p.numel() for part in parts for p in part.parameters() if p.requires_grad)
    assert round(found / 1e6, 1 if widths == BIG else 2) == millions


@pytest.mark.parametrize("widths", [(5, 4), (5, 4, 3), (7, 6, 5, 4, 3)])
def test_trained_weights_by_the_formula_of_keras(widths: tuple[int, ...]) -> None:
    alarm = AlarmNetwork(6, 3, widths)
    expected = sum(
        4 * u * (i + u + 1) for i, u in zip((6, *widths), widths[:2], strict=False)
    ) + sum(u * (i + 1) for i, u in zip(widths[1:], (*widths[2:], 1), strict=True))  # fmt: skip
    assert sum(p.numel() for p in alarm.parameters() if p.requires_grad) == expected


def test_weights_start_as_in_keras() -> None:
    with seeded(0):
        alarm = AlarmNetwork(40, 3, (30, 20, 10))
    for lstm, (i, u) in zip(alarm.recurrent, [(40, 30), (30, 20)], strict=True):
        kernel, recurrent, bias = lstm.weight_ih_l0, lstm.weight_hh_l0, lstm.bias_ih_l0
        limit = math.sqrt(6 / (i + 4 * u))
        assert 0.98 * limit < kernel.abs().max() <= limit
        torch.testing.assert_close(recurrent.T @ recurrent, torch.eye(u))
        assert bias.view(4, u).unique(dim=1).flatten().tolist() == [0, 1, 0, 0]
        assert not lstm.bias_hh_l0.any()
        assert not lstm.bias_hh_l0.requires_grad
    dense = [layer for layer in alarm.dense if isinstance(layer, nn.Linear)]
    assert all(not layer.bias.any() for layer in dense)
    assert 0.95 * math.sqrt(6 / 30) < dense[0].weight.abs().max() <= math.sqrt(6 / 30)


def test_the_second_bias_is_never_trained() -> None:
    _, alarm, _ = run()
    assert not any(lstm.bias_hh_l0.any() for lstm in alarm.recurrent)


def test_one_checkpoint_is_dense_layers_alone() -> None:
    alarm = AlarmNetwork(6, 1, (5, 4)).eval()
    assert not list(alarm.recurrent)
    assert [type(layer) for layer in alarm.dense] == [
        nn.Linear, nn.ReLU, Dropout, nn.Linear, nn.ReLU, Dropout, nn.Linear,
    ]  # fmt: skip
    x = FEATURES[:, :1]
    assert alarm(x).shape == (40,)
    assert torch.equal(alarm(x), alarm(x[:, 0]))
    assert AlarmNetwork(6, 1, (5,))(x).shape == (40,)


def test_the_order_of_checkpoints_counts() -> None:
    _, alarm = pair()
    alarm.eval()
    assert alarm(FEATURES).shape == (40,)
    assert (alarm(FEATURES) - alarm(FEATURES.flip(1))).abs().max() > 1e-3


def test_dropout_drops_its_share_and_keeps_the_mean() -> None:
    dropout = Dropout(0.4)
    with seeded(0):
        found = dropout(torch.ones(100_000))
    assert abs((found == 0).float().mean() - 0.4) < 0.01
    assert abs(found.mean() - 1) < 0.01
    assert found.max() == pytest.approx(1 / 0.6)
    assert torch.equal(dropout.eval()(torch.ones(9)), torch.ones(9))
    with pytest.raises(ValueError, match=r"dropout=1, wanted a share of 0 or more and less than 1"):
        Dropout(1)


def test_an_lstm_stays_in_training_mode_where_cudnn_wants_it() -> None:
    _, alarm = pair()
    alarm.eval()
    assert all(lstm.training for lstm in alarm.recurrent)
    assert not any(part.training for part in alarm.modules() if isinstance(part, Dropout))


@pytest.mark.parametrize(
    ("checkpoints", "widths", "wanted"),
    [(3, (5,), "2 or more"), (1, (), "1 or more"), (0, (5,), "1 or more")],
)
def test_too_few_widths_or_checkpoints(checkpoints: int, widths: tuple[int, ...], wanted: str) -> None:
    with pytest.raises(ValueError, match=rf"checkpoints={checkpoints} got widths=.*{wanted} widths"):
        AlarmNetwork(6, checkpoints, widths)


@pytest.mark.parametrize("shape", [(4, 6), (4, 3, 6), (4, 2, 5), ()])
def test_features_of_another_shape(shape: tuple[int, ...]) -> None:
    _, alarm = pair()
    with pytest.raises(ValueError, match=r"got features of shape .*, wanted \(n, 2, 6\): build it with"):
        alarm(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(4, 1), (4, 2, 1), (6,), ()])
def test_the_batch_norm_does_not_broadcast(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"got features of shape .*, wanted \(n, T, 6\) or \(n, 6\)"):
        PooledBatchNorm(6)(torch.zeros(shape))


def beside(columns: int = 3, recurrent: bool = False, checkpoints: int = 2) -> AlarmPair:
    with seeded(0):
        return AlarmPair(checkpoints, 6, columns, (5, 4, 3), recurrent=recurrent)


ENTRIES = torch.cat([FEATURES.flatten(1), (torch.arange(40 * 3).float() * 1.3).cos().reshape(40, 3)], dim=1)


@pytest.mark.parametrize("recurrent", [False, True])
def test_a_pair_gives_the_mean_of_its_members_in_evaluation_and_each_in_training(recurrent: bool) -> None:
    pair = beside(recurrent=recurrent).eval()
    gradients, columns = (
        member(part) for member, part in zip(pair.members, ENTRIES.split([12, 3], dim=1), strict=True)
    )
    found = pair(ENTRIES)
    assert found.shape == (40,)
    torch.testing.assert_close(found, (gradients + columns) / 2)
    assert (gradients - columns).abs().max() > 1e-3
    pair.train()
    assert pair(ENTRIES).shape == (2, 40)
    for part in pair.modules():
        if isinstance(part, Dropout):
            part.share = 0.0
    torch.testing.assert_close(pair(ENTRIES), torch.stack([gradients, columns]))


@pytest.mark.parametrize("recurrent", [False, True])
def test_each_member_reads_its_own_part_only(recurrent: bool) -> None:
    pair = beside(recurrent=recurrent)
    for part in pair.modules():
        if isinstance(part, Dropout):
            part.share = 0.0
    other_gradients, other_columns = ENTRIES.clone(), ENTRIES.clone()
    other_gradients[:, :12] += 1
    other_columns[:, 12:] += 1
    before = pair(ENTRIES)
    for changed, moved in ((other_gradients, 0), (other_columns, 1)):
        found = pair(changed)
        assert torch.equal(found[1 - moved], before[1 - moved])
        assert (found[moved] - before[moved]).abs().max() > 1e-3


@pytest.mark.parametrize("recurrent", [False, True])
def test_a_pair_reads_checkpoints_in_order_only_where_it_is_recurrent(recurrent: bool) -> None:
    for checkpoints, lstms in ((2, 2 if recurrent else 0), (1, 0)):
        pair = beside(recurrent=recurrent, checkpoints=checkpoints)
        of_gradients, of_columns = (member[1] for member in pair.members)
        assert (len(of_gradients.recurrent), len(of_columns.recurrent)) == (lstms, 0)
        assert (of_columns.features, of_columns.checkpoints) == (3, 1)


def test_without_columns_a_pair_is_one_network() -> None:
    pair = beside(columns=0).eval()
    (member,) = pair.members
    x = FEATURES.flatten(1)
    assert torch.equal(pair(x), member(x))
    assert pair.train()(x).shape == (1, 40)


def test_one_seed_gives_the_same_weights_twice() -> None:
    (norm, alarm, history), (norm2, alarm2, history2), (_, other, _) = run(), run(), run(seed=2)
    assert same(state(norm), state(norm2))
    assert same(state(alarm), state(alarm2))
    assert history == history2
    assert not same(state(alarm), state(other))


def test_no_global_generator_is_touched() -> None:
    norm, alarm = pair()
    before = torch.random.get_rng_state()
    train_as_published(norm, alarm, lambda rows: FEATURES[rows], LABELS, noise_of, PLAN, seed=3)
    assert torch.equal(before, torch.random.get_rng_state())


def test_training_separates_what_is_labelled_and_what_is_noise() -> None:
    plan = AlarmPlan(epochs=60, batch_size=16, learning_rate=1e-2)
    norm, alarm, history = run(plan=plan)
    assert not norm.training
    assert not alarm.training
    assert all(p.grad is None for p in [*norm.parameters(), *alarm.parameters()])
    assert history[-1]["loss"] < 0.75 * history[0]["loss"]
    with torch.no_grad():
        logits, of_noise = alarm(norm(FEATURES)), alarm(norm(noise_of(50)))
    assert logits[LABELS == 1].median() > logits[LABELS == 0].quantile(0.9)
    assert of_noise.median() > logits[LABELS == 0].quantile(0.9)


def test_an_epoch_is_reported_and_kept() -> None:
    told: list[tuple[str, dict[str, Any]]] = []
    _, _, history = run(observe=lambda name, data: told.append((name, dict(data))))
    assert [name for name, _ in told] == ["epoch"] * 3
    assert [data["epoch"] for _, data in told] == [1, 2, 3]
    for (_, data), losses in zip(told, history, strict=True):
        assert data == {"epoch": data["epoch"], "epochs": 3, **losses}
        assert losses["loss"] == pytest.approx(losses["loss_rows"] + losses["loss_noise"])


def test_every_row_is_seen_once_an_epoch_with_as_much_noise() -> None:
    seen, made = [], []

    def features_of(rows: Tensor) -> Tensor:
        seen.append(rows)
        return FEATURES[rows]

    def counted(count: int) -> Tensor:
        made.append(count)
        return noise_of(count)

    run(features_of=features_of, noise_of=counted)
    assert [len(rows) for rows in seen] == [16, 16, 8] * 3
    assert torch.equal(torch.cat(seen).view(3, 40).sort(1).values, torch.arange(40).expand(3, 40))
    assert not torch.equal(torch.cat(seen[:3]), torch.cat(seen[3:6]))
    assert made == [40] * 3


def test_noise_is_made_for_many_batches_at_once_and_none_is_used_twice() -> None:
    made: list[int] = []

    def counting(count: int) -> Tensor:
        start = sum(made)
        made.append(count)
        return torch.arange(start, start + count)

    found = list(_noise_batches(counting, [4, 4, 4, 4, 3], at_once=10))
    assert made == [8, 8, 3]
    assert [len(one) for one in found] == [4, 4, 4, 4, 3]
    assert torch.equal(torch.cat(found), torch.arange(19))
    assert list(_noise_batches(None, [4, 3], at_once=10)) == [None, None]


def test_training_without_noise() -> None:
    _, _, history = run(noise_of=None)
    assert all(losses["loss_noise"] == 0 and losses["loss_rows"] > 0 for losses in history)


def test_a_loss_that_is_no_number_is_an_error() -> None:
    broken = FEATURES.clone()
    broken[7] = math.nan
    with pytest.raises(
        FloatingPointError, match=r"became nan in epoch 1: lower learning_rate \(it is 0.01\)"
    ):
        run(features_of=lambda rows: broken[rows])

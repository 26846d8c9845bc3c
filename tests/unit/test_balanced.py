"""Alarm networks that see few known anomalies often."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from anograd.alarm import AlarmNetwork
from anograd.alarm.balanced import SLACK, BalancedPlan, Material, logits, parts, train_balanced
from anograd.alarm.network import AlarmPair, Dropout
from anograd.checkpoint import Keeper
from anograd.train import seeded

PLAN = BalancedPlan(epochs=4, batch_size=20, learning_rate=1e-2)
with seeded(0):
    ROWS = torch.randn(60, 5)
    KNOWN = torch.randn(7, 5) + 3
    NOISE = 4 * torch.randn(50, 5)


def material(**changes: Any) -> Material:
    given = {
        "features_of": lambda index: ROWS[index],
        "train": torch.arange(40),
        "validation": torch.arange(40, 60),
        "known": KNOWN,
        "noise": NOISE,
    }
    return Material(**{**given, **changes})


def networks(count: int) -> list[nn.Module]:
    with seeded(1):
        return [AlarmNetwork(5, 1, (8,)) for _ in range(count)]


class Recording(nn.Module):
    """An alarm network that notes what it learns from."""

    def __init__(self) -> None:
        super().__init__()
        self.net = AlarmNetwork(5, 1, (4,))
        self.learned: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.learned.append(x.clone())
        return self.net(x)


def known_in(batch: Tensor, of: Tensor = KNOWN) -> Tensor:
    """Which rows of a batch are which of these: bool, (rows, of)."""
    return (batch[:, None] == of).all(2)


@pytest.mark.parametrize("known", [2, 3, 4, 7, 100])
@pytest.mark.parametrize("count", [2, 4, 5])
def test_parts_share_the_known_out(known: int, count: int) -> None:
    found = parts(known, count)
    assert len(found) == min(known, count)
    assert torch.cat(found).sort().values.tolist() == list(range(known))
    sizes = [len(one) for one in found]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(("known", "count"), [(0, 4), (1, 4), (1, 1), (2, 1), (50, 1)])
def test_where_one_network_must_learn_from_all_nothing_is_left_out(known: int, count: int) -> None:
    assert [len(one) for one in parts(known, count)] == [0]


def test_no_network_learns_from_what_it_leaves_out() -> None:
    with seeded(1):
        alarms = [Recording() for _ in range(3)]
    left_out = parts(7, 3)
    train_balanced(alarms, left_out, material(), BalancedPlan(30, 20, 1e-2))
    for alarm, out in zip(alarms, left_out, strict=True):
        seen = known_in(torch.cat(alarm.learned)).any(0)
        assert not seen[out].any()
        assert seen.sum() == 7 - len(out)  # and from all others


def test_no_network_learns_from_validation_rows() -> None:
    alarm = Recording()
    train_balanced([alarm], [torch.arange(0)], material(), PLAN)
    learned = torch.cat(alarm.learned)
    assert not known_in(learned, ROWS[40:]).any()
    assert known_in(learned, ROWS[:40]).any(0).all()


def test_shares_of_a_batch() -> None:
    alarm = Recording()
    train_balanced([alarm], [torch.arange(0)], material(), PLAN)
    assert PLAN.counts(7, 50) == (14, 4, 2)
    assert len(alarm.learned) == 4 * 2  # 40 rows, 14 at once; what is left over would be out of balance
    for batch in alarm.learned:
        assert known_in(batch, ROWS).any(1).sum() == 14
        assert known_in(batch).any(1).sum() == 4
        assert known_in(batch, NOISE).any(1).sum() == 2


@pytest.mark.parametrize(
    ("known", "noise", "expected"),
    [(0, 0, (256, 0, 0)), (9, 0, (205, 51, 0)), (0, 9, (230, 0, 26)), (9, 9, (179, 51, 26))],
)
def test_what_is_not_there_leaves_its_share_to_normal_rows(
    known: int, noise: int, expected: tuple[int, int, int]
) -> None:
    assert BalancedPlan(1, 256, 1e-3).counts(known, noise) == expected


@pytest.mark.parametrize("size", [1, 2, 3])
def test_however_small_a_batch_it_has_a_row_of_each(size: int) -> None:
    assert min(BalancedPlan(1, size, 1e-3).counts(9, 9)) == 1


def test_fewer_rows_than_a_batch() -> None:
    alarm = Recording()
    history, kept = train_balanced([alarm], [torch.arange(0)], material(), BalancedPlan(2, 256, 1e-2))
    assert [len(batch) for batch in alarm.learned] == [40 + 51 + 26] * 2
    assert (len(history), kept) == (2, 2)


def test_the_last_of_the_epochs_that_are_about_as_good_is_kept() -> None:
    plan = BalancedPlan(25, 20, 0.3)  # steps large enough for good and bad epochs
    alarms = networks(2)
    with seeded(5):
        mixed = torch.randn(12, 5) + 0.7
    given = material(known=mixed)
    history, kept = train_balanced(alarms, parts(12, 2), given, plan, seed=2)
    quality = [one["validation_auroc"] + one["validation_average_precision"] for one in history]
    best, expected = -math.inf, 0
    for epoch, one in enumerate(quality, 1):
        if one >= best - SLACK:
            best, expected = max(best, one), epoch
    assert kept == expected < 25
    assert kept > quality.index(max(quality)) + 1  # not the very best, but the last as good
    assert quality[kept - 1] >= max(quality) - SLACK
    shorter = networks(2)
    _, last = train_balanced(shorter, parts(12, 2), given, BalancedPlan(kept, 20, 0.3), seed=2)
    assert last == kept
    for one, other in zip(alarms, shorter, strict=True):
        for name, value in one.state_dict().items():
            assert torch.equal(value, other.state_dict()[name])


def test_where_nothing_is_left_out_the_last_epoch_is_kept() -> None:
    history, kept = train_balanced(networks(1), [torch.arange(0)], material(known=KNOWN[:1]), PLAN)
    assert kept == 4
    assert [set(one) for one in history] == [{"loss"}] * 4


def test_without_labels_noise_is_learned() -> None:
    alarms = networks(1)
    plan = BalancedPlan(60, 20, 1e-2)
    train_balanced(alarms, [torch.arange(0)], material(known=KNOWN[:0]), plan)
    assert not alarms[0].training
    assert all(p.grad is None for p in alarms[0].parameters())
    with seeded(9):
        fresh = 4 * torch.randn(200, 5)
    with torch.no_grad():
        assert alarms[0](fresh).median() > alarms[0](ROWS).quantile(0.9)


def test_known_anomalies_are_learned_also_by_one_network() -> None:
    for count in (1, 3):
        alarms = networks(count)
        train_balanced(alarms, parts(7, count), material(noise=NOISE[:0]), BalancedPlan(40, 20, 1e-2))
        with torch.no_grad():
            for alarm in alarms:
                assert alarm(KNOWN).median() > alarm(ROWS).max()


def pairs(count: int, columns: int) -> list[nn.Module]:
    """Of the five features the last ones are columns."""
    with seeded(1):
        return [AlarmPair(1, 5 - columns, columns, (8,), recurrent=False) for _ in range(count)]


@pytest.mark.parametrize("columns", [0, 2])
def test_all_members_of_a_pair_are_trained(columns: int) -> None:
    (pair,), (fresh,) = pairs(1, columns), pairs(1, columns)
    train_balanced([pair], [torch.arange(0)], material(), BalancedPlan(1, 20, 1e-2))
    assert len(pair.members) == (2 if columns else 1)
    moved = dict(pair.named_parameters())
    assert not any(torch.equal(moved[name], value) for name, value in fresh.named_parameters())
    assert logits([pair, fresh], lambda index: ROWS[index], torch.arange(60)).shape == (2, 60)


def test_each_member_ranks_the_known_by_itself() -> None:
    """The loss is the mean of the members' own, so that neither leans on the other."""
    (pair,) = pairs(1, 2)
    train_balanced([pair], [torch.arange(0)], material(), BalancedPlan(40, 20, 1e-2))
    parts_of = torch.split(torch.cat([KNOWN, ROWS]), [3, 2], dim=1)
    with torch.no_grad():
        for member, part in zip(pair.members, parts_of, strict=True):
            found = member(part)
            assert found[:7].median() > found[7:].quantile(0.9)


def test_the_loss_of_a_pair_is_the_mean_of_its_members_losses() -> None:
    (pair,) = pairs(1, 2)
    told = material(noise=NOISE[:0], train=torch.arange(16))
    plan = BalancedPlan(1, 20, 1e-9)  # no step to speak of, so that the loss is that of the fresh networks
    for part in pair.modules():
        if isinstance(part, Dropout):
            part.share = 0.0
    with torch.no_grad():
        pair.train()
        expected = []
        with seeded(1):
            order = torch.randperm(16)
            drawn = torch.randint(7, (4,))
        x = torch.cat([ROWS[order], KNOWN[drawn]])
        labels = torch.cat([torch.zeros(16), torch.ones(4)])
        for one in pair(x):
            expected.append(nn.functional.binary_cross_entropy_with_logits(one, labels))
    history, _ = train_balanced([pair], [torch.arange(0)], told, plan, seed=0)
    assert history[0]["loss"] == pytest.approx(float(sum(expected)) / 2, rel=1e-5)


def test_one_seed_one_result_and_no_global_generator() -> None:
    before = torch.get_rng_state()
    found = []
    for seed in (1, 1, 2):
        alarms = networks(2)
        history, _ = train_balanced(alarms, parts(7, 2), material(), PLAN, seed=seed)
        found.append((history, logits(alarms, lambda index: ROWS[index], torch.arange(60))))
    assert torch.equal(before, torch.get_rng_state())
    assert found[0][0] == found[1][0]
    assert torch.equal(found[0][1], found[1][1])
    assert not torch.equal(found[0][1], found[2][1])


@pytest.mark.parametrize("last", [1, 3, 4])
def test_an_interrupted_training_goes_on(last: int, tmp_path: Path) -> None:
    def stop(name: str, found: Any) -> None:
        if found["epoch"] == last:
            raise KeyboardInterrupt

    def run(**more: Any) -> tuple[Any, Tensor]:
        alarms = networks(2)
        found = train_balanced(alarms, parts(7, 2), material(), PLAN, **more)
        return found, logits(alarms, lambda index: ROWS[index], torch.arange(60))

    expected, scores = run()
    with pytest.raises(KeyboardInterrupt):
        run(observe=stop, keep=Keeper(tmp_path / "fit", "a"))
    found, again = run(keep=Keeper(tmp_path / "fit", "a"))
    assert found == expected
    assert torch.equal(again, scores)


def test_a_loss_that_is_no_number_is_an_error() -> None:
    broken = ROWS.clone()
    broken[7] = math.nan
    with pytest.raises(
        FloatingPointError,
        match=r"alarm network's training loss became nan in epoch 1: lower learning_rate \(it is 0.01\)",
    ):
        train_balanced(networks(1), [torch.arange(0)], material(features_of=lambda i: broken[i]), PLAN)

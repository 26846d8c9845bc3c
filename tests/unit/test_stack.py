"""Networks trained at once learn what each would learn alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import anograd as ag
from anograd import Target
from anograd.networks import ConvAutoencoder, DenseAutoencoder
from anograd.stack import train_together
from anograd.train import TrainingPlan, seeded, train

SIZES = (100, 260, 64, 130)  # whole batches, a rest, one batch, more than one
RNG = torch.Generator().manual_seed(0)
TABLES = [torch.rand(n, 6, generator=RNG) for n in SIZES]
HELD = [torch.rand(n, 6, generator=RNG) for n in (10, 26, 70, 13)]
SEEDS = [0, 7, 14, 21]


def plan(**changes: Any) -> TrainingPlan:
    settings = {
        "epochs": 12, "batch_size": 64, "learning_rate": 3e-3, "alpha": 0.03, "reference": "total",
        "averaging": "cumulative", "keep": "objective", "patience": None,
    }  # fmt: skip
    return TrainingPlan(**{**settings, **changes})


def dense(seed: int) -> Target:
    with seeded(seed):
        return Target.adopt(DenseAutoencoder(6, (16, 3)), layers="up.*.weight")


def silent(name: str, data: Any) -> None:
    pass


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"reference": "recon"},
        {"averaging": "ema"},
        {"averaging": "final", "keep": "last"},
        {"alpha": 0.0},
        {"alpha": 0.0, "reference": "recon", "keep": "reconstruction"},
        {"patience": 3, "learning_rate": 0.03, "epochs": 40},
    ],
    ids=str,
)
def test_each_network_learns_what_it_would_learn_alone(changes: dict[str, Any]) -> None:
    settings = plan(**changes)
    single, joined = [dense(i) for i in range(4)], [dense(i) for i in range(4)]
    alone = [
        train(target, rows, held, settings, seed=seed)
        for target, rows, held, seed in zip(single, TABLES, HELD, SEEDS, strict=True)
    ]
    together = train_together(joined, TABLES, HELD, settings, seeds=SEEDS, observers=[silent] * 4)
    if settings.patience:
        assert len({len(one.history) for one in alone}) > 1  # they stop at different epochs
    for one, other in zip(alone, together, strict=True):
        assert one.kept_epoch == other.kept_epoch
        assert len(one.history) == len(other.history)
        for report, found in zip(one.history, other.history, strict=True):
            assert found == pytest.approx(report, abs=1e-5)
        for name, reference in one.reference.items():
            torch.testing.assert_close(other.reference[name], reference, rtol=1e-4, atol=1e-6)
    for one, other in zip(single, joined, strict=True):
        for name, weight in one.module.state_dict().items():
            torch.testing.assert_close(other.module.state_dict()[name], weight, rtol=0, atol=1e-5)
        storages = {p.untyped_storage().nbytes() // 4 - p.numel() for p in other.module.parameters()}
        assert storages == {0}  # nothing of the others is kept alive


def test_networks_for_images_learn_what_they_would_learn_alone() -> None:
    images = [torch.rand(n, 1, 12, 12, generator=RNG) for n in (70, 110, 150)]

    def fresh() -> list[Target]:
        found = []
        for i in range(3):
            with seeded(i):
                found.append(Target.adopt(ConvAutoencoder(1, 12, 12), layers="up.*.weight"))
        return found

    single, joined, settings = fresh(), fresh(), plan(epochs=3, learning_rate=1e-3)
    alone = [
        train(one, x, x[:9], settings, seed=s) for one, x, s in zip(single, images, (0, 1, 2), strict=True)
    ]
    held = [x[:9] for x in images]
    together = train_together(joined, images, held, settings, seeds=[0, 1, 2], observers=[silent] * 3)
    for one, other, found, expected in zip(single, joined, together, alone, strict=True):
        assert found.kept_epoch == expected.kept_epoch
        for name, weight in one.module.state_dict().items():
            torch.testing.assert_close(other.module.state_dict()[name], weight, rtol=0, atol=1e-5)
        for name, reference in expected.reference.items():
            torch.testing.assert_close(found.reference[name], reference, rtol=1e-3, atol=1e-6)


def test_gradcon_as_published_on_several_tables() -> None:
    rng = np.random.default_rng(0)
    tables = [rng.normal(i, 1, size=(70 + 40 * i, 5)) for i in range(3)]

    def fresh() -> list[ag.GradCon]:
        return [ag.GradCon.as_published(epochs=4, random_state=i) for i in range(3)]

    alone = [detector.fit(rows) for detector, rows in zip(fresh(), tables, strict=True)]
    for one, other, rows in zip(alone, ag.fit_together(fresh(), tables), tables, strict=True):
        assert one.kept_epoch_ == other.kept_epoch_
        assert one.split_ == other.split_
        np.testing.assert_allclose(other.anomaly_score(rows), one.anomaly_score(rows), rtol=0, atol=1e-5)
        assert one.detect(rows, alpha=0.2).tolist() == other.detect(rows, alpha=0.2).tolist()


def test_what_is_not_alike_or_cannot_be_stacked_is_fitted_in_turn() -> None:
    rng = np.random.default_rng(0)
    data = [rng.normal(size=(60, columns)) for columns in (3, 3, 4, 3)]
    labels = [None, np.arange(60) < 5, None, np.arange(60) < 5]
    kinds = [
        lambda: ag.GradCon(epochs=2, random_state=0),
        lambda: ag.GradCon(epochs=2, random_state=1),
        lambda: ag.GradCon(epochs=2, random_state=2),  # other columns
        lambda: ag.GradNeighbours(epochs=2, random_state=3),
    ]
    together = ag.fit_together([make() for make in kinds], data, labels)
    for make, other, rows, y in zip(kinds, together, data, labels, strict=True):
        alone = make().fit(rows, y)
        # Cosines pass through 0, where no relative error holds but an absolute one.
        np.testing.assert_allclose(other.anomaly_score(rows), alone.anomaly_score(rows), rtol=1e-5, atol=1e-7)


def test_no_more_rows_wait_than_are_learned_from_at_once() -> None:
    began: list[str] = []

    class Asked(list[Any]):
        def __getitem__(self, i: Any) -> Any:
            began.append(f"rows {i}")
            return super().__getitem__(i)

        def __iter__(self) -> Any:
            return (self[i] for i in range(len(self)))

    def told(i: int) -> Any:
        return lambda name, data: began.append(f"epoch of {i}")

    tables = Asked([np.random.default_rng(i).normal(size=(60, 3)) for i in range(18)])
    detectors = [ag.GradCon(epochs=1, random_state=i, progress=told(i)) for i in range(18)]
    ag.fit_together(detectors, tables)
    assert began.index("epoch of 0") < began.index("rows 16") < began.index("epoch of 17")
    assert sum(line.startswith("epoch") for line in began) == 18


def test_each_detector_reports_its_own_epochs() -> None:
    heard: list[tuple[int, int]] = []
    detectors = [
        ag.GradCon(
            epochs=2, random_state=i, progress=lambda name, data, i=i: heard.append((i, data["epoch"]))
        )
        for i in range(2)
    ]
    ag.fit_together(detectors, [np.random.default_rng(i).normal(size=(60, 3)) for i in range(2)])
    assert sorted(heard) == [(0, 1), (0, 2), (1, 1), (1, 2)]


def test_wrong_numbers_of_detectors_and_tables() -> None:
    rows = np.zeros((60, 3))
    with pytest.raises(ValueError, match=r"2 detectors were given, and 1 tables .* its own rows"):
        ag.fit_together([ag.GradCon(), ag.GradCon()], [rows])
    one = ag.GradCon()
    with pytest.raises(ValueError, match=r"stands there twice.*make one for each"):
        ag.fit_together([one, one], [rows, rows])


def test_a_loss_that_explodes_is_told_of_with_its_network() -> None:
    tables = [TABLES[0], TABLES[1] * 1e20]
    with pytest.raises(
        FloatingPointError, match=r"the network 1's training loss became (nan|inf) in epoch \d+"
    ):
        train_together([dense(0), dense(1)], tables, HELD[:2], plan(), seeds=[0, 1], observers=[silent] * 2)


def test_stacked_image_networks_take_one_pass_for_all() -> None:
    """The work that a step starts grows far slower than the networks: that is what stacking is for."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Counting(TorchDispatchMode):
        started = 0

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.started += 1
            return function(*args, **(kwargs or {}))

    def started(networks: int) -> int:
        targets = []
        for i in range(networks):
            with seeded(i):
                targets.append(Target.adopt(ConvAutoencoder(1, 8, 8), layers="up.*.weight"))
        x = [torch.rand(64, 1, 8, 8, generator=RNG) for _ in targets]
        settings = plan(epochs=1, batch_size=8)
        seeds = list(range(networks))
        with Counting() as count:
            train_together(targets, x, x, settings, seeds=seeds, observers=[silent] * networks)
        return count.started

    assert started(6) < 3 * started(1)

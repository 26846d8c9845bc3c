"""What detectors of a finished network say to wrong parameters, and what they do with odd but legal ones."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from torch import nn

import anograd as ag
from anograd import (
    GradCon,
    GradDensity,
    GradNeighbours,
    GradReferences,
    GradScoreTest,
    GradSubspace,
    GraN,
    Target,
)
from anograd.detectors.network import build
from anograd.features import Features, Samples
from anograd.gradients import per_sample
from anograd.networks import DenseAutoencoder
from anograd.represent import cosine
from anograd.score import Subspace

RNG = np.random.default_rng(0)
TABLE = RNG.normal(size=(40, 3))
TOKENS = RNG.integers(0, 9, (40, 5))
ALL = (GradDensity, GradScoreTest, GradSubspace, GradNeighbours, GradReferences, GraN)


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"target": "x"}, r"target='x': write one of 'auto', 'cae', 'vae', 'dense'.*target=Target\.adopt"),
        ({"memory": "x"}, "memory='x' is no amount of memory: write it like memory='1GiB' or in bytes"),
        ({"memory": 0}, "memory=0 is no amount of memory"),
        ({"memory": True}, "memory=True is no amount of memory"),
        ({"epochs": 0}, "epochs=0 must be 1 or more"),
        ({"epochs": 2.5}, r"epochs=2\.5 must be 1 or more: a whole number"),
        ({"epochs": [1]}, r"epochs=\[1\] must be 1 or more: a whole number"),
        ({"hidden": 5}, r"hidden=5: give widths of 1 or more, such as \(64, 8\)"),
        ({"hidden": "x"}, "hidden='x': give widths of 1 or more"),
        ({"validation": "x"}, "validation='x' is a share of the normal rows"),
        ({"false_alarm_rate": None}, "false_alarm_rate=None must lie between 0 and 1"),
        ({"batch_size": 0}, "batch_size=0 must be 1 or more"),
        ({"patience": 0}, "patience=0 must be 1 or more, or None"),
        ({"learning_rate": -1}, "learning_rate=-1 must be above 0: 1e-3 suits most"),
        ({"learning_rate": "fast"}, "learning_rate='fast' must be above 0: 1e-3 suits most"),
        ({"hidden": (8, 0)}, r"hidden=\(8, 0\): give widths of 1 or more, such as \(64, 8\)"),
        ({"target": "cae"}, "target='cae' takes images.*write target='dense' for a table"),
    ],
)
def test_wrong_parameters_of_all(kind: Any, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**parameters).fit(TABLE)


@pytest.mark.parametrize(
    ("detector", "message"),
    [
        (GradScoreTest(fisher="x"), "fisher='x' was given: write one of 'diagonal', 'projected', 'blocks'"),
        (GradScoreTest(ridge=0), r"ridge=0 must be above 0: 0\.001 suits most"),
        (GradScoreTest(ridge=float("nan")), "ridge=nan must be above 0"),
        (GradScoreTest(ridge=float("inf")), "ridge=inf must be above 0"),
        (GradScoreTest(ridge="auto"), r"ridge='auto' must be above 0: 0\.001 suits most"),
        (GradScoreTest(size=0), "size=0 must be 1 or more"),
        (GradScoreTest(layers="decoder.*"), r"layers='decoder\.\*' matches no parameter.*up\.0\.weight"),
        (GradSubspace(size=0), "size=0 must be 1 or more"),
        (GradSubspace(size=None), "size=None must be 1 or more"),
        (GradSubspace(explained=1.5), r"explained=1\.5 is a share: 0 to below 1"),
        (GradSubspace(explained=1), "explained=1 is a share: 0 to below 1"),
        (GradSubspace(explained="most"), "explained='most' is a share: 0 to below 1"),
        (GradSubspace(explained=None), "explained=None is a share: 0 to below 1"),
        (GradNeighbours(neighbours=0), "neighbours=0 must be 1 or more"),
        (GradNeighbours(neighbours="all"), "neighbours='all' must be 1 or more"),
        (GradNeighbours(size="auto"), "size='auto' must be 1 or more"),
    ],
)
def test_wrong_parameters_of_one(detector: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        detector.fit(TABLE)


@pytest.mark.parametrize("kind", ALL)
def test_scores_wait_for_a_fit(kind: Any) -> None:
    new = kind()
    for ask in (new.anomaly_score, new.twin_score, new.p_values, new.detect, new.predict):
        with pytest.raises(ValueError, match="not fitted yet"):
            ask(TABLE)


def words(loss: Any = None) -> Target:
    torch.manual_seed(0)

    def cross_entropy(output: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(output.transpose(1, 2), x, reduction="none").mean(1)

    return Target.adopt(nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 9)), loss=loss or cross_entropy)


def test_where_no_anomaly_is_known_tokens_are_mixed_to_stand_for_some() -> None:
    """Gaussian noise, cut to integers, would name words that there are not."""
    seen: list[torch.Tensor] = []

    def loss(output: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        seen.append(x)
        return nn.functional.cross_entropy(output.transpose(1, 2), x, reduction="none").mean(1)

    columns = TOKENS.copy()
    columns[:, 0] = 7  # a column keeps its own words
    detector = GraN(target=words(loss), random_state=0).fit(columns)
    assert detector.known_ == 200
    stood_in = next(x for x in seen if len(x) == 200)
    assert stood_in.dtype == torch.int64
    assert (stood_in[:, 0] == 7).all()
    assert stood_in.min() >= 0
    assert stood_in.max() <= 8
    fitted_to = {tuple(row) for row in columns}
    assert sum(tuple(row.tolist()) not in fitted_to for row in stood_in) > 50
    assert np.isfinite(detector.anomaly_score(columns)).all()


def test_noise_that_stands_in_is_as_large_as_the_rows() -> None:
    """Among pixels of 0..255 noise of 0..1 would be black pictures, easier for the network than any other."""
    digits, shown = load_digits(return_X_y=True)
    digits = (digits * 255 / 16).astype(np.float32)
    threes, others = digits[shown == 3], digits[shown != 3][:300]
    x = torch.from_numpy(threes[:120])
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 8), nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 64)
    )
    steps = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(200):
        steps.zero_grad()
        torch.autograd.backward((net(x) - x).square().mean())
        steps.step()
    detector = GraN(target=Target.adopt(net), random_state=0).fit(threes[:120])
    scores = [detector.anomaly_score(rows) for rows in (threes[120:], others)]
    assert roc_auc_score(np.repeat([0, 1], [63, 300]), np.concatenate(scores)) > 0.9


def test_where_no_anomaly_is_known_noise_stands_in_and_known_ones_take_its_place() -> None:
    assert GraN(epochs=1, random_state=0).fit(TABLE).known_ == 200
    assert GraN(epochs=1, random_state=0).fit(TABLE, np.arange(40) < 3).known_ == 3
    assert GradReferences(epochs=1, random_state=0).fit(TABLE).known_ == 0


def test_memory_bounds_the_work_and_not_the_score() -> None:
    detector = GradScoreTest(epochs=1, random_state=0).fit(TABLE)
    expected = detector.anomaly_score(TABLE)
    np.testing.assert_allclose(detector.set_params(memory=1).anomaly_score(TABLE), expected, rtol=1e-9)


@pytest.mark.parametrize("constant", [0.0, 0.3])
def test_what_never_moves_spans_no_subspace(constant: float) -> None:
    """Normal features that are all equal leave every other one outside, in whichever direction it lies."""
    normal = Features(torch.zeros(20), torch.full((20, 4), constant))
    score = Subspace(4)
    score.fit(Samples(lambda: iter([normal]), lambda: iter([normal]), normal))
    same, *others = score(Features(torch.zeros(5), constant + torch.eye(5, 4).flip(0))).tolist()
    assert len({round(one, 6) for one in others}) == 1
    assert min(others) > same + 10


@pytest.mark.parametrize("direction", [True, False])
def test_the_statistic_without_gradients_is_that_of_built_ones(direction: bool) -> None:
    """Squares and inner products, for which nothing is built, add up to what compared gradients give."""
    detector = GradScoreTest(direction=direction, epochs=1, random_state=0).fit(TABLE)
    rows = torch.from_numpy(TABLE).double() * 3
    assert detector._expands()
    expanded, losses = detector._expanding(per_sample)(rows)
    compared, expected = detector._compared(rows)
    torch.testing.assert_close(expanded, compared, rtol=1e-12, atol=0)
    torch.testing.assert_close(losses, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(detector._statistics(rows)[0], expanded, rtol=0, atol=0)


def test_chosen_layers_are_read_as_of_a_network_that_is_handed_in(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"fisher": "projected", "direction": False, "size": 6, "random_state": 0}
    images = RNG.random((40, 8, 8)).astype(np.float32)
    detector = GradScoreTest(layers="up.0.weight", epochs=1, **settings).fit(images)
    assert detector.target_.layers == ("up.0.weight",)
    own = Target.adopt(detector.target_.module, loss=detector.target_.loss, layers="up.0.weight")
    rows = detector.encoder_.transform(detector, images).numpy()
    handed = GradScoreTest(target=own, **settings).fit(rows)
    np.testing.assert_array_equal(detector.features(images), handed.features(rows))
    found = detector.anomaly_score(images)
    every = GradScoreTest(epochs=1, **settings).fit(images)
    assert every.target_.layers[0] == "up.0.weight"
    assert len(every.target_.layers) > 1
    assert not np.allclose(every.anomaly_score(images), found)
    detector.save(tmp_path / "model")
    np.testing.assert_array_equal(ag.load(tmp_path / "model").anomaly_score(images), found)
    with pytest.raises(ValueError, match=r"handed in say it there: target=Target\.adopt\(net, layers='up\.0"):
        GradScoreTest(target=own, layers="up.0.weight").fit(rows)
    with pytest.raises(TypeError, match=r"layers=\['up\.0\.weight', 3\] was given: write a name or"):
        GradScoreTest(layers=["up.0.weight", 3]).fit(images)  # type: ignore[list-item]


@pytest.mark.parametrize("fisher", ["diagonal", "projected", "blocks"])
def test_inputs_are_a_further_surprise(fisher: str, tmp_path: Path) -> None:
    """What they add is what the twin has beside the loss; known apart, they explain the score, too."""
    settings: dict[str, Any] = {"fisher": fisher, "size": 16, "epochs": 2, "random_state": 0}
    detector = GradScoreTest(inputs=True, **settings).fit(TABLE)
    without = GradScoreTest(**settings).fit(TABLE)
    rows = 3 * TABLE
    loss = torch.from_numpy(without.features(rows)[:, 0])
    of_loss = without.score_.surprise_of_loss(loss).numpy()
    found = detector.anomaly_score(rows)
    np.testing.assert_allclose(
        found, without.anomaly_score(rows) + without.twin_score(rows) - of_loss, rtol=1e-6
    )
    np.testing.assert_array_equal(detector.twin_score(rows), without.twin_score(rows))
    parts, (encoded,) = detector._parts(), detector._encode(rows)
    read = parts.read(encoded)
    assert parts.names == ("loss", *detector.target_.layers, "inputs")
    assert len(parts.groups) == read.shape[1]
    np.testing.assert_allclose(parts.score(read).numpy(), found, rtol=1e-6)
    detector.save(tmp_path / "model")
    np.testing.assert_array_equal(ag.load(tmp_path / "model").anomaly_score(rows), found)


def test_gradients_that_hardly_differ_are_compared_themselves() -> None:
    """Of squares that are alike in all but their last digits the difference would be rounding."""
    detector = GradScoreTest(epochs=1, random_state=0).fit(TABLE)
    rows = torch.from_numpy(TABLE).double()
    detector.score_.mean += 1e7 * detector.score_.precision.rsqrt()
    assert not detector._expands()
    statistics, compared = detector._statistics(rows)[0], detector._compared(rows)[0]
    torch.testing.assert_close(statistics, compared, rtol=0, atol=0)
    assert (detector._expanding(per_sample)(rows)[0] - compared).abs().max() > 1e-4


def test_a_network_that_is_dead_before_it_learns_is_drawn_anew() -> None:
    """Layers of one unit are below the ReLU's kink on all rows in half of the draws."""
    rows = torch.rand(50, 2)
    target, draws = Target.adopt(DenseAutoencoder(2, (1, 8))), range(20)
    dead = [seed for seed in draws if build(_narrow(), "*", seed)[0].module.is_dead(rows)]
    assert dead
    detector = GradDensity(hidden=(1, 8))
    assert target.module.is_dead(rows[:1].expand(50, -1))
    for seed in dead:
        assert not detector._own(rows, seed)[0].module.is_dead(rows)


def _narrow() -> dict[str, Any]:
    return {"kind": "dense", "features": 2, "hidden": [1, 8]}


def test_a_network_that_dies_while_it_learns_is_told_of() -> None:
    table = np.random.default_rng(0).normal(size=(200, 2))
    with pytest.warns(UserWarning, match=r"the same for all rows.*hidden=\(64, 32, 8\)"):
        detectors = [
            GradDensity(epochs=30, hidden=(64, 1, 8), random_state=seed).fit(table) for seed in range(16)
        ]
    assert any(d.target_.module.is_dead(torch.rand(50, 2)) for d in detectors)


@pytest.mark.filterwarnings("error:the network learned nothing but the mean row")
@pytest.mark.parametrize("detector", [GradCon, GradDensity])
def test_the_code_of_few_columns_lives(detector: type[GradCon] | type[GradDensity]) -> None:
    """The bottleneck that GradCon's reconstruction lives by has no ReLU; gradient scores read a wider one."""
    table = np.random.default_rng(0).normal(size=(200, 2))
    for seed in range(8):
        detector(epochs=30, random_state=seed).fit(table)


@pytest.mark.parametrize(
    ("detector", "columns", "code", "linear"),
    [
        (GradCon, 5, 3, True),
        (GradCon, 21, 11, False),
        (GradDensity, 5, 8, False),
        (GradDensity, 21, 11, False),
    ],
)
def test_how_wide_the_code_is(
    detector: type[GradCon] | type[GradDensity], columns: int, code: int, linear: bool, tmp_path: Path
) -> None:
    rows = np.random.default_rng(0).normal(size=(50, columns))
    fitted = detector(epochs=1, random_state=0).fit(rows)
    fitted.save(tmp_path / "model")
    for one in (fitted, ag.load(tmp_path / "model")):
        module = one.target_.module
        assert module.up[0].in_features == code
        assert isinstance(module.down[-1], nn.Linear) == linear


def test_rows_that_nearly_meet_others_score_alone_as_in_a_batch() -> None:
    rows = np.random.default_rng(0).lognormal(0, 8, (120, 3))  # so that most are all but equal
    detector = GradNeighbours(epochs=2, random_state=0).fit(rows)
    alone = np.concatenate([detector.anomaly_score(row[None]) for row in rows])
    np.testing.assert_allclose(detector.anomaly_score(rows), alone, rtol=1e-5)
    assert (alone > 0).mean() > 0.5


def test_a_score_test_of_a_vae_does_not_weigh_rounding() -> None:
    images = (RNG.random((60, 1, 9, 10)) * 255).astype(np.uint8)
    detector = ag.GradScoreTest(target="vae", epochs=1, random_state=0).fit(images)
    alone = np.concatenate([detector.anomaly_score(one[None]) for one in images[:8]])
    np.testing.assert_allclose(detector.anomaly_score(images)[:8], alone, rtol=1e-10)


@pytest.mark.parametrize("width", [1, 3, 12])
def test_a_row_that_equals_all_that_were_learned_from_is_normal_alone_too(width: int) -> None:
    rows = np.ones((150, width))
    detector = GradNeighbours(epochs=2, random_state=0).fit(rows)
    for count in (1, 3, 50):
        np.testing.assert_array_equal(detector.p_values(rows[:count]), 1)


@pytest.mark.parametrize("kind", ["GradCon", "GradDensity"])
def test_a_batch_size_may_be_a_number_of_numpy(kind: str) -> None:
    X = RNG.normal(size=(60, 4))
    one, other = (
        getattr(ag, kind)(epochs=1, random_state=0, batch_size=size).fit(X).anomaly_score(X)
        for size in (np.int64(16), 16)
    )
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kind", ["R2AD2", "GradCon", "GradNorm", "GradLabels"])
def test_widths_may_be_numbers_of_numpy(kind: str, tmp_path: Path) -> None:
    X, y = RNG.normal(size=(60, 4)), np.repeat([0, 1], [50, 10])
    for hidden in (np.array([8, 4]), list(np.array([8, 4]))):
        detector = getattr(ag, kind)(hidden=hidden, epochs=1, random_state=0).fit(X, y)
        detector.save(tmp_path / "model")
        np.testing.assert_array_equal(ag.load(tmp_path / "model").anomaly_score(X), detector.anomaly_score(X))


def test_detectors_whose_widths_are_an_array_are_fitted_together() -> None:
    X = RNG.normal(size=(60, 4))
    pair = [GradCon(hidden=np.array([8, 4]), epochs=1, random_state=seed) for seed in (0, 1)]
    for detector, seed in zip(ag.fit_together(pair, [X, X]), (0, 1), strict=True):
        alone = GradCon(hidden=[8, 4], epochs=1, random_state=seed).fit(X)
        np.testing.assert_allclose(detector.anomaly_score(X), alone.anomaly_score(X), rtol=1e-4, atol=1e-6)


def test_gradnorm_names_what_it_reads() -> None:
    detector = ag.GradNorm(epochs=1, random_state=0).fit(RNG.normal(size=(60, 4)))
    _, *features = detector.features(RNG.normal(size=(3, 4))).T
    assert len(features) == len(detector.feature_names())
    assert "softmax" in detector.feature_names()[1]
    assert (features[1] <= 2).all()  # which a distance of two distributions is at most


@pytest.mark.parametrize("kind", [*ALL, GradCon])
@pytest.mark.parametrize("unit", [1e-10, 1e5])
def test_the_units_of_a_loss_do_not_decide_what_is_odd(kind: Any, unit: float) -> None:
    """A loss of values in volts that come in microvolts, say, is a millionth of a millionth of theirs."""
    rng = np.random.default_rng(0)
    rows = (rng.normal(size=(300, 2)) @ rng.normal(size=(2, 4))).astype(np.float32)
    odd = rng.normal(size=(20, 4)).astype(np.float32)
    net = nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 4))
    plan = ag.GradDensity(target=Target.adopt(net), epochs=20, random_state=0).fit(rows)
    net = plan.target_.module

    def verdicts(unit: float) -> Any:
        def loss(output: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
            return unit * (output - x).square().mean(1)

        detector = kind(target=Target.adopt(net, loss=loss), random_state=0).fit(rows)
        return detector.p_values(np.concatenate([rows[:50], odd]))

    np.testing.assert_allclose(verdicts(unit), verdicts(1.0), atol=0.01)


def test_rows_that_are_refused_change_nothing(tmp_path: Path) -> None:
    frame = pd.DataFrame(TABLE[:, :2], columns=["a", "b"])
    detector = GradDensity(epochs=1, random_state=0).fit(frame)
    scores = detector.anomaly_score(frame)
    for refused in (np.full((50, 5), np.nan), pd.DataFrame(TABLE * np.nan, columns=list("xyz"))):
        with pytest.raises(ValueError, match=r"NaN|missing"):
            detector.fit(refused)
        assert detector.n_features_in_ == 2
        assert detector.feature_names_in_.tolist() == ["a", "b"]
    np.testing.assert_array_equal(detector.anomaly_score(frame), scores)
    assert detector.fit(TABLE).n_features_in_ == 3
    assert not hasattr(detector, "feature_names_in_")


@pytest.mark.parametrize("kind", [GraN, ag.GradLabels])
@pytest.mark.parametrize("cell", [1e20, 1e200])
def test_one_cell_of_one_known_anomaly_is_not_all_that_is_learned(kind: Any, cell: float) -> None:
    """Such as a fill value that was not taken for a missing one."""
    rng = np.random.default_rng(0)
    normal, odd = rng.normal(size=(200, 4)), rng.normal(3, 1, size=(30, 4))
    spoilt = odd[:10].copy()
    spoilt[0, 2] = cell
    y = np.repeat([0, 1], [150, 10])
    detector = kind(epochs=5, random_state=0).fit(np.concatenate([normal[:150], spoilt]), y)
    assert (
        ag.evaluate.ranking(detector.anomaly_score(np.r_[normal[150:], odd[10:]]), np.arange(70) >= 50)[0]
        > 0.9
    )


def test_a_clone_learns_what_its_original_learns_though_the_loss_looks_into_the_network() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3))

    def loss(output: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return (output - x).square().mean(1) + sum(p.square().sum() for p in net.parameters()) * x[:, 0].abs()

    rows = TABLE.astype(np.float32)
    detector = GradDensity(target=Target.adopt(net, loss=loss), random_state=0).fit(rows)
    again = clone(detector).fit(rows)
    np.testing.assert_array_equal(again.anomaly_score(rows), detector.anomaly_score(rows))


class Experts(nn.Module):
    """Each row goes to one of three layers."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.last = nn.Linear(3, 3), nn.Linear(3, 3)
        self.experts = nn.ModuleList(nn.Linear(3, 3) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        share = self.gate(x).softmax(1)
        output = torch.empty_like(x)
        for i, expert in enumerate(self.experts):
            mine = share.argmax(1) == i
            output[mine] = expert(x[mine]) * share[mine, i : i + 1]
        return self.last(output)


@pytest.mark.parametrize("kind", ALL)
def test_a_layer_that_some_rows_go_to_is_no_part_of_the_twin(kind: Any, tmp_path: Path) -> None:
    """It may be given all of one batch, as of every batch of one, and not of the next."""
    torch.manual_seed(0)
    rows = RNG.normal(size=(200, 3)).astype(np.float32)
    target = Target.adopt(Experts())
    detector = kind(target=target, random_state=0).fit(rows, np.arange(200) % 20 == 0)
    detector.save(tmp_path / "model")
    loaded = ag.load(tmp_path / "model", target=target)
    for ask in ("anomaly_score", "twin_score"):
        whole = getattr(detector, ask)(rows[:9])
        alone = np.concatenate([getattr(loaded, ask)(rows[i : i + 1]) for i in range(9)])
        np.testing.assert_allclose(alone, whole, rtol=1e-5, atol=1e-6)


def test_rows_of_one_axis_have_anomalies_made_for_them() -> None:
    net = nn.Sequential(nn.Unflatten(0, (-1, 1)), nn.Linear(1, 3), nn.Tanh(), nn.Linear(3, 1), nn.Flatten(0))
    target = Target.adopt(net, loss=lambda output, x: (output - x).square())
    rows = RNG.normal(size=120).astype(np.float32)
    detector = GraN(target=target, random_state=0).fit(rows)
    assert detector.known_ == 200
    alone = [detector.anomaly_score(rows[i : i + 1])[0] for i in range(9)]
    np.testing.assert_allclose(alone, detector.anomaly_score(rows)[:9], rtol=1e-5, atol=1e-6)


def test_a_cosine_of_short_gradients_is_their_angle() -> None:
    """Of lengths whose product is below the floor that keeps a division by zero away."""
    net = nn.Linear(2, 1, bias=False).double()
    target = Target.adopt(net, loss=lambda output, x: 1e-7 * output.squeeze(1))
    reference = {"weight": torch.tensor([[1e-6, 1e-6]], dtype=torch.float64)}
    found = per_sample(target, torch.eye(2).double(), ("norm", "inner"), reference=reference)
    torch.testing.assert_close(cosine(found, reference), torch.full((2, 1), 0.5**0.5, dtype=torch.float64))
    zero = per_sample(target, torch.zeros(1, 2).double(), ("norm", "inner"), reference=reference)
    assert cosine(zero, reference).item() == 0


class Tempered(nn.Module):
    """A classifier that does something with what its last layer puts out."""

    def __init__(self, after: Any, positions: int = 1) -> None:
        super().__init__()
        self.first, self.head, self.after = nn.Linear(3 // positions, 8), nn.Linear(8, 4), after
        self.positions = positions

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.after(self.head(self.first(x.reshape(len(x), self.positions, -1).squeeze(1)).relu()))


@pytest.mark.parametrize(
    "net",
    [Tempered(lambda z: z / 4), Tempered(lambda z: z.mean(1), positions=3)],
    ids=["temperature", "positions"],
)
def test_gradnorm_refuses_a_layer_that_something_follows(net: nn.Module) -> None:
    target = Target.adopt(net, loss="uniform", layers="head.weight")
    with pytest.raises(ValueError, match=r"layer of 'head\.weight' puts out.*GradLabels"):
        ag.GradNorm(target=target, random_state=0).fit(TABLE)


def test_gradnorm_is_the_length_that_autograd_finds() -> None:
    target = Target.adopt(Tempered(lambda z: z), loss="uniform", layers="head.weight")
    rows = torch.tensor(TABLE[:6], dtype=torch.float32)
    scores = ag.GradNorm(target=target, random_state=0).fit(TABLE.astype(np.float32)).anomaly_score(rows)
    found = per_sample(target, rows, want="full").full.abs().sum(1)
    np.testing.assert_allclose(-scores, found.double().numpy(), rtol=1e-4)


def test_references_without_a_known_anomaly_are_warned_of() -> None:
    with pytest.warns(UserWarning, match=r"ranks little better than chance: fit\(X, y\) with some known"):
        GradReferences(epochs=1, random_state=0).fit(TABLE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        GradReferences(epochs=1, random_state=0).fit(TABLE, np.arange(40) < 3)


def test_an_interrupted_fit_does_not_go_on_with_another_patience(tmp_path: Path) -> None:
    def stop(_: str, told: Any) -> None:
        if told["epoch"] == 3:
            raise KeyboardInterrupt

    kept = {"epochs": 6, "random_state": 0, "checkpoint": tmp_path / "c"}
    with pytest.raises(KeyboardInterrupt):
        GradNeighbours(**kept, patience=None, progress=stop).fit(TABLE)
    with pytest.raises(ValueError, match="left by a fit with other data or settings"):
        GradNeighbours(**kept, patience=1).fit(TABLE)
    assert len(GradNeighbours(**kept, patience=None).fit(TABLE).history_) == 6

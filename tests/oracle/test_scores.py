"""The gradient scores against slow plain ones: a row's gradient at a time, numpy, scipy and scikit-learn."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import norm, special_ortho_group
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors
from torch import nn

from anograd import (
    GradDensity,
    GradNeighbours,
    GradReferences,
    GradScoreTest,
    GradSubspace,
    GraN,
    Sketch,
    Target,
)
from anograd.features import Features, Samples
from anograd.networks import ConvAutoencoder
from anograd.score import (
    BlockTest,
    LabelledNorms,
    Neighbours,
    NormDensity,
    ReferenceGap,
    ScoreTest,
    Subspace,
)
from anograd.train import seeded

Floats = NDArray[np.float64]
Parts = dict[str, Floats]  # by parameter, each (n, *shape)
# A score that passes through 0 is compared in units of what a typical one is.
CLOSE = {"rtol": 1e-6, "atol": 1e-6}
SEEDS = st.integers(0, 2**31)
few = settings(max_examples=20, deadline=None)


# The scores once more, as functions of plain arrays.


@dataclass
class Rows:
    """Losses (n,) and features (n, k)."""

    loss: Floats
    values: Floats

    def __getitem__(self, index: Any) -> Rows:
        return Rows(self.loss[index], self.values[index])

    def told(self) -> Features:
        return Features(torch.tensor(self.loss), torch.tensor(self.values))


@dataclass
class Known:
    """What is known when scores are made."""

    train: Rows
    held: Rows
    anomalies: Rows

    def told(self, pieces: int = 1) -> Samples:
        def each(rows: Rows) -> Callable[[], Iterator[Features]]:
            return lambda: (rows[i].told() for i in np.array_split(np.arange(len(rows.loss)), pieces))

        return Samples(each(self.train), each(self.held), self.anomalies.told())


Score = Callable[[Known, Rows], Floats]


def logs(values: Floats, normal: Floats) -> Floats:
    usual = (normal**2).mean(0)
    return np.log(np.maximum(values**2, 1e-12 * np.maximum(usual, 1e-12 * usual.max())))


def density(known: Known, rows: Rows) -> Floats:
    train = known.train.values
    normal = logs(train, train)
    spread = np.maximum(normal.std(0), 0.01)
    return -norm.logpdf(logs(rows.values, train), normal.mean(0), spread).sum(1)


def surprise(normal: Floats, scores: Floats, unit: float = 1) -> Floats:
    """1 - log of a p value: through 64 quantiles, exponential beyond them, slowly falling before them."""
    shares = np.linspace(0, 0.9, 64)
    spread = max(np.ptp(normal), 1e-6 * (unit + abs(normal).max()))
    knots = np.quantile(normal, shares) + 1e-3 * spread * np.arange(64) / 64
    tail = normal[normal >= knots[-1]]
    mean_excess = max((tail - knots[-1]).mean() if len(tail) else 0, 0.01 * spread)
    found = np.interp(scores, knots, 1 - np.log(1 - shares))
    found[scores > knots[-1]] += (scores[scores > knots[-1]] - knots[-1]) / mean_excess
    below = np.maximum(knots[0] - scores, 0) / np.ptp(knots)
    return found - 0.5 * below / (1 + below)


def fishers(statistic: Callable[[Floats], Floats], known: Known, rows: Rows, typicality: bool) -> Floats:
    of_gradient = surprise(statistic(known.held.values), statistic(rows.values))
    return of_gradient + of_loss(known, rows, typicality)


def of_loss(known: Known, rows: Rows, typicality: bool) -> Floats:
    normal, loss = known.held.loss, rows.loss
    if typicality:
        normal, loss = abs(normal - normal.mean()), abs(loss - normal.mean())
    return surprise(normal, loss, 1e-18)


def diagonal(known: Known, rows: Rows, ridge: float = 1e-3, typicality: bool = False) -> Floats:
    mean, variance = known.train.values.mean(0), known.train.values.var(0)
    ridged = variance + ridge * variance.mean()
    return fishers(lambda g: ((g - mean) ** 2 / ridged).mean(1), known, rows, typicality)


def projected(known: Known, rows: Rows, ridge: float = 1e-3, typicality: bool = False) -> Floats:
    mean, k = known.train.values.mean(0), known.train.values.shape[1]
    information = np.atleast_2d(np.cov(known.train.values.T, bias=True))
    inverse = np.linalg.inv(information + ridge * np.trace(information) / k * np.eye(k))

    def statistic(g: Floats) -> Floats:
        return np.array([(row - mean) @ inverse @ (row - mean) for row in g]) / k

    return fishers(statistic, known, rows, typicality)


def blocks(known: Known, rows: Rows, widths: Sequence[int], ridge: float, typicality: bool) -> Floats:
    """All of F within each block, a statistic and a surprise each; the loss once."""
    ends, total = np.cumsum(widths), np.zeros(len(rows.loss))
    for end, width in zip(ends, widths, strict=True):
        block = [Rows(one.loss, one.values[:, end - width : end]) for one in (known.train, known.held, rows)]
        told = Known(block[0], block[1], known.anomalies)
        total += projected(told, block[2], ridge, typicality) - of_loss(known, rows, typicality)
    return total + of_loss(known, rows, typicality)


def subspace(known: Known, rows: Rows, explained: float = 0.95) -> Floats:
    pca = PCA(n_components=explained, svd_solver="full").fit(known.train.values)
    if pca.n_components_ == rows.values.shape[1]:  # something is always left outside
        pca = PCA(n_components=pca.n_components_ - 1, svd_solver="full").fit(known.train.values)
    outside = rows.values - pca.inverse_transform(pca.transform(rows.values))
    return np.log((outside**2).sum(1))


def neighbours(known: Known, rows: Rows, count: int = 5, floor: float = 1e-6) -> Floats:
    mean, spread = known.train.values.mean(0), known.train.values.std(0)
    spread = np.maximum(spread, floor * spread.max() + 1e-12)

    def scaled(values: Floats) -> Floats:
        z = (values - mean) / spread
        return np.sign(z) * np.log(1 + abs(z))

    found = NearestNeighbors(n_neighbors=count, algorithm="kd_tree").fit(scaled(known.train.values))
    return found.kneighbors(scaled(rows.values))[0].mean(1)


def labelled(known: Known, rows: Rows) -> Floats:
    def numbers(one: Rows) -> Floats:
        return np.column_stack([logs(one.values, known.held.values), one.loss])

    normal = numbers(known.held)
    least = np.append(np.full(normal.shape[1] - 1, 0.01), 0.01 * abs(known.held.loss).mean())
    mean, spread = normal.mean(0), np.maximum(normal.std(0), least)
    x = (np.concatenate([normal, numbers(known.anomalies)]) - mean) / spread
    y = np.repeat([0, 1], [len(normal), len(known.anomalies.loss)])
    weights = len(y) / (2 * np.bincount(y))[y]  # both kinds count the same
    regression = LogisticRegression(max_iter=1000).fit(x, y, sample_weight=weights)
    return regression.decision_function((numbers(rows) - mean) / spread)


def references(known: Known, rows: Rows) -> Floats:
    if not len(known.anomalies.loss):
        return -rows.values.mean(1)
    half = rows.values.shape[1] // 2

    def gaps(one: Rows) -> Floats:
        return one.values[:, half:] - one.values[:, :half]

    apart = gaps(known.anomalies).mean(0) - gaps(known.held).mean(0)
    chosen = [i for i in range(half) if apart[i] >= apart.max() / 2] or list(range(half))
    return gaps(rows)[:, chosen].mean(1)


# Score modules on features of any kind.


def known_of(seed: int, k: int, n: int = 40, *, anomalies: int = 6) -> tuple[Known, Rows]:
    """Features that are correlated and not centred, and of unlike sizes; anomalies larger."""
    rng = np.random.default_rng(seed)
    mix, centre = rng.normal(size=(k, k)) * 10.0 ** rng.uniform(-2, 1, k), rng.normal(size=k)

    def draw(count: int, size: float) -> Rows:
        values = size * (rng.normal(size=(count, k)) @ mix + centre)
        return Rows(size * rng.gamma(2.0, 0.5, count), values)

    return Known(draw(n, 1), draw(n // 2, 1), draw(anomalies, 3)), draw(15, 1.5)


def cosines_of(seed: int, parameters: int, *, anomalies: int) -> tuple[Known, Rows]:
    rng = np.random.default_rng(seed)
    columns = parameters * (2 if anomalies else 1)

    def draw(count: int) -> Rows:
        return Rows(rng.random(count), rng.uniform(-1, 1, (count, columns)))

    return Known(draw(30), draw(20), draw(anomalies)), draw(15)


def fitted(score: nn.Module, known: Known, pieces: int = 1) -> nn.Module:
    score.fit(known.told(pieces))
    return score


def scored(score: nn.Module, rows: Rows) -> Floats:
    found = score(rows.told())
    assert found.dtype == torch.float64
    return found.numpy()


MODULES: dict[str, tuple[Callable[[int], nn.Module], Score]] = {
    "density": (NormDensity, density),
    "diagonal": (ScoreTest, diagonal),
    "diagonal, other ridge": (partial(ScoreTest, ridge=3.0), partial(diagonal, ridge=3.0)),
    "diagonal, typicality": (partial(ScoreTest, typicality=True), partial(diagonal, typicality=True)),
    "projected": (partial(ScoreTest, projected=True), projected),
    "projected, other ridge": (
        partial(ScoreTest, projected=True, ridge=0.1), partial(projected, ridge=0.1),
    ),
    "subspace": (Subspace, subspace),
    "subspace, half": (partial(Subspace, explained=0.5), partial(subspace, explained=0.5)),
    "neighbours": (Neighbours, neighbours),
    "one neighbour": (partial(Neighbours, neighbours=1), partial(neighbours, count=1)),
}  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
@few
@given(seed=SEEDS, k=st.integers(3, 12), pieces=st.integers(1, 5))
def test_modules_agree_with_plain_ones(name: str, seed: int, k: int, pieces: int) -> None:
    make, plain = MODULES[name]
    known, rows = known_of(seed, k)
    found = scored(fitted(make(k), known, pieces), rows)
    np.testing.assert_allclose(found, plain(known, rows), **CLOSE)


@few
@given(
    seed=SEEDS, widths=st.lists(st.integers(1, 6), min_size=1, max_size=4), pieces=st.integers(1, 5),
    typicality=st.booleans(), ridge=st.sampled_from([1e-3, 0.3]),
)  # fmt: skip
def test_blocks_agree_with_plain_ones(
    seed: int, widths: list[int], pieces: int, typicality: bool, ridge: float
) -> None:
    known, rows = known_of(seed, sum(widths))
    module = fitted(BlockTest(widths, ridge=ridge, typicality=typicality), known, pieces)
    np.testing.assert_allclose(scored(module, rows), blocks(known, rows, widths, ridge, typicality), **CLOSE)


def test_of_a_block_too_large_for_a_covariance_a_sample_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others go on learning from all rows."""
    known, rows = known_of(0, 30, n=60)
    monkeypatch.setattr("anograd.spectrum.MOST_FEATURES", 19)
    monkeypatch.setattr("anograd.spectrum.SAMPLE", 24)
    found = fitted(BlockTest([20, 10]), known, 5)
    first = Known(known.train[:24], known.held, known.anomalies)
    large = blocks(first, rows, [20, 10], 1e-3, False) - blocks(
        known_part(first, 20), Rows(rows.loss, rows.values[:, 20:]), [10], 1e-3, False
    )
    small = blocks(known_part(known, 20), Rows(rows.loss, rows.values[:, 20:]), [10], 1e-3, False)
    np.testing.assert_allclose(scored(found, rows), large + small, **CLOSE)


def known_part(known: Known, start: int) -> Known:
    parts = (known.train, known.held, known.anomalies)
    return Known(*(Rows(one.loss, one.values[:, start:]) for one in parts))


@few
@given(seed=SEEDS, power=st.floats(-3, 3))
def test_a_layer_with_large_entries_does_not_drown_the_others(seed: int, power: float) -> None:
    known, rows = known_of(seed, 7)
    scale = np.repeat([1.0, 10.0**power], [4, 3])
    changed = mapped(known, rows, lambda values: scale * values)
    found = scored(fitted(BlockTest([4, 3]), changed[0]), changed[1])
    np.testing.assert_allclose(found, scored(fitted(BlockTest([4, 3]), known), rows), **CLOSE)
    whole = scored(fitted(ScoreTest(7, projected=True, ridge=0.1), known), rows)
    other = scored(fitted(ScoreTest(7, projected=True, ridge=0.1), changed[0]), changed[1])
    assert abs(power) < 0.1 or not np.allclose(whole, other, **CLOSE)


@pytest.mark.parametrize("seed", range(8))
def test_labelled_norms_agree_with_plain_ones(seed: int) -> None:
    """Not to more digits than the solver's steps share: it stops at a gradient of 1e-4."""
    known, rows = known_of(seed, 3 + seed)
    found = scored(fitted(LabelledNorms(3 + seed), known, 3), rows)
    np.testing.assert_allclose(found, labelled(known, rows), rtol=1e-4, atol=1e-4)


@few
@given(seed=SEEDS, parameters=st.integers(1, 6), anomalies=st.sampled_from([0, 1, 8]))
def test_reference_gap_agrees_with_the_plain_one_and_stays_within_2(
    seed: int, parameters: int, anomalies: int
) -> None:
    known, rows = cosines_of(seed, parameters, anomalies=anomalies)
    columns = known.train.values.shape[1]
    gap = fitted(ReferenceGap(columns, anomalies=anomalies > 0), known)
    np.testing.assert_allclose(scored(gap, rows), references(known, rows), **CLOSE)
    extreme = Rows(rows.loss, np.sign(rows.values))
    assert abs(scored(gap, extreme)).max() <= 2 + 1e-12
    aligned = np.repeat([[-1.0] * columns], 2, axis=0)
    aligned[0, columns // 2 if anomalies else columns :] = 1  # with the anomalies' and against the normal one
    np.testing.assert_allclose(scored(gap, Rows(rows.loss[:2], aligned))[0], 2.0 if anomalies else 1.0)


def test_more_features_than_rows_leave_what_was_never_seen_outside() -> None:
    known, rows = known_of(0, 60, n=12)
    found = scored(fitted(Subspace(60), known), rows)
    np.testing.assert_allclose(found, subspace(known, rows), **CLOSE)
    found = scored(fitted(ScoreTest(60, projected=True), known), rows)
    np.testing.assert_allclose(found, projected(known, rows), **CLOSE)


def test_where_a_covariance_would_be_too_large_a_sample_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    known, rows = known_of(0, 30, n=20)
    monkeypatch.setattr("anograd.spectrum.MOST_FEATURES", 29)
    found = scored(fitted(Subspace(30), known, 3), rows)
    np.testing.assert_allclose(found, subspace(known, rows), **CLOSE)
    found = scored(fitted(ScoreTest(30, projected=True), known, 3), rows)
    np.testing.assert_allclose(found, projected(known, rows), **CLOSE)


def test_neighbours_keep_the_first_rows_only(monkeypatch: pytest.MonkeyPatch) -> None:
    known, rows = known_of(0, 5)
    monkeypatch.setattr("anograd.score.neighbours.MOST_REFERENCES", 17)
    module = fitted(Neighbours(5), known, 4)
    assert module.rows.shape == (17, 5)
    first = Known(known.train[:17], known.held, known.anomalies)
    np.testing.assert_allclose(scored(module, rows), neighbours(first, rows), **CLOSE)


def test_fewer_rows_than_neighbours_are_all_counted() -> None:
    known, rows = known_of(0, 5, n=3)
    found = scored(fitted(Neighbours(5, neighbours=10), known), rows)
    np.testing.assert_allclose(found, neighbours(known, rows, count=3), **CLOSE)


# What must make no difference, and what must.


def mapped(known: Known, rows: Rows, change: Callable[[Floats], Floats]) -> tuple[Known, Rows]:
    def each(one: Rows) -> Rows:
        return Rows(one.loss, change(one.values))

    return Known(each(known.train), each(known.held), each(known.anomalies)), each(rows)


@few
@given(seed=SEEDS, k=st.integers(3, 10))
def test_a_rotation_of_the_features_changes_nothing(seed: int, k: int) -> None:
    known, rows = known_of(seed, k)
    turn = special_ortho_group.rvs(k, random_state=np.random.default_rng(seed))
    turned = mapped(known, rows, lambda values: values @ turn)
    for make in (Subspace, partial(ScoreTest, projected=True)):
        found = scored(fitted(make(k), turned[0]), turned[1])
        np.testing.assert_allclose(found, scored(fitted(make(k), known), rows), **CLOSE)
    other = scored(fitted(ScoreTest(k), turned[0]), turned[1])  # a diagonal is of its axes
    assert not np.allclose(other, scored(fitted(ScoreTest(k), known), rows), **CLOSE)


@few
@given(seed=SEEDS, k=st.integers(3, 10))
def test_units_of_entries_cancel_but_for_the_ridge(seed: int, k: int) -> None:
    known, rows = known_of(seed, k)
    centre, size = known.train.values.mean(0), known.train.values.std(0)
    known, rows = mapped(known, rows, lambda values: (values - centre) / size + 1)
    unit = 10.0 ** np.random.default_rng(seed).uniform(-1, 1, k)
    changed = mapped(known, rows, lambda values: values * unit)

    def both(make: Callable[[int], nn.Module]) -> tuple[Floats, Floats]:
        return scored(fitted(make(k), known), rows), scored(fitted(make(k), changed[0]), changed[1])

    np.testing.assert_allclose(*both(partial(ScoreTest, ridge=1e-25)), **CLOSE)
    assert not np.allclose(*both(ScoreTest), **CLOSE)
    np.testing.assert_allclose(*both(Neighbours), **CLOSE)


@few
@given(seed=SEEDS, k=st.integers(1, 8), power=st.floats(0.3, 3))
def test_density_follows_scale_and_power_of_lengths(seed: int, k: int, power: float) -> None:
    known, rows = known_of(seed, k)
    centre, size = known.train.values.mean(0), known.train.values.std(0)
    known, rows = mapped(known, rows, lambda values: np.exp(np.clip((values - centre) / size, -2, 2)))
    plain = scored(fitted(NormDensity(k), known), rows)
    scale = 10.0 ** np.random.default_rng(seed).uniform(-1, 3, k)
    changed = mapped(known, rows, lambda values: scale * values)
    np.testing.assert_allclose(scored(fitted(NormDensity(k), changed[0]), changed[1]), plain, **CLOSE)
    changed = mapped(known, rows, lambda values: values**power)
    found = scored(fitted(NormDensity(k), changed[0]), changed[1])
    np.testing.assert_allclose(found, plain + k * np.log(power), **CLOSE)


@pytest.mark.parametrize("name", MODULES)
@few
@given(seed=SEEDS)
def test_further_away_scores_higher(name: str, seed: int) -> None:
    """Along a way that leads out of all normal rows, no step makes a row look more normal."""
    make, _ = MODULES[name]
    known = known_of(seed, 6)[0]
    module = fitted(make(6), known)
    rng = np.random.default_rng(seed)
    way = rng.choice([-1, 1], 6) * rng.uniform(1, 2, 6) * abs(known.train.values).max()
    steps = np.array([3.0, 4.0, 6.0, 10.0, 30.0, 100.0])
    out = Rows(known.held.loss.max() * steps, known.train.values.mean(0) + steps[:, None] * way)
    found = scored(module, out)
    assert (np.diff(found) > 0).all(), found
    assert found[0] > np.median(scored(module, known.held))


def test_labelled_norms_grow_with_what_is_larger_in_known_anomalies() -> None:
    rng = np.random.default_rng(0)

    def draw(count: int, size: float) -> Rows:
        return Rows(size * rng.gamma(2.0, 0.5, count), size * np.exp(rng.normal(size=(count, 3))))

    known = Known(draw(200, 1), draw(200, 1), draw(50, 5))
    steps = 10.0 ** np.arange(6)
    found = scored(fitted(LabelledNorms(3), known), Rows(steps, np.repeat(steps[:, None], 3, axis=1)))
    assert (np.diff(found) > 0).all()


def test_reference_gap_is_higher_where_a_gradient_turns_to_the_anomalies() -> None:
    known = cosines_of(0, 4, anomalies=5)[0]
    gap = fitted(ReferenceGap(8, anomalies=True), known)
    turning = np.linspace(-1, 1, 9)[:, None] * np.repeat([-1.0, 1.0], 4)
    assert (np.diff(scored(gap, Rows(np.zeros(9), turning))) > 0).all()


def test_only_parameters_count_in_which_the_kinds_lie_apart() -> None:
    values = np.zeros((10, 6))
    normal, odd = values.copy(), values.copy()
    odd[:, 3:] = [1.0, 0.6, 0.4]  # gaps of three parameters
    told = [Rows(np.zeros(10), one) for one in (normal, normal, odd)]
    gap = fitted(ReferenceGap(6, anomalies=True), Known(*told))
    np.testing.assert_allclose(gap.weights, [-0.5, -0.5, 0, 0.5, 0.5, 0])


# Detectors, from the network up.


def gradients(target: Target, x: torch.Tensor) -> tuple[Floats, Parts]:
    """A forward and a backward pass for each row by itself."""
    parameters = target.parameters()
    losses, found = [], []
    for row in x.split(1):
        loss = target.loss(target.module(row), row)[0]
        losses.append(loss.item())
        found.append(torch.autograd.grad(loss, list(parameters.values()), materialize_grads=True))
    stacked = (torch.stack(one).double().numpy() for one in zip(*found, strict=True))
    return np.array(losses), dict(zip(parameters, stacked, strict=True))


def inputs(target: Target, x: torch.Tensor) -> tuple[Floats, Parts]:
    """What goes into each layer that has a chosen parameter, noted by a hook; a row at a time."""
    noted: dict[str, list[Floats]] = {}

    def note(name: str, layer: nn.Module, args: tuple[torch.Tensor, ...], output: Any) -> None:
        if args[0].is_floating_point():
            noted.setdefault(name, []).append(args[0][0].flatten().double().numpy())

    hooks, losses = [], []
    for path, layer in target.module.named_modules():
        own = [f"{path}.{kind}" for kind in ("weight", "bias") if f"{path}.{kind}" in target.layers]
        if own:
            hooks.append(layer.register_forward_hook(partial(note, own[0])))
    with torch.no_grad():
        for row in x.split(1):
            losses.append(target.loss(target.module(row), row).item())
    for hook in hooks:
        hook.remove()
    return np.array(losses), {name: np.array(values) for name, values in noted.items()}


Reading = Callable[[Target, torch.Tensor], tuple[Floats, Parts]]


def sketched(sketch: Sketch, name: str, values: Floats) -> Floats:
    """P G Q' with dense matrices."""
    side = values.shape[1] if values.ndim > 1 else 1
    matrix = values.reshape(len(values), side, -1)
    p, q = (
        np.eye(n) if one is None else one.numpy()
        for one, n in zip(sketch.projections(name, torch.tensor(values[0])), matrix.shape[1:], strict=True)
    )
    return np.stack([(p @ one @ q.T).ravel() for one in matrix])


def features(
    kind: str, parts: Parts, means: Sequence[Parts], sketch: Sketch, *, unit: bool = False
) -> Floats:
    flat = {name: values.reshape(len(values), -1) for name, values in parts.items()}
    if unit:  # each parameter's share is of length 1
        lengths = {name: np.linalg.norm(values, axis=1) for name, values in flat.items()}
        parts = {name: (values.T / np.maximum(lengths[name], 1e-18)).T for name, values in parts.items()}
        return features(kind, parts, means, sketch)
    if kind == "sketch":
        return np.hstack([sketched(sketch, name, values) for name, values in parts.items()])
    if kind == "full":
        return np.hstack(list(flat.values()))
    if kind == "norm":
        return np.column_stack([np.linalg.norm(values, axis=1) for values in flat.values()])
    columns = []
    for mean in means:
        for name, values in flat.items():
            usual = np.linalg.norm(mean[name])
            lengths = np.maximum(np.linalg.norm(values, axis=1), 1e-6 * usual)
            columns.append(values @ mean[name].ravel() / lengths / usual)
    return np.column_stack(columns)


DETECTORS: dict[str, tuple[Callable[..., Any], str, Score]] = {
    "GradDensity": (GradDensity, "norm", density),
    "GradScoreTest": (GradScoreTest, "full", diagonal),
    "GradScoreTest, as published": (
        partial(GradScoreTest.as_published, ridge=0.1), "full",
        partial(diagonal, ridge=0.1, typicality=True),
    ),
    "GradScoreTest, projected": (
        partial(GradScoreTest, fisher="projected", ridge=0.3, size=16), "sketch",
        partial(projected, ridge=0.3),
    ),
    "GradSubspace": (partial(GradSubspace, explained=0.8), "sketch", partial(subspace, explained=0.8)),
    "GradNeighbours": (partial(GradNeighbours, neighbours=3, size=9), "sketch", partial(neighbours, count=3)),
    "GradReferences": (GradReferences, "cosine", references),
    "GraN": (GraN, "norm", labelled),
}  # fmt: skip


def roles(detector: Any, odd: NDArray[np.bool_], random_state: int) -> list[NDArray[np.int64]]:
    """Which rows were trained on, validated on, calibrated on, and known as anomalies."""
    seed = int(np.random.default_rng(random_state).integers(2**31 - 1))
    normal = np.flatnonzero(~odd)
    order = torch.randperm(len(normal), generator=torch.Generator().manual_seed(seed)).numpy()
    counts = [detector.split_[name] for name in ("train", "validation", "calibration")]
    assert sum(counts) == len(normal)
    return [*np.split(normal[order], np.cumsum(counts)[:2]), np.flatnonzero(odd)]


def agrees(detector: Any, name: str, read: Reading, x: Any, encoded: torch.Tensor, close: Any) -> None:
    """Compare scores of all rows, and those that p values refer to, with the plain ones.

    The detector was fitted to the rows `x`, odd ones among them, with random_state=3; `encoded` is what
    its network takes.
    """
    _, kind, plain = DETECTORS[name]
    if name == "GradNeighbours" and next(detector.target_.module.parameters()).dtype == torch.float32:
        plain = partial(plain, floor=1e-3)  # below it single precision has little to say
    odd = ODD[: len(x)] & (sum(detector.split_.values()) < len(x))  # whether any were labelled
    train, validation, calibration, known = roles(detector, odd, 3)
    held = validation if len(validation) else train
    seed = int(np.random.default_rng(3).integers(2**31 - 1))
    loss, parts = read(detector.target_, encoded)
    groups = [train, known] if len(known) else [train]
    means = [{name: values[group].mean(0) for name, values in parts.items()} for group in groups]
    sketch = Sketch(getattr(detector, "size", 32), seed)
    rows = Rows(loss, features(kind, parts, means, sketch, unit=getattr(detector, "direction", False)))
    expected = plain(Known(rows[train], rows[held], rows[known]), rows)
    if read is inputs:
        np.testing.assert_allclose(detector.twin_score(x), expected, **close)
        return
    np.testing.assert_allclose(detector.anomaly_score(x), expected, **close)
    np.testing.assert_allclose(detector.calibration_.scores, np.sort(expected[calibration]), **close)


@pytest.mark.parametrize("read", [gradients, inputs])
def test_a_detector_whose_layers_are_tested_one_by_one(read: Reading) -> None:
    x = a_table()
    detector = GradScoreTest(
        fisher="blocks", size=12, ridge=0.1, direction=False, hidden=(6, 3), epochs=4, batch_size=16,
        validation=0.2, random_state=3,
    ).fit(x, ODD[:56])  # fmt: skip
    encoded = detector.encoder_.transform(detector, x).double()
    train, validation, _, known = roles(detector, ODD[:56], 3)
    loss, parts = read(detector.target_, encoded)
    sketch = Sketch(12, int(np.random.default_rng(3).integers(2**31 - 1)))
    columns = [features("sketch", {name: values}, [], sketch) for name, values in parts.items()]
    rows = Rows(loss, np.hstack(columns))
    told = Known(rows[train], rows[validation], rows[known])
    expected = blocks(told, rows, [one.shape[1] for one in columns], 0.1, False)
    found = detector.twin_score(x) if read is inputs else detector.anomaly_score(x)
    np.testing.assert_allclose(found, expected, **CLOSE)


ODD = np.arange(60) % 8 == 4  # which rows are known anomalies


@cache
def a_table() -> Floats:
    """Normal rows and odd ones among them, (56, 5)."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(56, 5)) @ rng.normal(size=(5, 5))
    x[ODD[:56]] *= 4
    return x


@pytest.mark.parametrize("read", [gradients, inputs])
@pytest.mark.parametrize("name", DETECTORS)
def test_detectors_of_a_table(name: str, read: Reading) -> None:
    x = a_table()
    detector = DETECTORS[name][0](hidden=(6, 3), epochs=4, batch_size=16, validation=0.2, random_state=3)
    detector.fit(x, ODD[:56])
    encoded = detector.encoder_.transform(detector, x)
    agrees(detector, name, read, x, encoded.double(), CLOSE)  # tables are read in double precision


@cache
def some_images() -> NDArray[np.float32]:
    """Normal images and odd ones among them, (30, 1, 12, 12)."""
    x = np.random.default_rng(0).random((30, 1, 12, 12), dtype=np.float32) / 3
    x[:, :, 3:8, 3:8] += 0.5
    x[ODD[:30]] = 1 - x[ODD[:30]]
    return x


@cache
def an_autoencoder() -> nn.Module:
    with seeded(0):
        return ConvAutoencoder(1, 12, 12).double().eval()


@pytest.mark.parametrize("read", [gradients, inputs])
@pytest.mark.parametrize("name", DETECTORS)
def test_detectors_of_images_on_an_adopted_network(name: str, read: Reading) -> None:
    x = some_images()
    target = Target.adopt(an_autoencoder(), layers=["down.6.*", "up.4.weight", "up.6.*"])
    detector = DETECTORS[name][0](target=target, random_state=3).fit(x, ODD[:30])
    agrees(detector, name, read, x, torch.from_numpy(x).double(), CLOSE)


@pytest.mark.parametrize("name", DETECTORS)
def test_detectors_of_images_on_their_own_network(name: str) -> None:
    """Trained and read in single precision, so not to six digits of what double precision finds."""
    x = some_images()
    detector = DETECTORS[name][0](epochs=2, batch_size=8, validation=0.2, random_state=3).fit(x, ODD[:30])
    assert detector.network_["kind"] == "cae"
    exact = copy.deepcopy(detector.target_.module).double()

    def read(target: Target, rows: torch.Tensor) -> tuple[Floats, Parts]:
        return gradients(Target(exact, target.loss, target.layers), rows)

    agrees(detector, name, read, x, torch.from_numpy(x).double(), {"rtol": 1e-4, "atol": 1e-4})


@pytest.mark.parametrize("read", [gradients, inputs])
def test_references_without_a_known_anomaly(read: Reading) -> None:
    x = some_images()
    target = Target.adopt(an_autoencoder(), layers="up.6.*")
    detector = GradReferences(target=target, random_state=3).fit(x)
    assert detector.known_ == 0
    agrees(detector, "GradReferences", read, x, torch.from_numpy(x).double(), CLOSE)

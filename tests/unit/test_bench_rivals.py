"""Everyone who takes part learns, repeats itself, and leaves the global generators as they were."""

from __future__ import annotations

import importlib
import os
import random
import re
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

from anograd.bench.entrants import Entrant, Fitted
from anograd.bench.rivals import ENTRANTS, anogan, deepsad, devnet, pixelcnn, prenet
from anograd.bench.rivals.a3 import activations
from anograd.bench.rivals.network import score_by
from anograd.detectors import DETECTORS

NORMAL, KNOWN, TESTED = 300, 15, 100
# Fewer epochs where the defaults take long, and a larger step where theirs suits thousands of rows.
FEW = (
    "gradcon", "gradcon-published", "graddensity", "gradscoretest", "gradsubspace", "gradneighbours",
    "gradreferences", "gran", "gradnorm", "gradlabels", "reconstruction",
)  # fmt: skip
SHORT: dict[str, dict[str, Any]] = {
    **{name: {"epochs": 30} for name in FEW},
    "a3": {"epochs": 15},
    "anogan": {"epochs": 60, "batch": 32},
    "autoencoder": {"epoch_num": 30},
    "catboost": {"iterations": 100},
    "deep-svdd": {"epochs": 20, "learning_rate": 1e-3},
    "deepsad": {"pretraining": 20, "epochs": 30, "rate": 1e-3},
    "devnet": {"epochs": 10},
    "gradient-trees": {"epochs": 20, "size": 8, "trees": {"iterations": 50}},
    "histogram-boosting": {"max_iter": 20},
    "prenet": {"epochs": 20},
    "r2ad2": {"epochs": 5},
    "r2ad2-published": {"epochs": 8, "published_for": "mammography", "batch_size": 64},
    "random-forest": {"n_estimators": 100},
}
BOUND = 0.85  # of the AUROC
DRAWN = ("vae",)  # PyOD's draws a code for each row that it scores
BACKWARDS = ("gradnorm",)  # rows far outside make long gradients: the limit that its paper record states
TABLES = [name for name, entrant in ENTRANTS.items() if entrant.rows != "images"]


def task(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows on a curved sheet in six columns and rows off it, 0..1: (X, y, test rows, which are odd)."""
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.normal(size=(6, 6)))[0][:3]

    def normal(n: int) -> np.ndarray:
        at = rng.uniform(-1, 1, size=(n, 2))
        sheet = np.column_stack([at, at[:, 0] ** 2])
        return sheet @ turn + rng.normal(0, 0.03, size=(n, 6))

    def odd(n: int) -> np.ndarray:
        away = np.array([0.9, -0.9, 0.9, -0.9, 0.9, 0.9])
        return normal(n) + away * rng.uniform(0.7, 1.3, size=(n, 1))

    learned, known, tested = normal(NORMAL), odd(KNOWN), np.concatenate([normal(TESTED), odd(TESTED)])
    low, high = learned.min(0), learned.max(0)
    X = (np.concatenate([learned, known]) - low) / (high - low)
    y = np.repeat([0, 1], [NORMAL, KNOWN]).astype(np.int8)
    return (
        X.astype(np.float32),
        y,
        ((tested - low) / (high - low)).astype(np.float32),
        np.repeat([0, 1], TESTED),
    )


def fitted(entrant: Entrant, name: str, seed: int = 0) -> Fitted:
    X, y, _, _ = task()
    if entrant.known == "ignored":
        X, y = X[y == 0], y[y == 0]
    return entrant.fit(X, y, seed=seed, **SHORT.get(name, {}))


def generators() -> tuple[Any, ...]:
    numpy = np.random.get_state()  # noqa: NPY002
    return random.getstate(), numpy[1].tolist(), numpy[2], torch.get_rng_state().tolist()


@pytest.mark.parametrize("name", TABLES)
def test_it_learns_repeats_itself_and_leaves_no_trace(name: str) -> None:
    entrant = ENTRANTS[name]
    if entrant.needs:
        pytest.importorskip(entrant.needs)
    _, _, tested, odd = task()
    before = generators()
    first = fitted(entrant, name)
    assert next(iter(first.scores)) == "score"
    scores = {one: score(tested) for one, score in first.scores.items()}
    assert generators() == before
    again = fitted(entrant, name)
    for one, values in scores.items():
        assert values.shape == (len(tested),)
        assert values.dtype == np.float64
        assert np.isfinite(values).all()
        np.testing.assert_allclose(again.scores[one](tested), values, rtol=1e-5, atol=1e-7)
    if name not in BACKWARDS:
        assert roc_auc_score(odd, scores["score"]) > BOUND
    if name in DRAWN:
        return
    # A row's score is its own: the others it is scored with do not change it.
    some = first.scores["score"](tested[::7])
    np.testing.assert_allclose(some, scores["score"][::7], rtol=1e-3, atol=1e-5)


def test_every_detector_takes_part_and_every_entrant_says_what_it_is() -> None:
    assert set(DETECTORS) - {"gradientdetector"} <= set(ENTRANTS)  # which takes part as "reconstruction"
    for name, entrant in ENTRANTS.items():
        assert re.fullmatch("[a-z0-9]+(-[a-z0-9]+)*", name)
        assert entrant.label
        assert entrant.settings
        assert not entrant.settings.endswith(".")


@pytest.mark.parametrize("name", [name for name, entrant in ENTRANTS.items() if entrant.known == "used"])
def test_known_anomalies_may_be_none(name: str) -> None:
    X, y, tested, _ = task()
    found = ENTRANTS[name].fit(X[y == 0], y[y == 0], seed=0, **SHORT.get(name, {}))
    assert np.isfinite(found.scores["score"](tested)).all()


@pytest.mark.parametrize("name", ["deepsad", "a3", "catboost", "lof", "gradcon"])
def test_a_setting_that_is_not_there_is_refused(name: str) -> None:
    if needed := ENTRANTS[name].needs:
        pytest.importorskip(needed)
    X, y, _, _ = task()
    with pytest.raises(TypeError, match="depht"):
        ENTRANTS[name].fit(X, y, seed=0, depht=3)


def test_gradcon_alone_is_its_cosine_and_r2ad2_has_its_novelty() -> None:
    _, _, tested, _ = task()
    assert list(fitted(ENTRANTS["r2ad2"], "r2ad2").scores) == ["score", "twin", "novelty"]
    scores = fitted(ENTRANTS["gradcon"], "gradcon").scores
    twin, cosine = scores["twin"](tested), scores["cosine"](tested)
    np.testing.assert_allclose(scores["weight 0.12"](tested), twin + 0.12 * cosine, rtol=1e-4, atol=1e-6)
    weight = np.linalg.lstsq(cosine[:, None], scores["score"](tested) - twin, rcond=None)[0].item()
    np.testing.assert_allclose(scores["score"](tested), twin + weight * cosine, rtol=1e-4, atol=1e-6)
    assert list(fitted(ENTRANTS["gradcon-published"], "gradcon").scores) == ["score", "twin", "cosine"]


def test_weights_are_counted() -> None:
    counted = fitted(ENTRANTS["deepsad"], "deepsad").weights
    assert counted == 6 * 100 + 100 * 20 + 20 * 10
    assert fitted(ENTRANTS["devnet"], "devnet").weights == 6 * 20 + 20 + 20 + 1
    assert fitted(ENTRANTS["pca"], "pca").weights is None


@pytest.mark.parametrize("name", ["autoencoder", "vae", "deep-svdd"])
def test_pyod_takes_few_rows_in_silence(
    name: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyod")
    monkeypatch.setenv("PYTHONHASHSEED", "12")
    X, _, tested, _ = task()
    found = ENTRANTS[name].fit(X[:20], np.zeros(20, np.int8), seed=3)
    assert np.isfinite(found.scores["score"](tested)).all()
    assert os.environ["PYTHONHASHSEED"] == "12"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("name", "module", "kind"), [("ecod", "ecod", "ECOD"), ("copod", "copod", "COPOD")])
def test_tails_are_those_of_pyod_where_a_row_is_scored_alone(name: str, module: str, kind: str) -> None:
    pytest.importorskip("pyod")
    X, y, tested, _ = task()
    normal = X[y == 0]
    theirs = getattr(importlib.import_module(f"pyod.models.{module}"), kind)().fit(normal)
    # A row far out turns a column's skewness round by itself; ours is that of the rows to learn from.
    tested = tested[:TESTED]
    expected = np.concatenate([theirs.decision_function(row[None]) for row in tested])
    ours = ENTRANTS[name].fit(normal, y[y == 0], seed=0).scores["score"](tested)
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


def test_a_column_that_never_moves_has_tails() -> None:
    X, y, tested, _ = task()
    X[:, 2] = 0.3
    assert np.isfinite(ENTRANTS["ecod"].fit(X, y, seed=0).scores["score"](tested)).all()


def test_deepsad_pulls_rows_in_and_pushes_known_anomalies_out() -> None:
    X, y, _, _ = task()

    def apart(labels: np.ndarray) -> float:
        score = deepsad.fit_deepsad(X, labels, seed=0, pretraining=10, epochs=30, rate=1e-3).scores["score"]
        distances = score(X)
        return float(distances[y == 1].mean() / distances[y == 0].mean())

    assert apart(y) > 10 * apart(np.zeros_like(y))
    untrained = deepsad.fit_deepsad(X, y, seed=0, pretraining=10, epochs=0, rate=1e-3).scores["score"](X)
    trained = deepsad.fit_deepsad(X, y, seed=0, pretraining=10, epochs=30, rate=1e-3).scores["score"](X)
    assert trained[y == 0].mean() < 0.5 * untrained[y == 0].mean()


def test_deepsad_loss_and_centre_by_hand() -> None:
    found = deepsad.loss_of(torch.tensor([4.0, 4.0]), torch.tensor([0, 1]), eta=2.0)
    torch.testing.assert_close(found, torch.tensor([4.0, 0.5]))
    centre = deepsad.centre_of(torch.tensor([[0.02, -0.02, 3.0, 0.0], [0.04, -0.04, 1.0, 0.0]]))
    torch.testing.assert_close(centre, torch.tensor([0.1, -0.1, 2.0, 0.1]))


def test_deviations_by_hand() -> None:
    prior = torch.tensor([-2.0, 2.0])  # mean 0, deviation 2
    scores, y = torch.tensor([2.0, -4.0, 6.0, 12.0]), torch.tensor([0, 0, 1, 1])
    assert devnet.deviation_loss(scores, y, prior).item() == pytest.approx((1 + 2 + 2 + 0) / 4)


def test_devnet_puts_anomalies_five_deviations_up() -> None:
    X, y, _, _ = task()
    scores = devnet.fit_devnet(X, y, seed=0).scores["score"](X)
    assert abs(np.median(scores[y == 0])) < 1
    assert np.median(scores[y == 1]) > 4


def test_prenet_orders_pairs_by_the_anomalies_in_them() -> None:
    X, y, _, _ = task()
    normal, known = torch.tensor(X[y == 0]), torch.tensor(X[y == 1])
    torch.testing.assert_close(
        prenet.pairs(normal, known, 8)[2], torch.tensor([0.0, 0.0, 0.0, 0.0, 4.0, 4.0, 8.0, 8.0])
    )
    network, _, _ = prenet.train(normal, known, seed=0)
    with torch.no_grad():
        none, one, both = (
            network(left[:15], right[:15]).mean().item()
            for left, right in ((normal, normal[20:]), (known, normal), (known, known))
        )
    assert none < 1.5
    assert 2.5 < one < 5.5
    assert both > 6


def test_activations_are_those_after_each_relu() -> None:
    network = torch.nn.Sequential(
        torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2), torch.nn.ReLU()
    )
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    first = network[0](x).relu()
    torch.testing.assert_close(
        activations(network)(x), torch.cat([first, network[2](first).relu()], 1).detach()
    )


def test_pixels_see_only_those_before_them() -> None:
    network = pixelcnn.PixelCNN(1, channels=4, depth=2, levels=4)
    image = torch.rand(1, 1, 6, 6)
    changed = image.clone()
    changed[0, 0, 2, 3] += 0.5
    with torch.no_grad():
        moved = (network(image) != network(changed))[0].any(0)[0].flatten()
    assert not moved[: 2 * 6 + 4].any()  # the pixel itself included
    assert moved[2 * 6 + 4]


def test_pixelcnn_finds_other_digits_unlikely() -> None:
    digits = load_digits()
    images = (digits.images / 16).astype(np.float32)[:, None]
    noughts = images[digits.target == 0]
    learned, tested = noughts[:120], np.concatenate([noughts[120:], images[digits.target == 7][:58]])
    settings = {"epochs": 40, "channels": 16, "depth": 2, "levels": 8, "batch": 16}
    before = generators()
    one, two = (pixelcnn.fit_pixelcnn(learned, np.zeros(120, np.int8), seed=0, **settings) for _ in range(2))
    scores = one.scores["score"](tested)
    assert generators() == before
    np.testing.assert_array_equal(scores, two.scores["score"](tested))
    assert scores.dtype == np.float64
    assert roc_auc_score(np.repeat([0, 1], [len(tested) - 58, 58]), scores) > 0.9


def test_anogan_makes_other_digits_worse() -> None:
    digits = load_digits()
    images = (digits.images / 16).astype(np.float32)[:, None]
    noughts = images[digits.target == 0]
    learned, tested = noughts[:120], np.concatenate([noughts[120:], images[digits.target == 7][:58]])
    settings = {"epochs": 60, "width": 32, "batch": 16, "steps": 50}
    before = generators()
    one, two = (anogan.fit_anogan(learned, np.zeros(120, np.int8), seed=0, **settings) for _ in range(2))
    scores = one.scores["score"](tested)
    assert generators() == before
    np.testing.assert_array_equal(scores, two.scores["score"](tested))
    assert scores.dtype == np.float64
    assert roc_auc_score(np.repeat([0, 1], [len(tested) - 58, 58]), scores) > 0.97  # 0.9 untrained


def searching(x: torch.Tensor, **settings: Any) -> anogan.Search:
    """The search of a generator and a discriminator after a few steps."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        generator, discriminator = anogan.build(x.shape[1:], 16)
        anogan.play(generator, discriminator, x, epochs=3, batch=16)
        points = anogan.latent(8)
    return anogan.Search(generator, discriminator, points, **{"share": 0.1, "rate": 0.1, **settings})


def test_a_row_is_searched_for_as_it_would_be_alone() -> None:
    rows = torch.rand(75, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    search = searching(rows, steps=30)
    together = search(rows)
    torch.testing.assert_close(search(rows.flip(0)).flip(0), together, rtol=1e-4, atol=0)
    for at in (0, 40, 74):
        torch.testing.assert_close(search(rows[at : at + 1]), together[at : at + 1], rtol=1e-4, atol=0)


def test_a_search_comes_nearer_and_leaves_both_networks_alone() -> None:
    rows = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    search = searching(rows, steps=50)
    halves = (search.generator, search.features)
    before = [{name: one.clone() for name, one in half.state_dict().items()} for half in halves]
    near = search(rows)
    for half, state in zip(halves, before, strict=True):
        torch.testing.assert_close(half.state_dict(), state, rtol=0, atol=0)
        assert not any(parameter.requires_grad for parameter in half.parameters())
    assert (near < searching(rows, steps=0)(rows)).all()


def test_a_search_without_steps_is_the_loss_at_the_best_start() -> None:
    rows = torch.rand(5, 6, generator=torch.Generator().manual_seed(1))
    search = searching(rows, steps=0, share=0.25)
    losses = [
        0.75 * (made - rows).abs().sum(1)
        + 0.25 * (search.features(made[None]) - search.features(rows)).abs().sum(1)
        for made in search.generator(search.points)
    ]
    torch.testing.assert_close(search(rows), torch.stack(losses).amin(0))


def test_anogan_counts_weights_and_refuses_images_that_cannot_be_halved_twice() -> None:
    found = anogan.fit_anogan(np.zeros((2, 1, 28, 28), np.float32), np.zeros(2, np.int8), seed=0, epochs=0)
    generator = 32 * 64 * 49 + 2 * 64 + 64 * 32 * 16 + 2 * 32 + 32 * 16 + 1
    assert found.weights == generator + 32 * 16 + 32 + 32 * 64 * 16 + 64 + 64 * 49 + 1
    with pytest.raises(ValueError, match=r"30 x 28: pad them .* four divides.*X\.reshape\(len\(X\), -1\)"):
        anogan.build((1, 30, 28), 8)


def test_rows_that_cannot_be_written_are_scored() -> None:
    rows = np.ones((3, 2), np.float32)
    rows.flags.writeable = False
    assert score_by(lambda x: x.sum(1))(rows).tolist() == [2, 2, 2]

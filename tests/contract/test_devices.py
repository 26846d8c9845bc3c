"""Everything runs on another device than the CPU, leaves nothing behind there, and gives the same results.

There need be no such device: see `pretend`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.contract.pretend import DEVICE, Held, pretended
from torch import nn

import anograd as ag
from anograd import Sketch, Target, per_sample
from anograd.constraint import mean_gradient
from anograd.detectors import DETECTORS
from anograd.detectors.precise import precise
from anograd.networks import DenseAutoencoder
from anograd.stack import train_together
from anograd.train import TrainingPlan, seeded, train

RNG = np.random.default_rng(0)
TABLE = RNG.normal(size=(70, 4))
IMAGES = RNG.integers(0, 256, (70, 1, 10, 10)).astype(np.uint8)
KNOWN = np.arange(70) % 10 == 3

Make = Callable[..., Any]
FITS: dict[str, tuple[Make, np.ndarray, np.ndarray | None]] = {
    "GradCon, table": (lambda **on: ag.GradCon(epochs=2, **on), TABLE, None),
    "GradCon, images": (lambda **on: ag.GradCon(epochs=2, **on), IMAGES, None),
    "GradCon, VAE": (lambda **on: ag.GradCon(target="vae", epochs=2, **on), IMAGES, None),
    "GradCon, recon, ema": (
        lambda **on: ag.GradCon(epochs=2, reference="recon", averaging="ema", **on), TABLE, None,
    ),
    "GradCon, final": (lambda **on: ag.GradCon(epochs=2, averaging="final", **on), TABLE, None),
    "R2AD2": (lambda **on: ag.R2AD2(epochs=2, checkpoints=2, networks=2, **on), TABLE, KNOWN),
    "R2AD2, without labels": (
        lambda **on: ag.R2AD2(epochs=1, checkpoints=1, noise="permuted", batch_size=64, **on), TABLE, None,
    ),
    "R2AD2, images": (lambda **on: ag.R2AD2(epochs=1, checkpoints=1, networks=2, **on), IMAGES, KNOWN),
    "R2AD2, recurrent": (
        lambda **on: ag.R2AD2(epochs=1, checkpoints=2, networks=2, recurrent=True, sketch=8, **on),
        TABLE, KNOWN,
    ),
    "R2AD2, published": (lambda **on: ag.R2AD2.as_published("mammography", epochs=1, **on), TABLE, KNOWN),
    "hidden columns": (lambda **on: ag.GradScoreTest.for_tables(epochs=2, **on), TABLE, None),
    "score test, images": (lambda **on: ag.GradScoreTest.for_images(epochs=2, size=32, **on), IMAGES, None),
    "rotations": (
        lambda **on: ag.GradScoreTest.for_images(target="rotations", epochs=2, size=32, **on), IMAGES, None,
    ),
    "features": (lambda **on: ag.GradientFeatures(epochs=2, **on), TABLE, None),
    **{
        name: (lambda kind=kind, **on: kind(epochs=2, **on), TABLE, KNOWN)
        for name, kind in DETECTORS.items()
        if name not in ("gradcon", "r2ad2")
    },
}  # fmt: skip


# On the CPU the few rows that single precision cannot tell are computed again in double, elsewhere not.
SINGLE = ("score test, images", "rotations")


def assert_alike(name: str, found: np.ndarray, wanted: np.ndarray) -> None:
    if name not in SINGLE:
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-7)
        return
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-7)
    assert (np.abs(found - wanted) > 1e-7 + 1e-4 * np.abs(wanted)).mean() <= 0.03  # one to three in a hundred


def read(detector: Any, rows: np.ndarray) -> np.ndarray:
    return detector.transform(rows) if hasattr(detector, "transform") else detector.anomaly_score(rows)


@pytest.mark.parametrize("name", FITS)
def test_a_fit_is_the_same_on_another_device(name: str, tmp_path: Path) -> None:
    make, rows, known = FITS[name]
    expected = make(random_state=0, device="cpu").fit(rows, known)
    with pretended():
        detector = make(random_state=0, device=DEVICE).fit(rows, known)
        found = read(detector, rows)
        if name != "features":
            detector.twin_score(rows[:3])
            detector.save(tmp_path / "model")
            loaded = ag.load(tmp_path / "model")
            np.testing.assert_allclose(loaded.anomaly_score(rows), found, rtol=1e-6)
    assert_alike(name, found, read(expected, rows))
    if name != "features":
        here = ag.load(tmp_path / "model", device="cpu")
        assert_alike(name, here.anomaly_score(rows), found)


@pytest.mark.parametrize("normal", [None, IMAGES[:20]], ids=["reconstructed", "nearest"])
def test_an_explanation_is_the_same_on_another_device(normal: np.ndarray | None) -> None:
    expected = (
        ag.GradCon(epochs=1, random_state=0, device="cpu").fit(IMAGES).explain(IMAGES[:2], normal=normal)
    )
    with pretended():
        detector = ag.GradCon(epochs=1, random_state=0, device=DEVICE).fit(IMAGES)
        found = detector.explain(IMAGES[:2], normal=normal)
    np.testing.assert_allclose(found.features, expected.features, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.parts, expected.parts, rtol=1e-4, atol=1e-6)
    if normal is not None:
        np.testing.assert_array_equal(found.nearest, expected.nearest)


@pytest.mark.parametrize("rows", [TABLE, IMAGES], ids=["table", "images"])
def test_networks_trained_at_once_are_the_same_on_another_device(rows: np.ndarray) -> None:
    """Those for images are trained in turn on a CPU, so that this compares the two ways as well."""

    def fit(on: str) -> np.ndarray:
        detectors = [ag.GradCon(epochs=2, device=on, random_state=i) for i in range(2)]
        return np.stack([one.anomaly_score(rows) for one in ag.fit_together(detectors, [rows, rows[:40]])])

    expected = fit("cpu")
    with pretended():
        np.testing.assert_allclose(fit(DEVICE), expected, rtol=0, atol=1e-5)


def test_scores_of_a_gpu_are_computed_in_single_precision_proper() -> None:
    def precision() -> object:
        newer = getattr(torch.backends.cudnn, "conv", None)
        return newer.fp32_precision if newer else torch.backends.cudnn.allow_tf32

    before = precision()
    with precise(torch.device("cuda")):
        assert precision() in ("ieee", False)
    assert precision() == before
    with precise(torch.device("cpu")):
        assert precision() == before


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(3, 2), (4, 3)),
    "linear, positions": (lambda: nn.Linear(3, 2), (4, 5, 3)),
    "convolution": (lambda: nn.Conv2d(2, 4, 3, padding=1, groups=2), (4, 2, 6, 6)),
    "transposed": (lambda: nn.ConvTranspose1d(2, 3, 3, stride=2), (4, 2, 6)),
    "norms": (lambda: nn.Sequential(nn.BatchNorm1d(4), nn.GroupNorm(2, 4), nn.LayerNorm([4, 3])), (4, 4, 3)),
    "embedding": (lambda: nn.Embedding(9, 3, padding_idx=0), (4, 5)),
    "attention": (lambda: nn.TransformerEncoderLayer(4, 2, 8, 0.0, batch_first=True), (4, 5, 4)),
    "LSTM": (lambda: Last(nn.LSTM(3, 2, batch_first=True)), (4, 5, 3)),
    "RNN": (lambda: Last(nn.RNN(3, 2, batch_first=True)), (4, 5, 3)),
    "no rule": (lambda: nn.Bilinear(3, 3, 2), (4, 3)),
}


class Last(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)[0][:, -1]


@pytest.mark.parametrize("name", LAYERS)
def test_every_rule_stays_on_the_device(name: str) -> None:
    make, shape = LAYERS[name]
    with seeded(0):
        layer = make()
        x = torch.randint(0, 9, shape) if name == "embedding" else torch.randn(shape)
    module = nn.Sequential(layer) if name != "no rule" else Twice(layer)

    def quantities(on: str) -> dict[str, torch.Tensor]:
        target = Target.adopt(module.to(on), loss=lambda output, _: output.flatten(1).square().mean(1))
        reference = {name: torch.ones_like(p) for name, p in target.parameters().items()}
        found: dict[str, torch.Tensor] = {}
        for want in (("loss", "norm"), ("inner", "sketch"), ("full", "fold")):
            one = per_sample(
                target, x.to(on), want, reference=reference, sketch=Sketch(size=4), memory="4KiB",
                fold=lambda name, gradient: gradient.flatten(1).sum(1, keepdim=True),
            )  # fmt: skip
            found |= {quantity: getattr(one, quantity) for quantity in want}
        return found

    expected = quantities("cpu")
    with pretended():
        for quantity, value in quantities(DEVICE).items():
            assert isinstance(value, Held), quantity
            torch.testing.assert_close(value.cpu(), expected[quantity], rtol=1e-5, atol=1e-6)


class Twice(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x, x)


PLAN = TrainingPlan(epochs=2, batch_size=16, learning_rate=1e-3, alpha=0.03, keep="objective")


def dense(seed: int) -> Target:
    with seeded(seed):
        return Target.adopt(DenseAutoencoder(4, (8, 2)).to(DEVICE), layers="up.*.weight")


def one(x: torch.Tensor) -> None:
    train(dense(0), x, x, PLAN)


def two(x: torch.Tensor) -> None:
    observers = [lambda name, data: None] * 2
    train_together([dense(0), dense(1)], [x, x], [x, x], PLAN, seeds=[0, 1], observers=observers)


@pytest.mark.parametrize("fit", [one, two])
def test_the_host_waits_no_oftener_for_many_steps_than_for_few(fit: Callable[..., None]) -> None:
    found = []
    for rows in (32, 320):
        with pretended() as mode:
            fit(torch.randn(rows, 4).to(DEVICE))
            found.append(mode.waits)
    assert 0 < found[1] == found[0]


def test_scoring_waits_once_for_all_batches() -> None:
    found = []
    for rows in (1024, 4096):
        with pretended() as mode:
            detector = ag.GradCon(epochs=1, device=DEVICE, random_state=0).fit(TABLE)
            mode.waits = 0
            detector.anomaly_score(np.resize(TABLE, (rows, 4)))
            found.append(mode.waits)
    assert 0 < found[1] == found[0]


def test_a_device_without_double_precision_can_fit_and_score_gradcon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anograd.detectors.precise.WITHOUT_DOUBLE", {torch.device(DEVICE).type, "cpu"})
    with pretended(doubles=False):
        found = ag.GradCon(epochs=2, device=DEVICE, random_state=0).fit(TABLE).anomaly_score(TABLE)
    expected = ag.GradCon(epochs=2, device="cpu", random_state=0).fit(TABLE).anomaly_score(TABLE)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_what_was_left_on_the_cpu_is_told_of() -> None:
    """The pretended device notices what a GPU would."""
    with pretended():
        target = dense(0)
        x = torch.randn(5, 4)
        with pytest.raises(AssertionError, match="mixes devices"):
            mean_gradient(target, x, 5)
        with pytest.raises(AssertionError, match="mixes devices"):
            torch.ones(3, device=DEVICE) + torch.ones(3)
        torch.ones(3, device=DEVICE) * torch.tensor(2.0)  # a single number may lie anywhere

"""Nothing around a call changes what it gives: the caller's modes, a network's own habits, other threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import anograd as ag
from anograd import Target, per_sample

RNG = np.random.default_rng(0)
TABLE = RNG.normal(size=(60, 6)).astype(np.float32)
X = torch.from_numpy(TABLE[:5].copy())


@contextmanager
def in_double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


MODES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "inference_mode": torch.inference_mode,
    "no_grad": torch.no_grad,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "default dtype": in_double,
    "default device": lambda: torch.device("meta"),  # which has no numbers at all
}


def autoencoder() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 6))


def one_by_one(target: Target, x: Tensor) -> Tensor:
    """The gradients, (n, g), by an ordinary backward pass a row, each on rows of its own."""
    found = []
    for row in x:
        target.module.zero_grad()
        target.loss(target.module(row[None].clone()), row[None]).sum().backward()
        named = dict(target.module.named_parameters())
        found.append(torch.cat([named[name].grad.flatten() for name in target.layers]))
    target.module.zero_grad()
    return torch.stack(found)


@pytest.mark.parametrize("mode", MODES)
def test_gradients_under_the_callers_modes(mode: str) -> None:
    net = autoencoder()
    expected = per_sample(Target.adopt(net), X, ("norm", "full"))
    with MODES[mode]():
        found = per_sample(Target.adopt(net), X.clone(), ("norm", "full"))
    torch.testing.assert_close(found.full, expected.full, rtol=0, atol=0)
    torch.testing.assert_close(found.norm, expected.norm, rtol=0, atol=0)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", [ag.GradCon, ag.R2AD2, ag.GradDensity, ag.GradLabels])
def test_fits_and_scores_under_the_callers_modes(kind: type[Any], mode: str) -> None:
    expected = kind(epochs=2, random_state=0).fit(TABLE)
    with MODES[mode]():
        found = kind(epochs=2, random_state=0).fit(TABLE)
        scores, twins = found.anomaly_score(TABLE), found.twin_score(TABLE)
    np.testing.assert_array_equal(scores, expected.anomaly_score(TABLE))
    np.testing.assert_array_equal(twins, expected.twin_score(TABLE))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", [ag.GradCon, ag.GradNeighbours, ag.GraN])
def test_networks_are_adopted_under_the_callers_modes(kind: type[Any], mode: str) -> None:
    target = Target.adopt(autoencoder())
    expected = kind(target=target, random_state=0).fit(TABLE).anomaly_score(TABLE)
    with MODES[mode]():
        found = kind(target=target, random_state=0).fit(TABLE).anomaly_score(TABLE)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("rows", [TABLE, TABLE.reshape(60, 1, 2, 3)], ids=["table", "images"])
def test_explanations_under_the_callers_modes(rows: Any, mode: str) -> None:
    detector = ag.GradCon(epochs=2, random_state=0).fit(rows)
    expected = detector.explain(rows[:2])
    with MODES[mode]():
        found = detector.explain(rows[:2])
    np.testing.assert_array_equal(found.features, expected.features)
    np.testing.assert_array_equal(found.expected, expected.expected)
    np.testing.assert_array_equal(found.parts, expected.parts)


@pytest.mark.parametrize("mode", ["no_grad", "default device"])
def test_detectors_are_fitted_together_under_the_callers_modes(mode: str) -> None:
    def fitted() -> Any:
        detectors = [ag.GradCon(epochs=2, random_state=i) for i in range(2)]
        return [one.anomaly_score(TABLE) for one in ag.fit_together(detectors, [TABLE, TABLE])]

    expected = fitted()
    with MODES[mode]():
        np.testing.assert_array_equal(fitted(), expected)


def test_a_model_loaded_in_inference_mode_scores_the_same(tmp_path: Any) -> None:
    detector = ag.GradDensity(epochs=2, random_state=0).fit(TABLE)
    detector.save(tmp_path / "model")
    with torch.inference_mode():
        loaded = ag.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.anomaly_score(TABLE), detector.anomaly_score(TABLE))


def test_a_hook_that_changes_what_a_layer_gives() -> None:
    net = autoencoder()
    net[0].register_forward_hook(lambda layer, args, output: (2 * output).relu())
    target = Target.adopt(net)
    torch.testing.assert_close(per_sample(target, X, "full").full, one_by_one(target, X))


class WritesOverItsInput(nn.Module):
    """Its first operation is done in place, on the rows that it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.bend, self.last = nn.Linear(6, 6), nn.PReLU(6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        x.sub_(0.5)
        return self.last(self.bend(self.first(x)))


def test_a_network_that_writes_over_its_input() -> None:
    target, given = Target.adopt(WritesOverItsInput()), X.clone()
    found = per_sample(target, given, "full").full
    torch.testing.assert_close(found, one_by_one(target, X))
    torch.testing.assert_close(given, X, rtol=0, atol=0)
    rows = TABLE.copy()
    detector = ag.GradDensity(target=target, random_state=0).fit(rows)
    detector.anomaly_score(rows)
    detector.twin_score(rows)
    np.testing.assert_array_equal(rows, TABLE)


def test_an_input_that_is_changed_behind_the_layer() -> None:
    """The layer keeps a padded copy for itself, so PyTorch has nothing to object to."""

    class Adds(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(2, 2, 1)
            self.around = nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular")

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            x += self.around(x)
            return x

    target, x = Target.adopt(Adds()), torch.rand(3, 2, 5, 5)
    torch.testing.assert_close(per_sample(target, x, "full").full, one_by_one(target, x))
    assert "its input is changed in place afterwards" in str(ag.plan(target, x))


def test_a_network_that_counts_its_calls() -> None:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 6)
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return self.layer(x)

    net = Counts()
    detector = ag.GradDensity(target=Target.adopt(net), random_state=0).fit(TABLE)
    detector.anomaly_score(TABLE)
    detector.twin_score(TABLE)
    detector.explain(TABLE[:2])
    assert net.calls == 0


def test_a_single_number_as_a_parameter() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.scale = nn.Linear(6, 6), nn.Parameter(torch.tensor(2.0))

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) * self.scale

    target = Target.adopt(Scaled())
    reference = {name: torch.randn_like(p) for name, p in target.parameters().items()}
    want = ("norm", "inner", "full", "sketch")
    found = per_sample(target, X, want, reference=reference, sketch=ag.Sketch(4))
    expected = one_by_one(target, X)
    torch.testing.assert_close(found.full, expected)
    parts = torch.split(expected, [p.numel() for p in target.parameters().values()], dim=1)
    inner = [part @ one.flatten() for part, one in zip(parts, reference.values(), strict=True)]
    torch.testing.assert_close(found.inner, torch.stack(inner, dim=1))
    torch.testing.assert_close(found.norm, torch.stack([part.norm(dim=1) for part in parts], dim=1))
    place = target.layers.index("scale")
    torch.testing.assert_close(found.sketch[:, 4 * place], parts[place][:, 0])
    for kind in (ag.GradCon, ag.GradNeighbours):
        assert np.isfinite(kind(target=target, random_state=0).fit(TABLE).anomaly_score(TABLE)).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_squares_do_not_overflow_in_half_precision(dtype: torch.dtype) -> None:
    target, x = Target.adopt(autoencoder().to(dtype)), (200 * X).to(dtype)
    full = per_sample(target, x, "full").full
    assert full.norm(dim=1).max() > 256  # whose square half precision does not have
    parts = torch.split(full, [p.numel() for p in target.parameters().values()], dim=1)
    expected = torch.stack([part.norm(dim=1) for part in parts], dim=1)
    torch.testing.assert_close(per_sample(target, x, "norm").norm, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_networks_of_any_precision_are_adopted(dtype: torch.dtype) -> None:
    for kind in (ag.GradCon, ag.GradDensity):
        detector = kind(target=Target.adopt(autoencoder().to(dtype)), random_state=0).fit(TABLE)
        assert np.isfinite(detector.anomaly_score(TABLE)).all()


def test_a_network_in_training_mode_is_explained_in_evaluation_mode() -> None:
    images = RNG.random((40, 1, 8, 8)).astype(np.float32)
    net = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.Conv2d(3, 1, 3, padding=1))
    net.train()
    detector = ag.GradDensity(target=Target.adopt(net), random_state=0).fit(images)
    first, second = detector.explain(images[:2]), detector.explain(images[:2])
    np.testing.assert_array_equal(first.features, second.features)
    assert net.training
    assert net[1].num_batches_tracked == 0


def test_fits_in_several_threads_are_those_of_one_after_the_other() -> None:
    def scores(seed: int) -> Any:
        return ag.R2AD2(epochs=3, random_state=seed).fit(TABLE).anomaly_score(TABLE)

    expected, state = [scores(seed) for seed in (0, 1, 0, 1)], torch.get_rng_state()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(scores, (0, 1, 0, 1)))
    np.testing.assert_array_equal(found, expected)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("kind", [ag.GradDensity, ag.GradNorm])
def test_twins_in_several_threads_are_those_of_one_after_the_other(kind: type[ag.GradNorm]) -> None:
    detector = kind(epochs=2, random_state=0).fit(TABLE)
    pieces = np.split(TABLE, 10) * 20
    # Not in the main thread, which an earlier test may have given other cores: that moves the last bit.
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(6) as pool:
        expected = list(one.map(detector.twin_score, pieces[:10])) * 20
        np.testing.assert_array_equal(list(pool.map(detector.twin_score, pieces)), expected)


class Counting(nn.Module):
    """Counts its calls in a buffer, and has a weight that no rule serves."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(6))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * self.weight.tanh()


IN_THE_MIDDLE = {
    "raw gradients": (ag.R2AD2, {"epochs": 1, "checkpoints": 2, "sketch": None}, ("anomaly_score",)),
    "one checkpoint": (
        ag.R2AD2, {"epochs": 1, "checkpoints": 1, "sketch": None}, ("anomaly_score", "twin_score"),
    ),
    "adopted": (
        ag.GradReferences, {"target": Target.adopt(nn.Sequential(nn.Linear(6, 6), Counting()))},
        ("anomaly_score", "twin_score"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", IN_THE_MIDDLE)
def test_a_thread_that_scores_in_the_middle_of_anothers_pass(case: str) -> None:
    kind, settings, methods = IN_THE_MIDDLE[case]
    detector = kind(**settings, random_state=0).fit(TABLE)
    expected = [getattr(detector, method)(TABLE[:5]) for method in methods]
    inside = threading.Event()

    def dawdle(*_: Any) -> None:
        inside.set()
        time.sleep(0.005)

    target = detector.targets_[0] if isinstance(detector, ag.R2AD2) else detector.target_
    target.module.register_forward_hook(dawdle)
    with ThreadPoolExecutor(1) as pool:
        for method, scores in zip(methods, expected, strict=True):
            inside.clear()
            others = [pool.submit(detector.anomaly_score, TABLE[:5]) for _ in range(10)]
            inside.wait()
            for other in others:
                np.testing.assert_allclose(getattr(detector, method)(TABLE[:5]), scores, rtol=1e-6)
                np.testing.assert_allclose(other.result(), expected[0], rtol=1e-6)


class Remembering(nn.Module):
    """Makes the state that it begins with, of the default type."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.out = nn.GRU(2, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.layer(x, torch.zeros(1, len(x), 4))[0])


def test_a_network_makes_tensors_of_the_callers_default_type() -> None:
    rows = RNG.normal(size=(60, 3, 2))
    with in_double():
        torch.manual_seed(0)
        net = Remembering()
        target = Target.adopt(net, loss=lambda output, x: (output - x).square().flatten(1).mean(1))
        x = torch.from_numpy(rows[:5])
        torch.testing.assert_close(per_sample(target, x, ("full",)).full, one_by_one(target, x))
        scores = ag.GradDensity(target=target, random_state=0).fit(rows).anomaly_score(rows)
        assert torch.get_default_dtype() is torch.float64
    assert np.isfinite(scores).all()


def test_the_callers_default_type_is_back_after_scores_in_several_threads() -> None:
    with in_double():
        torch.manual_seed(0)
        detector = ag.GradDensity(target=Target.adopt(autoencoder()), random_state=0).fit(TABLE)
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(lambda _: detector.anomaly_score(TABLE[:4]), range(300)))
        assert torch.get_default_dtype() is torch.float64

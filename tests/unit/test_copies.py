"""Copies of a detector that other threads score with: its weights, not what a pass has in their place."""

from __future__ import annotations

import copy
import pickle
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import Tensor, nn

import anograd as ag
from anograd import Target

RNG = np.random.default_rng(0)
TABLE = RNG.normal(size=(60, 6)).astype(np.float32)
IMAGES = RNG.random((40, 1, 8, 8)).astype(np.float32)
INSIDE = threading.Event()


class Scaled(nn.Module):
    """Has a weight that no rule serves."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(6))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight.tanh()


def dawdle(*_: Any) -> None:
    INSIDE.set()
    time.sleep(0.002)


def adopted() -> dict[str, Any]:
    return {"target": Target.adopt(nn.Sequential(nn.Linear(6, 6), Scaled()))}


def saved_and_loaded(detector: Any, folder: Path) -> Any:
    detector.save(folder)
    if not isinstance(getattr(detector, "target", None), Target):
        return ag.load(folder)
    return ag.load(folder, target=Target.adopt(nn.Sequential(nn.Linear(6, 6), Scaled())))


WAYS: dict[str, Callable[[Any, Path], Any]] = {
    "copied": lambda detector, folder: copy.deepcopy(detector),
    "pickled": lambda detector, folder: pickle.loads(pickle.dumps(detector)),
    "saved": saved_and_loaded,
}
CASES: dict[str, tuple[Any, Callable[[], dict[str, Any]], Any]] = {
    "raw gradients": (ag.R2AD2, lambda: {"epochs": 1, "checkpoints": 2, "sketch": None}, TABLE),
    "adopted": (ag.GradReferences, adopted, TABLE),
    "images": (ag.GradCon, lambda: {"epochs": 1}, IMAGES),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("way", WAYS)
def test_copies_in_the_middle_of_anothers_pass(way: str, case: str, tmp_path: Path) -> None:
    kind, settings, rows = CASES[case]
    detector = kind(**settings(), random_state=0).fit(rows)
    expected = detector.anomaly_score(rows[:5])
    networks = [one.module for one in getattr(detector, "targets_", None) or [detector.target_]]
    for part in networks[0].modules():
        part.register_forward_pre_hook(dawdle)
    with ThreadPoolExecutor(1) as pool:
        others = [pool.submit(detector.anomaly_score, rows[:5]) for _ in range(6)]
        copies = []
        for _ in range(3):
            INSIDE.clear()
            INSIDE.wait(0.2)
            copies.append(WAYS[way](detector, tmp_path / "model"))
        for other in others:
            np.testing.assert_allclose(other.result(), expected, rtol=1e-6)
    for one in copies:
        np.testing.assert_allclose(one.anomaly_score(rows[:5]), expected, rtol=1e-6)
        target = one.targets_[0] if case == "raw gradients" else one.target_
        assert all(type(part) is nn.Parameter for part in target.parameters().values())
        assert not any(part._forward_hooks for part in target.module.modules())


def test_copies_of_detectors_share_the_network_that_was_handed_in() -> None:
    net = nn.Linear(6, 6)
    detector = ag.GradDensity(target=Target.adopt(net), random_state=0).fit(TABLE)
    copied, network = copy.deepcopy((detector, net))
    assert copied.target_.module is network is not net
    assert copied.target.module is network
    np.testing.assert_array_equal(copied.anomaly_score(TABLE), detector.anomaly_score(TABLE))


def test_a_target_is_copied_between_passes() -> None:
    """As scikit-learn's clone does with the one that a detector was given."""
    detector = ag.GradReferences(**adopted(), random_state=0).fit(TABLE)
    for part in detector.target.module.modules():
        part.register_forward_pre_hook(dawdle)
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(detector.anomaly_score, TABLE[:5])
        INSIDE.clear()
        INSIDE.wait(0.2)
        copied = clone(detector).target
        other.result()
    assert all(type(part) is nn.Parameter for part in copied.parameters().values())
    assert not any(part._forward_hooks for part in copied.module.modules())

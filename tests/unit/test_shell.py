"""What the shell hands to a detector that learns: rows, and which of them does what."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

from anograd.detectors.base import Detector
from anograd.detectors.parts import Parts
from anograd.detectors.split import Split
from anograd.spill import Rows

FRAME = pl.DataFrame({"a": np.arange(60.0) / 2, "b": np.arange(60.0) ** 2})
ODD = np.arange(60) % 6 == 5


class First(Detector):
    """Scores a row by its first number, and keeps what it was given."""

    def __init__(self, *, validation: float = 0.1, calibration: float = 0.2, memory: Any = None) -> None:
        self.validation, self.calibration, self.memory = validation, calibration, memory

    false_alarm_rate, missing, device, random_state = 0.05, "refuse", "cpu", 3

    def _learn(self, rows: Rows, split: Split, seed: int) -> None:
        self.given = rows, split

    def _score_batch(self, rows: Tensor) -> Tensor:
        return rows[:, 0]

    def _parts(self) -> Parts:
        return Parts(lambda rows: rows, lambda values: values[:, 0], torch.arange(1), ("first",))

    def twin_score(self, X: Any) -> Any: ...

    def _state(self) -> Any: ...

    def _restore(self, *args: Any) -> None: ...


def test_labels_that_leave_hardly_a_normal_row() -> None:
    with pytest.raises(ValueError, match=r"1 marks a known anomaly, and it marks all 60 rows; .*: fit\(X\)"):
        First().fit(FRAME, np.ones(60))
    with pytest.raises(
        ValueError, match=r"n_samples=1 normal rows .* at least 4 .*; y marks the other 59 as"
    ):
        First().fit(FRAME, np.arange(60) > 0)
    with pytest.raises(ValueError, match=r"n_samples=3 normal rows .* are wanted$"):
        First().fit(FRAME[:3])


def test_each_row_has_one_part_to_play():
    detector = First().fit(FRAME, ODD)
    rows, split = detector.given
    parts = [split.train, split.validation, split.calibration]
    assert [len(part) for part in parts] == list(detector.split_.values())
    assert sorted(torch.cat(parts).tolist()) == np.flatnonzero(~ODD).tolist()
    assert split.known.tolist() == np.flatnonzero(ODD).tolist()
    assert {part.dtype for part in [*parts, split.known]} == {torch.int64}
    learned = torch.cat(parts[:2])  # whose range becomes 0..1
    low, width = learned.min(), learned.max() - learned.min()
    np.testing.assert_allclose(rows.take(split.train)[:, 0], (split.train - low) / width, atol=1e-6)
    expected = np.sort(((split.calibration - low) / width).numpy())
    np.testing.assert_allclose(detector.calibration_.scores, expected, atol=1e-6)
    again = First().fit(FRAME, ODD).given[1]
    assert all(torch.equal(part, other) for part, other in zip(parts, vars(again).values(), strict=False))


def test_a_share_of_zero_is_served_by_the_rows_before_it():
    split = First(calibration=0).fit(FRAME).given[1]
    assert torch.equal(split.calibration, split.validation)
    split = First(validation=0, calibration=0).fit(FRAME).given[1]
    assert torch.equal(split.validation, split.train)
    assert torch.equal(split.calibration, split.train)
    assert len(split.known) == 0


def test_shares_that_leave_no_row_to_learn_from():
    with pytest.raises(
        ValueError, match=r"of n_samples=20 .* takes 10 and .* 10: none is left to learn from"
    ):
        First(validation=0.5, calibration=0.49).fit(FRAME[:20])


def test_known_anomalies_alone_are_no_rows_held_out():
    detector = First(calibration=0).fit(FRAME)
    before = detector.split_
    detector.calibrate(anomalies=FRAME[:20], prevalence=0.1)
    assert detector.split_ == before
    assert detector.calibrate(FRAME[:30]).split_["calibration"] == 30


@pytest.mark.parametrize("size", [1e-12, 1.0, 1e12])
def test_predict_is_detect_whatever_the_size_of_the_scores(size):
    rng = np.random.default_rng(0)

    class Sized(First):
        def _score_batch(self, rows: Tensor) -> Tensor:
            return size * rows[:, 0].double()

    detector = Sized().fit(rng.normal(size=(200, 2)))
    new = 2 * rng.normal(size=(100, 2))
    alarms = detector.detect(new, alpha=detector.false_alarm_rate)
    assert 0 < alarms.sum() < 100
    np.testing.assert_array_equal(detector.predict(new) == -1, alarms)


@pytest.mark.parametrize(
    ("memory", "spilled"), [(None, False), ("1KiB", False), (480, False), ("479B", True), (1, True)]
)
def test_memory_bounds_the_rows_of_a_stream(memory, spilled):
    detector = First(memory=memory).fit(FRAME.lazy(), ODD)
    assert detector.given[0].spilled == spilled
    whole = First().fit(FRAME, ODD)
    np.testing.assert_array_equal(detector.calibration_.scores, whole.calibration_.scores)
    np.testing.assert_array_equal(detector.anomaly_score(FRAME.lazy()), whole.anomaly_score(FRAME))


def test_memory_that_is_none():
    with pytest.raises(ValueError, match="memory='much' is no amount of memory: write it like memory='1GiB'"):
        First(memory="much").fit(FRAME)

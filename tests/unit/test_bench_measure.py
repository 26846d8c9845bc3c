"""One cell measured: what scores are worth, what they cost; nothing of a test row is learned from."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from anograd.bench.entrants import Entrant, Fitted
from anograd.bench.measure import STATUS, measure, measures
from anograd.bench.plan import Cell
from anograd.bench.protocols import Split

ROWS = np.zeros((4, 2), dtype=np.float32)
KNOWN = np.zeros(4, dtype=np.int8)
CELL = Cell("wine", "adbench", {"labelled": 0.3, "clean": True}, "mine", "mine", {}, 0)


def split(odd, **more):
    return Split(
        ROWS, KNOWN, np.zeros((len(odd), 2), dtype=np.float32), np.asarray(odd, dtype=bool), "clean", **more
    )


@given(seed=st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_f1_is_that_of_the_best_threshold_on_the_choosing_half(seed):
    rng = np.random.default_rng(seed)
    odd = np.arange(60) % 3 == 0
    scores = rng.normal(size=60) + odd
    choosing = rng.permutation(60) < 30
    if not odd[choosing].any() or odd[choosing].all():
        return
    found = measures(scores, split(odd, choosing=choosing))
    best = max(np.unique(scores[choosing]), key=lambda t: f1_score(odd[choosing], scores[choosing] >= t))
    reached = f1_score(odd[choosing], scores[choosing] >= best)
    ties = [
        t for t in np.unique(scores[choosing])
        if np.isclose(f1_score(odd[choosing], scores[choosing] >= t), reached)
    ]  # fmt: skip
    possible = [f1_score(odd[~choosing], scores[~choosing] >= t, zero_division=0) for t in ties]
    assert min(abs(found["f1"] - one) for one in possible) < 1e-4
    assert found["auroc"] == pytest.approx(roc_auc_score(odd, scores), abs=1e-5)
    assert found["average_precision"] == pytest.approx(average_precision_score(odd, scores), abs=1e-5)


def test_parts_of_the_test_rows_are_measured_besides():
    odd = np.array([True, True, False, False, False, True])
    scores = np.array([5.0, 0.0, 1.0, 2.0, 3.0, 4.0])
    rare = np.array([False, True, True, True, True, False])
    found = measures(scores, split(odd, parts={"rare": rare}))
    assert found["auroc_rare"] == 0.0
    assert found["auroc"] == pytest.approx(2 / 3, abs=1e-5)


def test_the_fit_sees_training_rows_and_known_anomalies_and_the_score_sees_test_rows():
    seen = {}

    def fit(X, y, *, seed):
        seen["fit"], seen["known"] = X, y

        def score(rows):
            seen["test"] = rows
            return rows.sum(1).astype(float)

        return Fitted({"score": score}, weights=3)

    line = measure(CELL, {"mine": Entrant(fit, "mine", "none", known="used")})
    assert (line["trained_on"], line["known"]) == (len(seen["fit"]), seen["known"].sum())
    assert line["known"] > 0
    assert len(seen["test"]) == line["test_rows"]
    assert not {row.tobytes() for row in seen["fit"]} & {row.tobytes() for row in seen["test"]}
    assert line["weights"] == 3


@pytest.mark.skipif(not STATUS.exists(), reason="this system does not tell a process's peak memory")
def test_peak_memory_is_that_of_this_cell_alone():
    def hungry(X, y, *, seed):
        filled = np.ones(100 * 2**17)  # 100 MiB
        return Fitted({"score": lambda rows: rows[:, 0] * filled[0] + 0.0})

    def modest(X, y, *, seed):
        return Fitted({"score": lambda rows: rows[:, 0].astype(float)})

    entrants = {"hungry": Entrant(hungry, "h", "none"), "modest": Entrant(modest, "m", "none")}
    cells = [Cell("wine", "adbench", {}, name, name, {}, 0) for name in ("hungry", "modest")]
    first, second = (measure(cell, entrants) for cell in cells)
    assert 95 < first["peak_mib"] < 140
    assert second["peak_mib"] < 40


def test_rows_of_images_are_laid_out_flat_where_a_detector_wants_it():
    shapes = {}

    def fit(X, y, *, seed, name):
        shapes[name] = X.shape[1:]
        return Fitted({"score": lambda rows: rows.reshape(len(rows), -1)[:, 10].astype(float)})

    for rows in ("any", "flat"):
        cell = Cell("digits", "one-class", {"inlier": 3}, "mine", "mine", {"name": rows}, 0)
        measure(cell, {"mine": Entrant(fit, "mine", "none", rows=rows)})
    assert shapes == {"any": (1, 8, 8), "flat": (64,)}


def test_an_exception_is_a_result_with_what_is_known_of_the_cell():
    def fit(X, y, *, seed):
        raise ValueError("no\n  luck")

    line = measure(CELL, {"mine": Entrant(fit, "mine", "none")})
    assert line["failed"] == "ValueError: no luck"
    assert line["test_rows"] > 0
    assert "scores" not in line

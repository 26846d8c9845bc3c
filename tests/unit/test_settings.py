"""Parameters that are set after a fit count for the next one: until then nothing is scored by a mixture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import anograd as ag

ROWS = np.random.default_rng(0).normal(size=(60, 6)).astype(np.float32)


def fitted(kind: Any, **parameters: Any) -> Any:
    torch.manual_seed(0)
    return kind(target=ag.Target.adopt(nn.Linear(6, 6)), random_state=0, **parameters).fit(ROWS)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (ag.GradScoreTest, {"direction": False}),
        (ag.GradNeighbours, {"neighbours": 3}),
        (ag.GradientDetector, {"representation": "norm"}),
    ],
)
def test_nothing_is_scored_or_saved_with_other_parameters_than_those_of_the_fit(
    kind: Any, changes: dict[str, Any], tmp_path: Path
) -> None:
    detector = fitted(kind)
    scores = detector.anomaly_score(ROWS[:5])
    (name,) = changes
    before = detector.get_params()[name]
    detector.set_params(**changes)
    for call in (lambda: detector.detect(ROWS[:5]), lambda: detector.save(tmp_path / "m")):
        with pytest.raises(ValueError, match=rf"was given {name}=.*fitted with .*fit it again"):
            call()
    assert not (tmp_path / "m").exists()
    np.testing.assert_array_equal(detector.set_params(**{name: before}).anomaly_score(ROWS[:5]), scores)
    again = detector.set_params(**changes).fit(ROWS)
    assert again.anomaly_score(ROWS[:5]).shape == (5,)


def test_what_a_fit_does_not_depend_on_may_be_set_at_any_time() -> None:
    detector = fitted(ag.GradDensity)
    scores = detector.anomaly_score(ROWS)
    detector.set_params(memory="1MiB", progress=False, false_alarm_rate=0.1)
    np.testing.assert_allclose(detector.anomaly_score(ROWS), scores, rtol=1e-5)


def test_a_rate_that_is_set_after_the_fit_counts_at_once_and_once_loaded(tmp_path: Path) -> None:
    detector = fitted(ag.GradDensity)
    few = (detector.predict(ROWS) == -1).sum()
    detector.set_params(false_alarm_rate=0.5, device=torch.device("cpu"))
    many = detector.predict(ROWS)
    assert (many == -1).sum() > few
    np.testing.assert_array_equal(many == -1, detector.detect(ROWS, alpha=0.5))
    detector.save(tmp_path / "model")
    again = ag.load(tmp_path / "model", target=detector.target)
    np.testing.assert_array_equal(again.predict(ROWS), many)
    assert again.device == "cpu"

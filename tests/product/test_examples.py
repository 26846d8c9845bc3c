"""The examples run, and what they claim shows."""

from __future__ import annotations

import numpy as np
import pytest

import boosted_trees
import classifier_monitor


@pytest.mark.slow
def test_a_classifier_is_watched(capsys: pytest.CaptureFixture[str]) -> None:
    found = classifier_monitor.main()
    assert set(found["GradNeighbours"]) == {"uniform noise", "turned by 90 degrees", "pixels shuffled"}
    assert min(found["GradNeighbours"].values()) > 0.9
    assert "of new digits right" in capsys.readouterr().out


@pytest.mark.slow
def test_trees_learn_from_gradients(capsys: pytest.CaptureFixture[str]) -> None:
    found = boosted_trees.main(draws=1)
    assert set(found) == {"breast cancer", "digits, 5 to 9 odd"}
    assert np.mean(found["breast cancer"]["gradient sketches"]) > 0.85
    assert "raw columns" in capsys.readouterr().out

"""scikit-learn's own checks, all of them, with no expected failure."""

from __future__ import annotations

from typing import Any

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from anograd import GradCon


@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks([GradCon(epochs=3), GradCon(target="dense", hidden=(6, 2), epochs=3)])
def test_gradcon(estimator: Any, check: Any) -> None:
    check(estimator)

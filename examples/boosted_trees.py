"""
Boosted trees on gradient features
==================================

Ten labelled anomalies, and the same trees on the raw columns to compare with.

An autoencoder learns the normal rows; what a row's gradient looks like becomes its features, and the trees
learn from them, as in any scikit-learn pipeline. Two tables that come with scikit-learn, ten draws of the ten
known anomalies each::

    python examples/boosted_trees.py
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.pipeline import FeatureUnion, make_pipeline

from anograd import GradientFeatures

KNOWN = 10
Floats = NDArray[np.float64]


def tables() -> dict[str, tuple[Floats, NDArray[np.bool_]]]:
    """Return rows and which of them are odd, by name."""
    cancer, digits = load_breast_cancer(), load_digits()
    return {
        "breast cancer": (cancer.data, cancer.target == 0),
        "digits, 5 to 9 odd": (digits.data, digits.target >= 5),
    }


def trees() -> HistGradientBoostingClassifier:
    """Return boosted trees for few positive rows."""
    return HistGradientBoostingClassifier(min_samples_leaf=3, class_weight="balanced", random_state=0)


def pipelines(seed: int) -> dict[str, Any]:
    """Return the trees behind each kind of features."""

    def features(kind: str) -> GradientFeatures:
        return GradientFeatures(kind=kind, size=16, random_state=seed, device="cpu")

    both = FeatureUnion([("raw", "passthrough"), ("gradients", features("norm"))])
    return {
        "raw columns": trees(),
        "gradient lengths": make_pipeline(features("norm"), trees()),
        "gradient sketches": make_pipeline(features("sketch"), trees()),
        "columns + gradient lengths": make_pipeline(both, trees()),
    }


def main(draws: int = 10) -> dict[str, dict[str, list[float]]]:
    """Print, and return, the AUROC of each draw by table and kind of features."""
    found: dict[str, dict[str, list[float]]] = {}
    for table, (rows, odd) in tables().items():
        print(f"{table}: AUROC / average precision, mean of {draws} draws (standard deviation of AUROC)")
        measured: dict[str, list[tuple[float, float]]] = {}
        for seed in range(draws):
            rng = np.random.default_rng(seed)
            normal, anomalous = (rng.permutation(np.flatnonzero(which)) for which in (~odd, odd))
            half = len(normal) // 2
            learned = np.concatenate([normal[:half], anomalous[:KNOWN]])
            tested = np.concatenate([normal[half:], anomalous[KNOWN:]])
            for name, pipeline in pipelines(seed).items():
                pipeline.fit(rows[learned], odd[learned].astype(int))
                scores = pipeline.predict_proba(rows[tested])[:, 1]
                pair = roc_auc_score(odd[tested], scores), average_precision_score(odd[tested], scores)
                measured.setdefault(name, []).append(pair)
        for name, pairs in measured.items():
            auroc, precision = np.mean(pairs, axis=0)
            print(f"    {name:28}{auroc:.3f} / {precision:.3f}   ({np.std(pairs, axis=0)[0]:.3f})")
        found[table] = {name: [pair[0] for pair in pairs] for name, pairs in measured.items()}
    return found


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)

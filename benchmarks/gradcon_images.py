"""GradCon one-class on images: AUROC of reconstruction, cosine and score, beside the authors' own code.

Protocol: one model an inlier class, trained on that class's training images (clean regime, no labels),
tested on all test images, the other nine classes being the anomalies. Settings:
``GradCon.as_published()`` with fewer epochs. Run ``python benchmarks/gradcon_images.py``; finished
runs are not repeated.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

import record
from anograd import GradCon
from anograd.bench import sets

NAME = "gradcon_images"
# AUROC of reconstruction, cosine and score from the authors' code: 20 epochs, last weights, one seed.
AUTHORS = {
    ("mnist", 0): (0.994, 0.975, 0.995),
    ("mnist", 8): (0.887, 0.821, 0.883),
    ("cifar10", 0): (0.600, 0.699, 0.723),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--seeds", type=int, default=3, help="seeds end before this one")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--keep", nargs="+", default=["last", "objective"])
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for seed in range(arguments.first, arguments.seeds):
        for name, inlier in AUTHORS:
            for keep in arguments.keep:
                key = {"data": name, "inlier": inlier, "seed": seed, "epochs": arguments.epochs, "keep": keep}
                if not record.done(NAME, key):
                    line = key | run(name, inlier, seed, arguments.epochs, keep)
                    record.write(NAME, line)
                    print(line, flush=True)


def run(name: str, inlier: int, seed: int, epochs: int, keep: str) -> dict[str, float | int | str]:
    data = sets.load(name)
    normal, test, odd = data.rows[data.kinds == inlier], data.test, data.test_kinds != inlier
    detector = GradCon.as_published(epochs=epochs, keep=keep, random_state=seed, device="cpu")
    began = time.perf_counter()
    detector.fit(normal)
    seconds = time.perf_counter() - began
    scores = {
        "auroc_reconstruction": detector.twin_score(test),
        "auroc_cosine": -detector.alignment(test).mean(1),
        "auroc_score": detector.anomaly_score(test),
    }
    return {
        "protocol": "one-class, all test images, clean training data, no labels",
        "settings": "as_published",
        "training_rows": len(normal),
        "test_rows": len(test),
        "kept_epoch": detector.kept_epoch_,
        "fit_seconds": round(seconds, 1),
        **{key: round(float(roc_auc_score(odd, score)), 4) for key, score in scores.items()},
        "mean_cosine_inliers": round(float(np.mean(detector.alignment(test[~odd]))), 4),
        "mean_cosine_outliers": round(float(np.mean(detector.alignment(test[odd]))), 4),
    }


if __name__ == "__main__":
    main()

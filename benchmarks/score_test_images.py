"""The score test one-class on images: AUROC of reconstruction, statistic, score and forward-only twin.

Protocol: one model an inlier class, trained on that class's training images (clean regime, no labels),
tested on all test images, the other nine classes being the anomalies. All of a line comes from one fit of
GradCon's autoencoder without GradCon's constraint, 10 epochs; with ``--method "score test, 100 epochs"`` a
hundred, all else equal. With ``--method "whole Fisher"`` the same networks, and all of F instead of its
diagonal, of a projection of the first decoder kernel's gradient. With ``--method rotations`` the same beside
a classifier that tells how an image was turned. With ``--method GradCon``, GradCon itself, 5 epochs: one
under the constraint costs about two plain ones (``training.py``); with ``--method "GradCon, 30 epochs"`` as
long as the classifier trains. Run ``python benchmarks/score_test_images.py``; finished runs are not repeated.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor

import record
from anograd import GradCon, GradScoreTest
from anograd.bench import sets
from anograd.features import Features

NAME = "score_test_images"
SETS = ("mnist", "cifar10", "fashion_mnist")
LONG = "score test, 100 epochs"
WHOLE = "whole Fisher"
ROTATIONS = "rotations"
LONG_GRADCON = "GradCon, 30 epochs"
EPOCHS = {"score test": 10, LONG: 100, "GradCon": 5, LONG_GRADCON: 30, WHOLE: 10, ROTATIONS: 10}
READ_AT_ONCE = 256
Images = NDArray[np.uint8]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", default=list(SETS), choices=SETS)
    parser.add_argument("--inliers", nargs="+", type=int, default=list(range(10)))
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--seeds", type=int, default=1, help="seeds end before this one")
    parser.add_argument("--method", default="score test", choices=EPOCHS)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    method = arguments.method
    for seed in range(arguments.first, arguments.seeds):
        for name in arguments.data:
            for inlier in arguments.inliers:
                key = {"data": name, "inlier": inlier, "seed": seed, "method": method}
                if not record.done(NAME, key):
                    line = key | run(name, inlier, seed, method)
                    record.write(NAME, line)
                    print(line, flush=True)


def run(name: str, inlier: int, seed: int, method: str) -> dict[str, Any]:
    data = sets.load(name)
    normal, test, odd = data.rows[data.kinds == inlier], data.test, data.test_kinds != inlier
    measures = {"GradCon": gradcon, LONG_GRADCON: gradcon, WHOLE: whole_fisher, ROTATIONS: rotations}
    measure = measures.get(method, score_test)
    found, scores = measure(normal, test, seed, EPOCHS[method])
    # How much of what varies is reconstructed: 1 where a network has collapsed to one constant image.
    variance = np.var(normal / 255.0, axis=0).mean()
    return {
        "protocol": "one-class, all test images, clean training data, no labels",
        "training_rows": len(normal),
        "test_rows": len(test),
        **found,
        "error_by_variance": round(found["validation_reconstruction"] / float(variance), 4),
        **{f"auroc_{key}": round(float(roc_auc_score(odd, score)), 4) for key, score in scores.items()},
    }


def score_test(normal: Images, x_test: Images, seed: int, epochs: int) -> tuple[dict[str, Any], Any]:
    detector = GradScoreTest(epochs=epochs, patience=None, calibration=0.0, device="cpu", random_state=seed)
    seconds = _fit(detector, normal)
    rows = torch.from_numpy(x_test).float() / 255
    parts: dict[str, list[Tensor]] = {"reconstruction": [], "score": [], "statistic": []}
    for piece in torch.split(rows, READ_AT_ONCE):  # gradients are read once for all three
        by_layer, loss = detector._statistics(piece)
        statistic = by_layer.sum(1)
        with torch.no_grad():
            parts["score"].append(detector.score_.join(statistic, loss))
        parts["reconstruction"].append(loss)
        parts["statistic"].append(statistic)
    scores = {key: torch.cat(part).double().numpy() for key, part in parts.items()}
    np.testing.assert_allclose(detector.anomaly_score(x_test[:64]), scores["score"][:64], rtol=1e-4)
    scores["twin"] = detector.twin_score(x_test)
    return _of_fit(detector, epochs, seconds), scores


def whole_fisher(normal: Images, x_test: Images, seed: int, epochs: int) -> tuple[dict[str, Any], Any]:
    detector = GradScoreTest.for_images(
        fisher="projected", epochs=epochs, patience=None, calibration=0.0, device="cpu", random_state=seed
    )
    seconds = _fit(detector, normal)

    def values_of(read: Features, shown: Features) -> dict[str, Tensor]:
        statistic = detector.score_.statistic(read.values.double())
        inputs = detector.twin_.statistic(shown.values.double())
        return {
            "statistic": statistic, "inputs": inputs,
            "g": detector.score_.of_gradient(statistic), "i": detector.twin_.of_gradient(inputs),
        }  # fmt: skip

    found = _read(detector, x_test, values_of)
    g, i, error = (found[name] for name in ("g", "i", "error"))
    np.testing.assert_allclose(detector.anomaly_score(x_test[:64]), (g + i + error)[:64], rtol=1e-4)
    scores = {
        "reconstruction": found["loss"], "statistic": found["statistic"], "score": g + error,
        "twin": i + error, "twin_statistic": found["inputs"], "both_statistics": g + i,
        "both_and_error": g + i + error,
    }  # fmt: skip
    return _of_fit(detector, epochs, seconds), scores


def rotations(normal: Images, x_test: Images, seed: int, epochs: int) -> tuple[dict[str, Any], Any]:
    detector = GradScoreTest.for_images(
        target="rotations", epochs=epochs, patience=None, calibration=0.0, device="cpu",
        random_state=seed,
    )  # fmt: skip
    seconds = _fit(detector, normal)

    def values_of(read: Features, shown: Features) -> dict[str, Tensor]:
        values = {}
        for kind, score, features in (("g", detector.score_, read), ("i", detector.twin_, shown)):
            blocks = features.values.double().split(score.widths, dim=1)
            for name, test, block in zip(("decoder", "turns"), score.tests, blocks, strict=True):
                values[f"{kind}_{name}"] = test.surprise(block)
        return values

    found = _read(detector, x_test, values_of)
    decoder, turns = (found[f"g_{one}"] + found[f"i_{one}"] for one in ("decoder", "turns"))
    scores = {
        "loss": found["loss"],
        "score": decoder + turns + found["error"],
        "twin": found["i_decoder"] + found["i_turns"] + found["error"],
        "gradients": found["g_decoder"] + found["g_turns"] + found["error"],
        "decoder": decoder,
        "turns": turns + found["error"],
    }
    np.testing.assert_allclose(detector.anomaly_score(x_test[:64]), scores["score"][:64], rtol=1e-4)
    return _of_fit(detector, epochs, seconds), scores


def gradcon(normal: Images, x_test: Images, seed: int, epochs: int) -> tuple[dict[str, Any], Any]:
    detector = GradCon.as_published(epochs=epochs, keep="last", start="mean", device="cpu", random_state=seed)
    seconds = _fit(detector, normal)
    scores = {
        "reconstruction": detector.twin_score(x_test),
        "cosine": -detector.alignment(x_test).mean(1),
        "score": detector.anomaly_score(x_test),
    }
    return _of_fit(detector, epochs, seconds), scores


def _fit(detector: GradCon | GradScoreTest, normal: Images) -> float:
    """Fit a detector and return how many seconds it took."""
    began = time.perf_counter()
    detector.fit(normal)
    return time.perf_counter() - began


def _read(
    detector: GradScoreTest, x_test: Images, values_of: Callable[[Features, Features], dict[str, Tensor]]
) -> dict[str, NDArray[np.float64]]:
    """Return losses, their surprises, and what else is made of gradients and inputs, piece by piece."""
    parts: dict[str, list[Tensor]] = {}
    rows = detector.encoder_.transform(detector, x_test)
    with torch.no_grad():
        for piece in torch.split(rows, READ_AT_ONCE):
            read, shown = detector._read(piece, detector.score_), detector._shown(piece)
            loss = read.loss.double()
            values = {"loss": loss, "error": detector.score_.surprise_of_loss(loss)}
            for name, value in {**values, **values_of(read, shown)}.items():
                parts.setdefault(name, []).append(value)
    return {name: torch.cat(part).numpy() for name, part in parts.items()}


def _of_fit(detector: GradCon | GradScoreTest, epochs: int, seconds: float) -> dict[str, Any]:
    kept = detector.history_[detector.kept_epoch_ - 1]
    return {
        "epochs": epochs,
        "kept_epoch": detector.kept_epoch_,
        "fit_seconds": round(seconds, 1),
        "validation_reconstruction": round(kept["validation_reconstruction"], 6),
    }


if __name__ == "__main__":
    main()

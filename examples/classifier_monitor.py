"""
A monitor for a trained classifier
==================================

A trained image classifier says which pictures it was not made for.

A small network learns to read handwritten digits, as one in production would have. anograd adopts it as
it is: nothing is trained on odd pictures. Then come pictures of other kinds: noise, digits turned by a
quarter, digits with shuffled pixels, and clothes from Fashion-MNIST, shrunk, where its file is at hand::

    python examples/classifier_monitor.py [fashion_mnist.npz]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split
from torch import nn

from anograd import GradientDetector, GradLabels, GradNeighbours, GradNorm, GradScoreTest, Target

Images = NDArray[np.float32]


def classifier(x: Images, labels: NDArray[np.int64]) -> nn.Module:
    """Return a convolutional classifier of ten digits, trained for a few seconds."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.Flatten(),
    )  # fmt: skip
    net.add_module("body", nn.Sequential(nn.Linear(512, 64), nn.ReLU()))
    net.add_module("head", nn.Linear(64, 10))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    pictures, classes = torch.from_numpy(x), torch.from_numpy(labels)
    for _ in range(30):
        for batch in torch.randperm(len(pictures)).split(64):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(net(pictures[batch]), classes[batch])
            torch.autograd.backward(loss)
            optimizer.step()
    return net.eval()


def odd_pictures(x: Images, fashion: Path | None) -> dict[str, Images]:
    """Return pictures of other kinds, by name."""
    rng = np.random.default_rng(0)
    shuffled = x.reshape(len(x), -1)[:, rng.permutation(64)].reshape(x.shape)
    found = {
        "uniform noise": rng.random(x.shape, dtype=np.float32),
        "turned by 90 degrees": np.ascontiguousarray(np.rot90(x, axes=(2, 3))),
        "pixels shuffled": shuffled,
    }
    if fashion is not None:
        with np.load(fashion, allow_pickle=False) as archive:
            clothes = torch.from_numpy(archive["x_test"][:1000, None] / np.float32(255))
        found["clothes"] = nn.functional.adaptive_avg_pool2d(clothes, 8).numpy()
    return found


def main(fashion: Path | None = None) -> dict[str, dict[str, float]]:
    """Print, and return, the AUROC of each score on each kind of odd pictures."""
    digits = load_digits()
    images = (digits.images[:, None] / 16).astype(np.float32)
    x, x_rest, labels, rest_labels = train_test_split(images, digits.target, test_size=0.6, random_state=0)
    x_normal, x_test, _, test_labels = train_test_split(x_rest, rest_labels, test_size=0.5, random_state=0)
    net = classifier(x, labels)
    with torch.no_grad():
        right = float(np.mean(net(torch.from_numpy(x_test)).argmax(1).numpy() == test_labels))
    print(f"The classifier reads {right:.1%} of new digits right.\n")

    last = Target.adopt(net, loss="uniform", layers="head.weight")
    every = Target.adopt(net, loss="confounding", layers="*.weight")
    detectors = {
        "GradNorm": GradNorm(target=last, random_state=0),
        "GradLabels": GradLabels(target=every, random_state=0),
        "GradScoreTest": GradScoreTest(target=every, fisher="projected", random_state=0),
        "GradNeighbours": GradNeighbours(target=every, random_state=0),
        "unsure (no gradient)": GradientDetector(
            target=Target.adopt(net, loss="predicted", layers="head.weight"), representation="norm",
            scorer="loss", random_state=0,
        ),
    }  # fmt: skip
    odd = odd_pictures(x_test, fashion)
    print("AUROC, score / its forward-only twin:\n")
    print(f"{'':22}" + "".join(f"{name:>24}" for name in odd) + f"{'false alarms':>16}")
    found: dict[str, dict[str, float]] = {}
    for name, detector in detectors.items():
        detector.fit(x_normal)
        usual, usual_twin = detector.anomaly_score(x_test), detector.twin_score(x_test)
        cells = []
        found[name] = {}
        for kind, pictures in odd.items():
            truth = np.repeat([0, 1], [len(x_test), len(pictures)])
            score, twin = (
                float(roc_auc_score(truth, np.concatenate([one, other])))
                for one, other in (
                    (usual, detector.anomaly_score(pictures)),
                    (usual_twin, detector.twin_score(pictures)),
                )
            )
            found[name][kind] = score
            cells.append(f"{f'{score:.3f} / {twin:.3f}':>24}")
        alarms = float(detector.detect(x_test, alpha=0.05).mean())
        print(f"{name:22}" + "".join(cells) + f"{alarms:>16.1%}")
    print("\nFalse alarms: at alpha = 0.05, on new digits. Watch your own network in the same way:")
    print('    GradNeighbours(target=Target.adopt(net, loss="confounding", layers="*.weight")).fit(x_normal)')
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)

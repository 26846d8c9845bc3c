"""The file of scores, whole or not at all; the description of a model."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime, timedelta
from pathlib import Path
from platform import python_version

import numpy as np
import pytest
import torch
from torch import nn

import anograd as ag
from anograd import R2AD2, GradCon, Target, report, store
from anograd.detectors import Detector
from anograd.whole import check_writable


def test_scores_read_back_to_the_same_float64():
    drawn = np.random.default_rng(0)
    scores = np.array([0.1, -1 / 3, 1e-300, 5e17, *drawn.normal(size=50)])
    p, alarms = drawn.uniform(size=len(scores)), drawn.uniform(size=len(scores)) < 0.5
    ids = [f'a,"{i}".png' for i in range(len(scores))]
    text = "".join(report.scores_csv([(ids, scores, p, alarms)]))
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["row"] for row in rows] == ids
    np.testing.assert_array_equal([float(row["score"]) for row in rows], scores)
    np.testing.assert_array_equal([float(row["p_value"]) for row in rows], p)
    assert [row["anomaly"] for row in rows] == [str(int(alarm)) for alarm in alarms]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    check_writable(tmp_path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(OSError, match=r"nothing can be written in the folder .*nowhere'.*with -o"):
        check_writable(tmp_path / "nowhere")


def describe(detector: Detector, folder: Path) -> dict[str, list[str]]:
    detector.save(folder)
    return dict(report.describe(store.read(folder)))


def test_description_of_images(tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (40, 3, 8, 10)).astype(np.uint8)
    told = describe(GradCon(epochs=2, beta=0.5, random_state=7).fit(images), tmp_path / "model")
    assert told["detector"] == ["GradCon"]
    assert "arXiv:2007.09507" in told["paper"][0]
    assert told["rows"] == ["images 3 x 8 x 10 (C x H x W), integers; 0..255 become 0..1"]
    assert told["settings"] == ["beta=0.5 (default 'auto')", "epochs=2 (default 100)"]
    assert told["seed"] == ["7"]
    assert told["epochs"] in (["1 kept, of 2 trained (at most 2)"], ["2 kept, of 2 trained (at most 2)"])
    assert told["calibration"] == ["8 normal rows; the smallest reachable p value is 0.1111 (1 / 9)"]
    assert told["network"][0].startswith("cae (channels 3, height 8, width 10), ")
    assert told["score"] == ["loss - 0.5 * mean cosine"]
    assert told["gradients read"][0] == "up.0.weight  64x64x4x4"
    assert told["gradients read"][-1] == "up.6.weight  32x3x4x4"
    assert told["unlike the paper"] == list(GradCon.paper.differences)


def test_description_of_a_table_and_of_a_network_that_was_handed_in(tmp_path):
    rows = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    told = describe(GradCon(epochs=1, random_state=0).fit(rows), tmp_path / "table")
    assert told["rows"] == ["table of 3 columns, encoded as 3 numbers: 0, 1, 2"]
    target = Target.adopt(nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 3)), layers="1.weight")
    told = describe(GradCon(target=target, random_state=0).fit(rows), tmp_path / "adopted")
    assert told["rows"] == ["3, taken as they are"]
    assert told["epochs"] == ["none: the network was handed in, trained already"]
    assert told["network"] == ["adopted (class Sequential), 17 weights"]
    assert told["gradients read"] == ["1.weight  3x2"]


def test_description_says_when_and_by_what_it_was_fitted(tmp_path):
    detector = GradCon(epochs=1, random_state=0).fit(np.random.default_rng(0).normal(size=(20, 3)))
    before = detector.fitted_by_
    at = datetime.strptime(before["at"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert abs(datetime.now(UTC) - at) < timedelta(minutes=5)
    detector.save(tmp_path / "model")
    again = ag.load(tmp_path / "model").calibrate(np.random.default_rng(1).normal(size=(20, 3)))
    told = describe(again, tmp_path / "again")["fitted"][0]
    assert told.startswith(
        f"{at:%Y-%m-%d %H:%M:%S} UTC by anograd {ag.__version__}, torch {torch.__version__}, "
    )
    assert told.endswith(f"Python {python_version()}")


def rows_and_labels() -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    X = np.concatenate([draw.normal(size=(60, 3)), draw.normal(4, 1, size=(6, 3))]).astype(np.float32)
    return X, np.repeat([0, 1], [60, 6])


def test_description_of_checkpoints_and_alarm_networks(tmp_path):
    detector = R2AD2(epochs=2, checkpoints=2, sketch=8, random_state=0).fit(*rows_and_labels())
    told = describe(detector, tmp_path / "model")
    assert told["checkpoints"] == ["2, after epoch 10, 15 of the autoencoder"]
    entries = detector.shape_["entries"]
    assert told["gradients read"] == [f"2 x {entries} numbers a row, sketched, at most 8 for each parameter"]
    assert told["noise"] == ["gaussian rows, called anomalous"]
    kind, epochs, counted, trees, reached = told["alarm networks"]
    assert trees == "beside them 100 trees on columns, which count 4 times as much"
    share = float(detector.scorer_.alarms[0].share)
    assert counted == f"gradients count {share:.0%}, columns {1 - share:.0%}"
    assert kind == "4: dense layers of 100, 50"
    assert epochs == f"epoch {detector.kept_epoch_} kept, of 2 trained (at most 2)"
    assert reached.startswith("on left-out known anomalies AUROC ")
    weight = float(detector.scorer_.weight)
    assert told["novelty"][0].startswith(f"weight {weight:g}: the largest that ranks left-out known")
    assert len(told["novelty"]) == 1 + len([one for one in detector.weights_tried_ if one["share"] == share])
    (taken,) = [line for line in told["novelty"] if line.endswith("<- taken")]
    assert taken.startswith(f"weight {weight:g} ")
    refused = [line for line in told["novelty"] if line.endswith("  too much for so few known anomalies")]
    assert [line.split()[1] for line in refused] == ["0.5", "1", "2", "4", "8"]  # of 6 known ones
    assert told["unlike the paper"] == list(R2AD2.paper.differences)
    assert "epochs" not in told


def test_known_anomalies_are_counted(tmp_path):
    X, y = rows_and_labels()
    detector = R2AD2(epochs=1, random_state=0).fit(X, y)
    assert describe(detector, tmp_path / "model")["known anomalies"] == ["6 learned from"]
    assert detector.known_ == ag.load(tmp_path / "model").known_ == 6
    none = R2AD2(epochs=1, random_state=0).fit(X[:60])
    assert describe(none, tmp_path / "none")["known anomalies"] == ["0 learned from"]
    published = R2AD2.as_published("mammography", epochs=1, random_state=0).fit(X, y)
    assert describe(published, tmp_path / "published")["known anomalies"] == ["6 learned from"]


def test_a_model_of_an_early_version_does_not_tell_how_many_were_known(tmp_path):
    R2AD2(epochs=1, random_state=0).fit(*rows_and_labels()).save(tmp_path / "model")
    stored = store.read(tmp_path / "model")
    stored.manifest["fitted"].pop("known")
    assert "known anomalies" not in dict(report.describe(stored))


def test_description_without_known_anomalies(tmp_path):
    X = rows_and_labels()[0][:60]
    told = describe(R2AD2(epochs=1, random_state=0).fit(X), tmp_path / "trees")
    assert told["trees"] == [
        "100 on columns, each taught by other made-up rows: there are no known anomalies"
    ]
    assert told["novelty"] == ["weight 0.5: fewer than two known anomalies to choose it by"]
    assert "alarm networks" not in told
    told = describe(R2AD2(epochs=1, trees=None, random_state=0).fit(X), tmp_path / "noise")
    assert told["novelty"] == ["weight 8: fewer than two known anomalies to choose it by"]
    assert told["alarm networks"][2:] == ["gradients count 50%, columns 50%"]
    told = describe(R2AD2(epochs=1, novelty=2.0, random_state=0).fit(X), tmp_path / "given")
    assert told["novelty"] == ["weight 2: as given"]
    told = describe(R2AD2(noise=None, random_state=0).fit(X), tmp_path / "nothing")
    assert told["alarm networks"] == ["none: there are no known anomalies and no noise to learn from"]
    assert told["novelty"] == ["the score is the novelty alone"]
    assert "noise" not in told


def test_description_of_published_settings(tmp_path):
    detector = R2AD2.as_published("mammography", epochs=1, random_state=0).fit(*rows_and_labels())
    told = describe(detector, tmp_path / "model")
    assert told["settings"][0] == "as published, but for:"
    assert "epochs=1 (published 100)" in told["settings"]
    assert told["alarm networks"][0] == "1: LSTMs and dense layers of 100, 50, 25, 10"
    assert told["gradients read"][0].endswith(" numbers a row, raw")
    assert told["novelty"] == ["none, as published"]
    assert "60 normal rows, which were trained on, too: p values come out too small" in told["calibration"][0]
    assert "unlike the paper" not in told


@pytest.mark.parametrize("labelled", [True, False])
def test_published_training_alone_has_no_trees(tmp_path, labelled):
    X, y = rows_and_labels()
    X, y = (X, y) if labelled else (X[:60], None)
    seen = []
    detector = R2AD2(
        training="published", epochs=2, random_state=0, progress=lambda _, told: seen.append(told)
    )
    told = describe(detector.fit(X, y), tmp_path / "model")
    assert "trees" not in told
    assert told["alarm networks"][0].startswith("1: ")
    assert seen[-1]["epoch"] == seen[-1]["epochs"]


def test_description_of_an_unknown_detector(tmp_path):
    store.write(tmp_path / "model", {"detector": "Later"}, {}, None)
    with pytest.raises(ValueError, match=r"the model is a Later, this anograd knows GradCon, R2AD2, .*: pip"):
        report.describe(store.read(tmp_path / "model"))

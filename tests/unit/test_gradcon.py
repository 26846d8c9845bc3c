"""What GradCon says to wrong input, and what it does with odd but legal input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from sklearn.exceptions import NotFittedError
from torch import nn

from anograd import R2AD2, GradCon, GradDensity, Target, load
from anograd.detectors import DETECTORS

RNG = np.random.default_rng(0)
TABLE = RNG.normal(size=(60, 3))
IMAGES = RNG.integers(0, 256, (60, 1, 10, 10)).astype(np.uint8)


def quick(**parameters: Any) -> GradCon:
    return GradCon(**{"epochs": 2, "random_state": 0, **parameters})


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"target": "gan"}, r"target='gan': write one of 'auto', 'cae', 'vae', 'dense'.*Target\.adopt"),
        ({"beta": "large"}, "beta='large' is a weight: 0 or more, or 'auto'"),
        ({"beta": -0.1}, r"beta=-0\.1 is a weight: 0 or more, or 'auto'"),
        ({"reference": "all"}, "reference='all' was given: write one of 'total', 'recon'"),
        ({"averaging": "none"}, "averaging='none' was given: write one of 'cumulative', 'ema', 'final'"),
        ({"keep": "best"}, "keep='best' was given: write one of 'objective', 'reconstruction', 'last'"),
        ({"epochs": 0}, "epochs=0 must be 1 or more"),
        ({"batch_size": 0}, "batch_size=0 must be 1 or more"),
        ({"patience": 0}, "patience=0 must be 1 or more"),
        ({"learning_rate": 0}, "learning_rate=0 must be above 0"),
        ({"hidden": ()}, r"hidden=\(\): give widths of 1 or more"),
        ({"hidden": (8, 0)}, r"hidden=\(8, 0\): give widths of 1 or more"),
        ({"validation": 1.0}, r"validation=1\.0 is a share"),
        ({"validation": 0.5, "calibration": 0.5}, "leave no rows to train on"),
        ({"false_alarm_rate": 5}, "false_alarm_rate=5 must lie between 0 and 1"),
        ({"missing": "drop"}, "write missing='refuse' or missing='impute'"),
        ({"device": "cuda:7"}, r"device='cuda:7' is not to be had here; there is cpu.*device='auto'"),
        ({"device": "warp"}, "device='warp' is not to be had here"),
        ({"random_state": "lucky"}, "random_state='lucky': give an int"),
        ({"target": "cae"}, r"target='cae' takes images.*write target='dense' for a table"),
    ],
)
def test_wrong_parameters(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        quick(**parameters).fit(TABLE)


def test_images_do_not_go_to_the_dense_network() -> None:
    with pytest.raises(ValueError, match="target='dense' takes tables"):
        quick(target="dense").fit(IMAGES)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (TABLE[:0], "n_samples=0|0 sample"),
        (TABLE[:1], "n_samples=1"),
        (TABLE[:3], "n_samples=3 normal rows are too few"),
        (
            np.where(np.arange(180).reshape(60, 3) == 52, np.nan, TABLE),
            "NaN at row 17, column 1.*missing='impute'",
        ),
        (np.where(np.arange(180).reshape(60, 3) == 52, np.inf, TABLE), "infinity at row 17, column 1"),
        (IMAGES.transpose(0, 2, 3, 1), r"channels last.*X\.transpose\(0, 3, 1, 2\)"),
    ],
)
def test_wrong_rows(rows: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        quick().fit(rows)


def test_nan_in_an_image_is_named() -> None:
    images = IMAGES / 255
    images[4, 0, 2, 3] = np.nan
    with pytest.raises(ValueError, match=r"NaN at row 4, channel 0, pixel \(2, 3\)"):
        quick().fit(images)
    fitted = quick().fit(IMAGES / 255)
    with pytest.raises(ValueError, match=r"NaN at row 4, channel 0, pixel \(2, 3\)"):
        fitted.anomaly_score(images)


def test_all_rows_marked_anomalous_says_which_code_was_read() -> None:
    with pytest.raises(ValueError, match="read as 0/1 where 1 marks a known anomaly"):
        quick().fit(TABLE, np.ones(60))
    with pytest.raises(ValueError, match=r"read as \+1/-1 where -1 marks a known anomaly"):
        quick().fit(TABLE, -np.ones(60))


def test_numbers_that_are_no_label_code_are_ignored_with_a_warning() -> None:
    with pytest.warns(
        UserWarning, match="y holds the values 0, 1, 2.*y is ignored, all rows count as normal"
    ):
        quick().fit(TABLE, np.arange(60) % 3)


def test_scoring_rows_of_another_kind() -> None:
    fitted = quick().fit(IMAGES)
    with pytest.raises(ValueError, match="1 x 12 x 12, but the detector was fitted on 1 x 10 x 10: resize"):
        fitted.anomaly_score(np.zeros((2, 1, 12, 12), np.uint8))
    with pytest.raises(
        ValueError, match=r"float64 but the detector was fitted on integers.*astype\('uint8'\)"
    ):
        fitted.anomaly_score(IMAGES / 255)
    with pytest.raises(ValueError, match="3 features"):
        quick().fit(TABLE).anomaly_score(TABLE[:, :2])


FRAME = pd.DataFrame(
    {"amount": RNG.normal(size=60), "kind": np.tile(["a", "b", "c"], 20), "new": np.tile([True, False], 30)}
)


@pytest.mark.parametrize(
    "frame", [FRAME, pl.from_pandas(FRAME), pa.Table.from_pandas(FRAME)], ids=["pandas", "polars", "arrow"]
)
def test_frames_with_mixed_columns_score_alike(frame: Any) -> None:
    expected = quick().fit(FRAME).anomaly_score(FRAME)
    detector = quick().fit(frame)
    np.testing.assert_array_equal(detector.anomaly_score(frame), expected)
    np.testing.assert_array_equal(detector.anomaly_score(FRAME), expected)
    assert list(detector.feature_names_in_) == ["amount", "kind", "new"]


def test_columns_are_matched_by_name_and_order() -> None:
    detector = quick().fit(FRAME)
    with pytest.raises(ValueError, match="feature names should match"):
        detector.anomaly_score(FRAME[["kind", "amount", "new"]])
    with pytest.raises(ValueError, match="feature names should match"):
        detector.anomaly_score(FRAME.rename(columns={"new": "old"}))


def test_an_unseen_category_is_a_level_of_its_own() -> None:
    detector = quick(epochs=30).fit(FRAME)
    unseen = FRAME.assign(kind="z")
    scores = detector.anomaly_score(unseen)
    assert np.isfinite(scores).all()
    assert (scores > detector.anomaly_score(FRAME)).mean() > 0.9


def test_missing_values_are_filled_where_asked() -> None:
    gaps = FRAME.copy()
    gaps.loc[5, "amount"] = np.nan
    gaps.loc[6, "kind"] = None
    with pytest.raises(ValueError, match="NaN"):
        quick().fit(gaps)
    detector = quick(missing="impute").fit(gaps)
    assert np.isfinite(detector.anomaly_score(gaps)).all()


def test_a_constant_column_does_no_harm() -> None:
    rows = TABLE.copy()
    rows[:, 1] = 7
    detector = quick().fit(rows)
    assert np.isfinite(detector.anomaly_score(rows)).all()
    changed = rows.copy()
    changed[:, 1] = 9
    assert (detector.anomaly_score(changed) > detector.anomaly_score(rows)).all()


def test_fewer_rows_than_a_batch() -> None:
    assert np.isfinite(quick(batch_size=512).fit(TABLE[:8]).anomaly_score(TABLE)).all()


def test_an_interrupted_fit_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "fit"

    def interrupt(name: str, data: Any) -> None:
        if data["epoch"] == 2:
            raise KeyboardInterrupt

    whole = quick(epochs=4).fit(IMAGES)
    with pytest.raises(KeyboardInterrupt):
        quick(epochs=4, checkpoint=path, progress=interrupt).fit(IMAGES)
    events: list[str] = []
    resumed = quick(epochs=4, checkpoint=path, progress=lambda name, data: events.append(name)).fit(IMAGES)
    assert events == ["resumed", "epoch", "epoch"]
    np.testing.assert_array_equal(resumed.anomaly_score(IMAGES), whole.anomaly_score(IMAGES))
    assert path.exists()  # until the model is safe
    for other, rows in ((quick(start="drawn"), IMAGES), (quick(), IMAGES[::-1])):
        with pytest.raises(ValueError, match="other data or settings"):
            other.set_params(epochs=4, checkpoint=path).fit(rows)
    resumed.set_params(checkpoint=path).save(tmp_path / "model")
    assert not path.exists()
    assert load(tmp_path / "model").split_ == {"train": 42, "validation": 6, "calibration": 12}


@pytest.mark.parametrize("kind", [GradCon, GradDensity])
def test_a_fit_does_not_go_on_with_other_rows_to_choose_the_epoch_by(
    kind: type[GradCon], tmp_path: Path
) -> None:
    detector = kind(epochs=1, random_state=0, checkpoint=tmp_path / "fit").fit(TABLE)
    split = detector._begin(TABLE, None)[1]
    others = TABLE.copy()
    others[split.validation[0]] = others[split.train[0]]  # which leaves every column's range as it is
    with pytest.raises(ValueError, match="other data or settings"):
        detector.fit(others)
    changed = TABLE.copy()
    changed[split.calibration[0]] = 9
    assert detector.fit(changed).kept_epoch_ == 1


@pytest.mark.parametrize("kind", [GradCon, R2AD2])
def test_a_detector_whose_fit_was_interrupted_is_not_fitted(kind: type[GradCon]) -> None:
    def interrupt(name: str, data: Any) -> None:
        raise KeyboardInterrupt

    detector = kind(epochs=1, random_state=0).fit(TABLE)
    expected = detector.anomaly_score(TABLE)
    with pytest.raises(ValueError, match="NaN"):
        detector.fit(TABLE * np.nan)
    np.testing.assert_array_equal(detector.anomaly_score(TABLE), expected)
    for stopped in (detector.set_params(progress=interrupt), kind(progress=interrupt)):
        with pytest.raises(KeyboardInterrupt):
            stopped.fit(100 * TABLE)
        for method in (stopped.anomaly_score, stopped.twin_score, stopped.detect, stopped.predict):
            with pytest.raises(NotFittedError, match="not fitted yet"):
                method(TABLE)


def test_as_published_is_the_papers_setting() -> None:
    detector = GradCon.as_published(epochs=3)
    expected = {
        "alpha": 0.03, "beta": 0.12, "reference": "total", "averaging": "cumulative", "keep": "objective",
        "epochs": 3, "patience": None, "batch_size": 64, "learning_rate": 1e-3, "validation": 0.1,
        "calibration": 0.0,
    }  # fmt: skip
    assert {name: detector.get_params()[name] for name in expected} == expected
    assert GradCon.as_published().epochs == 1000
    fitted = detector.set_params(random_state=0).fit(IMAGES)
    assert fitted.split_ == {"train": 54, "validation": 6, "calibration": 0}
    assert len(fitted.calibration_.scores) == 6  # the validation rows stand in


def test_the_score_is_the_twin_minus_the_weighted_alignment() -> None:
    detector = quick(beta=0.5).fit(IMAGES)
    cosines = detector.alignment(IMAGES)
    assert cosines.shape == (60, 4)
    assert np.abs(cosines).max() <= 1 + 1e-6
    expected = detector.twin_score(IMAGES) - 0.5 * cosines.mean(1)
    np.testing.assert_allclose(detector.anomaly_score(IMAGES), expected, atol=1e-6)


def test_the_cosine_counts_as_much_as_the_loss_among_rows_held_out() -> None:
    rows = RNG.normal(size=(4000, 3))
    detector = quick(validation=0.4, calibration=0.4).fit(rows)
    new = RNG.normal(size=(4000, 3))
    loss, cosine = detector.twin_score(new), detector.alignment(new).mean(1)
    spread = [np.subtract(*np.quantile(one, (0.75, 0.25))) for one in (loss, detector.beta_ * cosine)]
    assert spread[0] == pytest.approx(spread[1], rel=0.1)
    np.testing.assert_allclose(detector.anomaly_score(new), loss - detector.beta_ * cosine, atol=1e-6)


def test_the_weight_counts_no_row_twice_where_none_is_set_aside() -> None:
    torch.manual_seed(0)
    target = Target.adopt(nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 3)))
    detector = quick(target=target).fit(TABLE[:50])
    # The rows that p values do not refer to are those that were learned from.
    apart = np.abs(detector.anomaly_score(TABLE[:50])[:, None] - detector.calibration_.scores).min(1)
    learned = TABLE[:50][apart > 1e-6]
    assert len(learned) == 40
    loss, cosine = detector.twin_score(learned), detector.alignment(learned).mean(1)
    spread = [np.subtract(*np.quantile(one, (0.75, 0.25))) for one in (loss, cosine)]
    assert detector.beta_ == pytest.approx(spread[0] / spread[1], rel=1e-4)


def test_the_cosine_counts_the_same_whatever_the_loss_is_measured_in() -> None:
    def scores(scale: float, **parameters: Any) -> np.ndarray:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 3))
        target = Target.adopt(net, loss=lambda output, x: scale * (output - x).square().mean(1))
        return quick(target=target, **parameters).fit(TABLE).anomaly_score(TABLE)

    np.testing.assert_allclose(scores(1000.0), 1000 * scores(1.0), rtol=1e-4, atol=1e-3)
    fixed = scores(1000.0, beta=0.12), scores(1.0, beta=0.12)
    assert (fixed[0].argsort() != fixed[1].argsort()).any()  # which a fixed weight does not


def test_few_anomalies_among_the_normal_rows_hardly_move_the_weight() -> None:
    def weight(rows: np.ndarray) -> float:
        torch.manual_seed(0)
        target = Target.adopt(nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 3)))
        return quick(target=target).fit(rows).beta_

    rows = RNG.normal(size=(1000, 3))
    some_odd = rows.copy()
    some_odd[::50] *= 30
    assert weight(some_odd) == pytest.approx(weight(rows), rel=0.15)


def test_a_weight_that_no_row_tells_is_the_papers() -> None:
    same = np.ones((40, 3))
    assert quick().fit(same).beta_ == 0.12


def test_the_weight_is_stored_and_models_of_early_versions_have_it_as_given(tmp_path: Path) -> None:
    fitted = quick().fit(TABLE)
    fitted.save(tmp_path / "model")
    assert load(tmp_path / "model").beta_ == fitted.beta_ != 0.12
    given = quick(beta=0.3).fit(TABLE)
    stored = given._state()[0]
    stored.pop("beta")
    again = quick(beta=0.3).fit(TABLE)
    again.beta_ = 0.0
    tensors = {"weights": again.target_.module.state_dict(), "reference": again.reference_}
    again._restore(stored, tensors, None)
    assert again.beta_ == 0.3


def test_a_damaged_or_foreign_kind_of_model_is_refused(tmp_path: Path) -> None:
    quick().fit(TABLE).save(tmp_path / "model")
    weights = tmp_path / "model" / "tensors.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(ValueError, match="damaged"):
        load(tmp_path / "model")
    with pytest.raises(FileNotFoundError, match="no folder"):
        load(tmp_path / "nothing")


def test_an_adopted_network_takes_rows_as_they_are() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 9))

    def loss(output: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(output.transpose(1, 2), x, reduction="none").mean(1)

    sentences = RNG.integers(0, 9, (60, 5))
    detector = GradCon(target=Target.adopt(net, loss=loss), random_state=0).fit(sentences)
    assert detector.alignment(sentences).shape == (60, 3)
    assert detector.split_ == {"train": 48, "validation": 0, "calibration": 12}  # no epoch to choose
    with pytest.raises(ValueError, match="shape 7, but the detector was fitted on 5"):
        detector.anomaly_score(np.zeros((2, 7), dtype=int))


@pytest.mark.parametrize("detector", DETECTORS.values())
def test_the_record_of_the_paper(detector: Any) -> None:
    paper = detector.paper
    assert paper.arxiv in detector.__doc__
    assert str(paper.year) in paper.cite()
    assert paper.differences
    assert paper.limits


def dark_images() -> np.ndarray:
    """Thin bright lines on black, (200, 1, 28, 28): the images of which a drawn start makes nothing."""
    rng = np.random.default_rng(0)
    images = np.zeros((200, 1, 28, 28), dtype=np.float32)
    for image, column in zip(images, rng.integers(10, 18, 200), strict=True):
        image[0, 6:22, column : column + 2] = rng.uniform(0.8, 1, (16, 2))
    return images


def test_networks_for_images_begin_at_the_mean_image() -> None:
    images = dark_images()
    drawn = GradCon(start="drawn", epochs=1, learning_rate=1e-9, random_state=0).fit(images)
    mean = GradCon(epochs=1, learning_rate=1e-9, random_state=0).fit(images)
    biases = [d.target_.module.state_dict()["up.6.bias"].item() for d in (drawn, mean)]
    assert biases[1] == pytest.approx(np.log(images.mean() / (1 - images.mean())), rel=0.05)
    assert abs(biases[0]) < 0.2
    for name, weight in drawn.target_.module.state_dict().items():
        if name != "up.6.bias":
            torch.testing.assert_close(weight, mean.target_.module.state_dict()[name], rtol=0, atol=1e-6)
    assert GradCon.as_published().start == "drawn"
    with pytest.raises(ValueError, match="start='black' was given: write one of 'mean', 'drawn'"):
        GradCon(start="black").fit(images)


def test_a_network_for_dark_images_does_not_fall_into_black() -> None:
    images = dark_images()
    fitted = GradCon(alpha=0, epochs=30, batch_size=16, random_state=0).fit(images)
    variance = float(np.var(images, axis=0).mean())
    assert min(told["validation_reconstruction"] for told in fitted.history_) < 0.8 * variance

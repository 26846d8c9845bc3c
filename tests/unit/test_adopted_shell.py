"""What every detector refuses, or keeps as it was, when it meets rows and networks of the user's own."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_array
from torch import nn

import anograd as ag
from anograd import Target

RNG = np.random.default_rng(0)
TABLE = RNG.normal(size=(120, 6)).astype(np.float32)
FRAME = pd.DataFrame(TABLE, columns=list("abcdef"))


def autoencoder() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 6))


@pytest.fixture
def adopted() -> ag.GradDensity:
    return ag.GradDensity(target=Target.adopt(autoencoder()), random_state=0).fit(FRAME)


@pytest.mark.parametrize("value", [1e20, 1e60])
@pytest.mark.parametrize("method", ["anomaly_score", "predict", "decision_function", "detect", "p_values"])
def test_a_score_that_is_no_number_is_no_verdict(adopted: Any, method: str, value: float) -> None:
    """It would compare as not below the threshold, and so pass for normal."""
    row = FRAME[:1].astype(np.float64)
    row.iloc[0, 0] = value
    with pytest.raises(ValueError, match="scores hold NaN at row 0"):
        getattr(adopted, method)(row)


def test_columns_of_an_adopted_network_are_known_by_name(adopted: Any, tmp_path: Any) -> None:
    adopted.save(tmp_path / "model")
    loaded = ag.load(tmp_path / "model", target=Target.adopt(autoencoder()))
    for detector in (adopted, loaded):
        assert list(detector.feature_names_in_) == list("abcdef")
        with pytest.raises(ValueError, match="must be in the same order"):
            detector.anomaly_score(FRAME[list("fedcba")])
        np.testing.assert_array_equal(detector.anomaly_score(FRAME), detector.anomaly_score(TABLE))


def test_names_of_an_earlier_fit_are_forgotten() -> None:
    detector = ag.GradDensity(epochs=1, random_state=0).fit(FRAME)
    assert hasattr(detector, "feature_names_in_")
    assert not hasattr(detector.fit(RNG.random((20, 1, 6, 6))), "feature_names_in_")
    features = ag.GradientFeatures(epochs=1, random_state=0).fit(FRAME)
    assert not hasattr(features.fit(TABLE), "feature_names_in_")


def test_a_network_stays_as_it_was_where_its_model_cannot_be_loaded(adopted: Any, tmp_path: Any) -> None:
    adopted.save(tmp_path / "model")
    net = autoencoder()
    before = net[0].weight.clone()
    with pytest.raises(ValueError, match="scores otherwise"):
        ag.load(tmp_path / "model", target=Target.adopt(net, loss="bce_with_logits"))
    with pytest.raises(ValueError, match=r"handed in do not fit together .*'bce' takes.*its loss and layers"):
        ag.load(tmp_path / "model", target=Target.adopt(net, loss="bce"))
    assert torch.equal(net[0].weight, before)
    assert net.training
    with pytest.raises(TypeError, match=r"write target=Target\.adopt\(your_network"):
        ag.load(tmp_path / "model", target=net)


def test_a_calibration_that_is_refused_changes_nothing() -> None:
    detector = ag.GradDensity(epochs=1, random_state=0).fit(TABLE)
    before = detector.p_values(TABLE)
    with pytest.raises(ValueError, match="at least 10 are wanted"):
        detector.calibrate(TABLE[:40], anomalies=TABLE[:3])
    with pytest.raises(ValueError, match="prevalence=2 was given"):
        detector.calibrate(TABLE[:40], anomalies=TABLE[:20], prevalence=2)
    with pytest.raises(ValueError, match="none were given"):
        detector.calibrate(TABLE[:40], prevalence=0.1)
    np.testing.assert_array_equal(detector.p_values(TABLE), before)
    detector.calibrate(TABLE[:40], anomalies=TABLE[:20], prevalence=0.1)
    assert detector.calibrate(TABLE[:50], prevalence=0.2).calibration_.anomalies.prevalence == 0.2


def test_a_mask_is_not_lost_in_silence() -> None:
    with pytest.raises(ValueError, match="masked array, whose mask would be lost"):
        ag.GradDensity().fit(np.ma.masked_less(TABLE, 0))


def test_an_output_that_is_no_tensor_wants_a_loss_of_its_own() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 6)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.layer(x), x

    with pytest.raises(ValueError, match=r"into a tuple, but a reconstruction loss .* hand over loss="):
        ag.per_sample(Target.adopt(Pair()), torch.from_numpy(TABLE[:3]))


def test_settings_of_any_kind_of_number_are_saved(tmp_path: Any) -> None:
    for widths, share in ((np.array([8, 2]), np.float32(0.25)), (range(8, 0, -6), Fraction(1, 4))):
        detector = ag.GradCon(hidden=widths, calibration=share, epochs=1, random_state=0).fit(TABLE)
        detector.save(tmp_path / "model")
        loaded = ag.load(tmp_path / "model")
        assert (list(loaded.hidden), loaded.calibration) == ([8, 2], 0.25)


def test_integers_that_an_empty_cell_made_floats_are_the_same_levels() -> None:
    levels = RNG.integers(1, 4, 120)
    frame = pd.DataFrame({"a": TABLE[:, 0], "k": pd.Categorical(levels)})
    detector = ag.GradDensity(epochs=1, random_state=0).fit(frame)
    as_floats = frame.assign(k=pd.Categorical(levels.astype(float)))
    np.testing.assert_array_equal(detector.anomaly_score(as_floats), detector.anomaly_score(frame))


@pytest.mark.parametrize("kind", [ag.GradCon, ag.GradDensity])
@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (np.arange(600).reshape(100, 6), r"rows of shape \(6,\) and type int64: .*X\.astype\('float32'\)"),
        (TABLE[:, :5], r"rows of shape \(5,\) and type float32: mat1 and mat2 shapes cannot be multiplied"),
    ],
)
def test_rows_that_the_network_does_not_take(kind: type[Any], rows: Any, said: str) -> None:
    with pytest.raises(ValueError, match=f"the network that was handed in does not take {said}"):
        kind(target=Target.adopt(autoencoder())).fit(rows)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (np.zeros((9, 6), "M8[s]"), r"X holds datetime64\[s\]: the network .* takes numbers"),
        (TABLE.astype(complex), "X holds complex128: the network .* takes numbers"),
        (csr_array(TABLE), r"X is sparse; .* takes dense rows: X = X\.toarray\(\)"),
    ],
)
def test_what_is_no_dense_array_of_numbers(rows: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ag.GradCon(target=Target.adopt(autoencoder())).fit(rows)


class Drawing(nn.Module):
    """A network that draws random numbers whatever its mode is."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.dropout(self.layer(x), training=True)


def test_a_network_that_draws_random_numbers_is_refused() -> None:
    rows = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    with pytest.raises(ValueError, match=r"draws random numbers.*training=self\.training"):
        ag.GradDensity(target=ag.Target.adopt(Drawing()), random_state=0).fit(rows)


@pytest.mark.parametrize("noise", [0.1, 1e-3])
@pytest.mark.parametrize("kind", [ag.GradDensity, ag.GradCon])
def test_a_loss_that_draws_random_numbers_is_refused(kind: Any, noise: float) -> None:
    """As one that adds noise, to see what the network makes of it."""
    net = autoencoder()

    def denoised(output: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return (net(x + noise * torch.randn_like(x)) - x).square().mean(1)

    with pytest.raises(ValueError, match=r"or its loss, draws random numbers"):
        kind(target=Target.adopt(net, loss=denoised), random_state=0).fit(TABLE)


class Slope(nn.Module):
    """The gradient of an energy, in whatever mode the caller is; PyTorch's own is one that has gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.energy = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.detach().requires_grad_()
        return torch.autograd.grad(self.energy(x).sum(), x, create_graph=True)[0]


@pytest.mark.parametrize("kind", [ag.GradDensity, ag.GradCon, ag.GradScoreTest])
def test_a_network_that_takes_gradients_itself_has_scores_and_a_twin(kind: Any) -> None:
    torch.manual_seed(0)
    net = Slope()
    detector = kind(target=Target.adopt(net), random_state=0).fit(TABLE)
    found = detector.anomaly_score(TABLE), detector.twin_score(TABLE)
    assert np.isfinite(found).all()
    assert np.std(found, axis=1).min() > 0
    if kind is ag.GradCon:  # whose twin is the loss
        x = torch.from_numpy(TABLE)
        loss = (net(x) - x).square().mean(1).detach().numpy()
        np.testing.assert_allclose(found[1], loss, rtol=1e-5)
    assert np.isfinite(detector.explain(TABLE[:1]).features).all()


class Spectral(nn.Module):
    """Weighs frequencies, whose weights are complex."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, dtype=torch.complex64))
        self.layer = nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.fft.irfft(torch.fft.rfft(self.layer(x)) * self.weight, n=6)


@pytest.mark.parametrize("kind", [ag.GradCon, ag.GradDensity, ag.GradScoreTest, ag.GradNeighbours])
def test_complex_weights_are_pairs_of_real_ones(kind: Any) -> None:
    """The same network with the pairs written out has the same scores."""

    class Pairs(Spectral):
        def __init__(self, like: Spectral) -> None:
            super().__init__()
            self.load_state_dict(like.state_dict())
            self.weight = nn.Parameter(torch.view_as_real(like.weight.detach()).clone())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.fft.irfft(torch.fft.rfft(self.layer(x)) * torch.view_as_complex(self.weight), n=6)

    torch.manual_seed(0)
    net = Spectral()
    scores = [
        kind(target=Target.adopt(one), random_state=0).fit(TABLE).anomaly_score(TABLE)
        for one in (net, Pairs(net))
    ]
    np.testing.assert_allclose(*scores, rtol=1e-3, atol=1e-4)


def test_nothing_is_saved_of_a_network_that_was_trained_on(tmp_path: Any) -> None:
    rows = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    net = nn.Linear(4, 4)
    detector = ag.GradDensity(target=ag.Target.adopt(net), random_state=0).fit(rows)
    with torch.no_grad():
        net.weight.mul_(2)
    with pytest.raises(ValueError, match="has other weights than when this detector was fitted"):
        detector.save(tmp_path / "m")
    assert not (tmp_path / "m").exists()
    with torch.no_grad():
        net.weight.div_(2)
    detector.save(tmp_path / "m")
    np.testing.assert_array_equal(
        ag.load(tmp_path / "m", target=ag.Target.adopt(net)).anomaly_score(rows), detector.anomaly_score(rows)
    )


def test_a_network_of_ones_own_is_not_printed_whole_where_none_is_taken() -> None:
    with pytest.raises(
        ValueError, match=r"target=Target\(\.\.\.\), a network of your own, was given: write one"
    ):
        ag.R2AD2(target=ag.Target.adopt(nn.Linear(4, 4))).fit(np.zeros((9, 4)))


class Since(nn.Module):
    """Takes a time stamp, of which single precision keeps two minutes."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()

    def read(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([(x[:, :1] - 1.7e9) / 100, x[:, 1:]], 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(self.read(x))


def test_rows_in_double_precision_go_to_a_network_of_double_precision_as_they_are(tmp_path: Any) -> None:
    torch.manual_seed(0)
    net = Since()
    target = Target.adopt(net, loss=lambda output, x: (output - net.read(x)).square().mean(1))
    rows = np.random.default_rng(0).normal(size=(100, 3))
    rows[:, 0] = 1.7e9 + 50 * rows[:, 0]
    detector = ag.GradDensity(target=target, random_state=0).fit(rows)
    new = torch.tensor([[1.7e9, 0, 0], [1.7e9 + 30, 0, 0], [1.7e9 + 60, 0, 0]], dtype=torch.float64)
    np.testing.assert_allclose(detector.features(new)[:, 0], ag.per_sample(target, new).loss, rtol=1e-12)
    detector.save(tmp_path / "m")
    again = ag.load(tmp_path / "m", target=target)
    np.testing.assert_array_equal(again.anomaly_score(new), detector.anomaly_score(new))
    in_single = ag.GradDensity(target=target, random_state=0).fit(rows.astype(np.float32))
    assert np.ptp(in_single.features(new)[:, 0]) == 0


def test_a_loss_with_weights_of_its_own_is_noticed_when_they_change() -> None:
    class Weighed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(6))

        def forward(self, output: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
            return ((output - x).square() * self.weight).mean(1)

    loss = Weighed()
    detector = ag.GradDensity(target=Target.adopt(autoencoder(), loss=loss), random_state=0).fit(TABLE)
    detector.anomaly_score(TABLE[:2])
    loss.weight.data += 3
    with pytest.raises(ValueError, match="has other weights than when this detector was fitted"):
        detector.anomaly_score(TABLE[:2])


def test_what_a_network_keeps_for_later_is_no_weight() -> None:
    """As positions that were computed for longer sequences, in a buffer that is not saved."""

    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = autoencoder()
            self.register_buffer("known", torch.zeros(1), persistent=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.register_buffer("known", torch.zeros(len(x)), persistent=False)
            return self.body(x + self.known[:, None])

    net = Positions()
    detector = ag.GradDensity(target=Target.adopt(net), random_state=0).fit(TABLE)
    expected = detector.anomaly_score(TABLE[:5])
    net(torch.zeros(50, 6))
    np.testing.assert_allclose(detector.anomaly_score(TABLE[:5]), expected)


def test_a_word_beyond_the_vocabulary_is_told_of() -> None:
    tokens = np.random.default_rng(0).integers(0, 9, (40, 5))
    net = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 9))

    def loss(output: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(output.transpose(1, 2), x, reduction="none").mean(1)

    detector = ag.GradDensity(target=Target.adopt(net, loss=loss), random_state=0).fit(tokens)
    tokens[2, 3] = 9
    with pytest.raises(ValueError, match=r"does not take some of these rows .*that an embedding knows\?"):
        detector.anomaly_score(tokens)


class OfACode(nn.Module):
    """Looks its first column up, which is a number of a table."""

    def __init__(self) -> None:
        super().__init__()
        self.codes, self.body = nn.Embedding(5, 3), nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(self.codes(x[:, 0].long()))


def test_noise_that_is_no_row_to_a_network_is_told_of() -> None:
    rows = np.random.default_rng(0).integers(0, 5, (60, 2)).astype(np.float32)
    target = Target.adopt(OfACode(), loss=lambda output, x: output.square().sum(1), layers="body.*")
    with pytest.raises(ValueError, match="does not take some of these rows"):
        ag.GraN(target=target, random_state=0).fit(rows)
    ag.GraN(target=target, random_state=0).fit(rows, np.arange(60) < 5)


@pytest.mark.parametrize("loss", ["uniform", "confounding", "predicted"])
def test_a_classifier_that_ends_in_probabilities_is_refused_where_logits_are_read(loss: str) -> None:
    net = nn.Sequential(nn.Linear(6, 3), nn.Softmax(1))
    with pytest.raises(ValueError, match=rf"the loss '{loss}' takes logits: adopt .* last nn\.Softmax\(\)"):
        ag.GradLabels(target=Target.adopt(net, loss=loss), labels=loss, random_state=0).fit(TABLE)


def test_nothing_fills_rows_of_a_network_of_ones_own() -> None:
    rows = TABLE.copy()
    rows[3, 2] = np.nan
    with pytest.raises(ValueError, match=r"X holds NaN at row 3, .*, or fill them$"):
        ag.GradDensity(target=Target.adopt(autoencoder()), missing="impute").fit(rows)


def test_a_single_row_has_two_axes(adopted: Any) -> None:
    with pytest.raises(ValueError, match=r"X has shape \(6,\): rows are wanted, .* as X\[None\]"):
        adopted.anomaly_score(TABLE[0])

"""A model that scores otherwise where it is loaded than where it was saved is refused."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

import anograd as ag
from anograd import store
from anograd.detectors import DETECTORS, golden

ROWS = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
KINDS = [kind for name, kind in DETECTORS.items() if name != "gradientdetector"]


def net(activation: type[nn.Module] = nn.Tanh) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 2), activation(), nn.Linear(2, 3))


def adopted(module: nn.Module, **more) -> ag.Target:
    return ag.Target.adopt(module, layers="2.weight", **more)


def change(folder: Path, edit) -> None:
    """Change tensors and make the checksums right, as another version that computes otherwise would not."""
    stored = store.read(folder)
    store.write(folder, stored.manifest, edit(stored.tensors), stored.table)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_detector_keeps_made_up_rows_and_their_scores(kind, tmp_path):
    detector = kind(epochs=1, random_state=0).fit(ROWS)
    detector.save(tmp_path / "model")
    tensors = store.read(tmp_path / "model").tensors
    assert tensors["golden/rows"].shape == (8, 3)
    assert tensors["golden/scores"].std() > 0
    again = ag.load(tmp_path / "model")
    again.save(tmp_path / "again")  # and so does one that was loaded
    torch.testing.assert_close(store.read(tmp_path / "again").tensors["golden/rows"], tensors["golden/rows"])

    def edit(tensors):
        return {
            **tensors,
            "golden/scores": tensors["golden/scores"] + 2e-4 * tensors["golden/scores"].abs().max(),
        }

    change(tmp_path / "model", edit)
    with pytest.raises(
        ValueError, match=r"scores otherwise than when it was saved: made-up row 0 had .* and has"
    ):
        ag.load(tmp_path / "model")


def test_rounding_is_no_difference(tmp_path):
    ag.GradCon(epochs=1, random_state=0).fit(ROWS).save(tmp_path / "model")
    change(tmp_path / "model", lambda found: {**found, "golden/scores": found["golden/scores"] * (1 + 2e-5)})
    ag.load(tmp_path / "model")


def test_the_message_names_versions_and_what_to_do(tmp_path, monkeypatch):
    detector = ag.GradCon(epochs=1, random_state=0).fit(ROWS)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "__version__", "1.2.3")
        detector.save(tmp_path / "model")
    monkeypatch.setattr("anograd.detectors.gradcon.gradcon_score", lambda loss, cosines, beta: loss)
    with pytest.raises(
        ValueError, match=r"with torch 1\.2\.3 on cpu, and this is .*versions it was saved by, or fit"
    ):
        ag.load(tmp_path / "model")


@pytest.mark.parametrize(
    "other",
    [
        lambda: adopted(net(nn.ReLU)),
        lambda: adopted(net(), loss="bce_with_logits"),
        lambda: ag.Target.adopt(net(), layers="2.*"),
    ],
    ids=["activation", "loss", "layers"],
)
def test_another_network_than_the_one_that_was_handed_in_is_noticed(tmp_path, other):
    ag.GradDensity(target=adopted(net()), random_state=0).fit(ROWS).save(tmp_path / "model")
    ag.load(tmp_path / "model", target=adopted(net()))
    with pytest.raises(ValueError, match=r"hand over the network and the loss|do not fit together"):
        ag.load(tmp_path / "model", target=other())
    with pytest.raises(
        ValueError, match=r"is not built as the one that this detector was fitted on \(Sequential\)"
    ):
        ag.load(tmp_path / "model", target=ag.Target.adopt(nn.Linear(3, 3)))


class Words(nn.Module):
    """Takes words of a place's own vocabulary only."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(1000, 4)
        self.head = nn.Linear(4, 1000)

    def forward(self, x):
        if (x[:, 0] >= 10).any() or (x[:, 1] < 900).any():
            raise IndexError("no such word")
        return self.head(self.table(x)).transpose(1, 2)


def test_made_up_words_occur_in_their_place(tmp_path):
    draw = np.random.default_rng(0)
    x = np.stack([draw.integers(0, 10, 60), draw.integers(900, 1000, 60)], axis=1)
    target = ag.Target.adopt(Words(), loss="cross_entropy", layers="head.bias")
    ag.GradDensity(target=target, random_state=0).fit(x).save(tmp_path / "model")
    made_up = store.read(tmp_path / "model").tensors["golden/rows"]
    assert all(set(made_up[:, i].tolist()) <= set(x[:, i].tolist()) for i in range(2))
    ag.load(tmp_path / "model", target=ag.Target.adopt(Words(), loss="cross_entropy", layers="head.bias"))


def test_nothing_of_the_rows_is_among_the_made_up_ones(tmp_path):
    detector = ag.GradCon(epochs=1, random_state=0).fit(ROWS)
    other = ag.GradCon(epochs=1, random_state=0).fit(ROWS**3)
    torch.testing.assert_close(detector.made_up_, other.made_up_, rtol=0, atol=0)
    assert ((detector.made_up_ >= 0) & (detector.made_up_ <= 1)).all()


class Particular(nn.Linear):
    """Takes rows that were seen in training only."""

    def forward(self, x):
        known = torch.from_numpy(ROWS)
        if not (x[:, None] == known).all(2).any(1).all():
            raise RuntimeError("an unheard-of row")
        return super().forward(x)


def test_a_network_that_takes_no_made_up_rows_is_saved_with_a_warning(tmp_path):
    detector = ag.GradNeighbours(target=ag.Target.adopt(Particular(3, 3)), random_state=0).fit(ROWS)
    with pytest.warns(UserWarning, match=r"does not take made-up rows .*cannot check"):
        detector.save(tmp_path / "model")
    loaded = ag.load(tmp_path / "model", target=ag.Target.adopt(Particular(3, 3)))
    np.testing.assert_array_equal(loaded.anomaly_score(ROWS), detector.anomaly_score(ROWS))
    with warnings.catch_warnings():
        loaded.save(tmp_path / "again")  # there are none any more


def test_between_processor_and_gpu_more_is_allowed(tmp_path):
    detector = ag.GradCon(epochs=1, random_state=0).fit(ROWS)
    detector.save(tmp_path / "model")
    stored = store.read(tmp_path / "model")
    manifest = json.loads(json.dumps(stored.manifest))
    manifest["golden"]["device"] = "cuda"
    for factor, found in ((1 + 5e-3, False), (1 + 5e-2, True)):
        tensors = {**stored.tensors, "golden/scores": stored.tensors["golden/scores"] * factor}
        assert (golden.difference(detector, store.Stored(manifest, tensors, None)) is not None) is found


def test_an_earlier_folder_without_made_up_rows_is_loaded(tmp_path):
    ag.GradCon(epochs=1, random_state=0).fit(ROWS).save(tmp_path / "model")
    change(tmp_path / "model", lambda found: {n: t for n, t in found.items() if not n.startswith("golden/")})
    assert ag.load(tmp_path / "model").anomaly_score(ROWS).shape == (60,)


def test_tensors_that_are_no_numbers_are_noticed(tmp_path):
    ag.GradCon(epochs=1, random_state=0).fit(ROWS).save(tmp_path / "model")
    path = tmp_path / "model" / "tensors.safetensors"
    weight = next(name for name in safetensors.torch.load_file(path) if name.startswith("weights/"))
    change(tmp_path / "model", lambda found: {**found, weight: torch.full_like(found[weight], torch.nan)})
    with pytest.raises(ValueError, match=r"scores otherwise|damaged"):
        ag.load(tmp_path / "model")


class Smoothed(ag.GradDensity):
    """A detector of one's own, with a score and a parameter of its own."""

    def __init__(self, power: float = 2.0, epochs: int = 1, random_state: int | None = 0):
        super().__init__(epochs=epochs, random_state=random_state)
        self.power = power

    def _score(self, columns: int) -> nn.Module:
        score = super()._score(columns)
        score.register_forward_hook(lambda _module, _given, scores: self.power * scores)
        return score


def test_a_detector_of_ones_own_is_loaded_where_its_class_is_given(tmp_path):
    detector = Smoothed(power=3.0).fit(ROWS)
    detector.save(tmp_path / "model")
    with pytest.raises(ValueError, match=r"kind 'Smoothed'.* load\(folder, kinds=\[Smoothed\]\); else pip"):
        ag.load(tmp_path / "model")
    again = ag.load(tmp_path / "model", kinds=[Smoothed])
    assert type(again) is Smoothed
    assert again.power == 3.0
    np.testing.assert_array_equal(again.anomaly_score(ROWS), detector.anomaly_score(ROWS))
    with pytest.raises(TypeError, match=r"kinds=.* was given: write kinds=\[YourDetector\]"):
        ag.load(tmp_path / "model", kinds=["Smoothed"])

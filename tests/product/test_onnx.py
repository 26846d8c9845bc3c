"""A detector as one ONNX file: the same scores, p values and verdicts by onnxruntime alone."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.product.conftest import ENVIRONMENT, fails, misused, works
from torch import nn

import anograd as ag
from anograd.gradients.sketch import _draw
from anograd.onnx import file, inputs

RANDOM = np.random.default_rng(0)
TABLE = RANDOM.normal(size=(160, 5)) * [1, 10, 1e6, 1e-3, 1]
IMAGES = RANDOM.integers(0, 256, (120, 1, 9, 10)).astype(np.uint8)
MIXED = pd.DataFrame(
    {
        "amount": RANDOM.normal(size=160) * 1e4,
        "kind": RANDOM.choice(["a", "b", "c"], 160),
        "days": RANDOM.integers(0, 30, 160),
        "again": RANDOM.random(160) > 0.5,
    }
)
FEW = {"epochs": 1, "random_state": 0}
R2 = {**FEW, "checkpoints": 2, "networks": 2}
MADE = {
    "GradCon dense": (ag.GradCon(**FEW), TABLE),
    "GradCon mixed": (ag.GradCon(**FEW, missing="impute"), MIXED),
    "GradCon cae": (ag.GradCon(**FEW), IMAGES),
    "GradCon vae": (ag.GradCon(**FEW, target="vae"), IMAGES.astype(np.float64) / 100),
    "R2AD2 dense": (ag.R2AD2(**R2), MIXED),
    "R2AD2 raw": (ag.R2AD2(**R2, sketch=None, hidden=(4, 2), columns=False, novelty=0.0), TABLE),
    "R2AD2 recurrent": (ag.R2AD2(**R2, recurrent=True, hidden=(4, 2), widths=(6, 4)), TABLE),
    "R2AD2 published": (
        ag.R2AD2.as_published("mammography", **FEW, calibration=0.2, widths=(10, 8, 5)),
        TABLE,
    ),
    "R2AD2 conv": (ag.R2AD2(**R2), IMAGES),
    "GradDensity": (ag.GradDensity(**FEW), TABLE),
    "GradDensity cae": (ag.GradDensity(**FEW), IMAGES),
    "GradScoreTest cae": (ag.GradScoreTest(**FEW), IMAGES),
    "GradScoreTest vae": (ag.GradScoreTest(**FEW, target="vae"), IMAGES),
    "GradScoreTest": (ag.GradScoreTest(**FEW), TABLE),
    "GradScoreTest images": (ag.GradScoreTest.for_images(**FEW), IMAGES),
    "GradScoreTest rotations": (ag.GradScoreTest.for_images(target="rotations", **FEW), IMAGES),
    "GradScoreTest tables": (ag.GradScoreTest.for_tables(**FEW), TABLE),
    "GradScoreTest inputs": (ag.GradScoreTest(**FEW, inputs=True), TABLE),
    "GradScoreTest projected": (ag.GradScoreTest(**FEW, fisher="projected"), TABLE),
    "GradSubspace": (ag.GradSubspace(**FEW), TABLE),
    "GradNeighbours": (ag.GradNeighbours(**FEW), TABLE),
    "GradNeighbours cae": (ag.GradNeighbours(**FEW), IMAGES),
    "GradReferences": (ag.GradReferences(**FEW), TABLE),
    "GraN": (ag.GraN(**FEW), TABLE),
    "GradNorm": (ag.GradNorm(**FEW), TABLE),
    "GradLabels": (ag.GradLabels(**FEW), TABLE),
}


@cache
def fitted(name):
    detector, X = MADE[name]
    known = np.arange(len(X)) >= len(X) - 6
    return detector.fit(X, known if detector.learns_from_known else None)


def session(path):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # it warns of inputs that have a default
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("onnx")

    @cache
    def of(name):
        path = folder / f"{name}.onnx"
        return path, ag.export(fitted(name), path)

    return of


def feed(detector, X):
    return inputs.inputs_of(detector.encoder_, None).feed(X)


@pytest.mark.parametrize("name", MADE)
def test_every_detector_in_batches_of_any_size(exported, name):
    path, done = exported(name)
    detector, X = fitted(name), MADE[name][1]
    X = X[np.arange(512) % len(X)] if isinstance(X, np.ndarray) else X.iloc[np.arange(512) % len(X)]
    given, scores = feed(detector, X), detector.anomaly_score(X)
    loaded = session(path)
    usual = np.median(np.abs(detector.calibration_.scores))
    for rows, batch in ((9, 1), (35, 7), (512, 512)):
        score, p, verdict = file.in_batches(loaded, {key: x[:rows] for key, x in given.items()}, batch)
        assert (np.abs(score - scores[:rows]) <= 1e-4 * np.maximum(np.abs(scores[:rows]), usual)).all()
        assert p.tolist() == detector.calibration_.p_values(score).tolist()
        assert verdict.tolist() == (p <= 0.05).tolist()
    assert done.difference <= file.TOLERANCE


def test_a_sketch_is_drawn_before_the_graph_is_traced(tmp_path):
    """Else the file could not be written, and what stayed of the sketch had no numbers for the next row."""
    detector, X = fitted("GradNeighbours cae"), IMAGES[:5]
    scores = detector.anomaly_score(X)
    _draw.cache_clear()  # as in a process that has scored no row in double precision yet
    score = session(ag.export(detector, tmp_path / "x.onnx").path).run(["score"], feed(detector, X))[0]
    np.testing.assert_allclose(score, scores, rtol=1e-4)
    np.testing.assert_array_equal(detector.anomaly_score(X), scores)


def test_in_a_process_without_torch(exported, tmp_path):
    path, _ = exported("R2AD2 dense")
    detector = fitted("R2AD2 dense")
    given = feed(detector, MIXED)
    np.savez(tmp_path / "rows.npz", numbers=given["numbers"], categories=given["categories"].astype(str))
    code = f"""
import sys
for name in ("torch", "anograd", "sklearn", "scipy"):
    sys.modules[name] = None
import numpy as np, onnxruntime
rows = dict(np.load({str(tmp_path / "rows.npz")!r}))
rows["categories"] = rows["categories"].astype(object)
session = onnxruntime.InferenceSession({str(path)!r})
found = session.run(["score", "p_value", "verdict"], rows)
np.savez({str(tmp_path / "found.npz")!r}, **dict(zip(("score", "p", "verdict"), found)))
"""
    subprocess.run([sys.executable, "-c", code], check=True, env=ENVIRONMENT, capture_output=True)
    found = np.load(tmp_path / "found.npz")
    np.testing.assert_allclose(found["score"], detector.anomaly_score(MIXED), rtol=1e-9)
    assert found["p"].tolist() == detector.calibration_.p_values(found["score"]).tolist()
    assert found["verdict"].dtype == bool


texts = st.one_of(st.sampled_from(["a", "b", "c", "new", ""]), st.text(max_size=5))
cells = st.one_of(st.floats(-1e5, 1e5), st.sampled_from([np.nan, np.inf, -np.inf, 1e308]))


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.tuples(cells, texts, cells, st.sampled_from(["True", "False", "?"])), min_size=1, max_size=6
    ),
    name=st.sampled_from(["GradCon mixed", "R2AD2 dense"]),
)
def test_any_row_scores_as_in_pytorch_or_not_at_all(exported, rows, name):
    """What PyTorch refuses is no number in the graph, and raises an alarm; its neighbours do not notice."""
    path, _ = exported(name)
    detector = fitted(name)
    frame = pd.DataFrame(rows, columns=list(MIXED)).astype({"kind": object, "again": object})
    numbers = frame[["amount", "days"]].to_numpy(float)
    refused = np.isinf(numbers).any(1)
    if name == "R2AD2 dense":
        refused |= np.isnan(numbers).any(1)
    score, p, verdict = session(path).run(
        None, {"numbers": numbers, "categories": frame[["kind", "again"]].to_numpy(object)}
    )
    assert np.isnan(score[refused]).all()
    assert np.isnan(p[refused]).all()
    assert verdict[refused].all()
    for i in np.flatnonzero(~refused):
        expected = detector.anomaly_score(frame.iloc[[i]])[0]
        if np.isnan(expected):
            assert np.isnan(score[i])
            assert verdict[i]
        elif np.isinf(expected):
            assert score[i] == expected
        else:
            assert score[i] == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_pixels_that_are_no_number(exported):
    images = (MADE["GradCon vae"][1][:3]).astype(np.float32)
    images[1, 0, 4, 4] = np.nan
    score, p, verdict = session(exported("GradCon vae")[0]).run(None, {"images": images})
    assert np.isnan(score).tolist() == np.isnan(p).tolist() == [False, True, False]
    assert verdict[1]


def test_an_empty_cell_is_not_the_level_of_an_empty_text(tmp_path):
    draw = np.random.default_rng(0)
    kind = draw.choice(np.array(["a", "", None]), 120)
    X = pd.DataFrame({"size": draw.normal(size=120), "kind": kind})
    detector = ag.GradDensity(**FEW, missing="impute").fit(X)
    done = ag.export(detector, tmp_path / "x.onnx", check=X)
    assert done.compared == 120
    fed = {"numbers": X[["size"]].to_numpy(), "categories": np.array([[one or ""] for one in kind], object)}
    fed["categories"][X["kind"].isna()] = "none of the fit"
    score = session(tmp_path / "x.onnx").run(["score"], fed)[0]
    np.testing.assert_allclose(score, detector.anomaly_score(X), rtol=1e-6)


def test_alpha_is_an_input_with_a_default(exported):
    path, _ = exported("GradCon dense")
    rows = feed(fitted("GradCon dense"), TABLE)
    loaded = session(path)
    assert [one.name for one in loaded.get_overridable_initializers()] == ["alpha"]
    p, usual = loaded.run(["p_value", "verdict"], rows)
    (often,) = loaded.run(["verdict"], {**rows, "alpha": np.array(0.5)})
    assert usual.tolist() == (p <= 0.05).tolist()
    assert often.tolist() == (p <= 0.5).tolist()
    assert often.sum() > usual.sum()


def test_the_file_says_what_it_is(exported):
    path, done = exported("GradCon mixed")
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    told = {one.key.removeprefix("anograd."): one.value for one in model.metadata_props}
    assert json.loads(told["columns"]) == {"numbers": ["amount", "days"], "categories": ["kind", "again"]}
    assert (told["detector"], told["alpha"], told["missing"]) == ("GradCon", "0.05", "impute")
    assert told["version"] == ag.__version__
    assert told["torch"] == torch.__version__
    assert told["calibration_rows"] == str(len(fitted("GradCon mixed").calibration_.scores))
    assert "2007.09507" in told["paper"]
    assert done.inputs == {"numbers": ("float64", (2,)), "categories": ("string", (2,))}
    assert [one.shape[0] for one in session(path).get_inputs()] == ["n", "n"]


class Adopted(nn.Module):
    """What people bring: batch norm, pooling, another activation."""

    def __init__(self):
        super().__init__()
        self.down = nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.GELU(), nn.MaxPool2d(2)
        )
        self.decoder = nn.Sequential(
            nn.Upsample(scale_factor=2), nn.Conv2d(4, 2, 3, padding=1), nn.Softplus()
        )

    def forward(self, x):
        return self.decoder(self.down(x))


class Tokens(nn.Module):
    """A model of tokens: embeddings, layer norm, attention."""

    def __init__(self):
        super().__init__()
        self.embed, self.norm, self.head = nn.Embedding(11, 6), nn.LayerNorm(6), nn.Linear(6, 11)
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)

    def forward(self, x):
        z = self.norm(self.embed(x))
        return self.head(z + self.attention(z, z, z, need_weights=False)[0]).transpose(1, 2)


@pytest.mark.parametrize("layers", ["head.*", "norm.*", "embed.weight", "attention.in_proj_weight"])
def test_a_model_of_tokens(tmp_path, layers):
    X = RANDOM.integers(0, 11, (110, 5))
    target = ag.Target.adopt(Tokens().eval(), loss="cross_entropy", layers=layers)
    detector = ag.GradCon(target=target, random_state=0).fit(X)
    ag.export(detector, tmp_path / "model.onnx", check=X)
    (score,) = session(tmp_path / "model.onnx").run(["score"], {"rows": X})
    np.testing.assert_allclose(score, detector.anomaly_score(X), rtol=1e-4, atol=1e-5)
    odd = X[:4].copy()
    odd[[0, 1, 3], 2] = -1, 11, 10**12
    found, p, alarm = session(tmp_path / "model.onnx").run(["score", "p_value", "verdict"], {"rows": odd})
    assert np.isnan(found[[0, 1, 3]]).all()
    assert np.isnan(p[[0, 1, 3]]).all()
    assert alarm[[0, 1, 3]].all()
    np.testing.assert_allclose(found[2], score[2], rtol=1e-6)


@pytest.mark.parametrize("layers", ["decoder.*.weight", "*.weight"])
def test_a_network_that_was_handed_in(tmp_path, layers):
    X = RANDOM.normal(size=(110, 2, 6, 6)).astype(np.float32)
    target = ag.Target.adopt(Adopted().eval(), layers=layers)
    detector = ag.GradCon(target=target, random_state=0).fit(X)
    with pytest.raises(
        ValueError, match=r"give some to check the graph by, ag.export\(detector, path, check=X\)"
    ):
        ag.export(detector, tmp_path / "model.onnx")
    done = ag.export(detector, tmp_path / "model.onnx", check=X)
    assert done.compared == 110
    (score,) = session(tmp_path / "model.onnx").run(["score"], {"rows": X})
    np.testing.assert_allclose(score, detector.anomaly_score(X), rtol=1e-4, atol=1e-6)


@pytest.fixture
def tampered(monkeypatch):
    """A graph in which one weight is not the network's."""
    built = file.build

    def build(*args):
        model = built(*args)
        largest = max(model.graph.initializer, key=lambda one: len(one.raw_data))
        weights = onnx.numpy_helper.to_array(largest)
        largest.CopyFrom(onnx.numpy_helper.from_array(weights * 1.01, largest.name))
        return model

    monkeypatch.setattr(file, "build", build)


@pytest.mark.usefixtures("tampered")
def test_another_score_than_pytorchs_is_not_written(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_text("an earlier one")
    with pytest.raises(
        ValueError, match=r"row \d+ of 1024 differs from PyTorch by [\d.e-]+ .* nothing was written"
    ):
        ag.export(fitted("GradCon dense"), path)
    assert path.read_text() == "an earlier one"
    assert [one.name for one in tmp_path.iterdir()] == ["model.onnx"]


class Unruled(nn.Module):
    """A layer without a rule."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, x):
        return x * self.weight


class Untranslated(nn.Module):
    """An operation that nobody has translated."""

    def forward(self, x):
        return torch.special.bessel_j0(x)


def test_what_cannot_be_written_is_named(tmp_path):
    X = RANDOM.normal(size=(110, 3)).astype(np.float32)
    for network, message in [
        (nn.Sequential(nn.Linear(3, 3), Unruled()), r"the gradients of 1.weight \(Unruled\) follow no rule"),
        (
            nn.Sequential(Untranslated(), nn.Linear(3, 3)),
            r"operation prims.bessel_j0.default, which this export",
        ),
    ]:
        detector = ag.GradDensity(target=ag.Target.adopt(network), random_state=0).fit(X)
        with pytest.raises(ValueError, match=message):
            ag.export(detector, tmp_path / "model.onnx", check=X)
    with pytest.raises(
        ValueError, match=r"GradientFeatures cannot be written as ONNX: GradCon, R2AD2 and all"
    ):
        ag.export(ag.GradientFeatures(), tmp_path / "model.onnx")
    detector = fitted("GradCon dense")
    with pytest.raises(ValueError, match=r"alpha=2 was given; a rate between 0 and 1 is wanted"):
        ag.export(detector, tmp_path / "model.onnx", alpha=2)
    with pytest.warns(UserWarning, match="raises no alarm"):
        ag.export(detector, tmp_path / "rare.onnx", alpha=1e-6)
    assert [one.name for one in tmp_path.iterdir()] == ["rare.onnx"]


def test_without_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r"pip install 'anograd\[onnx\]'"):
        ag.export(fitted("GradCon dense"), tmp_path / "model.onnx")


def test_the_command(tmp_path):
    fitted("GradCon mixed").save(tmp_path / "model")
    MIXED.to_csv(tmp_path / "rows.csv", index=False)
    MIXED.to_parquet(tmp_path / "rows.parquet")
    out = tmp_path / "model.onnx"
    command = ("export", tmp_path / "model", "-o", out, "--alpha", "0.1", "--check")
    said = works(*command, tmp_path / "rows.csv")
    assert works(*command, tmp_path / "rows.parquet").output == said.output
    assert "score, p_value, verdict at alpha 0.1" in said.output
    assert "input numbers, float64 (n, 2): amount, days" in said.output
    assert "input categories, string (n, 2): kind, again" in said.output
    assert "compared with PyTorch over 160 rows" in said.output
    new = MIXED.assign(amount=MIXED["amount"] + 0.01)  # a row that p values refer to ties with itself
    (verdict,) = session(out).run(["verdict"], feed(fitted("GradCon mixed"), new))
    assert verdict.tolist() == fitted("GradCon mixed").detect(new, alpha=0.1).tolist()


def test_the_command_says_what_is_wrong(tmp_path):
    fitted("GradCon dense").save(tmp_path / "model")
    assert "wanted is a name that ends in .onnx" in fails(
        "export", tmp_path / "model", "-o", tmp_path / "x.pt"
    )
    assert "there is no folder" in fails("export", tmp_path / "none", "-o", tmp_path / "x.onnx")
    assert "is a folder; a file is wanted" in fails("export", tmp_path / "model", "-o", tmp_path)
    said = misused("export", tmp_path / "model", "-o", tmp_path / "x.onnx", "--alpha", "7")
    assert "a rate between 0 and 1 is wanted" in said
    assert not list(tmp_path.glob("*.onnx"))


def test_levels_may_be_written_as_frames_write_them(tmp_path):
    rng = np.random.default_rng(1)
    table = pd.DataFrame({"code": pd.Categorical(rng.choice([1, 2, 10], 120)), "x": rng.normal(size=120)})
    table["flag"] = rng.random(120) < 0.5
    detector = ag.GradCon(epochs=3, random_state=0).fit(table)
    ag.export(detector, tmp_path / "m.onnx")
    run = session(tmp_path / "m.onnx")
    x = np.full((6, 1), 0.1)
    cells = [["2", "True"], ["2.0", "True"], ["2", "true"], ["2", "1"], ["2.0", "TRUE"], ["2", "1.0"]]
    (scores,) = run.run(["score"], {"numbers": x, "categories": np.array(cells, dtype=object)})
    wanted = detector.anomaly_score(pd.DataFrame({"code": ["2"], "x": [0.1], "flag": [True]}))
    np.testing.assert_allclose(scores, np.repeat(wanted, 6), rtol=1e-5)


def test_all_rows_are_compared(tmp_path):
    rows = np.random.default_rng(0).normal(size=(700, 3))
    detector = ag.GradNeighbours(epochs=2, random_state=0).fit(rows[:100])
    assert ag.export(detector, tmp_path / "m.onnx", check=rows).compared == 700
    encoded = torch.cat(list(detector._encode(rows)))
    expected = detector.anomaly_score(rows)
    expected[690] += 1
    with pytest.raises(ValueError, match="row 690 of 700 differs"):
        file.compare(
            (tmp_path / "m.onnx").read_bytes(), inputs.inputs_of(detector.encoder_, encoded).feed(rows),
            expected, detector, 0.05,
        )  # fmt: skip

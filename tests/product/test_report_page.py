"""``anograd report`` as a user types it: the page it writes, read as a browser would read it."""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from sklearn.datasets import load_breast_cancer, load_digits
from typer.testing import CliRunner

from anograd import load
from anograd.cli import app
from anograd.evaluate import evaluate

HOSTILE = "<script>alert(1)</script>"
VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """What stands on a page, and what would be wrong with it."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.headings, self.text = [], [], [], [], []
        self.titled = []
        self.feed(text)
        self.close()
        assert self.open == []
        self.words = " ".join(" ".join(self.text).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text.append(data)
        if self.open[-2:] == ["svg", "title"]:
            self.titled.append(data)
        if self.open and re.fullmatch("h[1-6]", self.open[-1]):
            self.headings.append((int(self.open[-1][1]), data))

    def values(self, name):
        return [found[name] for _, found in self.attributes if found.get(name) is not None]


def call(*words):
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, [str(word) for word in words])


def made(*words):
    """Return the page that a command writes to its last word."""
    done = call("report", *words)
    assert done.exit_code == 0, done.output
    return Page(words[-1].read_text(encoding="utf-8"))


def is_sound(page):
    """Check what every page must keep: nothing from elsewhere, and readable by ear."""
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert not any(name.startswith("on") for _, found in page.attributes for name in found)
    links = [*page.values("src"), *page.values("href"), *page.values("xlink:href")]
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in links)
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)
    named = page.values("aria-labelledby")
    assert set(named) <= set(ids)
    assert page.tags.count("svg") == len(page.titled)
    assert all(found.get("alt") for tag, found in page.attributes if tag == "img")
    assert all("aria-labelledby" in found for tag, found in page.attributes if tag == "svg")
    assert all(found.get("scope") for tag, found in page.attributes if tag == "th")
    html = next(found for tag, found in page.attributes if tag == "html")
    assert html["lang"] == "en"
    levels = [level for level, _ in page.headings]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(here <= before + 1 for before, here in pairwise(levels))


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A folder with labelled rows, new rows and the model of the first; a column has a hostile name."""
    folder = tmp_path_factory.mktemp("table")
    data = load_breast_cancer()
    columns = [*map(str, data.feature_names)]
    columns[columns.index("worst area")] = HOSTILE
    frame = pl.DataFrame(data.data, schema=columns).with_columns(malignant=pl.Series(1 - data.target))
    benign, malignant = (frame.filter(pl.col("malignant") == one) for one in (0, 1))
    pl.concat([malignant[:5], benign[:200]]).write_csv(folder / "fit.csv")
    new = pl.concat([benign[200:260], malignant[5:25]])
    new.write_parquet(folder / "new.parquet")
    new.drop("malignant").write_parquet(folder / "<b>&'\"unlabelled.parquet")
    done = call(
        "fit", folder / "fit.csv", "--label", "malignant", "--detector", "gradneighbours", "--epochs", 5,
        "-o", folder / "model",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture(scope="module")
def labelled(table):
    return made(
        table / "model", table / "new.parquet", "--label", "malignant", "--top", 12, "-o", table / "a.html"
    )


def test_the_page_is_sound_and_says_what_the_detector_says(table, labelled):
    is_sound(labelled)
    frame = pl.read_parquet(table / "new.parquet")
    X, odd = frame.drop("malignant"), frame["malignant"].to_numpy() == 1
    detector = load(table / "model")
    scores, alarms = detector.anomaly_score(X), detector.detect(X, alpha=0.05)
    found = evaluate(scores, odd, alarms)
    words = labelled.words
    assert f"80 rows {alarms.sum()} alarms at alpha 0.05" in words
    assert re.search(rf"AUROC {found.auroc:.4f} \(0\.\d{{4}} to [01]\.\d{{4}}\)", words)
    assert re.search(rf"Average precision {found.average_precision:.4f} \(", words)
    low, high = found.interval
    assert f"{found.false_alarm_rate:.3f} ({low:.3f} to {high:.3f})" in words
    assert f"{found.found} of 20 anomalies" in words
    assert f"0.05 (asked for) {alarms.sum()} 3.0 {found.alarms - found.found} {found.precision:.3f}" in words
    highest = np.argsort(-scores, kind="stable")[:12]
    assert [f"row {i}" for i in highest] == [text for text in labelled.text if re.fullmatch(r"row \d+", text)]
    assert "the smallest reachable p value is 0.025 (1 / 40)" in words
    for file in ("tensors.safetensors", "table.skops"):
        assert re.search(rf"{file} [0-9a-f]{{64}}", words)
    assert detector.paper.cite() in words
    assert all(limit in words for limit in detector.paper.limits)


def test_rows_of_the_fit_are_told(table, labelled):
    """Figures of rows that the model knows are better than those of new ones."""
    seen = "The rows that p values refer to are among these"
    told = call("report", table / "model", table / "fit.csv", "--label", "malignant", "-o", table / "f.html")
    assert "judge it by rows that it has not seen" in told.stderr
    assert seen in Page((table / "f.html").read_text(encoding="utf-8")).words
    assert seen not in labelled.words
    told = [
        call("evaluate", table / "model", table / file, "--label", "malignant").stderr
        for file in ("fit.csv", "new.parquet")
    ]
    assert ["judge it by rows that it has not seen" in text for text in told] == [True, False]


def test_hostile_names_stay_text(table, labelled):
    assert HOSTILE in labelled.words
    strange = table / "<b>&'\"unlabelled.parquet"
    page = made(table / "model", strange, "--top", 2, "-o", table / "x.html")
    is_sound(page)
    assert str(strange) in [text.strip() for text in page.text]
    text = (table / "x.html").read_text(encoding="utf-8")
    assert HOSTILE not in text
    assert "<b>&" not in text


def test_without_labels_the_page_explains_what_uniform_means(table):
    page = made(table / "model", table / "<b>&'\"unlabelled.parquet", "--fdr", 0.2, "-o", table / "b.html")
    is_sound(page)
    assert "If all rows were normal, p values would spread evenly from 0 to 1" in page.words
    assert "AUROC" not in page.words
    assert "Of the alarms, on average at most 0.2 are false" in page.words
    assert len(page.titled) == 3
    assert "labelled" not in page.words.replace("unlabelled", "")


def test_nearest_normal_rows_are_named(table):
    page = made(
        table / "model", table / "new.parquet", "--label", "malignant", "--among", table / "fit.csv",
        "--budget", 4, "--top", 3, "-o", table / "c.html",
    )  # fmt: skip
    is_sound(page)
    near = re.findall(r"Nearest normal rows of \S+ *: row (\d+), row (\d+), row (\d+)", page.words)
    assert len(near) == 3
    assert all(int(number) >= 5 for row in near for number in row)  # the first five are known anomalies
    assert "At most 4 alarms, the highest scores; nothing is promised" in page.words
    assert "4 alarms at budget 4" in page.words


def test_images_are_shown_as_given_expected_and_why(tmp_path):
    digits = load_digits()
    images = (digits.images * 15.9).astype(np.uint8)
    np.save(tmp_path / "zeros.npy", images[digits.target == 0][:100])
    np.save(tmp_path / "new.npy", images[-12:])
    assert call("fit", tmp_path / "zeros.npy", "-o", tmp_path / "model", "--epochs", 2).exit_code == 0
    page = made(tmp_path / "model", tmp_path / "new.npy", "--top", 3, "-o", tmp_path / "d.html")
    is_sound(page)
    alts = page.values("alt")
    assert len(alts) == 9
    assert alts[0] == "The image as given, 8 by 8 pixels"
    assert re.fullmatch(
        r"Heat map of the contributions: the largest, \+\S+, in row \d of 8, column \d of 8", alts[2]
    )


def test_the_same_command_gives_the_same_bytes(table, labelled):
    again = table / "again.html"
    made(table / "model", table / "new.parquet", "--label", "malignant", "--top", 12, "-o", again)
    assert again.read_bytes() == (table / "a.html").read_bytes()
    out = call(
        "report", table / "model", table / "new.parquet", "--label", "malignant", "--top", 12, "-o", "-"
    )
    assert out.stdout == again.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("-o", "why.txt"), "'why.txt': wanted is x.html, or - for stdout"),
        (("-o", "a.html", "--label", "kind"), "has no column 'kind'"),
        (("-o", "a.html", "--among", "none.csv"), "there is no file or folder 'none.csv'"),
        (("-o", "a.html", "--alpha", "0.1", "--fdr", "0.1"), "one of --alpha and --fdr is wanted, not both"),
        (("-o", "a.html", "--top", "0"), "Invalid value for '--top'"),
        (("-o", "no/a.html"), "nothing can be written in the folder"),
    ],
)
def test_mistakes_are_told_in_one_line(table, words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = call("report", table / "model", table / "new.parquet", *words)
    assert done.exit_code in (1, 2)
    assert message in " ".join(done.output.replace("│", " ").split())
    assert not list(tmp_path.iterdir())


def test_a_rule_out_of_reach_is_told_on_the_page(table):
    output = table / "e.html"
    done = call("report", table / "model", table / "new.parquet", "--alpha", 0.01, "--top", 1, "-o", output)
    assert done.exit_code == 0, done.output
    assert "warning: alpha=0.01 raises no alarm: with m = 39 calibration rows" in done.stderr
    page = Page(output.read_text(encoding="utf-8"))
    assert "No alarm alpha=0.01 raises no alarm: with m = 39 calibration rows" in page.words
    assert "No score raises an alarm by this rule" in page.words


def test_labels_of_one_kind_are_refused(table, tmp_path):
    pl.read_parquet(table / "new.parquet")[:30].write_parquet(tmp_path / "benign.parquet")
    output = tmp_path / "a.html"
    done = call("report", table / "model", tmp_path / "benign.parquet", "--label", "malignant", "-o", output)
    assert done.exit_code == 1
    assert "tells all 30 rows to be of one kind" in done.stderr
    assert not output.exists()


@pytest.mark.parametrize("missing", ["jinja2", "matplotlib"])
def test_a_missing_extra_is_named(table, tmp_path, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    done = call("report", table / "model", table / "new.parquet", "-o", tmp_path / "a.html")
    assert done.exit_code == 1
    assert done.stderr == f"error: the report needs {missing}: pip install 'anograd[report]'\n"
    assert not list(tmp_path.iterdir())


def test_an_earlier_page_survives_a_failure(table, tmp_path, monkeypatch):
    output = tmp_path / "a.html"
    output.write_text("earlier")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("anograd.whole.os.fsync", full)
    done = call("report", table / "model", table / "new.parquet", "--top", 1, "-o", output)
    assert done.exit_code == 1
    assert "No space left" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a.html"]
    assert output.read_text() == "earlier"


def test_columns_unlike_those_of_the_fit_are_named(table, labelled, tmp_path):
    assert "Columns unlike those of the fit" not in labelled.words
    frame = pl.read_parquet(table / "new.parquet").with_columns(pl.col("mean area", HOSTILE) * 100)
    frame.write_parquet(tmp_path / "cm.parquet")
    page = made(table / "model", tmp_path / "cm.parquet", "--label", "malignant", "-o", tmp_path / "a.html")
    is_sound(page)
    assert "Among the normal rows, some columns hold" in page.words
    assert re.search(r"mean area a number outside \d+\.\d to \d+\.?\d* 60 100%", page.words)
    assert f"{HOSTILE} a number outside" in page.words
    frame.drop("malignant").write_parquet(tmp_path / "none.parquet")
    page = made(table / "model", tmp_path / "none.parquet", "-o", tmp_path / "b.html")
    assert re.search(r"mean area a number outside \d+\.\d to \d+\.?\d* 80 100%", page.words)

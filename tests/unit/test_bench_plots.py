"""Pictures of a comparison hold what they are to show and come out alike; pages are filled with them."""

from __future__ import annotations

import json
import sys
from xml.etree import ElementTree

import numpy as np
import pytest

from anograd.bench import plots
from anograd.bench.pages import fill_pages
from anograd.bench.results import append

NAMES = [f"Detector number {i}" for i in range(15)]


def comparison(names=NAMES, sets=20):
    rng = np.random.default_rng(0)
    return {
        name: {f"set {j}": 0.9 - 0.02 * i + rng.normal(scale=0.03) for j in range(sets)}
        for i, name in enumerate(names)
    }


def line(detector, data, value, *, seed=0, options=None, settings=None, regime="clean", **more):
    return {
        "data": data, "protocol": "adbench", "options": options or {}, "detector": detector,
        "settings": settings or {}, "seed": seed, "regime": regime, "trained_on": 100, "known": 0,
        "test_rows": 50, "scores": {"score": {"auroc": value}}, "machine": "here", "torch": "2", **more,
    }  # fmt: skip


def words(svg):
    """Return the texts of a picture."""
    return [text for one in ElementTree.fromstring(svg).iter() if (text := (one.text or "").strip())]


def along():
    return [
        line("gradcon", data, 0.5 + 0.01 * epochs, seed=seed, settings={"epochs": epochs})
        for data in "ab" for epochs in (1, 5, 20) for seed in (0, 1)
    ] + [line("loss", data, 0.55, seed=seed) for data in "ab" for seed in (0, 1)]  # fmt: skip


@pytest.mark.parametrize("count", [2, 3, 15])
def test_critical_difference_names_every_detector(count):
    table = comparison(NAMES[:count])
    del table[NAMES[1]]["set 3"]
    svg = plots.critical_difference_diagram(table)
    texts = words(svg)
    for name in NAMES[:count]:
        assert sum(text.startswith(f"{name} (") for text in texts) == 1
    assert f"Mean ranks of {count} detectors on 19 data sets (1 left out)" in texts
    assert any("mean rank on 19 data sets, 1 = best; 1 left out" in text for text in texts)
    assert any(text.startswith("Nemenyi CD") for text in texts)
    assert svg == plots.critical_difference_diagram(table)


@pytest.mark.parametrize("count", [2, 3, 15])
def test_labels_do_not_overlap(count):
    figure = plots.rank_figure(comparison(NAMES[:count]))
    figure.canvas.draw()
    (axes,) = figure.axes
    drawn = [one.get_window_extent() for one in axes.texts]
    assert not [1 for i, one in enumerate(drawn) for other in drawn[:i] if one.overlaps(other)]
    width, height = figure.canvas.get_width_height()
    assert all(one.x0 >= 0 and one.x1 <= width and one.y0 >= 0 and one.y1 <= height for one in drawn)


def test_ranks_of_nothing_are_refused():
    with pytest.raises(ValueError, match="got 1 detectors and 1 such data sets"):
        plots.critical_difference_diagram({"a": {"x": 0.5}})
    with pytest.raises(ValueError, match="got 2 detectors and 0 such data sets: leave out the detectors"):
        plots.critical_difference_diagram({"a": {"x": 0.5}, "b": {"y": 0.5}})


def test_boxes_have_a_label_each_and_a_dot_a_data_set():
    lines = [line(name, f"set {j}", 0.5 + j / 20) for name in "abc" for j in range(5)][:-1]
    svg = plots.boxes(lines, labels={"a": "Alpha <&>"})
    assert {"Alpha <&>", "b", "c", "AUROC on 4 data sets, 1 left out, as a detector has no value"} <= set(
        words(svg)
    )
    assert words(svg)[0] == "AUROC, adbench, clean"
    assert svg == plots.boxes(lines, labels={"a": "Alpha <&>"})
    with pytest.raises(ValueError, match="a picture is of one regime; got 2"):
        plots.boxes([*lines, line("a", "x", 0.5, regime="contaminated")])
    with pytest.raises(ValueError, match="on which all detectors have a value; got none"):
        plots.boxes([line("a", "x", 0.5), line("b", "y", 0.5)])


def test_curve_has_a_line_a_detector_and_a_level_one_without_the_setting():
    svg = plots.curve(along())
    assert {"gradcon", "loss", "epochs", "1", "5", "20", "AUROC, mean of 2 data sets"} <= set(words(svg))
    assert words(svg)[0] == "AUROC along epochs, adbench, clean"
    assert svg == plots.curve(along())
    option = [line("a", "x", 0.5 + labels, options={"labels": labels}) for labels in (0.0, 0.1)]
    assert {"labels", "0.1", "a"} <= set(words(plots.curve(option, "labels")))


def test_a_curve_along_what_is_not_there_is_refused():
    with pytest.raises(ValueError, match="no setting or option 'epoch'; did you mean 'epochs'"):
        plots.curve(along(), "epoch")
    with pytest.raises(ValueError, match="a curve wants numbers along kind; got 'dense': make a table"):
        plots.curve([line("a", "x", 0.5, settings={"kind": "dense"})], "kind")
    with pytest.raises(ValueError, match="a value at every epochs of every detector; got none"):
        plots.curve([*along()[:2], line("b", "b", 0.5, settings={"epochs": 1})])
    with pytest.raises(ValueError, match="a curve wants a number for epochs in each line"):
        plots.curve(along(), detectors=["loss"])


def test_pictures_without_matplotlib_name_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    for draw in (lambda: plots.critical_difference_diagram(comparison()), lambda: plots.curve(along())):
        with pytest.raises(ImportError, match=r"pip install 'anograd\[report\]'"):
            draw()


@pytest.fixture
def project(tmp_path):
    """Return a function that writes the TOML file of a page with four places, and its path."""
    for one in along():
        append(tmp_path / "benchmarks" / "results" / "lines.jsonl", one)
    page = tmp_path / "docs" / "results.md"
    page.parent.mkdir()
    marks = "".join(f"<!-- {name}:begin -->\nold\n<!-- {name}:end -->\n" for name in "abcd")
    page.write_text(f"# Results\n\n{marks}\nlast")
    toml = tmp_path / "benchmarks" / "pages.toml"

    def write(*tables, head=""):
        text = "".join(f"[[page.table]]\nresults = ['lines.jsonl']\n{one}\n" for one in tables)
        toml.write_text(f"{head}\n[[page]]\npath = 'docs/results.md'\n{text}")
        return toml

    return write, page


def test_pages_are_filled_once_and_checked(project):
    write, page = project
    toml = write(
        "name = 'a'\nkind = 'table'\nprotocol = 'adbench'\ndetectors = ['loss']",
        "name = 'b'\nkind = 'curve'\nx = 'epochs'",
        "name = 'c'\nkind = 'critical-difference'",
        "name = 'd'\nkind = 'costs'\ndetectors = ['loss']\nagainst = 'gradcon'",
        head="[labels]\nloss = 'The loss'",
    )
    before = page.read_text()
    pictures = [page.parent / "pictures" / f"{name}.svg" for name in "bc"]
    assert sorted(fill_pages(toml, check=True)) == sorted([page, *pictures])
    assert page.read_text() == before
    assert not pictures[0].exists()
    assert sorted(fill_pages(toml)) == sorted([page, *pictures])
    text = page.read_text()
    assert "| The loss | 0.550 (0.550 to 0.550) |" in text
    assert "![AUROC along epochs, adbench, clean](pictures/b.svg)\n\nMeasured on here; torch 2." in text
    assert "![Mean ranks by AUROC, adbench, clean](pictures/c.svg)" in text
    assert "weights, beside gradcon" in text
    assert text.startswith("# Results\n")
    assert text.endswith("\nlast")
    assert "The loss" in words(pictures[0].read_text())
    assert fill_pages(toml) == fill_pages(toml, check=True) == []
    pictures[0].write_text("old")
    assert fill_pages(toml, check=True) == pictures[:1]


def test_a_table_of_some_seeds(project):
    write, page = project
    fill_pages(write("name = 'a'\nkind = 'table'\nseeds = [0]"))
    assert "one seed (0)" in page.read_text()
    assert "±" not in page.read_text()


def test_a_table_of_nothing_is_not_measured_yet(project):
    write, page = project
    toml = write("name = 'a'\nkind = 'boxes'\nresults = ['none.jsonl']".replace("results", "scores"))
    toml.write_text(
        toml.read_text().replace("lines.jsonl", "none.jsonl").replace("scores = ['none.jsonl']", "")
    )
    fill_pages(toml)
    assert "<!-- a:begin -->\n\nNot measured yet.\n\n<!-- a:end -->" in page.read_text()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("name = 'a'\nkind = 'tabel'", "page 'docs/results.md': there is no kind 'tabel'; did you"),
        ("name = 'a'\nkind = 'table'\nmesure = 'auroc'", "no key 'mesure'; did you mean 'measure'"),
        ("name = 'a'\nkind = 'table'\nx = 'epochs'", "no key 'x'; .*wanted is one of: data, "),
        ("name = 'a'\nkind = 'sweep'", "it has results, name, kind; wanted as well: option"),
        ("kind = 'table'", "it has results, kind; wanted as well: name"),
        ("name = 'a'\nkind = 'table'\nmeasure = 'aurok'", "table 'a' of .*there is no measure 'aurok'"),
        ("name = 'a'\nkind = 'table'\ndetectors = ['los']", "no detector 'los'; did you mean 'loss'"),
        ("name = 'a'\nkind = 'table'\nseeds = [0, 7]", "there is no seed 7; wanted is one of: 0"),
        ("name = 'e'\nkind = 'table'", "wants the lines '<!-- e:begin -->' and .*marks of: a, b, c, d"),
    ],
)  # fmt: skip
def test_what_a_page_does_not_know_is_named(project, table, message):
    write, page = project
    before = page.read_text()
    with pytest.raises(ValueError, match=message):
        fill_pages(write(table))
    assert page.read_text() == before


def test_a_key_at_the_head_is_known_too(project):
    write, _ = project
    with pytest.raises(ValueError, match="no key 'rot'; did you mean 'root'"):
        fill_pages(write("name = 'a'\nkind = 'table'", head="rot = '..'"))


def test_lines_in_the_tests_are_lines_as_they_are_written():
    assert json.loads(json.dumps(along())) == along()

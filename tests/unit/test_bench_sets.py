"""Data sets and protocols: files are what they should be, and splits are what the protocols say."""

from __future__ import annotations

import hashlib
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

from anograd.bench import sets
from anograd.bench.names import unknown
from anograd.bench.protocols import R2AD2, ADBench, OneClass
from anograd.bench.readers import Loaded
from anograd.bench.sets import DataSet


@pytest.fixture
def own_folder(tmp_path, monkeypatch):
    """A data folder with one table of ADBench and its sum."""
    table = tmp_path / "adbench" / "classical" / "7_mine.npz"
    table.parent.mkdir(parents=True)
    np.savez(table, X=np.arange(12.0).reshape(6, 2), y=np.array([0, 0, 0, 0, 0, 1]))
    digest = hashlib.sha256(table.read_bytes()).hexdigest()
    (tmp_path / "SHA256SUMS").write_text(f"{digest}  adbench/classical/7_mine.npz\n")
    monkeypatch.setenv("ANOGRAD_DATA", str(tmp_path))
    monkeypatch.setenv("ANOGRAD_CACHE", str(tmp_path / "cache"))
    for kept in (sets.registry, sets.load, sets._sums):
        kept.cache_clear()
    yield tmp_path
    for kept in (sets.registry, sets.load, sets._sums):
        kept.cache_clear()


def test_a_table_in_the_folder_goes_by_its_name(own_folder):
    loaded = sets.load("adbench/mine")
    assert loaded.rows.shape == (6, 2)
    assert sets.missing("adbench/mine") is None
    assert "ANOGRAD_DATA" in sets.missing("mnist")
    assert sets.missing("digits") is None


def test_a_damaged_file_is_refused_by_its_sum(own_folder):
    with (own_folder / "adbench" / "classical" / "7_mine.npz").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ValueError, match="is damaged or another version: its SHA-256"):
        sets.load("adbench/mine")


def test_a_file_without_a_sum_is_refused(own_folder):
    (own_folder / "SHA256SUMS").write_text("")
    with pytest.raises(ValueError, match=r"has no sum of 'adbench/classical/7_mine.npz'"):
        sets.load("adbench/mine")


def test_a_file_that_is_not_there_is_named(own_folder):
    with pytest.raises(FileNotFoundError, match=r"'mnist.npz' is not in .*: set ANOGRAD_DATA"):
        sets.load("mnist")


def test_an_unknown_set_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="no data set 'brest_cancer'; did you mean 'breast_cancer'"):
        sets.find("brest_cancer")
    assert str(unknown("zzz", ["b", "a"], "word")) == "there is no word 'zzz'; wanted is one of: a, b"


def test_fetched_rows_are_checked_kept_and_not_fetched_twice(own_folder, monkeypatch):
    rows = np.random.default_rng(0).normal(size=(20, 3))
    asked = []

    def fetch(data_id, **given):
        asked.append(data_id)
        return SimpleNamespace(data=rows[::-1], target=np.repeat(["-1", "1"], 10))

    monkeypatch.setattr("sklearn.datasets.fetch_openml", fetch)
    monkeypatch.setitem(sets.OPENML, "openml/mine", (7, (0,), sets.fingerprint(rows), None))
    sets.registry.cache_clear()
    assert "not fetched" in sets.missing("openml/mine")
    loaded = sets.load("openml/mine")
    assert sets.missing("openml/mine") is None
    sets.load.cache_clear()
    np.testing.assert_array_equal(sets.load("openml/mine").rows, loaded.rows)
    assert asked == [7]
    np.testing.assert_array_equal(loaded.kinds, np.repeat([0, 1], 10))


def test_other_rows_than_expected_are_not_kept(own_folder, monkeypatch):
    answer = SimpleNamespace(data=np.zeros((4, 2)), target=np.array(["a", "b", "a", "b"]))
    monkeypatch.setattr("sklearn.datasets.fetch_openml", lambda **given: answer)
    monkeypatch.setitem(sets.OPENML, "openml/mine", (7, (0,), "0" * 32, None))
    sets.registry.cache_clear()
    with pytest.raises(ValueError, match="number 7 at OpenML, has other rows than those known here"):
        sets.load("openml/mine")
    assert not (own_folder / "cache").exists()


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10"])
def test_what_would_be_fetched_is_what_is_here(name, data, monkeypatch):
    monkeypatch.setenv("ANOGRAD_DATA", str(data))
    sets.registry.cache_clear()
    if name == "cifar10":
        pytest.importorskip("PIL")
        from anograd.bench.readers import mosaics

        rows = np.concatenate([mosaics(data / "cifar10", part)[0] for part in ("train", "test")])
    else:
        loaded = sets.load(name)
        rows = np.concatenate([loaded.rows, loaded.test])
    assert sets.fingerprint(rows) == sets.OPENML[f"openml/{name}"][2]
    sets.registry.cache_clear()
    sets.load.cache_clear()


TABLE = DataSet(lambda: None, (0,), unlike=(2,), classes=3)


def table(n=400, seed=0):
    """A table whose first column is the kind and whose others are the row's number in binary digits."""
    kinds = np.random.default_rng(seed).choice(3, n, p=[0.7, 0.2, 0.1])
    digits = (np.arange(n)[:, None] >> np.arange(14)) & 1
    return Loaded(np.column_stack([kinds, digits]).astype(float), kinds)


def numbers(rows):
    """Return the numbers of rows: 0 and 1 stay what they are when scaled."""
    return set((rows[:, 1:] @ 2 ** np.arange(14)).round().astype(int).tolist())


@given(
    seed=st.integers(0, 10**6),
    known=st.sampled_from([0, 3, 20, 50, 300]),
    pollution=st.sampled_from([0.0, 0.05, 0.1]),
)
@settings(max_examples=30, deadline=None)
def test_r2ad2_splits_have_the_known_anomalies_and_the_pollution_asked_for(seed, known, pollution):
    loaded = table()
    protocol = R2AD2(known=known, pollution=pollution)
    if pollution and known == 300:
        with pytest.raises(ValueError, match="unlabelled anomalies beside"):
            protocol.split(TABLE, loaded, seed)
        return
    split = protocol.split(TABLE, loaded, seed)
    assert split.regime == ("contaminated" if pollution else "clean")
    anomalous = split.rows[:, 0] > 0  # normal rows are 0 there, so that nothing is scaled
    assert anomalous[split.known == 1].all()
    hidden = anomalous[split.known == 0]
    assert split.known.sum() == min(known, _anomalies(loaded, seed))
    if pollution:
        assert abs(hidden.mean() - pollution) < 0.01
    if not pollution:
        assert not hidden.any()
    assert len(split.test) == 80
    np.testing.assert_array_equal(split.odd, split.test[:, 0] > 0)
    assert not numbers(split.test) & numbers(split.rows)


def _anomalies(loaded, seed):
    train, _ = train_test_split(loaded.kinds, test_size=0.2, random_state=42)
    return int((train_test_split(train, test_size=0.05, random_state=seed)[0] > 0).sum())


def test_r2ad2_tests_the_same_rows_whatever_the_seed():
    loaded = table()
    one, other = (R2AD2().split(TABLE, loaded, seed) for seed in (110, 210))
    assert numbers(one.test) == numbers(other.test)
    assert numbers(one.rows) != numbers(other.rows)


def test_transfer_knows_some_kinds_only():
    split = R2AD2(known=20, transfer=True).split(TABLE, table(), 0)
    assert (split.rows[split.known == 1, 0] == 2).all()
    assert set(split.test[:, 0]) == {0, 1, 2}


@pytest.mark.parametrize("clean", [True, False])
def test_adbench_leaves_unlabelled_anomalies_in_only_where_it_is_contaminated(clean):
    loaded = table(2000)
    split = ADBench(labelled=0.1, clean=clean).split(TABLE, loaded, 5)
    anomalous, known = split.rows[:, 0] > 0, split.known == 1
    assert anomalous[known].all()
    assert split.regime == ("clean" if clean else "contaminated")
    assert anomalous[~known].any() is np.bool_(not clean)
    expected = np.ceil(0.1 * 0.7 * (loaded.kinds > 0).sum())
    assert abs(known.sum() - expected) <= 1
    assert len(split.test) == 600
    assert split.rows.min() == 0
    assert split.rows.max() == 1
    assert not numbers(split.rows) & numbers(split.test)


def test_adbench_draws_small_sets_up_and_large_sets_down():
    assert len(ADBench().split(TABLE, table(300), 0).rows) == 700
    assert len(ADBench(clean=True).split(TABLE, table(300), 0).test) == 90
    large = ADBench().split(TABLE, table(12_000), 0)
    assert len(large.rows) + len(large.test) == 10_000


def test_at_least_one_anomaly_is_known():
    assert ADBench(labelled=0.001).split(TABLE, table(2000), 0).known.sum() == 1


def images(n=200):
    rng = np.random.default_rng(0)
    kinds = np.arange(n) % 10
    rows = rng.integers(0, 256, size=(n, 1, 4, 4)).astype(np.uint8)
    return Loaded(rows, kinds, rows[: n // 2], kinds[: n // 2])


PICTURES = DataSet(lambda: None, (0, 1, 2, 3), unlike=(4,), classes=10, images=True)


def test_one_class_learns_one_class_and_tests_all():
    split = OneClass(inlier=3).split(PICTURES, images(), 0)
    assert split.rows.shape == (20, 1, 4, 4)
    assert split.rows.max() <= 1
    assert len(split.test) == 100
    assert split.odd.sum() == 90
    assert split.flat().rows.shape == (20, 16)


@pytest.mark.parametrize(("outliers", "odd"), [("balanced", 10), (0.5, 10), (0.1, 1), (0.2, 2)])
def test_one_class_draws_so_many_outliers(outliers, odd):
    split = OneClass(inlier=3, outliers=outliers).split(PICTURES, images(), 0)
    assert (split.odd.sum(), (~split.odd).sum()) == (odd, 10)
    assert (split.choosing is not None) == isinstance(outliers, float)


def test_one_class_refuses_tables_and_classes_that_are_not():
    with pytest.raises(ValueError, match="is a table"):
        OneClass().check(TABLE, "wine")
    with pytest.raises(ValueError, match="classes 0 to 9"):
        OneClass(inlier=10).check(PICTURES, "mnist")
    with pytest.raises(ValueError, match="'all', 'balanced', or a share"):
        OneClass(outliers="some")

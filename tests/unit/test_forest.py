"""A forest of balanced samples: its trees, its walk, and what a damaged one does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from torch import Tensor

from anograd.alarm import forest as forests
from anograd.alarm.forest import DEPTH, Forest
from anograd.train import seeded


def rows(count: int, columns: int = 4, seed: int = 0, shift: float = 0.0) -> Tensor:
    with seeded(seed):
        return torch.randn(count, columns) + shift


def grown(known: int = 6, normal: int = 300, trees: int = 20, seed: int = 0) -> Forest:
    return Forest.grow(rows(normal), rows(known, seed=1, shift=2.0), trees, seed)


def walked(forest: Forest, row: list[float]) -> float:
    """The mean over trees of the leaf that a plain walk ends at, one comparison after the other."""
    found = []
    for root in forest.roots.tolist():
        at = root
        while (children := forest.child[2 * at : 2 * at + 2].tolist()) != [at, at]:
            at = children[row[int(forest.column[at])] > float(forest.threshold[at])]
        found.append(float(forest.odds[at]))
    return float(np.mean(found))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(1, 120), st.integers(1, 7), st.integers(0, 2**31))
def test_it_goes_where_a_plain_walk_goes(known: int, normal: int, trees: int, seed: int) -> None:
    forest = grown(known, normal, trees, seed)
    x = torch.cat([rows(20, seed=2), rows(5, seed=3, shift=1e6), rows(5, seed=4, shift=-1e6)]).double()
    expected = [walked(forest, row) for row in x.tolist()]
    torch.testing.assert_close(forest(x), torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)
    assert len(forest.roots) == trees


def test_leaves_are_log_odds_of_their_tree_and_trees_are_scikit_learns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Against the trees themselves: which rows share a leaf, and how many of each class are there."""
    made: list[Any] = []

    class Noted(forests.ExtraTreeClassifier):  # type: ignore[misc]
        def fit(self, X: Any, y: Any, sample_weight: Any) -> Any:
            made.append((self, X, y))
            return super().fit(X, y, sample_weight=sample_weight)

    monkeypatch.setattr(forests, "ExtraTreeClassifier", Noted)
    known, normal, trees = 6, 300, 5
    forest = grown(known, normal, trees)
    test = rows(50, seed=5)
    expected = np.zeros(len(test))
    for tree, X, y in made:
        ends, here = tree.apply(X), tree.apply(test.numpy())
        for i, leaf in enumerate(here):
            odd, usual = ((ends == leaf) & (y == 1)).sum(), ((ends == leaf) & (y == 0)).sum()
            expected[i] += np.log((odd / known + 1 / 64) / (usual / 64 + 1 / 64)) / trees
    np.testing.assert_allclose(forest(test.double()).numpy(), expected, rtol=1e-9)


def test_every_tree_sees_all_known_anomalies_and_few_normal_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Any, Any, Any]] = []
    real = forests._grown
    monkeypatch.setattr(forests, "_grown", lambda *given: seen.append(given[:3]) or real(*given))
    for known, expected in ((1, 64), (16, 64), (40, 160), (100, 300)):
        seen.clear()
        normal = rows(300)
        Forest.grow(normal, rows(known, seed=1, shift=9.0), 30, seed=0)
        drawn = []
        for sample, odd, weight in seen:
            assert (odd.sum(), len(odd)) == (known, known + expected)
            assert weight[odd == 1].sum() == pytest.approx(weight[odd == 0].sum())
            own = (torch.from_numpy(sample[odd == 0])[:, None] == normal[None]).all(2).nonzero()[:, 1]
            assert len(own.unique()) == expected  # each a row of its own
            drawn.append(frozenset(own.tolist()))
        assert len(set(drawn)) == (1 if expected == 300 else 30)


def test_without_known_anomalies_made_up_rows_teach_it(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Any, Any, Any]] = []
    real = forests._grown
    monkeypatch.setattr(forests, "_grown", lambda *given: seen.append(given[:3]) or real(*given))
    normal = rows(300) + torch.tensor([0.0, 10.0, -10.0, 0.0])
    forest = Forest.grow(normal, normal[:0], 50, seed=0)
    for sample, odd, weight in seen:
        assert (odd.sum(), len(odd)) == (64, 128)
        assert np.array_equal(weight, np.ones(128))
        made = torch.from_numpy(sample[odd == 1])
        assert (made >= normal.amin(0)).all()
        assert (made <= normal.amax(0)).all()
        taken = (made[:, None] == normal[None]).any(1)  # the number of another row, in its column
        assert 0.3 < taken.float().mean() < 0.7
        assert not (made[:, None] == normal[None]).all(2).any()  # but no row as it is
    assert len({sample.tobytes() for sample, _, _ in seen}) == 50
    strange = torch.cat([normal[:100].double(), normal[:100].double() * 3])
    assert roc_auc_score(np.repeat([0, 1], 100), forest(strange).numpy()) > 0.9


def test_the_seed_draws_it_and_nothing_else() -> None:
    torch.manual_seed(1)
    one = grown(seed=3)
    before = torch.random.get_rng_state()
    torch.manual_seed(2)
    other, different = grown(seed=3), grown(seed=4)
    x = rows(30, seed=2).double()
    assert torch.equal(one(x), other(x))
    assert not torch.equal(one(x), different(x))
    torch.manual_seed(1)
    grown(seed=3)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_joined_it_says_what_all_its_trees_say() -> None:
    parts = [grown(seed=i, trees=1 + i) for i in range(4)]
    x = rows(30, seed=2).double()
    expected = sum(len(one.roots) * one(x) for one in parts) / 10
    torch.testing.assert_close(Forest.joined(parts)(x), expected)


def test_a_row_is_scored_alike_alone_and_among_others() -> None:
    forest, x = grown(), rows(200, seed=2).double()
    assert torch.equal(torch.cat([forest(one[None]) for one in x]), forest(x))
    assert forest(x[:0]).shape == (0,)


def test_constant_columns_and_equal_rows_make_one_leaf() -> None:
    forest = Forest.grow(torch.ones(80, 3), torch.ones(2, 3), 5, seed=0)
    found = forest(rows(10, 3).double())
    torch.testing.assert_close(found, torch.zeros(10, dtype=torch.float64))


def test_it_tells_kinds_that_it_learned_from() -> None:
    forest = grown(known=12, trees=100)
    x = torch.cat([rows(500, seed=7), rows(100, seed=8, shift=2.0)]).double()
    assert roc_auc_score(np.repeat([0, 1], [500, 100]), forest(x).numpy()) > 0.97


def test_no_tree_is_deeper_than_the_walk_is_long() -> None:
    forest = Forest.grow(rows(3000, 2), rows(700, 2, seed=1), 3, seed=0)  # which nothing tells apart
    at = forest.roots.clone()
    for _ in range(DEPTH):
        at = torch.cat([forest.child[2 * at], forest.child[2 * at + 1]]).unique()
    assert torch.equal(forest.child[2 * at], at)


def stored(forest: Forest, **changes: Tensor) -> dict[str, Tensor]:
    return {**forest.state_dict(), **changes}


def test_it_is_a_state_dict() -> None:
    forest, x = grown(), rows(30, seed=2).double()
    with torch.device("meta"):
        other = Forest(4, len(forest.roots), len(forest.odds))
    other.load_state_dict(stored(forest), assign=True)
    assert torch.equal(other(x), forest(x))


@pytest.mark.parametrize(
    ("name", "value"), [("child", 10**9), ("child", -1), ("column", 4), ("column", -1), ("roots", 10**6)]
)
def test_a_stored_one_that_leads_astray_is_refused(name: str, value: int) -> None:
    forest = grown()
    wrong = getattr(forest, name).clone()
    wrong[-1] = value
    with pytest.raises(ValueError, match=r"a forest of [\d,]+ nodes on 4 columns points beyond them"):
        Forest(4, len(forest.roots), len(forest.odds)).load_state_dict(stored(forest, **{name: wrong}))

"""A network that tells hidden columns from the others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import anograd as ag
from anograd import GradScoreTest, Target, per_sample, plan
from anograd.masked import MaskedColumns, edges_of
from anograd.train import seeded


def rows_of(n: int, seed: int = 0) -> np.ndarray:
    """Columns that go together: a number, the same with noise, another, and whether that is positive."""
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, n))
    return np.stack([a, a + 0.1 * rng.normal(size=n), b, b > 0], axis=1)


def a_network(rows: torch.Tensor) -> MaskedColumns:
    edges = edges_of(rows)
    with seeded(0):
        net = MaskedColumns([len(one) + 1 for one in edges])
    net.start_at(rows, edges)
    return net.eval()


@given(
    arrays(np.float32, st.tuples(st.integers(1, 60), st.integers(1, 3)), elements=st.floats(-9, 9, width=32))
)
@settings(max_examples=60, deadline=None)
def test_every_value_lies_in_one_cell_of_its_column(values: np.ndarray) -> None:
    rows = torch.from_numpy(values)
    net = a_network(rows)
    inside = net._cells(torch.cat([rows, rows - 30, rows + 30]))
    counts = [int((net.column == i).sum()) for i in range(rows.shape[1])]
    for column in inside.split(counts, dim=1):
        assert (column.sum(1) == 1).all()
        seen, below, above = column.split(len(rows))
        assert not seen[:, [0, -1]].any()  # which are for what no row had
        assert below[:, 0].all()
        assert above[:, -1].all()
        assert seen[:, 1:-1].sum(0).all()  # no cell within is empty


def test_few_values_have_a_cell_each_and_many_are_cut_closer_towards_the_ends() -> None:
    few, many = edges_of(torch.stack([torch.arange(4000) % 3, torch.arange(4000)], 1).float())
    assert few.tolist()[:-1] == [0, 0.5, 1.5]
    assert len(many) == 25  # cells, but for the one below
    shares = np.diff(many.numpy()) / 4000
    assert shares[0] < 0.001
    assert shares[-1] < 0.001
    assert shares.max() == pytest.approx(0.1, rel=0.01)


def test_loss_is_the_cross_entropy_of_hidden_columns_told_from_the_others() -> None:
    rows = torch.from_numpy(rows_of(200)).double()
    net = a_network(rows.float()).double()
    x = rows[:5]
    expected, told, hidden = net(x)
    assert expected.shape == x.shape
    assert hidden[0].sum(0).tolist() == [2] * 4  # each column is asked for as often
    there = net._cells(x)
    losses = []
    for i in range(5):
        asked = []
        for q in range(6):
            shown = there[i] * (1 - net.hidden[q, net.column])
            h = net.first(torch.cat([shown, net.hidden[q]]))
            for block in net.blocks:
                h = h + block(h)
            logits = net.head(net.norm(h))
            for column in net.hidden[q].nonzero().flatten():
                own = net.column == column
                asked.append(F.cross_entropy(logits[own], there[i, own].argmax()))
        losses.append(torch.stack(asked).mean())
    torch.testing.assert_close(net.loss((expected, told, hidden), x), torch.stack(losses))


def test_a_hidden_column_is_not_seen() -> None:
    rows = torch.from_numpy(rows_of(200)).float()
    net = a_network(rows)
    x, other = rows[:9], rows[:9].clone()
    other[:, 1] = rows[100:109, 1]
    asked = net.hidden[:, 1] == 1
    both, hidden = (net(one)[1][:, asked] for one in (x, other)), net.hidden[asked].bool()
    of_x, of_other = both
    hidden[:, 1] = False  # what else was asked at the same time
    for question, others in enumerate(hidden):
        torch.testing.assert_close(of_x[:, question, others], of_other[:, question, others])


def test_training_draws_what_is_hidden() -> None:
    net = a_network(torch.from_numpy(rows_of(50)).float()).train()
    with seeded(0):
        hidden = net(torch.from_numpy(rows_of(4000)).float())[2]
    assert hidden.shape == (4000, 1, 4)
    assert hidden.sum(2).min() >= 1
    assert hidden.mean().item() == pytest.approx(0.5, abs=0.05)


def test_gradients_follow_rules_and_agree_with_autograd() -> None:
    rows = torch.from_numpy(rows_of(100))
    net = a_network(rows.float()).double()
    x = rows[:4].double()
    target = Target.adopt(net, loss=net.loss, layers=["head.bias", "first.weight"])
    assert [one.by for one in plan(target, x).served] == ["rule", "rule"]
    found = per_sample(target, x, ("full",)).full
    chosen = list(target.parameters().values())
    for row, one in zip(x.split(1), found, strict=True):
        gradients = torch.autograd.grad(net.loss(net(row), row)[0], chosen)
        torch.testing.assert_close(one, torch.cat([gradient.flatten() for gradient in gradients]))


def test_columns_that_do_not_go_together_are_noticed_and_what_was_expected_is_told(tmp_path: Path) -> None:
    """Every value is an ordinary one. Saved and loaded alike."""
    detector = GradScoreTest.for_tables(epochs=30, random_state=0, device="cpu").fit(rows_of(1000))
    new, other = rows_of(100, 1), rows_of(100, 1)
    other[:, 3] = 1 - other[:, 3]
    scores, broken = detector.anomaly_score(new), detector.anomaly_score(other)
    assert np.median(broken) > np.quantile(scores, 0.9)
    detector.save(tmp_path / "model")
    np.testing.assert_array_equal(ag.load(tmp_path / "model").anomaly_score(new), scores)
    explained = detector.explain(other[:20])
    assert explained.part_names == ("loss", "head.bias")
    assert (np.abs(explained.expected[:, 3] - new[:20, 3]) < 0.5).mean() > 0.8


def test_one_column_is_judged_by_itself() -> None:
    rng = np.random.default_rng(0)
    detector = GradScoreTest.for_tables(epochs=5, random_state=0, device="cpu").fit(rng.normal(size=(500, 1)))
    ordinary, far = detector.anomaly_score([[0.1], [9.0]])
    assert far > ordinary


def test_the_last_bias_is_read_where_no_layers_are_named() -> None:
    detector = GradScoreTest(target="masked", epochs=1, random_state=0).fit(rows_of(50))
    assert detector.target_.layers == ("head.bias",)


def test_images_are_refused() -> None:
    with pytest.raises(ValueError, match=r"target='masked' takes tables, but a row has shape \(1, 8, 8\)"):
        GradScoreTest(target="masked", epochs=1).fit(np.zeros((20, 1, 8, 8), dtype=np.float32))

"""Scoring goes on with fewer rows at once where memory runs out; a fit says which batch_size to write."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import anograd as ag
from anograd.batches import in_batches

ROWS = np.random.default_rng(0).normal(size=(100, 3))


def short(of: str) -> Exception:
    """Return what a device raises that has no memory left."""
    if of == "cpu":
        return RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory")
    return (
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        if of == "cuda"
        else MemoryError()
    )


def allows(most: int, function, of: str = "cuda"):
    def limited(*args):
        if len(args[-1]) > most:
            raise short(of)
        return function(*args)

    return limited


@pytest.mark.parametrize("of", ["cpu", "cuda", "numpy"])
@pytest.mark.parametrize("most", [1, 3, 7, 64, 1000])
def test_all_rows_come_out_once_and_in_order(of, most):
    seen: list[int] = []

    def double(rows):
        seen.append(len(rows))
        return 2 * rows

    x = torch.arange(100.0)
    found, size = in_batches(allows(most, double, of), x, 64)
    torch.testing.assert_close(found, 2 * x)
    assert size <= most
    assert sum(seen) == 100
    assert in_batches(double, x[:0], 64)[0].shape == (0,)


def test_what_is_no_want_of_memory_is_raised_and_one_row_must_fit():
    def broken(rows):
        raise RuntimeError("size mismatch")

    with pytest.raises(RuntimeError, match="size mismatch"):
        in_batches(broken, torch.zeros(4), 2)
    with pytest.raises(MemoryError, match=r"does not suffice for one row of shape \(5,\)"):
        in_batches(allows(0, torch.neg), torch.zeros(4, 5), 2)


@pytest.mark.parametrize("kind", [ag.GradCon, ag.GradNeighbours, ag.R2AD2])
def test_scores_are_the_same_with_less_memory(kind, monkeypatch):
    detector = kind(epochs=1, random_state=0).fit(ROWS)
    scores, twin = detector.anomaly_score(ROWS), detector.twin_score(ROWS)
    monkeypatch.setattr(kind, "_score_batch", allows(10, kind._score_batch))
    np.testing.assert_allclose(
        detector.anomaly_score(ROWS), scores, rtol=1e-5, atol=1e-7 * np.abs(scores).max()
    )
    np.testing.assert_array_equal(detector.twin_score(ROWS), twin)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (
            ag.GradCon,
            r"did not suffice for the fit \(batch_size=64\): write batch_size=32, or fit on fewer rows",
        ),
        (ag.GradDensity, r"\(batch_size=64\): write batch_size=32, or"),
        (ag.R2AD2, r"\(batch_size='auto'\): write batch_size=16, or"),
    ],
)
@pytest.mark.parametrize("of", ["cpu", "cuda"])
def test_a_fit_without_memory_names_the_batch_size(make, match, of, monkeypatch):
    def full(*_):
        raise short(of)

    monkeypatch.setattr(torch.autograd, "backward", full)
    with pytest.raises(MemoryError, match=match):
        make(epochs=1, random_state=0).fit(ROWS)


def test_a_fit_without_memory_names_the_checkpoint_that_a_smaller_batch_cannot_go_on_from(
    monkeypatch, tmp_path
):
    backward, steps = torch.autograd.backward, 0

    def full_later(*args):
        nonlocal steps
        steps += 1
        if steps > 5:
            raise short("cuda")
        backward(*args)

    monkeypatch.setattr(torch.autograd, "backward", full_later)
    path = tmp_path / "partial"
    with pytest.raises(MemoryError, match=r"write batch_size=32 and remove '.*partial', which was written"):
        ag.GradCon(epochs=20, random_state=0, checkpoint=path).fit(ROWS)
    assert path.exists()

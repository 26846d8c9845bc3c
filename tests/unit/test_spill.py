from __future__ import annotations

import errno
import gc
import tempfile
from collections import namedtuple

import numpy as np
import pytest
import torch

from anograd.spill import Rows


def filled(memory: int, n: int = 1000, shape: tuple[int, ...] = (3, 2)) -> tuple[Rows, torch.Tensor]:
    values = torch.randn(n, *shape, generator=torch.Generator().manual_seed(0))
    rows = Rows.allocate(n, shape, memory)
    for start in range(0, n, 77):
        rows.write(start, values[start : start + 77])
    return rows, values


@pytest.mark.parametrize("memory", [1, 24_000], ids=["in a file", "in RAM"])
def test_rows_come_back_in_any_order(memory):
    rows, values = filled(memory)
    assert rows.spilled == (memory == 1)
    assert len(rows) == 1000
    assert rows.shape == (3, 2)
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(1))
    assert torch.equal(rows.take(order), values[order])
    assert torch.equal(rows.take(torch.tensor([5, 5, 999])), values[[5, 5, 999]])
    assert torch.equal(rows.take(order[:0]), values[:0])
    for cut in (slice(None), slice(10, 20), slice(-3, None), slice(990, 2000), slice(7, 7), slice(9, 3)):
        assert torch.equal(rows.take(cut), values[cut])
    taken = rows.take(order[:2])
    taken.zero_()
    assert torch.equal(rows.take(order[:2]), values[order[:2]])


@pytest.mark.parametrize("memory", [1, 24_000], ids=["in a file", "in RAM"])
def test_blocks_of_any_kind_become_float32(memory):
    rows = Rows.allocate(4, (2,), memory)
    rows.write(2, torch.tensor([[1.5, 2.5], [3.5, 4.5]], dtype=torch.float64))
    rows.write(0, torch.arange(4).reshape(2, 2).T)
    rows.write(4, torch.empty(0, 2))
    assert rows.take(slice(None)).tolist() == [[0, 2], [1, 3], [1.5, 2.5], [3.5, 4.5]]
    assert rows.take(slice(None)).dtype == torch.float32


def test_a_tensor_is_wrapped_as_it_is():
    tokens = torch.arange(6).reshape(3, 2)
    rows = Rows.of(tokens)
    assert not rows.spilled
    assert len(rows) == 3
    assert rows.shape == (2,)
    assert rows.take(torch.tensor([2, 0])).tolist() == [[4, 5], [0, 1]]
    assert rows.take(slice(0, 1)).dtype == torch.int64


def test_the_file_has_no_name_and_is_closed_with_its_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    rows, _ = filled(1)
    file = rows._file
    assert list(tmp_path.iterdir()) == []
    del rows
    gc.collect()
    assert file.closed


def test_a_row_that_is_not_there():
    rows, _ = filled(1)
    with pytest.raises(IndexError, match="row 1000 is out of range: 1000 rows were allocated"):
        rows.take(torch.tensor([1000]))


def test_a_full_disk_is_an_error_that_says_what_to_do(monkeypatch):
    advice = "set the environment variable TMPDIR to a folder with more room, .* a larger memory="
    with monkeypatch.context() as patched:
        usage = namedtuple("usage", "free")
        patched.setattr("anograd.spill.shutil.disk_usage", lambda path: usage(1000))
        with pytest.raises(
            OSError, match=rf"1,000 of the 24,000 bytes wanted are free\): {advice}"
        ) as caught:
            Rows.allocate(1000, (3, 2), memory=1)
        assert caught.value.errno == errno.ENOSPC
        Rows.allocate(1000, (3, 2), memory=24_000)

    class Full:
        def seek(self, place: int) -> None:
            pass

        def write(self, block: memoryview) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    rows = Rows.allocate(1000, (3, 2), memory=1)
    monkeypatch.setattr(rows, "_file", Full())
    with pytest.raises(OSError, match=rf"No space left on device\): {advice}") as caught:
        rows.write(0, torch.zeros(1, 3, 2))
    assert caught.value.errno == errno.ENOSPC


def test_files_that_take_and_give_a_little_at_a_time():
    rows, values = filled(1)
    file = rows._file

    class Slow:
        seek = file.seek

        def write(self, block: memoryview) -> int:
            return file.write(block[:5])

        def readinto(self, block: memoryview) -> int:
            return file.readinto(block[:7])

    rows._file = Slow()
    rows.write(3, values[:4])
    np.testing.assert_array_equal(rows.take(slice(3, 7)), values[:4])
    rows._file = file

"""Files with a few bytes changed are read, or refused by a ValueError; benchmarks/fuzz.py has many more."""

from __future__ import annotations

import contextlib
import io
import warnings
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from anograd.bench import plan
from anograd.bench import results as lines
from anograd.files import read, scan
from anograd.lazy import collect, is_lazy


def written(write, *given: object, **more: object) -> bytes:
    stream = io.BytesIO()
    write(stream, *given, **more)
    return stream.getvalue()


FRAME = pl.DataFrame({"a": [1.0, 2.0], "b": ["x", None]})
PICTURE = Image.new("RGB", (8, 6), 90)
RUN = b'seeds = [0]\n[[run]]\nprotocol = "adbench"\ndata = ["breast_cancer"]\ndetectors = ["gradcon"]\n'
WHOLE = {
    "x.npy": written(np.save, np.arange(6.0).reshape(2, 3)),
    "x.npz": written(np.savez, np.ones(3)),
    "x.csv": b'a,b\n1,x\n2,"y"\n',
    "x.parquet": written(FRAME.write_parquet),
    "folder/x.png": written(PICTURE.save, format="PNG"),
    "folder/x.tif": written(PICTURE.save, format="TIFF"),
    "x.toml": RUN,
    "x.jsonl": b'{"data": "a", "protocol": "b", "options": {}, "detector": "c", "settings": {}, "seed": 0}\n',
}
CHANGES = st.lists(
    st.tuples(st.floats(0, 1), st.binary(max_size=4), st.integers(0, 8)), min_size=1, max_size=6
)


def changed(content: bytes, changes: list[tuple[float, bytes, int]]) -> bytes:
    """Put bytes in, each time in the place of a few others."""
    for share, new, gone in changes:
        at = int(share * len(content))
        content = content[:at] + new + content[at + gone :]
    return content


@pytest.mark.parametrize("name", WHOLE)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=CHANGES)
@example(changes=[(0.0, b"", 10**6)])
def test_whatever_is_changed(tmp_path: Path, name: str, changes: list[tuple[float, bytes, int]]) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(changed(WHOLE[name], changes))
    source = path.parent if path.parent.name == "folder" else path
    with contextlib.suppress(ValueError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if path.suffix == ".jsonl":
            lines.read(path)
        elif path.suffix == ".toml":
            plan.read(path)
        else:
            read(source)
            found = scan(source)
            if is_lazy(found):
                collect(found)


@pytest.mark.parametrize(
    "change",
    [
        "detectors = 3", 'detectors = {mine = "gradcon"}', "run = 5", "run = [5]", "seconds = []",
        "results = 4", "seeds = 3", "x = " + "[" * 5000, "entrants = 3",
    ],
)  # fmt: skip
def test_run_files_with_values_of_another_kind(tmp_path: Path, change: str) -> None:
    path = tmp_path / "x.toml"
    path.write_text(change if change.startswith("run") else change + "\n" + RUN.decode())
    with pytest.raises(ValueError, match=r"x\.toml"):
        plan.read(path)


def test_a_run_file_has_an_end(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    sweep = "".join(f"p{i} = {list(range(40))}\n" for i in range(10))
    path.write_text(
        f'[detectors.mine]\ndetector = "gradcon"\n[detectors.mine.sweep]\n{sweep}{RUN.decode()[12:]}'
    )
    with pytest.raises(
        ValueError, match=r"10,485,760,000,000,000 combinations of .*: write fewer, or several run files"
    ):
        plan.read(path)
    path.write_text(RUN.decode().replace("[0]", str(list(range(100_001)))))
    with pytest.raises(ValueError, match="more than 100,000 cells are asked for"):
        plan.read(path)

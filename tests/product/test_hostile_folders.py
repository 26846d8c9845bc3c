"""Folders made to harm: whoever made them can make checksums right, too. Nothing of them is loaded or run."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import resource
import shutil
import struct
import sys
import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import safetensors.torch
import skops.io
import torch
from tests.product.conftest import fails

import anograd as ag
from anograd import store

MOST = 256 * 2**20  # bytes that a refusal may take
HUGE = 10**9
OURS = '{"format": "anograd", "schema": '
VAE = {"kind": "vae", "channels": HUGE, "height": 9, "width": 9}


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("models")
    draw = np.random.default_rng(0)
    frame = pl.DataFrame({"a": draw.normal(size=60), "b": draw.choice(["x", "y"], 60)})
    ag.GradCon(epochs=1, random_state=0).fit(frame).save(place / "gradcon")
    ag.R2AD2(epochs=1, random_state=0).fit(frame, np.arange(60) >= 54).save(place / "r2ad2")
    ag.GradNeighbours(epochs=1, random_state=0).fit(frame).save(place / "gradneighbours")
    ag.GradCon(epochs=1, random_state=0).fit(draw.random((20, 1, 8, 8))).save(place / "images")
    ag.GradScoreTest(fisher="blocks", size=4, epochs=1, random_state=0).fit(frame).save(place / "blocks")
    ag.GradScoreTest.for_tables(epochs=1, random_state=0).fit(frame).save(place / "masked")
    return place


@pytest.fixture
def of(models, tmp_path):
    """Copy a model, for harm."""

    def copied(name: str) -> Path:
        return Path(shutil.copytree(models / name, tmp_path / name))

    return copied


def seal(folder: Path, change=lambda listing: None) -> None:
    """Make a folder's checksums right."""
    path = folder / "manifest.json"
    listing = json.loads(path.read_text())
    for name in listing["files"]:
        content = (folder / name).read_bytes()
        listing["files"][name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    change(listing)
    path.write_text(json.dumps(listing | {"sha256": store._own_digest(listing)}))


def refused(folder: Path, match: str) -> None:
    before = peak()
    with pytest.raises(ValueError, match=match):
        ag.load(folder)
    assert peak() - before < MOST


def set_at(*path, to):
    def change(listing):
        for step in path[:-1]:
            listing = listing[step]
        listing[path[-1]] = to

    return change


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("gradcon", set_at("detector", "fitted", "network", "hidden", to=[HUGE, HUGE])),
        ("gradcon", set_at("detector", "fitted", "network", "hidden", to=[4] * 1_000_000)),
        ("gradcon", set_at("detector", "fitted", "network", "features", to=HUGE)),
        ("gradcon", set_at("detector", "fitted", "network", to=VAE)),
        ("gradcon", set_at("detector", "fitted", "network", to={"kind": "adopted"})),
        ("gradcon", set_at("detector", "encoder", "shape", to=[HUGE])),
        ("images", set_at("detector", "encoder", "shape", to=[1, HUGE, HUGE])),
        ("images", set_at("detector", "fitted", "network", "height", to=HUGE)),
        ("images", set_at("detector", "fitted", "network", "channels", to=HUGE)),
        ("r2ad2", set_at("detector", "fitted", "shape", "checkpoints", to=HUGE)),
        ("r2ad2", set_at("detector", "fitted", "shape", "networks", to=HUGE)),
        ("r2ad2", set_at("detector", "fitted", "shape", "entries", to=HUGE)),
        ("r2ad2", set_at("detector", "fitted", "shape", "columns", to=HUGE)),
        ("r2ad2", set_at("detector", "fitted", "shape", "trees", to=HUGE)),
        ("r2ad2", set_at("detector", "fitted", "shape", "nodes", to=HUGE)),
        ("r2ad2", set_at("detector", "fitted", "shape", "nodes", to=0)),
        ("r2ad2", set_at("detector", "parameters", "widths", to=[HUGE, HUGE])),
        ("r2ad2", set_at("detector", "parameters", "widths", to=[4] * 1_000_000)),
        ("r2ad2", set_at("detector", "fitted", "sketch", to=[HUGE, 0])),
        ("gradneighbours", set_at("detector", "fitted", "columns", to=[HUGE, HUGE])),
        ("gradneighbours", set_at("detector", "fitted", "columns", to=[7] * 1_000_000)),
        ("gradneighbours", set_at("detector", "fitted", "sketch", to=[HUGE, 0])),
        ("masked", set_at("detector", "fitted", "network", "cells", to=[HUGE] * 3)),
        ("masked", set_at("detector", "fitted", "network", "cells", to=[HUGE, 9 - HUGE])),
        ("masked", set_at("detector", "fitted", "network", "cells", to=[0] * 1_000_000)),
        ("masked", set_at("detector", "fitted", "network", "cells", to=[])),
        ("masked", set_at("detector", "fitted", "network", "cells", to=["x", None])),
        ("blocks", set_at("detector", "fitted", "columns", to=[HUGE, HUGE])),
        ("blocks", set_at("detector", "fitted", "widths", to=[[HUGE], [HUGE]])),
        ("blocks", set_at("detector", "fitted", "widths", to=[[0] * 1_000_000] * 2)),
        ("blocks", set_at("detector", "fitted", "widths", to=[[HUGE, -HUGE + 1]] * 2)),
        ("blocks", set_at("detector", "fitted", "widths", to=["x", None])),
        ("blocks", set_at("detector", "fitted", "widths", to=[])),
        ("gradneighbours", set_at("detector", "fitted", to={})),
        ("gradneighbours", set_at("detector", "fitted", to=[[]])),
        ("gradneighbours", set_at("detector", "encoder", to=None)),
        ("gradneighbours", set_at("detector", "parameters", to={"epochs": 0})),
        ("gradneighbours", set_at("detector", "parameters", to={"missing": {}})),
        ("gradneighbours", set_at("detector", "golden", to={})),
        ("gradcon", set_at("detector", "detector", to="Detector")),
        ("gradcon", set_at("detector", "detector", to=[])),
        ("gradcon", set_at("detector", "detector", to="os.system")),
    ],
)  # fmt: skip
def test_claims_of_every_kind_are_refused(of, name, change):
    folder = of(name)
    seal(folder, change)
    refused(folder, r"damaged|holds a detector|was handed in")


def test_a_folder_cannot_name_a_file_that_saving_removes(of, tmp_path):
    folder, diary = of("gradcon"), tmp_path / "diary"
    diary.write_text("years of work")
    seal(folder, set_at("detector", "parameters", "checkpoint", to=str(diary)))
    refused(folder, "GradCon has no parameter checkpoint")
    assert diary.exists()


class Bomb:
    """What pickle would run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_pickles_are_not_run(of, tmp_path):
    mark = tmp_path / "it ran"
    for name in ("tensors.safetensors", "table.skops"):
        for content in (pickle.dumps(Bomb(mark)), _torch_file(Bomb(mark)), _skops_of_pickle(Bomb(mark))):
            folder = of("gradcon")
            (folder / name).write_bytes(content)
            seal(folder)
            refused(folder, f"damaged: {name}")
            shutil.rmtree(folder)
    assert not mark.exists()


def _torch_file(bomb: Bomb) -> bytes:
    stream = io.BytesIO()
    torch.save({"weights": bomb}, stream)
    return stream.getvalue()


def _skops_of_pickle(bomb: Bomb) -> bytes:
    """A skops file in which an array holds a pickle."""
    stream = io.BytesIO()
    np.save(stream, np.array([bomb], dtype=object), allow_pickle=True)
    whole = skops.io.dumps({"state": np.zeros(3)})
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(packed, "w") as new:
        for member in old.namelist():
            new.writestr(member, stream.getvalue() if member.endswith(".npy") else old.read(member))
    return packed.getvalue()


@pytest.mark.parametrize(
    "module", ["os.system", "builtins.eval", "builtins.exec", "subprocess.Popen", "shutil.rmtree"]
)
@pytest.mark.parametrize(
    "loader", ["FunctionNode", "TypeNode", "ObjectNode", "ReduceNode", "MethodNode", "DictNode"]
)
def test_skops_files_that_name_code_are_refused(of, module, loader):
    folder = of("gradcon")
    owner, _, name = module.rpartition(".")
    node = {"__class__": name, "__module__": owner, "__loader__": loader, "content": "touch x", "__id__": 1}
    root = {
        "__class__": "dict",
        "__module__": "builtins",
        "__loader__": "DictNode",
        "content": {"state": node},
    }
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("schema.json", json.dumps({**root, "protocol": 2, "key_types": node}))
    (folder / "table.skops").write_bytes(stream.getvalue())
    seal(folder)
    refused(
        folder, rf"table.skops: it holds types that a table has no use for: {owner}.{name}; it was not loaded"
    )


def test_skops_bombs_stay_packed(of):
    folder = of("gradcon")
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(3):
            archive.writestr("schema.json" if not i else f"{i}.npy", bytes(100_000_000))
    (folder / "table.skops").write_bytes(stream.getvalue())
    seal(folder)
    refused(folder, r"table.skops: .*unpack to 300,000,000")


def test_arrays_that_claim_more_than_there_is_are_refused(of):
    folder = of("gradcon")
    table = zipfile.ZipFile(folder / "table.skops")
    stream, header = io.BytesIO(), io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (10**11,)})
    with zipfile.ZipFile(stream, "w") as archive:
        for name in table.namelist():
            archive.writestr(name, header.getvalue() if name.endswith(".npy") else table.read(name))
    (folder / "table.skops").write_bytes(stream.getvalue())
    seal(folder)
    refused(folder, "damaged: table.skops")


def safetensors_file(header: object) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text


@pytest.mark.parametrize(
    "content",
    [
        safetensors_file(
            {"w": {"dtype": "F32", "shape": [HUGE, HUGE], "data_offsets": [0, 4 * HUGE * HUGE]}}
        ),
        safetensors_file({"w": {"dtype": "F32", "shape": [HUGE], "data_offsets": [0, 4]}}),
        safetensors_file({"w": {"dtype": "F32", "shape": [0, HUGE], "data_offsets": [0, 0]}}),
        safetensors_file({"w": {"dtype": "NOVEL", "shape": [1], "data_offsets": [0, 4]}}),
        safetensors_file(b"[" * 100_000),
        struct.pack("<Q", 2**63),
        struct.pack("<Q", 90_000_000),
        b"",
    ],
    ids=range(8),
)
def test_tensors_that_claim_more_than_there_is_are_refused(of, content):
    folder = of("gradcon")
    (folder / "tensors.safetensors").write_bytes(content)
    seal(folder)
    refused(folder, "damaged")


@pytest.mark.parametrize(
    "text",
    [
        "[" * 10**6, OURS + "[" * 10**6, OURS + "1" * 10**6 + "}", OURS + "1}", OURS + "NaN}", "1" * 10**6,
        "NaN", "{}" * 10,
    ],
    ids=range(8),
)  # fmt: skip
def test_manifests_that_break_readers_are_refused(of, text):
    folder = of("gradcon")
    (folder / "manifest.json").write_text(text)
    refused(folder, r"damaged: manifest.json|newer anograd|not a model folder")
    fails("info", folder)


def test_a_manifest_without_an_end_is_not_read(of):
    folder = of("gradcon")
    with (folder / "manifest.json").open("r+b") as file:
        file.truncate(2**40)  # of holes: it takes no room
    refused(folder, r"damaged: manifest.json has 1,099,511,627,776 bytes")


def test_files_are_looked_at_before_they_are_read(of):
    folder = of("gradcon")
    with (folder / "tensors.safetensors").open("r+b") as file:
        file.truncate(2**40)
    refused(folder, r"damaged: tensors.safetensors has 1099511627776 bytes and should have")


@pytest.mark.parametrize("name", ["manifest.json", "tensors.safetensors", "table.skops"])
def test_links_out_of_the_folder_are_not_followed(of, tmp_path, name):
    folder = of("gradcon")
    (folder / name).rename(tmp_path / "elsewhere")
    (folder / name).symlink_to(tmp_path / "elsewhere")
    refused(folder, f"damaged: {name} is a link out of the folder")
    (folder / name).unlink()
    (folder / name).symlink_to("/dev/zero")
    refused(folder, "damaged|not a model folder")


@pytest.mark.parametrize("name", ["../elsewhere", "/etc/passwd", "manifest.json", "a/../../b", "code.py", ""])
def test_manifests_list_the_files_of_a_model_and_no_others(of, name):
    folder = of("gradcon")

    def change(listing):
        listing["files"][name] = {"sha256": "0", "bytes": 1}

    seal(folder, change)
    refused(folder, r"damaged: manifest.json lists .* which is no file of a model")


def test_tensors_under_other_names_set_nothing(of):
    folder = of("gradneighbours")
    path = folder / "tensors.safetensors"
    tensors = safetensors.torch.load_file(path)
    for name in ("score/forward", "score/standard.forward", "score/_modules", "weights/forward"):
        path.write_bytes(safetensors.torch.save({**tensors, name: torch.zeros(1)}))
        seal(folder)
        refused(folder, "damaged")


def test_info_and_score_say_it_in_one_line(of):
    folder = of("gradcon")
    seal(folder, set_at("detector", "fitted", to={}))
    assert "damaged" in fails("info", folder)
    seal(folder, set_at("detector", "parameters", to=3))
    assert "damaged" in fails("info", folder)

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from anograd import store, whole
from anograd.table import Table

MANIFEST = {"detector": "GradCon", "alpha": 0.1, "layers": ["a", "b"], "none": None}
FRAME = pd.DataFrame({"a": [0.0, 1.0], "b": ["x", "y"]})


def tensors():
    weight = torch.arange(6.0).reshape(2, 3)
    # A transpose and a shared storage: both need care before safetensors takes them.
    return {"w": weight.requires_grad_(), "t": weight.t(), "i": torch.tensor([1, 2]), "s": torch.tensor(0.5)}


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    store.write(folder, MANIFEST, tensors(), Table().fit(FRAME))
    return folder


def edit(folder, **changes):
    """Change what a manifest says, as someone would who can make its checksum right."""
    path = folder / "manifest.json"
    listing = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps(listing | {"sha256": store._own_digest(listing)}))


def assert_holds(folder, manifest):
    assert store.read(folder).manifest == manifest
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]  # nothing is left beside it


def test_what_is_written_is_read(model):
    stored = store.read(model)
    assert stored.manifest == MANIFEST
    assert stored.tensors.keys() == tensors().keys()
    for name, tensor in tensors().items():
        torch.testing.assert_close(stored.tensors[name], tensor.detach(), rtol=0, atol=0)
    np.testing.assert_array_equal(stored.table.transform(FRAME), Table().fit(FRAME).transform(FRAME))
    assert sorted(os.listdir(model)) == ["manifest.json", "table.skops", "tensors.safetensors"]
    assert_holds(model, MANIFEST)


def test_without_table_and_without_tensors(tmp_path):
    store.write(str(tmp_path / "deep" / "model"), {}, {}, None)
    assert store.read(tmp_path / "deep" / "model") == store.Stored({}, {}, None)


def test_a_new_process_reads_equal_tensors(model):
    code = (
        "import sys; from anograd import store; s = store.read(sys.argv[1]); "
        "print(s.tensors['t'].tolist(), s.manifest['alpha'], s.table.names_out)"
    )
    source = str(Path(store.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", code, str(model)],
        env={**os.environ, "PYTHONPATH": source},
        capture_output=True,
        text=True,
        check=True,
    )
    expected = [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]], 0.1, ["a", "b=x", "b=y", "b (unseen or missing)"]
    assert done.stdout.split("\n")[0] == " ".join(map(str, expected))


def test_a_model_is_replaced_whole(model):
    store.write(model, {"new": 1}, {}, None)
    assert sorted(os.listdir(model)) == ["manifest.json", "tensors.safetensors"]
    assert_holds(model, {"new": 1})


def test_an_empty_folder_is_used(tmp_path):
    (tmp_path / "model").mkdir()
    store.write(tmp_path / "model", MANIFEST, {}, None)
    assert_holds(tmp_path / "model", MANIFEST)


@pytest.mark.parametrize("content", ["{}", '{"format": "other"}', "no json", None])
def test_foreign_folders_are_left_alone(tmp_path, content):
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "chapter.tex").write_text("years of work")
    if content is not None:
        (folder / "manifest.json").write_text(content)
    with pytest.raises(ValueError, match=r"something other than a model \(chapter.tex"):
        store.write(folder, MANIFEST, {}, None)
    assert (folder / "chapter.tex").read_text() == "years of work"
    assert os.listdir(tmp_path) == ["thesis"]
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"is a file"):
        store.write(tmp_path / "file", MANIFEST, {}, None)


def full(*_args, **_kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("place", "name"),
    [(Path, "write_bytes"), (Path, "write_text"), (os, "fsync"), (Path, "rename"), (Path, "mkdir")],
)
@pytest.mark.parametrize("earlier", [True, False])
def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch, place, name, earlier):
    folder = tmp_path / "model"
    if earlier:
        store.write(folder, MANIFEST, tensors(), None)
    with monkeypatch.context() as patch:
        patch.setattr(place, name, full)
        patch.setattr(whole, "_exchanged", lambda one, other: False)
        with pytest.raises(OSError, match=r"not saved in .*model.*No space left") as caught:
            store.write(folder, {"new": 1}, tensors(), Table().fit(FRAME))
    assert caught.value.errno == errno.ENOSPC
    if earlier:
        assert_holds(folder, MANIFEST)
    else:
        assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("error", [OSError(errno.EIO, "broken"), KeyboardInterrupt()])
def test_the_earlier_model_comes_back_when_the_swap_fails(model, monkeypatch, error):
    rename = Path.rename

    def failing(self, target):
        if Path(target) == model and not self.name.endswith(".old"):
            raise error
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(whole, "_exchanged", lambda one, other: False)
        patch.setattr(Path, "rename", failing)
        with pytest.raises(type(error)):
            store.write(model, {"new": 1}, {}, None)
    assert_holds(model, MANIFEST)


def test_manifests_are_plain_json(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        store.write(tmp_path / "model", {"x": float("nan")}, {}, None)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["tensors.safetensors", "table.skops"])
def test_damaged_files_are_named(model, name):
    path = model / name
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(ValueError, match=rf"model' is damaged: {name} has \d+ bytes and should have"):
        store.read(model)
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ValueError, match=f"is damaged: the checksum of {name} differs"):
        store.read(model)
    path.unlink()
    with pytest.raises(ValueError, match=f"is damaged: {name} is missing"):
        store.read(model)


def test_damaged_manifests_are_named(model):
    path = model / "manifest.json"
    content = path.read_text()
    path.write_text(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"damaged: manifest.json cannot be read"):
        store.read(model)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"damaged: manifest.json cannot be read"):
        store.read(model)
    path.write_text(content.replace('"alpha": 0.1', '"alpha": 0.7'))
    with pytest.raises(ValueError, match=r"damaged: the checksum of manifest.json differs"):
        store.read(model)
    path.write_text(content.replace('"version": "', '"version": "9'))
    with pytest.raises(ValueError, match=r"damaged: the checksum of manifest.json differs"):
        store.read(model)


def test_tensors_that_do_not_parse_are_named(model):
    path = model / "tensors.safetensors"
    path.write_bytes(b"junk")
    files = json.loads((model / "manifest.json").read_text())["files"]
    edit(model, files={**files, path.name: {"sha256": store._digest(b"junk"), "bytes": 4}})
    with pytest.raises(ValueError, match=r"damaged: tensors.safetensors:"):
        store.read(model)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 2, "version": "9.9"}, r"newer anograd \(9.9, schema 2; .*pip install -U anograd"),
        ({"schema": 0}, "lacks a schema"),
        ({"schema": "1"}, "lacks a schema"),
        ({"files": []}, "lacks a schema, its files"),
        ({"detector": None}, "or its detector"),
        ({"files": {}}, "does not list tensors.safetensors"),
        (
            {"files": {"../model/table.skops": {}}},
            r"lists '../model/table.skops', which is no file of a model",
        ),
        ({"files": {"..\\secret": {}}}, "which is no file of a model"),
        ({"files": {"/etc/hostname": {}}}, "which is no file of a model"),
        ({"files": {"tensors.safetensors": 3}}, "should have None"),
        ({"format": "other"}, "is not a model folder of anograd"),
    ],
)
def test_wrong_manifests_are_refused(model, changes, message):
    edit(model, **changes)
    with pytest.raises(ValueError, match=message):
        store.read(model)


def test_no_folder_and_no_model(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder '.*nowhere'"):
        store.read(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"is not a model folder of anograd: it has no manifest.json"):
        store.read(tmp_path)

import json
import sys
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from PIL import Image

from anograd import data
from anograd.files import parquet_files


def picture(path, size=(6, 5), mode="RGB", value=7):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((size[1], size[0], 3) if mode == "RGB" else (size[1], size[0]), value, dtype=np.uint8)
    Image.fromarray(pixels, mode=None).save(path)


# --- files ---


def test_reads_numpy_files(tmp_path):
    array = np.arange(6.0).reshape(2, 3)
    np.save(tmp_path / "x.npy", array)
    np.savez(tmp_path / "one.npz", only=array)
    np.savez_compressed(tmp_path / "two.npz", a=array, b=array + 1)
    np.testing.assert_array_equal(data.read(tmp_path / "x.npy"), array)
    np.testing.assert_array_equal(data.read(f"{tmp_path}/one.npz"), array)
    np.testing.assert_array_equal(data.read(f"{tmp_path}/two.npz:b"), array + 1)
    assert data.names(tmp_path / "x.npy") is None
    with pytest.raises(ValueError, match=r"several arrays.*\['a', 'b'\].*two.npz:key"):
        data.read(f"{tmp_path}/two.npz")
    with pytest.raises(ValueError, match=r"no array 'c'.*\['a', 'b'\]"):
        data.read(f"{tmp_path}/two.npz:c")


def test_reads_tables(tmp_path):
    frame = pl.DataFrame({"a": [1] * 200 + [2.5], 'b, 3.5" ""': ["x"] * 201}, strict=False)
    frame.write_csv(tmp_path / "x.csv")
    frame.write_parquet(tmp_path / "x.parquet")
    (tmp_path / "late.csv").write_text("a\n" + "1\n" * 500 + "1.5\n")
    assert data.read(tmp_path / "x.csv").equals(frame)
    assert data.read(tmp_path / "x.parquet").equals(frame)
    assert data.read(tmp_path / "late.csv")["a"].dtype == pl.Float64


def test_reads_a_folder_of_images_in_the_order_of_their_names(tmp_path):
    for i, name in enumerate(["b/2.png", "a.PNG", "b/10.bmp", ".hidden/x.png"]):
        picture(tmp_path / name, value=i)
    (tmp_path / "notes.txt").write_text("not an image")
    images = data.read(tmp_path)
    assert data.names(tmp_path) == ["a.PNG", "b/10.bmp", "b/2.png"]
    assert images.shape == (3, 3, 5, 6)
    assert images.dtype == np.uint8
    assert images[:, 0, 0, 0].tolist() == [1, 2, 0]


def test_reads_grey_images_and_drops_alpha(tmp_path):
    picture(tmp_path / "grey" / "x.png", mode="L")
    assert data.read(tmp_path / "grey").shape == (1, 1, 5, 6)
    (tmp_path / "alpha").mkdir()
    Image.new("RGBA", (6, 5)).save(tmp_path / "alpha" / "x.png")
    assert data.read(tmp_path / "alpha").shape == (1, 3, 5, 6)


def test_images_of_unlike_size_or_mode_are_named(tmp_path):
    picture(tmp_path / "size" / "a.png")
    picture(tmp_path / "size" / "b.png", size=(7, 5))
    with pytest.raises(ValueError, match=r"'b.png' .*\(3, 5, 7\), but 'a.png' of \(3, 5, 6\); one size"):
        data.read(tmp_path / "size")
    picture(tmp_path / "mode" / "a.png")
    picture(tmp_path / "mode" / "b.png", mode="L")
    with pytest.raises(ValueError, match=r"'b.png' .*\(1, 5, 6\), but 'a.png' of \(3, 5, 6\)"):
        data.read(tmp_path / "mode")


def test_deep_images_are_refused_rather_than_clipped(tmp_path):
    Image.fromarray(np.full((5, 6), 40_000, dtype=np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(ValueError, match=r"deep.png' has more than 8 bits a pixel"):
        data.read(tmp_path)


def test_linked_folders_are_read_once(tmp_path):
    root, elsewhere = tmp_path / "all", tmp_path / "elsewhere"
    picture(root / "a" / "1.png", value=1)
    picture(elsewhere / "2.png", value=2)
    pl.DataFrame({"x": [1]}).write_parquet(elsewhere / "x.parquet")
    (root / "b").symlink_to(elsewhere)
    (root / "latest").symlink_to(root / "a")  # is read anyway
    (root / "c").mkdir()
    (root / "c" / "up").symlink_to(root)
    (elsewhere / "round").symlink_to(root)
    assert parquet_files(root) == [root / "b" / "x.parquet"]
    assert data.names(root) is None
    (elsewhere / "x.parquet").unlink()
    assert data.names(root) == ["a/1.png", "b/2.png"]
    assert data.read(root)[:, 0, 0, 0].tolist() == [1, 2]


def test_a_stack_of_pictures_in_one_file_is_refused(tmp_path):
    pages = [Image.fromarray(np.full((5, 6), value, dtype=np.uint8)) for value in (1, 2, 3)]
    pages[0].save(tmp_path / "one.tif")
    assert data.read(tmp_path).shape == (1, 1, 5, 6)
    pages[0].save(tmp_path / "stack.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(ValueError, match=r"stack.tif' holds 3 pictures, and only the first would be seen"):
        data.read(tmp_path)


def test_missing_and_unknown_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file or folder '.*x.npy'"):
        data.read(tmp_path / "x.npy")
    (tmp_path / "x.xlsx").write_text("")
    with pytest.raises(ValueError, match=r"ends in '.xlsx'.*x.npy, x.npz:key, x.csv, x.parquet"):
        data.read(tmp_path / "x.xlsx")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"holds no image; wanted are files in \.png"):
        data.read(tmp_path / "empty")


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.parquet", "f/x.png", "f/x.jpg", "f/x.tif"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.9])
def test_truncated_files_are_named(tmp_path, name, share):
    path = tmp_path / name
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    if path.parent != tmp_path:
        path.parent.mkdir()
        Image.fromarray(noise).save(path)
    elif path.suffix == ".parquet":
        pl.DataFrame({"a": noise.ravel()}).write_parquet(path)
    else:
        (np.save if path.suffix == ".npy" else np.savez)(path, noise)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    source = path if path.parent == tmp_path else path.parent
    with pytest.raises(ValueError, match=r"x\.\w+' could not be read") as caught:
        data.read(source)
    assert "\n" not in str(caught.value)


def test_damaged_csv_is_named(tmp_path):
    (tmp_path / "x.csv").write_text("a,b\n1,2\n3,4,5\n")
    with pytest.raises(ValueError, match=r"x.csv' could not be read"):
        data.read(tmp_path / "x.csv")
    (tmp_path / "y.csv").write_text("")
    with pytest.raises(ValueError, match=r"y.csv' could not be read"):
        data.read(tmp_path / "y.csv")


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
def test_pickled_objects_are_refused(tmp_path, name):
    (np.save if name == "x.npy" else np.savez)(tmp_path / name, np.array([{}, None], dtype=object))
    with pytest.raises(ValueError, match=r"holds Python objects \(a pickle\).*np.save"):
        data.read(tmp_path / name)


def test_missing_extras_name_the_line_to_install(tmp_path, monkeypatch):
    (tmp_path / "x.csv").write_text("a\n1\n")
    picture(tmp_path / "f" / "x.png")
    monkeypatch.setitem(sys.modules, "polars", None)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(ImportError, match=r"polars: pip install 'anograd\[tables\]'"):
        data.read(tmp_path / "x.csv")
    with pytest.raises(ImportError, match=r"pillow: pip install 'anograd\[images\]'"):
        data.read(tmp_path / "f")


# --- arrays ---


class Rows(torch.utils.data.Dataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        return iter([torch.zeros(2)])


def test_frames_are_known_without_an_import():
    class Mine(pd.DataFrame):
        pass

    frames = [pd.DataFrame({"a": [1]}), pl.DataFrame({"a": [1]}), pa.table({"a": [1]}), Mine({"a": [1]})]
    assert [data.frame_library(frame) for frame in frames] == ["pandas", "polars", "pyarrow", "pandas"]
    assert all(data.to_array(frame) is frame for frame in frames)
    assert not any(map(data.is_frame, [np.zeros(2), [[1]], pd.Series([1]), None]))


def test_tensors_become_arrays():
    assert data.to_array(torch.ones(2, requires_grad=True)).dtype == np.float32
    assert data.to_array(torch.ones(2, dtype=torch.bfloat16)).dtype == np.float32
    array = np.zeros(2)
    assert data.to_array(array) is array


def test_datasets_are_stacked():
    expected = np.arange(6, dtype=np.float32).reshape(3, 2)
    rows = torch.from_numpy(expected)
    np.testing.assert_array_equal(data.to_array(torch.utils.data.TensorDataset(rows)), expected)
    np.testing.assert_array_equal(data.to_array(Rows([(row, 1) for row in rows])), expected)
    np.testing.assert_array_equal(data.to_array(Rows(list(expected))), expected)


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (Rows([torch.zeros(2), torch.zeros(3)]), r"item 1 of Rows has shape \(3,\).*item 0 has \(2,\)"),
        (Rows([torch.zeros(2), torch.zeros(2).long()]), "item 1 of Rows has shape .* int64"),
        (Rows(["text"]), "item 0 of Rows is of type str"),
        (Rows([]), "Rows is empty"),
        (Stream(), r"Stream has no length.*torch.stack\(list\(dataset\)\)"),
        (
            torch.utils.data.DataLoader(Rows([torch.zeros(2)])),
            r"a DataLoader; a Dataset is wanted.*X\.dataset",
        ),
    ],
)
def test_unusable_datasets(dataset, message):
    with pytest.raises(ValueError, match=message):
        data.to_array(dataset)


@pytest.mark.parametrize(
    "y",
    [
        [0, 1, 0],
        [1, -1, 1],
        np.array([0.0, 1.0, 0.0]),
        np.array([False, True, False]),
        torch.tensor([1, -1, 1]),
        pd.Series([0, 1, 0], index=[5, 6, 7]),
        pd.Series([0, 1, 0], dtype="Int64"),
        pl.Series([1, -1, 1]),
        pa.array([0, 1, 0]),
    ],
)
def test_labels_in_every_code(y):
    marked = data.labels(y, 3)
    assert marked.dtype == bool
    assert marked.tolist() == [False, True, False]


def test_no_labels():
    assert data.labels(None, 2).tolist() == [False, False]
    assert data.labels([0, 0], 2).tolist() == [False, False]


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([0, 1], r"y has shape \(2,\), but X has 3 rows"),
        ([[0], [1], [0]], r"shape \(3, 1\)"),
        (
            ["ok", "bad", "ok"],
            r"values 'bad', 'ok'; wanted is 0/1 .* \+1/-1 .*: y = \(y == anomalous_value\)",
        ),
        ([0.0, np.nan, 1.0], "y holds NaN at row 1"),
        (pd.Series([0, 1, None], dtype="Int64"), "y holds NaN at row 2"),
        ([1, 1, 1], r"read as 0/1 where 1 marks a known anomaly, and it marks all 3 rows.*fit\(X\)"),
        ([-1, -1, -1], r"read as \+1/-1 where -1 marks a known anomaly"),
    ],
)
def test_bad_labels(y, message):
    with pytest.raises(ValueError, match=message):
        data.labels(y, 3)


@pytest.mark.parametrize(
    ("y", "values"), [([0, 1, 2], "0, 1, 2"), ([-1, 0, 1], "-1, 0, 1"), ([0.5] * 3, "0.5")]
)
def test_other_numbers_are_ignored_with_a_warning(y, values):
    with pytest.warns(UserWarning, match=f"y holds the values {values}; wanted is 0/1 .* y is ignored"):
        assert not data.labels(y, 3).any()


# --- images ---


@pytest.mark.parametrize(
    ("images", "low", "high"),
    [
        (np.array([0, 128, 200], dtype=np.uint8), 0, 255),
        (np.array([0, 60_000], dtype=np.uint16), 0, 65535),
        (np.array([0, 200], dtype=np.int64), 0, 255),
        (np.array([0, 1000], dtype=np.int32), 0, 65535),
        (np.array([-5, 5], dtype=np.int8), -5, 5),
        (np.array([False, True]), 0, 1),
        (np.array([0.2, 0.7]), 0, 1),
        (np.array([-2.0, 6.0], dtype=np.float32), -2, 6),
        (np.array([0.0, 255.0]), 0, 255),
        (np.array([2e-9, 1e-8]), 2e-9, 1e-8),
        (np.array([0.0, 1e-300]), 0, 1e-300),
        (np.array([10**9, 10**9 + 3, 10**9 + 100]), 10**9, 10**9 + 100),
    ],
)
def test_pixels_are_scaled_by_family(images, low, high):
    pixels = data.Pixels.fit(images)
    assert (pixels.low, pixels.high) == (low, high)
    scaled = pixels.transform(images)
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled, (images.astype(float) - low) / (high - low), rtol=1e-6)
    assert data.Pixels.from_state(json.loads(json.dumps(pixels.to_state()))) == pixels


def test_unit_floats_stay_and_nothing_is_clipped():
    unit = np.random.default_rng(0).random(100, dtype=np.float32)
    np.testing.assert_array_equal(data.Pixels.fit(unit).transform(unit), unit)
    np.testing.assert_array_equal(data.Pixels(False, -2.0, 2.0).transform(np.array([-6.0, 6.0])), [-1, 2])


@pytest.mark.parametrize("value", [0.0, 7.0, -3.0, 1e20])
def test_constant_images_do_not_divide_by_zero(value):
    images = np.full((2, 1, 3, 3), value)
    scaled = data.Pixels.fit(images).transform(images)
    np.testing.assert_array_equal(scaled, np.zeros_like(scaled))


def test_another_number_family_is_refused():
    integers, floats = np.array([0, 255], dtype=np.uint8), np.array([0.0, 1.0])
    with pytest.raises(
        ValueError, match=r"float64 but .* fitted on integers .* 0 to 255; .*astype\('uint8'\)"
    ):
        data.Pixels.fit(integers).transform(floats)
    with pytest.raises(
        ValueError, match=r"uint8 but .* fitted on floats .* 0 to 1; .*astype\('float32'\) / 255"
    ):
        data.Pixels.fit(floats).transform(integers)


@pytest.mark.parametrize(
    ("fitted", "given"),
    [
        (np.array([0, 65535], dtype=np.uint16), np.array([0.0, 1.0])),
        (np.array([0, 255], dtype=np.uint8), np.array([0.0, 1.0])),
        (np.array([0.0, 1.0]), np.array([0, 65535], dtype=np.uint16)),
        (np.array([0.0, 1.0]), np.array([0, 255], dtype=np.uint8)),
        (np.array([0.0, 240.0]), np.array([0, 240], dtype=np.uint8)),
    ],
)
def test_the_line_that_is_given_makes_the_same_family(fitted, given):
    pixels = data.Pixels.fit(fitted)
    with pytest.raises(ValueError, match="give the same family: X = ") as caught:
        pixels.transform(given)
    line = str(caught.value).partition("X = ")[2]
    np.testing.assert_array_equal(pixels.transform(eval(line, {"X": given})), [0, 1])


def test_another_number_of_bits_a_pixel_is_refused():
    bytes_, words = np.array([0, 128, 255], dtype=np.uint8), np.array([0, 32896, 65535], dtype=np.uint16)
    for fitted, given in ((bytes_, words), (words, bytes_)):
        pixels = data.Pixels.fit(fitted)
        with pytest.raises(
            ValueError, match=f"are {given.dtype} but .* 0 to .* as many bits a pixel"
        ) as told:
            pixels.transform(given)
        turned = eval(str(told.value).rpartition("X = ")[2], {"X": given})
        np.testing.assert_array_equal(pixels.transform(turned), pixels.transform(fitted))
    np.testing.assert_array_equal(
        data.Pixels.fit(bytes_).transform(bytes_.astype("uint16")), data.Pixels.fit(bytes_).transform(bytes_)
    )


def test_images_are_taken_in_three_shapes():
    assert data.check_images(np.zeros((2, 8, 9))).shape == (2, 1, 8, 9)
    assert data.check_images(torch.zeros(2, 3, 8, 9)).shape == (2, 3, 8, 9)
    assert data.check_images(np.zeros((2, 1, 8, 9, 7))).shape == (2, 1, 8, 9, 7)
    assert data.check_images(np.zeros((2, 64, 4, 4))).shape == (2, 64, 4, 4)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.zeros((2, 8, 9, 3)), r"channels last.*X = X.transpose\(0, 3, 1, 2\)"),
        (np.zeros((2, 8, 9, 7, 1)), r"X = X.transpose\(0, 4, 1, 2, 3\)"),
        (np.zeros((0, 3, 8, 8)), "holds no pixel; at least one image"),
        (np.zeros((8, 8)), r"\(8, 8\), images of shape .* are wanted; tables go to"),
        (np.array(["a"]), "images are numbers"),
        ([np.zeros((3, 4, 4)), np.zeros((3, 5, 5))], "differ in shape"),
        (np.full((1, 1, 5, 5), np.nan), "holds NaN at row 0, channel 0"),
    ],
)
def test_unusable_images(X, message):
    with pytest.raises(ValueError, match=message):
        data.check_images(X)


def test_yes_and_no_beside_bytes_are_refused():
    bytes_ = np.random.default_rng(0).integers(0, 256, (4, 1, 6, 6)).astype(np.uint8)
    with pytest.raises(ValueError, match=r"are bool but .* run from 0 to 255; .* X.astype\('uint8'\) \* 255"):
        data.Pixels.fit(bytes_).transform(bytes_ > 99)
    masks = data.Pixels.fit(bytes_ > 99)
    with pytest.raises(ValueError, match=r"are uint8 but .* run from 0 to 1; give them so: X = X > 127"):
        masks.transform(bytes_)
    np.testing.assert_array_equal(masks.transform((bytes_ > 99).astype(np.uint8)), bytes_ > 99)


@pytest.mark.parametrize(("fitted", "given"), [(255, 1), (1, 255), (255, 0.5)])
def test_floats_on_another_scale_are_told(fitted, given):
    unit = np.random.default_rng(0).random((4, 1, 6, 6))
    pixels = data.Pixels.fit(fitted * unit)
    with pytest.warns(UserWarning, match="on another scale all images score alike"):
        pixels.transform(given * unit)
    pixels.transform(fitted * unit[:1])
    pixels.transform(np.zeros((1, 1, 6, 6)))  # a dark picture


def test_pixels_from_zero_beside_those_from_minus_one_are_told():
    pixels = data.Pixels.fit(np.linspace(-1, 1, 50))
    with pytest.warns(UserWarning, match="on another scale all images score alike"):
        pixels.transform(np.linspace(0, 1, 50))
    with warnings.catch_warnings(action="error"):
        pixels.transform(np.linspace(-0.5, 1, 50))


def test_pixels_from_minus_one_beside_those_from_zero_are_told():
    unit = np.random.default_rng(0).random((4, 1, 6, 6))
    with pytest.warns(
        UserWarning, match="run from -0.9[0-9]* to 0.9[0-9]*, but those of the fit from 0 to 1"
    ):
        data.Pixels.fit(unit).transform(2 * unit - 1)


def test_rows_of_a_lazy_frame_whatever_its_columns_are_called():
    frame = pl.DataFrame({"index": [5, 6, 7], "row": [1, 2, 3], "row_____": [0, 0, 0]})
    assert data.rows_at(frame.lazy(), np.array([2, 0])).equals(frame[[2, 0]])


def test_a_folder_with_a_table_holds_no_pictures(tmp_path):
    Image.new("L", (4, 4)).save(tmp_path / "plot.png")
    assert data.names(tmp_path) == ["plot.png"]
    pl.DataFrame({"a": [1.0]}).write_parquet(tmp_path / "part.parquet")
    assert data.names(tmp_path) is None


def test_a_masked_label_is_blamed_on_the_labels():
    with pytest.raises(ValueError, match="y is a masked array"):
        data.labels(np.ma.MaskedArray([0, 1, 0], [False, True, False]), 3)

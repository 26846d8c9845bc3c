"""An uploaded file, or several images, become rows; nothing of them is kept."""

from __future__ import annotations

import io
import math
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anograd.data import collect, is_lazy, number_of_rows, scan
from anograd.detectors import Detector
from anograd.detectors.rows import IMAGES, TABLE
from anograd.labelled import only_fitted
from anograd.serve.limits import Limits
from anograd.serve.problems import Problem
from anograd.serve.rows import MORE_COLUMNS, Rows, check_count, column_names

TABLES, ARRAYS, PICTURES = (".csv", ".parquet"), (".npy",), (".png", ".jpg", ".jpeg")
FORMATS = ("PNG", "JPEG")
File = tuple[str, bytes]  # its name and what it holds


def endings(detector: Detector) -> tuple[str, ...]:
    """Return which files a detector takes, by their endings."""
    return ARRAYS + PICTURES if detector.encoder_.kind == IMAGES else TABLES + ARRAYS


def read_files(files: Sequence[File], detector: Detector, limits: Limits) -> Rows:
    """Return the rows of one table or array, or of one or several images.

    Parameters
    ----------
    files : sequence of (str, bytes)
    detector : Detector
    limits : Limits

    Raises
    ------
    Problem
        400 a damaged file, 413 too many rows, 415 a file that the detector has no use for, 422 none or
        several tables.
    ValueError
        Wrong values, in the words of the reader.
    """
    if not files:
        raise Problem(422, "no file was given; the form's field is called file")
    kinds = {Path(name).suffix.lower() for name, _ in files}
    wrong = sorted(kinds - set(endings(detector)))
    if wrong:
        takes = ", ".join(endings(detector))
        raise Problem(
            415, f"a file ends in {wrong[0][:20]!r}; this model is served files that end in {takes}"
        )
    empty = next((name for name, content in files if not content), None)
    if empty is not None:
        raise Problem(400, f"{empty[:100]!r} is empty")
    if kinds <= set(PICTURES):
        return _pictures(files, detector, limits)
    if len(files) > 1:
        raise Problem(422, f"{len(files)} files were given; one table or array is wanted, or images")
    name, content = files[0]
    if kinds == {".npy"}:
        return _array(name, content, detector, limits)
    return _table(name, content, detector, limits)


def _array(name: str, content: bytes, detector: Detector, limits: Limits) -> Rows:
    array = _npy(name, content, limits)
    if detector.encoder_.kind != TABLE:
        return Rows.numbered(array)
    import polars

    table, names = detector.encoder_.table, column_names(detector)
    assert table is not None
    if array.ndim != 2 or array.shape[1] != len(names) or not len(array):
        table.transform(array)  # says what is wanted
    said = (
        [] if table.names_in is None else [f"columns are taken to be {', '.join(names[:20])}, in this order"]
    )
    return Rows.numbered(polars.from_numpy(array.astype(np.float64), schema=names), said)


def _npy(name: str, content: bytes, limits: Limits) -> NDArray[Any]:
    """Return the array in an NPY file, once its header agrees with its size."""
    stream = io.BytesIO(content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a header that Python 2 wrote
            version = np.lib.format.read_magic(stream)
            reader = np.lib.format.read_array_header_1_0
            if version[0] > 1:
                reader = np.lib.format.read_array_header_2_0
            shape, fortran, dtype = reader(stream)
    except Exception as error:  # whatever a hostile header makes numpy's parser raise
        raise _damaged(name, "it has no header of NumPy's") from error
    if dtype.kind not in "biuf":
        raise Problem(
            400, f"{name[:100]!r} holds {dtype}; numbers are wanted: np.save(path, array.astype('f4'))"
        )
    start = stream.tell()
    if not shape or min(shape) < 0 or math.prod(shape) * dtype.itemsize != len(content) - start:
        raise _damaged(name, f"its header says the shape {shape}")
    check_count(shape[0], limits)
    flat = np.frombuffer(content, dtype, offset=start).astype(dtype.newbyteorder("="))
    return flat.reshape(shape, order="F" if fortran else "C")


def _table(name: str, content: bytes, detector: Detector, limits: Limits) -> Rows:
    from polars.exceptions import PanicException, PolarsError

    parquet = Path(name).suffix.lower() == ".parquet"
    most = detector.n_features_in_ + MORE_COLUMNS
    if not parquet and content.partition(b"\n")[0].count(b",") >= most:
        raise Problem(413, f"{name[:100]!r} has more than {most:,} columns")
    fitted = detector.encoder_.table.names_in if detector.encoder_.table is not None else None
    stored = "rows" + Path(name).suffix.lower()
    with tempfile.TemporaryDirectory(prefix="anograd-") as folder:
        path = Path(folder, stored)
        path.write_bytes(content)
        try:
            X = scan(path)
            if len(X.collect_schema()) > most:
                raise Problem(413, f"{name[:100]!r} has more than {most:,} columns")
            check_count(number_of_rows(X), limits)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                X = only_fitted(X, name[:100], fitted)
            frame = collect(X) if is_lazy(X) else X
            _check_texts(frame, name, limits)
        except ValueError as error:
            raise ValueError(str(error).replace(str(path), name[:100])) from error
        except (PolarsError, PanicException, MemoryError) as error:
            raise _damaged(name, "its parts disagree") from error
    return Rows.numbered(frame, [str(one.message) for one in caught])


def _check_texts(frame: Any, name: str, limits: Limits) -> None:
    """Refuse texts that are small in the file, which may hold each of them once, and huge as cells."""
    import polars

    size = 0
    for column in frame:
        if column.dtype == polars.String:
            size += int(column.str.len_bytes().sum() or 0)
        elif column.dtype in (polars.Categorical, polars.Enum):
            size += int(column.cat.len_bytes().sum() or 0)
    if size > limits.bytes:
        raise Problem(
            413, f"the texts in {name[:100]!r} are {size:,} bytes; at most {limits.bytes:,} are read"
        )


def _pictures(files: Sequence[File], detector: Detector, limits: Limits) -> Rows:
    check_count(len(files), limits)
    for name, content in files:
        _check_picture(name, content, detector.encoder_.shape)
    stored = [f"{i:06}{Path(name).suffix.lower()}" for i, (name, _) in enumerate(files)]
    with tempfile.TemporaryDirectory(prefix="anograd-") as folder:
        for place, (_, content) in zip(stored, files, strict=True):
            Path(folder, place).write_bytes(content)
        try:
            X = scan(folder)
        except ValueError as error:
            text = str(error).replace(folder + "/", "")
            for place, (name, _) in zip(stored, files, strict=True):
                text = text.replace(repr(place), repr(name[:100]))
            raise ValueError(text) from error
        except (ImportError, MemoryError):
            raise
        except Exception as error:  # whatever a hostile image makes Pillow raise
            raise _damaged("an image", "it does not decode") from error
    return Rows(X, [Path(name).name[:200] for name, _ in files])


def _check_picture(name: str, content: bytes, shape: tuple[int, ...]) -> None:
    """Refuse an image by its header: of another format or size it is never decoded."""
    try:
        from PIL import Image
    except ImportError as error:
        raise Problem(415, "reading images needs pillow: pip install 'anograd[images]'") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of very many pixels, which the size tells as well
            with Image.open(io.BytesIO(content), formats=FORMATS) as opened:
                width, height = opened.size
    except Image.DecompressionBombError as error:
        raise Problem(413, f"the image {name[:100]!r} is too large: {error}") from error
    except Exception as error:  # whatever a hostile header makes Pillow raise
        raise _damaged(name, "it is no PNG and no JPEG") from error
    if (height, width) != shape[-2:]:
        raise Problem(
            400,
            f"the image {name[:100]!r} is {height} x {width} pixels, but the detector was fitted on "
            f"{' x '.join(map(str, shape))}: resize it",
        )


def _damaged(name: str, reason: str) -> Problem:
    return Problem(400, f"{name[:100]!r} could not be read, it is damaged or cut short: {reason}")

"""An uploaded file, or several images, become rows; nothing of them is kept."""

from __future__ import annotations

import io
import json
import math
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anograd.data import Pixels, number_of_rows, read
from anograd.detectors import Detector
from anograd.detectors.rows import IMAGES, TABLE
from anograd.labelled import only_fitted
from anograd.serve import unpack
from anograd.serve.limits import Limits
from anograd.serve.problems import Problem
from anograd.serve.rows import MORE_COLUMNS, Rows, check_count, column_names

TABLES, ARRAYS, PICTURES = (".csv", ".parquet"), (".npy",), (".png", ".jpg", ".jpeg")
FORMATS = ("PNG", "JPEG")
File = tuple[str, bytes]  # its name and what it holds


def endings(detector: Detector) -> tuple[str, ...]:
    """Return which files a detector takes, by their endings."""
    encoder = detector.encoder_
    if encoder.kind != IMAGES:
        return TABLES + ARRAYS
    # Pictures are read with 8 bits, in grey or in colours.
    read = encoder.pixels == Pixels(True, 0.0, 255.0) and encoder.shape[0] in (1, 3)
    return ARRAYS + PICTURES if read else ARRAYS


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
    return (_parquet if kinds == {".parquet"} else _csv)(name, content, detector, limits)


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


def _csv(name: str, content: bytes, detector: Detector, limits: Limits) -> Rows:
    most = detector.n_features_in_ + MORE_COLUMNS
    if content.partition(b"\n")[0].count(b",") >= most:
        raise Problem(413, f"{name[:100]!r} has more than {most:,} columns")
    with tempfile.TemporaryDirectory(prefix="anograd-") as folder:
        path = Path(folder, "rows.csv")
        path.write_bytes(content)
        try:
            frame = read(path, detector.encoder_.texts())
        except ValueError as error:
            raise ValueError(str(error).replace(str(path), name[:100])) from error
    check_count(number_of_rows(frame), limits)
    return _fitted(frame, frame.columns, name, detector)


def _parquet(name: str, content: bytes, detector: Detector, limits: Limits) -> Rows:
    import polars

    table = detector.encoder_.table
    most = detector.n_features_in_ + MORE_COLUMNS
    fitted = table.names_in if table is not None else None
    wanted = {"rows": limits.rows, "columns": most, "bytes": limits.bytes, "fitted": fitted}
    with tempfile.TemporaryDirectory(prefix="anograd-") as folder:
        source, target = Path(folder, "rows.parquet"), Path(folder, "rows.arrow")
        source.write_bytes(content)
        command = [sys.executable, "-P", unpack.__file__, str(source), str(target), json.dumps(wanted)]
        try:
            told = subprocess.run(
                command, env={**os.environ, "POLARS_MAX_THREADS": "1"}, stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=limits.seconds, check=True,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise Problem(413, f"{name[:100]!r} was not read within {limits.seconds:g} seconds") from None
        except subprocess.CalledProcessError as error:
            raise _damaged(name, "it does not unpack, or to very much") from error
        found = json.loads(told.stdout)
        check_count(found["rows"], limits)
        if len(found["columns"]) > most:
            raise Problem(413, f"{name[:100]!r} has more than {most:,} columns")
        if found["texts"] > limits.bytes:
            said = f"the texts in {name[:100]!r} are {found['texts']:,} bytes"
            raise Problem(413, f"{said}; at most {limits.bytes:,} are read")
        frame = polars.read_ipc(io.BytesIO(target.read_bytes()))
    return _fitted(frame, found["columns"], name, detector)


def _fitted(frame: Any, names: list[str], name: str, detector: Detector) -> Rows:
    """Return the columns that the detector knows, and a line on those of the file that it does not."""
    import polars

    table = detector.encoder_.table
    known = table.names_in if table is not None else None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        only_fitted(polars.DataFrame(schema=dict.fromkeys(names, polars.Null)), name[:100], known)
    if known is not None and set(known) <= set(names):
        frame = frame.select([one for one in names if one in set(known)])
    return Rows.numbered(frame, [str(one.message) for one in caught])


def _pictures(files: Sequence[File], detector: Detector, limits: Limits) -> Rows:
    check_count(len(files), limits)
    for name, content in files:
        _check_picture(name, content, detector.encoder_.shape)
    stored = [f"{i:06}{Path(name).suffix.lower()}" for i, (name, _) in enumerate(files)]
    with tempfile.TemporaryDirectory(prefix="anograd-") as folder:
        for place, (_, content) in zip(stored, files, strict=True):
            Path(folder, place).write_bytes(content)
        try:
            X = read(folder)
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
    if sorted((height, width)) != sorted(shape[-2:]):  # one that lies on its side is turned when it is read
        raise Problem(
            400,
            f"the image {name[:100]!r} is {height} x {width} pixels, but the detector was fitted on "
            f"{' x '.join(map(str, shape))}: resize it",
        )


def _damaged(name: str, reason: str) -> Problem:
    return Problem(400, f"{name[:100]!r} could not be read, it is damaged or cut short: {reason}")

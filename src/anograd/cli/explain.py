"""``anograd explain``: why rows score as they do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from anograd import pictures
from anograd.cli.answer import answered, as_json, in_json
from anograd.cli.options import NORMAL, Data, Model, check_normal, check_output, option, print_parts
from anograd.data import cells, check_images, names, number_of_rows, rows_at
from anograd.detectors import load
from anograd.explain import Explanation
from anograd.labelled import read_features, read_normal
from anograd.reasons import as_data, told
from anograd.whole import write_whole

ENDINGS = (".json", ".png")


def explain(
    model: Model,
    data: Data,
    rows: Annotated[
        str | None, option("Numbers of rows, counted from 0: 3,17,40.", show_default=False)
    ] = None,
    most: Annotated[int, option("Without --rows: so many rows, those with the highest scores.", min=1)] = 10,
    top: Annotated[int, option("Columns shown of each row.", min=1)] = 5,
    among: Annotated[
        str | None,
        option(
            "Rows to compare with, such as those of the fit; --label tells the anomalies.", metavar="DATA"
        ),
    ] = None,
    label: Annotated[str | None, option("A column of a CSV or Parquet file to leave out.")] = None,
    normal: Annotated[list[str] | None, option(NORMAL, metavar="VALUE")] = None,
    patch: Annotated[
        int | None,
        option("Side of the patches that images are cut into, in pixels: 4, or a 24th of an image.", min=1),
    ] = None,
    output: Annotated[
        str | None, option("x.json: all contributions; x.png: heat maps of images.", "--output", "-o")
    ] = None,
) -> None:
    """Say why rows score as they do: which columns or pixels, which layers, which normal rows are nearest."""
    normal = check_normal(label, normal)
    if output is not None:
        check_output(output, "why.json", data, model, among)
        if Path(output).suffix.lower() not in ENDINGS:
            raise ValueError(f"{output!r}: wanted is x.json, or x.png for images")
    detector: Any = load(model)
    fitted = getattr(detector, "feature_names_in_", None)
    texts = detector.encoder_.texts()
    called, those = names(data), None if among is None else names(among)
    X = read_features(data, label, fitted, texts, called)
    others, numbers = (
        (None, None) if among is None else read_normal(among, label, normal, fitted, data, texts, those)
    )
    index = _chosen(rows, number_of_rows(X)) if rows is not None else _highest(detector, X, most)
    some = rows_at(X, index)
    found: Explanation = detector.explain(some, normal=others, patch=patch)
    if found.nearest is not None and numbers is not None:
        nearest = numbers[found.nearest]
        found = replace(found, nearest=np.array(those)[nearest] if those else nearest)
    p = detector.calibration_.p_values(found.scores)
    titles = [called[i] if called else f"row {i}" for i in index.tolist()]
    given = cells(some) if found.names else None
    reasons = as_data(found, titles, p, given)
    if not as_json():
        print_parts(told(found, titles, p, given, top))
    if output is None:
        answered({"reasons": reasons})
        return
    if Path(output).suffix.lower() == ".json":
        write_whole(output, (in_json(reasons, indent=2) + "\n").encode())
    else:
        pictures.save_png(_heat(detector, some, found, titles), output)
    if not answered({"reasons": reasons, "output": output}):
        typer.echo(f"written to {output}", err=True)


def _chosen(text: str, n: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the rows that somebody typed."""
    try:
        found = [int(one) for one in text.split(",")]
    except ValueError:
        raise typer.BadParameter(
            f"--rows {text}: whole numbers with commas between are wanted, 3,17"
        ) from None
    if min(found) < 0 or max(found) >= n:
        raise typer.BadParameter(f"--rows {text}: there are the rows 0 to {n - 1}")
    return np.array(found, dtype=np.int64)


def _highest(detector: Any, X: Any, most: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.argsort(-detector.anomaly_score(X), kind="stable")[:most].astype(np.int64)


def _heat(detector: Any, X: Any, found: Explanation, titles: list[Any]) -> Any:
    pixels = detector.encoder_.pixels
    if pixels is None or found.features.shape[1] not in (1, 3):
        raise ValueError("heat maps are for images, grey or in colour; for other rows write x.json")
    captions = [f"{title}\nscore {score:.3g}" for title, score in zip(titles, found.scores, strict=True)]
    return pictures.reasons(pixels.transform(check_images(X)), found.expected, found.features, captions)

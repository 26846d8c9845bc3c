"""``anograd report``: rows scored, drawn, explained and compared with the truth on one HTML page."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import Annotated, Any

import numpy as np
import typer

from anograd import report, store
from anograd._version import __version__
from anograd.cli.answer import answered, one_answer, warn
from anograd.cli.options import (
    LABELS,
    NORMAL,
    Alpha,
    Budget,
    Costs,
    Data,
    Fdr,
    Model,
    check_normal,
    check_output,
    chosen_rule,
    option,
    warn_of_known,
)
from anograd.data import labels, names
from anograd.decide import counted
from anograd.decoded import in_words
from anograd.detectors import Detector, load
from anograd.labelled import only_fitted, read_features, read_labelled, read_normal
from anograd.page import Card, Scored, check_needs, page, reasons
from anograd.whole import to_stdout, write_whole

ENDINGS = (".html", ".htm")
MADE_WITH = ("torch", "numpy", "scikit-learn", "scipy", "matplotlib", "jinja2")


def report_(
    model: Model,
    data: Data,
    output: Annotated[str, option("x.html, or - for stdout.", "--output", "-o", show_default=False)],
    label: Annotated[str | None, option(LABELS, show_default=False)] = None,
    normal: Annotated[list[str] | None, option(NORMAL, metavar="VALUE")] = None,
    alpha: Alpha = None,
    fdr: Fdr = None,
    budget: Budget = None,
    costs: Costs = None,
    among: Annotated[
        str | None,
        option(
            "Rows to compare with, such as those of the fit; --label tells the anomalies.", metavar="DATA"
        ),
    ] = None,
    top: Annotated[int, option("Rows explained: those with the highest scores.", min=1)] = 20,
) -> None:
    """Make one HTML page of scored rows: alarms and why, p values, change over time, labels if given."""
    rule = chosen_rule(alpha, fdr, budget, costs)
    normal = check_normal(label, normal)
    check_output(output, "report.html", data, model, among, piped=True)
    one_answer(output)
    path = Path(output)
    if output != "-" and path.suffix.lower() not in ENDINGS and (path.is_file() or not path.exists()):
        raise ValueError(f"{output!r}: wanted is x.html, or - for stdout")
    check_needs()
    detector = load(model)
    fitted = getattr(detector, "feature_names_in_", None)
    texts = detector.encoder_.texts()
    pictures, those = names(data), None if among is None else names(among)
    X, odd = _rows(data, label, normal, fitted, texts, pictures)
    others, numbers = (
        (None, None) if among is None else read_normal(among, label, normal, fitted, data, texts, those)
    )
    scored = Scored.by(detector, X, rule, pictures, odd)
    if odd is not None and scored.known:
        warn_of_known(data)
    called = None
    if among is not None and numbers is not None:
        called = [those[i] if those else f"row {i}" for i in numbers.tolist()]
    why, untold = reasons(detector, X, scored, top, others, called)
    content = page(scored, _card(model, data, detector), why, untold, among or "")
    whole = content.encode(errors="replace")  # names of files need not be text
    if output == "-":
        to_stdout(whole)
    else:
        write_whole(output, whole)
    if scored.unlike:
        warn(in_words(scored.unlike))
    rows, alarms = len(scored.scores), int(scored.alarms.sum())
    if answered({"rows": rows, "alarms": alarms, "rule": rule, "output": output}):
        return
    where = "" if output == "-" else f"; written to {output}"
    typer.echo(f"{counted(rows, 'row')}, {counted(alarms, 'alarm')} at {scored.asked}{where}", err=True)


def _rows(
    data: str,
    label: str | None,
    normal: list[str],
    fitted: Any,
    texts: list[str],
    pictures: list[str] | None,
) -> tuple[Any, np.ndarray[Any, np.dtype[np.bool_]] | None]:
    """Return the rows, and which of them are anomalies where labels tell."""
    if label is None:
        return read_features(data, None, fitted, texts, pictures), None
    X, y = read_labelled(data, label, normal, texts=texts)
    assert y is not None
    odd = labels(y, len(y)) if len(np.unique(y)) > 1 else None
    if odd is None:
        raise ValueError(
            f"{label!r} tells all {len(y):,} rows to be of one kind, and a report with labels compares "
            "normal rows with anomalies: give rows of both kinds, say which values are normal "
            "(--normal VALUE), or leave --label out"
        )
    return only_fitted(X, data, fitted), odd


def _card(model: Path, data: str, detector: Detector) -> Card:
    by, sums = store.origin(model)
    written = datetime.fromtimestamp((model / store.MANIFEST).stat().st_mtime, UTC)
    source, archive, _ = data.partition(".npz:")
    file = Path(source + ".npz" if archive else data)
    return Card(
        data=data,
        data_sum=_sum(file) if file.is_file() else None,
        folder=str(model),
        detector=type(detector).__name__,
        twin=detector.twin,
        written=f"{written:%Y-%m-%d %H:%M} UTC by anograd {by}",
        described=report.describe(store.read(model)),
        versions=[
            ("anograd", __version__),
            ("Python", python_version()),
            *((one, version(one)) for one in MADE_WITH),
        ],
        sums=[*sums.items()],
    )


def _sum(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()

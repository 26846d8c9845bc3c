"""``anograd calibrate``: a saved model's p values refer to other normal rows, without a refit."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer
from scipy.stats import betabinom

from anograd.cli.answer import answered, warn
from anograd.cli.options import LABELS, NORMAL, Data, Model, check_normal, option, rate
from anograd.costs import FEWEST
from anograd.data import number_of_rows
from anograd.decide import counted
from anograd.decoded import in_words
from anograd.detectors import load, unlike
from anograd.labelled import only_fitted, parted, read_labelled
from anograd.whole import check_writable

ALPHA = 0.05  # the rate at which old and new are compared
SURE = 0.01  # a share of alarms less likely than this is more than chance


def calibrate(
    model: Model,
    data: Data,
    output: Annotated[
        Path | None, option("Another folder; MODEL itself is replaced without it.", "--output", "-o")
    ] = None,
    label: Annotated[str | None, option(LABELS)] = None,
    normal: Annotated[list[str] | None, option(NORMAL, metavar="VALUE")] = None,
    prevalence: Annotated[
        float | None,
        option(
            "Share of anomalies among the rows to come; else that among these. For --costs.", callback=rate
        ),
    ] = None,
) -> None:
    """Let p values and alarms refer to new normal rows, such as last week's; nothing is refitted.

    Known anomalies among the rows, where --label tells them and there are 10, are what --costs goes by. Where
    all rows are anomalies, p values stay as they are, and --prevalence says how common anomalies are.
    """
    normal = check_normal(label, normal)
    check_writable(Path(output or model).resolve().parent)
    detector: Any = load(model)
    # With a prevalence all rows may be anomalies.
    X, y = read_labelled(data, label, normal, texts=detector.encoder_.texts(), absent=prevalence is not None)
    X = only_fitted(X, data, getattr(detector, "feature_names_in_", None))
    kept, odd = parted(X, y)
    if kept is None and y is not None and not normal and (y == 1).all():
        warn(
            f"{label!r} is 1 in every row: taken for known anomalies, as in labels of 0 and 1. Where +1 "
            "means normal, say --normal 1"
        )
    if odd is not None and kept is not None and number_of_rows(odd) < FEWEST:
        warn(f"{number_of_rows(odd)} known anomalies are left out: a rule by --costs wants {FEWEST} or more")
        odd = None
    before = detector.calibration_
    detector.calibrate(kept, anomalies=odd, prevalence=prevalence)
    detector.save(output or model)
    found: dict[str, Any] = {"model": output or model}
    told = []
    if kept is not None:
        if changed := unlike(detector, kept):
            warn(in_words(changed))
        rows = number_of_rows(kept)
        alarms = int(before.detect(detector.anomaly_score(kept), alpha=ALPHA).sum())
        if _more_than_chance(alarms, rows, len(before.scores)):
            warn(
                f"{alarms:,} of {rows:,} rows raise an alarm as calibrated before, more than normal rows "
                "should: if they are normal indeed, normal has changed, and a refit (anograd fit) may rank "
                "better than this model does"
            )
        found |= {
            "rows": rows, "rows_before": len(before.scores), "smallest_p": 1 / (rows + 1),
            "alarms_as_before": alarms, "alpha": ALPHA,
        }  # fmt: skip
        told += [
            f"p values refer to {counted(rows, 'row')} now, and to {len(before.scores):,} before",
            f"the smallest reachable p value is {1 / (rows + 1):.2g} (1 / {rows + 1:,})",
            f"as calibrated before, {alarms:,} of these rows ({alarms / rows:.1%}) raise an alarm at alpha "
            f"{ALPHA}",
        ]
    known = detector.calibration_.anomalies
    if known is not None:
        found |= {"anomalies": len(known.scores), "prevalence": known.prevalence}
        told.append(
            f"--costs goes by {len(known.scores):,} known anomalies, taken to be {known.prevalence:.3g} of "
            "the rows to come"
        )
    if not answered(found):
        typer.echo("\n".join([*told, f"saved to {output or model}"]))


def _more_than_chance(alarms: int, rows: int, before: int) -> bool:
    """Tell whether normal rows would hardly raise so many alarms, at a rate that `before` rows have set."""
    # Of normal rows all the same, the rate above the k-th highest of m is Beta(k, m + 1 - k).
    k = math.floor(ALPHA * (before + 1) + 1e-9)
    return k > 0 and bool(betabinom.sf(alarms - 1, rows, k, before + 1 - k) < SURE)

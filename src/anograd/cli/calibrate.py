"""``anograd calibrate``: a saved model's p values refer to other normal rows, without a refit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from scipy.stats import binomtest

from anograd.cli.answer import answered, warn
from anograd.cli.app import LABELS, NORMAL, Data, Model, option
from anograd.detectors import load
from anograd.labelled import only_fitted, read_labelled, unmarked

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
) -> None:
    """Let p values and alarms refer to new normal rows, such as last week's; nothing is refitted.

    Known anomalies among the rows are left out where --label tells them.
    """
    detector: Any = load(model)
    X, y = read_labelled(data, label, normal or [])
    X = only_fitted(X, data, getattr(detector, "feature_names_in_", None))
    if y is not None:
        X, _ = unmarked(X, y)
    before = detector.calibration_
    scores = detector.anomaly_score(X)
    detector.calibrate(X)
    detector.save(output or model)
    rows, alarms = len(scores), int(before.detect(scores, alpha=ALPHA).sum())
    if binomtest(alarms, rows, ALPHA, alternative="greater").pvalue < SURE:
        warn(
            f"{alarms:,} of {rows:,} rows raise an alarm as calibrated before, more than normal rows should: "
            "if they are normal indeed, normal has changed, and a refit (anograd fit) may rank better than "
            "this model does"
        )
    found = {
        "model": output or model,
        "rows": rows,
        "rows_before": len(before.scores),
        "smallest_p": 1 / (rows + 1),
        "alarms_as_before": alarms,
        "alpha": ALPHA,
    }
    if answered(found):
        return
    typer.echo(
        f"p values refer to {rows:,} rows now, and to {len(before.scores):,} before; "
        f"saved to {output or model}"
    )
    typer.echo(f"the smallest reachable p value is {1 / (rows + 1):.2g} (1 / {rows + 1:,})")
    typer.echo(
        f"as calibrated before, {alarms:,} of these rows ({alarms / rows:.1%}) raise an alarm at "
        f"alpha {ALPHA}"
    )

"""``anograd evaluate``: a model's scores and alarms against rows whose truth is known."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import numpy as np

from anograd import report
from anograd.cli.answer import answered, in_json
from anograd.cli.options import (
    LABELS,
    NORMAL,
    Alpha,
    Budget,
    Costs,
    Data,
    Fdr,
    Model,
    check_output,
    chosen_rule,
    option,
    print_parts,
    warn_of_known,
)
from anograd.costs import least
from anograd.data import labels
from anograd.decide import asked
from anograd.detectors import load
from anograd.evaluate import evaluate as judge
from anograd.evaluate import ranking
from anograd.labelled import only_fitted, read_labelled
from anograd.whole import write_whole


def evaluate(
    model: Model,
    data: Data,
    label: Annotated[str, option(LABELS, show_default=False)],
    normal: Annotated[list[str] | None, option(NORMAL, metavar="VALUE")] = None,
    alpha: Alpha = None,
    fdr: Fdr = None,
    budget: Budget = None,
    costs: Costs = None,
    output: Annotated[str | None, option("The same numbers as JSON.", "--output", "-o")] = None,
) -> None:
    """Compare a model's scores and alarms with labels: AUROC, precision, false-alarm rate."""
    rule = chosen_rule(alpha, fdr, budget, costs)
    if output is not None:
        check_output(output, "report.json", data, model, label)
    detector: Any = load(model)
    X, y = read_labelled(data, label, normal or [], texts=detector.encoder_.texts())
    assert y is not None
    if len(np.unique(y)) < 2:
        raise ValueError(
            f"{label!r} tells all {len(y):,} rows to be of one kind, and an evaluation compares normal rows "
            "with anomalies: give rows of both kinds, say which values are normal (--normal VALUE), or only "
            "score the rows: anograd score"
        )
    odd = labels(y, len(y))
    X = only_fitted(X, data, getattr(detector, "feature_names_in_", None))
    scores = detector.anomaly_score(X)
    calibration = detector.calibration_
    if calibration.within(scores):
        warn_of_known(data)
    found = judge(scores, odd, calibration.detect(scores, **rule))
    twin = ranking(detector.twin_score(X), odd) if hasattr(detector, "twin_score") else None
    shares = {name: getattr(found, name) for name in ("precision", "recall", "false_alarm_rate")}
    numbers = {"rule": rule, **asdict(found), **shares}
    if twin is not None:
        numbers["twin"] = dict(zip(("auroc", "average_precision"), twin, strict=True))
    cost = None
    if costs is not None:
        usual = judge(scores, odd, calibration.detect(scores, alpha=0.05))
        cost = {
            "cost": found.cost(rule["costs"]),
            "least": least(scores, odd, rule["costs"]),
            "alpha_0.05": usual.cost(rule["costs"]),
        }
        numbers["costs"] = cost
    if output is not None:
        write_whole(output, (in_json(numbers, indent=2) + "\n").encode())
    if not answered(numbers):
        print_parts(report.evaluation(found, twin, asked(rule), cost))

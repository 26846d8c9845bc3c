"""``anograd score``: rows become a file of scores, p values and alarms."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Annotated

import typer

from anograd import report
from anograd.cli.answer import Misused, answered, one_answer
from anograd.cli.app import Alpha, Budget, Costs, Data, Fdr, Model, check_output, chosen_rule, option
from anograd.cli.engine import ENGINE, KEEP, MANY, WORKERS, Engine, score_parts
from anograd.data import names
from anograd.decide import asked
from anograd.detectors import load
from anograd.labelled import read_features

ENDINGS = (".csv", ".parquet")


def score(
    model: Model,
    data: Data,
    output: Annotated[
        str, option("x.csv, x.parquet, or - for CSV on stdout.", "--output", "-o", show_default=False)
    ],
    alpha: Alpha = None,
    fdr: Fdr = None,
    budget: Budget = None,
    costs: Costs = None,
    label: Annotated[str | None, option("A column of a CSV or Parquet file to leave out.")] = None,
    engine: Annotated[Engine | None, option(ENGINE, panel=MANY)] = None,
    workers: Annotated[int | None, option(WORKERS, panel=MANY, min=1)] = None,
    keep: Annotated[list[str] | None, option(KEEP, panel=MANY, metavar="COLUMN")] = None,
) -> None:
    """Score rows and write row, score, p_value and anomaly (0 or 1) to a CSV or Parquet file."""
    rule = chosen_rule(alpha, fdr, budget, costs)
    if engine is not None:
        if label is not None:
            raise Misused("--engine ray leaves out all columns that the model was not fitted on: no --label")
        score_parts(model, data, output, rule, workers, keep or [])
        return
    if workers is not None or keep:
        raise Misused("--workers and --keep go with --engine ray: give it, or leave them out")
    check_output(output, data, "scores.csv")
    one_answer(output)
    _check_ending(output)
    detector = load(model)
    X = read_features(data, label, getattr(detector, "feature_names_in_", None))
    scores = detector.anomaly_score(X)
    p = detector.calibration_.p_values(scores)
    alarms = detector.calibration_.detect(scores, **rule)
    rows = names(data) or range(len(scores))
    if output == "-":
        for text in report.scores_csv(rows, scores, p, alarms):
            sys.stdout.write(text)
    else:
        report.write_scores(output, rows, scores, p, alarms)
    found = {"rows": len(scores), "alarms": int(alarms.sum()), "rule": rule, "output": output}
    if answered(found):
        return
    where = "" if output == "-" else f"; written to {output}"
    typer.echo(f"{len(scores):,} rows, {int(alarms.sum()):,} alarms at {asked(rule)}{where}", err=True)


def _check_ending(output: str) -> None:
    """Refuse a file that is no table of scores; a device or pipe may be called anything, and gets CSV."""
    path = Path(output)
    ending = path.suffix.lower()
    if output == "-" or (path.exists() and not path.is_file()):
        return
    if ending not in ENDINGS:
        raise ValueError(
            f"{output!r} ends in {ending!r}, which cannot be written; wanted is x.csv, x.parquet, or - for "
            "CSV on stdout"
        )
    if ending == ".parquet" and importlib.util.find_spec("polars") is None:
        raise ImportError(f"writing {output!r} needs polars: pip install 'anograd[tables]', or write x.csv")

"""``anograd score``: rows become a file of scores, p values and alarms."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated

import typer

from anograd.cli.answer import Misused, answered, note, one_answer, warn
from anograd.cli.engine import ENGINE, KEEP, MANY, WORKERS, Engine, score_parts
from anograd.cli.options import Alpha, Budget, Costs, Data, Fdr, Model, check_output, chosen_rule, option
from anograd.decide import asked, counted
from anograd.decoded import in_words
from anograd.stream import score_file

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
    rejects: Annotated[
        str | None,
        option("A CSV file for rows and pictures that cannot be scored; without it the first ends the run."),
    ] = None,
    engine: Annotated[Engine | None, option(ENGINE, panel=MANY)] = None,
    workers: Annotated[int | None, option(WORKERS, panel=MANY, min=1)] = None,
    keep: Annotated[list[str] | None, option(KEEP, panel=MANY, metavar="COLUMN")] = None,
) -> None:
    """Score rows and write row, score, p_value and anomaly (0 or 1) to a CSV or Parquet file."""
    rule = chosen_rule(alpha, fdr, budget, costs)
    if engine is not None:
        if label is not None:
            raise Misused("--engine ray leaves out all columns that the model was not fitted on: no --label")
        if rejects is not None:
            raise Misused("--engine ray refuses a part with a row that cannot be scored: no --rejects")
        score_parts(model, data, output, rule, workers, keep or [])
        return
    if workers is not None or keep:
        raise Misused("--workers and --keep go with --engine ray: give it, or leave them out")
    check_output(output, "scores.csv", data, model, piped=True)
    one_answer(output)
    _check_ending(output)
    if rejects is not None:
        check_output(rejects, "rejects.csv", data, model)
    summary = score_file(model, data, output, rule=rule, label=label, rejects=rejects, tell=note)
    if summary.unlike:
        warn(in_words(summary.unlike))
    found = {"rows": summary.rows, "rejected": summary.rejected, "alarms": summary.alarms}
    if answered({**found, "rule": rule, "output": output}):
        return
    aside = f", {summary.rejected:,} of them rejected (see {rejects})" if summary.rejected else ""
    where = "" if output == "-" else f"; written to {output}"
    typer.echo(
        f"{counted(summary.rows, 'row')}{aside}, {counted(summary.alarms, 'alarm')} at {asked(rule)}{where}",
        err=True,
    )


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

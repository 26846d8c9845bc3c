"""``anograd export``: a model as one ONNX file, for machines without PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from anograd.cli.answer import answered
from anograd.cli.options import Alpha, Model, check_output, chosen_rule, option
from anograd.detectors import load
from anograd.labelled import read_features
from anograd.onnx import export as write


def export(
    model: Model,
    output: Annotated[str, option("The file: model.onnx.", "--output", "-o", show_default=False)],
    alpha: Alpha = None,
    check: Annotated[
        str | None,
        option("Rows to compare with PyTorch by; rows are drawn where it is left out.", metavar="DATA"),
    ] = None,
    label: Annotated[str | None, option("A column of --check to leave out.")] = None,
) -> None:
    """Write a model as one ONNX file that goes from raw columns or pixels to score, p value and verdict.

    onnxruntime alone runs it. It is compared with PyTorch first, and not written where the two differ.
    """
    check_output(output, "model.onnx", check, model)
    if Path(output).suffix.lower() != ".onnx":
        raise ValueError(f"{output!r}: wanted is a name that ends in .onnx, such as -o model.onnx")
    rate = chosen_rule(alpha, None, None)["alpha"]
    detector = load(model, device="cpu")
    fitted = getattr(detector, "feature_names_in_", None)
    rows = None if check is None else read_features(check, label, fitted, detector.encoder_.texts())
    done = write(detector, output, alpha=rate, check=rows)
    found = {
        "output": output,
        "alpha": rate,
        "inputs": {name: {"type": kind, "row": shape} for name, (kind, shape) in done.inputs.items()},
        "columns": done.columns,
        "rows_compared": done.compared,
        "largest_difference": done.difference,
    }
    if answered(found):
        return
    typer.echo(
        f"written to {output}, {Path(output).stat().st_size / 1e6:.1f} MB: score, p_value, verdict at "
        f"alpha {rate}"
    )
    for name, (kind, shape) in done.inputs.items():
        columns = f": {', '.join(done.columns[name])}" if name in done.columns else ""
        typer.echo(f"input {name}, {kind} (n, {', '.join(map(str, shape))}){columns}")
    typer.echo(
        f"compared with PyTorch over {done.compared:,} rows: scores differ by {done.difference:.1g} at most"
    )

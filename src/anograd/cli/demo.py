"""``anograd demo``: GradCon on handwritten digits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from anograd import demo as demonstration
from anograd.cli.app import option
from anograd.cli.bar import moving


def demo(
    output: Annotated[Path, option("The folder to write to.", "--output", "-o")] = Path("demo"),
    seed: Annotated[int, option("Of the split and the fit.", min=0)] = 0,
    digit: Annotated[int, option("The digit that is normal.", min=0, max=9)] = 0,
    epochs: Annotated[int, option("At most so many.", min=1)] = 100,
) -> None:
    """Try GradCon on scikit-learn's digits, one of them normal: a table, and a picture."""
    with moving(epochs) as bar:
        outcome = demonstration.run(
            output, seed=seed, digit=digit, epochs=epochs, progress=lambda _, found: bar(found)
        )
    console = Console()
    console.print(outcome.regime(), markup=False, highlight=False)
    console.print(outcome.table())
    console.print(outcome.verdict(), markup=False, highlight=False)
    for what, path in outcome.files.items():
        typer.echo(f"{what}: {path}")
    if outcome.missing:
        typer.echo(f"no picture: {outcome.missing}")
    typer.echo(f"{outcome.seconds:.0f} seconds; next: anograd info {outcome.files['model']}")

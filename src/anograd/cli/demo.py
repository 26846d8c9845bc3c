"""``anograd demo``: GradCon on handwritten digits, then R2-AD2 on a table."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from anograd.cli.answer import answered, as_json
from anograd.cli.bar import moving
from anograd.cli.options import option
from anograd.demo import Outcome, cancer, digits


def demo(
    output: Annotated[Path, option("The folder to write to.", "--output", "-o")] = Path("demo"),
    seed: Annotated[int, option("Of the splits and the fits.", min=0)] = 0,
    digit: Annotated[int, option("The digit that is normal.", min=0, max=9)] = 0,
    epochs: Annotated[int, option("Of GradCon, at most so many.", min=1)] = 100,
) -> None:
    """Try GradCon on handwritten digits and R2-AD2 on a table: figures, and a picture of each."""
    with moving(epochs) as bar:
        images = digits.run(
            output / "images", seed=seed, digit=digit, epochs=epochs, progress=lambda _, data: bar(data)
        )
    if not as_json():
        _tell(images)
        typer.echo()
    with moving(None) as bar:
        table = cancer.run(output / "table", seed=seed, progress=lambda _, data: bar(data))
    if not answered({"images": asdict(images), "table": asdict(table)}):
        _tell(table)


def _tell(outcome: Outcome) -> None:
    console = Console()
    console.print(outcome.regime, markup=False, highlight=False)
    console.print(outcome.table())
    console.print(outcome.verdict(), markup=False, highlight=False)
    for what, path in outcome.files.items():
        typer.echo(f"{what}: {path}")
    if outcome.missing:
        typer.echo(f"no picture: {outcome.missing}")
    typer.echo(f"{outcome.seconds:.1f} seconds; next: anograd info {outcome.files['model']}")

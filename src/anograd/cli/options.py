"""What the commands have in common: options, the rule to raise alarms by, what cannot be written."""

from __future__ import annotations

import shutil
import textwrap
from pathlib import Path
from typing import Annotated, Any

import typer

from anograd import store
from anograd.cli.answer import warn
from anograd.costs import pair
from anograd.files import parquet_files
from anograd.image_files import IMAGE_ENDINGS
from anograd.whole import check_writable


def option(text: str, *flags: str, panel: str | None = None, **more: Any) -> Any:
    """Return what typer makes an option of: its help, its flags, the panel of the help it stands in."""
    return typer.Option(*flags, help=text, rich_help_panel=panel, **more)


def argument(name: str, text: str) -> Any:
    """Return what typer makes an argument of: its name and its help."""
    return typer.Argument(metavar=name, help=text, show_default=False)


def print_parts(parts: list[tuple[str, list[str]]]) -> None:
    """Print headings with the lines beside each, wrapped to the terminal; below it where it is long."""
    width = max(60, shutil.get_terminal_size((100, 24)).columns)
    margin = max((n for n in (len(heading) + 2 for heading, _ in parts) if n <= width // 2), default=4)
    wrap = textwrap.TextWrapper(width, break_on_hyphens=False)
    for heading, lines in parts:
        beside = len(heading) + 2 <= margin
        if not beside:
            typer.echo(wrap.fill(heading))
        for i, line in enumerate(lines):
            wrap.initial_indent = (heading if beside and i == 0 else "").ljust(margin)
            wrap.subsequent_indent = " " * (margin + 2)
            typer.echo(wrap.fill(line))
        wrap.initial_indent = wrap.subsequent_indent = ""


Data = Annotated[
    str,
    argument(
        "DATA", "The rows: x.npy, x.npz:key, x.csv, x.parquet, a folder of images, or - for CSV from stdin."
    ),
]
Model = Annotated[Path, argument("MODEL", "The folder that `anograd fit` wrote.")]
NORMAL = "A value of --label that is normal; repeat for more. All other rows are known anomalies."
LABELS = (
    "Labels of the rows: y.npy or y.npz:key, or a column of a CSV or Parquet file. 1 among 0 and 1, or -1 "
    "among +1 and -1, marks a known anomaly; other values need --normal."
)


def rate(value: float | None) -> float | None:
    """Return a rate, or refuse what is none."""
    if value is not None and not 0 < value < 1:
        raise typer.BadParameter(f"{value} was given; a rate between 0 and 1 is wanted, such as 0.05")
    return value


Alpha = Annotated[
    float | None, option("Share of normal rows that raise an alarm; 0.05 without a rule.", callback=rate)
]
Fdr = Annotated[float | None, option("Share of the alarms that may be false.", callback=rate)]
Budget = Annotated[int | None, option("Rows there is time for: the highest scores.", min=0)]


def _pair(value: str | None) -> str | None:
    try:
        return value if value is None or pair(value) else None
    except ValueError as error:
        raise typer.BadParameter(str(error).replace("costs=(1, 50)", "1:50")) from None


Costs = Annotated[
    str | None,
    option(
        "What a false alarm and a miss cost, such as 1:50: the line that costs least. Wants a model that was "
        "calibrated with labels.",
        metavar="FALSE:MISS",
        callback=_pair,
    ),
]


def chosen_rule(
    alpha: float | None, fdr: float | None, budget: int | None, costs: str | None = None
) -> dict[str, Any]:
    """Return the rule to raise alarms by, the one that was given or ``alpha=0.05``."""
    rules = {"alpha": alpha, "fdr": fdr, "budget": budget, "costs": costs and pair(costs)}
    rule = {name: value for name, value in rules.items() if value is not None} or {"alpha": 0.05}
    if len(rule) > 1:
        raise typer.BadParameter(f"one of --{' and --'.join(rule)} is wanted, not both")
    return rule


def check_output(output: str, example: str, *read: str | Path | None, piped: bool = False) -> None:
    """Refuse what cannot be written before the work is done.

    Parameters
    ----------
    output : str
        The file to write, or - for stdout.
    example : str
        A name that would do.
    *read : str, Path or None
        Files and folders that are read, such as those of the rows and the model, which must not be lost.
    piped : bool, default False
        Whether - will do.
    """
    given, target = Path(output), Path(output).resolve()
    if output == "-" and not piped:
        raise ValueError(f"- is no name of a file, which is wanted, such as {example}; --json goes to stdout")
    if output == "-" or (given.exists() and not given.is_file() and not given.is_dir()):
        return
    if target.is_dir():
        raise ValueError(f"{output!r} is a folder; a file is wanted, such as -o {Path(output, example)}")
    for one in (str(one) for one in read if one is not None and str(one) != "-"):
        source, archive, _ = one.partition(".npz:")
        path = Path(source + ".npz" if archive else one)
        if target == path.resolve() or target in [part.resolve() for part in parquet_files(one)]:
            raise ValueError(
                f"{output!r} is the file of the rows, which would be lost; give another name with -o"
            )
        a_part = target.suffix.lower() in (*IMAGE_ENDINGS, ".parquet") or (path / store.MANIFEST).exists()
        if a_part and path.is_dir() and path.resolve() in target.parents:
            raise ValueError(
                f"{output!r} lies in {one!r}, which is read, and would become part of it; give another name "
                f"with -o, such as {example}"
            )
    check_writable(target.parent)


def warn_of_known(data: str) -> None:
    """Warn that a model is judged by rows that it was fitted to.

    Parameters
    ----------
    data : str
        The file of the rows.
    """
    warn(
        f"{data} holds the rows that the model's p values refer to, and so perhaps all that it was fitted "
        "to: new rows may rank worse than these figures say; judge it by rows that it has not seen"
    )


def check_normal(label: str | None, normal: list[str] | None) -> list[str]:
    """Return the values of ``--normal``, or refuse them without ``--label``, of which they are values."""
    if normal and label is None:
        raise typer.BadParameter(
            "it says which values of --label are normal; give --label, too", param_hint="--normal"
        )
    return normal or []

"""The typer app: its commands, each loaded only when it is asked for, and errors as one line."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from anograd._version import __version__
from anograd.cli.answer import ending
from anograd.cli.config import command

CODES = """
Exit codes: 0 done; 1 an error, said in one line; 2 wrong usage; 3 bench: some cells failed;
130 stopped by Ctrl-C; 141 the reader of the output went away, as in | head.
"""
# Each as its own function says: torch and scikit-learn take seconds to load, a list of commands need not.
ABOUT = {
    "fit": "Fit a detector to rows and save it to a folder.",
    "score": "Score rows and write row, score, p_value and anomaly (0 or 1) to a CSV or Parquet file.",
    "explain": "Say why rows score as they do: which columns or pixels, which layers, which normal rows are "
    "nearest.",
    "calibrate": "Let p values and alarms refer to new normal rows, such as last week's; nothing is "
    "refitted.",
    "evaluate": "Compare a model's scores and alarms with labels: AUROC, precision, false-alarm rate.",
    "report": "Make one HTML page of scored rows: alarms and why, p values, change over time, labels if "
    "given.",
    "serve": "Serve a model over HTTP, with a page to try it; Ctrl-C ends it.",
    "info": "Say what a model is, or which detectors there are.",
    "export": "Write a model as one ONNX file that goes from raw columns or pixels to score, p value and "
    "verdict.",
    "demo": "Try GradCon on handwritten digits and R2-AD2 on a table: figures, and a picture of each.",
    "bench": "Measure detectors side by side: anograd bench RUN.toml, then anograd bench table.",
}


def function(name: str) -> Callable[..., None]:
    """Return what runs a command; that of ``bench`` has commands of its own, and none.

    Parameters
    ----------
    name : str
    """
    own = "report_" if name == "report" else name  # anograd.report is what people read
    found: Callable[..., None] = getattr(import_module(f"anograd.cli.{own}"), own)
    return found


class Commands(TyperGroup):
    """The commands, where an expected error is one line on stderr and an exit code."""

    def make_context(self, info_name: str | None, args: list[str], *given: Any, **more: Any) -> Any:
        """Read the words before a command; help is printed here."""
        with ending(list(args), "--debug" in args):
            return super().make_context(info_name, args, *given, **more)

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        with ending(ctx.args, bool(ctx.find_root().params.get("debug"))):
            return super().invoke(ctx)


class Listed(Commands):
    """Commands of which no more than the name and one line is known until one is asked for."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.commands = {name: TyperCommand(name, help=text) for name, text in ABOUT.items()}
        self.loaded: set[str] = set()

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Load the command that the first word names."""
        if args and args[0] in ABOUT:
            self.load(args[0])
        return super().resolve_command(ctx, args)

    def every(self) -> dict[str, Any]:
        """Return all commands by name, loaded."""
        return {name: self.load(name) for name in ABOUT}

    def load(self, name: str) -> Any:
        """Return a command with its options.

        Parameters
        ----------
        name : str
        """
        if name not in self.loaded:
            self.commands[name] = _loaded(name)
            self.loaded.add(name)
        return self.commands[name]


def _loaded(name: str) -> Any:
    if name == "bench":
        group = typer.main.get_group(import_module("anograd.cli.bench").app)
        group.name = name
        return group
    alone = typer.Typer(add_completion=False)
    command(alone, function(name), name, config=name not in ("info", "demo"), json=name != "serve")
    return typer.main.get_command(alone)


app = typer.Typer(
    cls=Listed,
    help="Detect anomalies from the gradients they would cause.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    epilog=" ".join(CODES.split()),
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"anograd {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show where in the code an error arose.")] = False,
) -> None:
    """Detect anomalies from the gradients they would cause."""

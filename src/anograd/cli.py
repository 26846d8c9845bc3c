"""The command line: ``anograd fit``, ``score``, ``info`` and ``demo``."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

# Before torch loads: threads that spin while they wait make small networks far slower on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

try:
    import typer
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from typer.core import TyperGroup
except ImportError as error:
    raise SystemExit("error: the command line needs typer and rich: pip install 'anograd[cli]'") from error

import torch

from anograd import demo as demonstration
from anograd import report, store
from anograd._version import __version__
from anograd.data import names
from anograd.detectors import DETECTORS, Detector, load
from anograd.labelled import read_features, read_labelled

ERRORS = (ValueError, TypeError, OSError, ImportError, FloatingPointError, MemoryError)
STOPPED = 130  # what a shell expects after Ctrl-C
ROWS, METHOD, RUN = "The rows", "GradCon", "The run"


class Network(StrEnum):
    """Values of --target."""

    auto = "auto"
    cae = "cae"
    vae = "vae"
    dense = "dense"


class Reference(StrEnum):
    """Values of --reference."""

    total = "total"
    recon = "recon"


class Missing(StrEnum):
    """Values of --missing."""

    refuse = "refuse"
    impute = "impute"


class Commands(TyperGroup):
    """The commands, where an expected error is one line on stderr and the exit code 1."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        with warnings.catch_warnings():
            warnings.simplefilter("default", UserWarning)
            warnings.showwarning = _show_warning
            try:
                result = super().invoke(ctx)
                sys.stdout.flush()  # a closed pipe shows here, not in the interpreter's last breath
                return result
            except BrokenPipeError:
                raise  # the reader has seen enough: no error to speak of
            except ERRORS as error:
                if ctx.params.get("debug"):
                    raise
                typer.echo(f"error: {_one_line(error)}", err=True)
                raise typer.Exit(1) from None


app = typer.Typer(
    cls=Commands,
    help="Detect anomalies from the gradients they would cause.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line."""
    app()


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    typer.echo(f"warning: {_one_line(message)}", err=True)


def _one_line(error: BaseException | str) -> str:
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror + (f": {str(error.filename)!r}" if error.filename else "")
    return " ".join(text.split()) or type(error).__name__


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


def _option(text: str, *flags: str, panel: str | None = None, **more: Any) -> Any:
    return typer.Option(*flags, help=text, rich_help_panel=panel, **more)


def _argument(name: str, text: str) -> Any:
    return typer.Argument(metavar=name, help=text, show_default=False)


Data = Annotated[
    str, _argument("DATA", "The rows: x.npy, x.npz:key, x.csv, x.parquet, or a folder of images.")
]
Model = Annotated[Path, _argument("MODEL", "The folder that `anograd fit` wrote.")]

LABELS = (
    "Labels of the rows: y.npy or y.npz:key, or a column of a CSV or Parquet file. 1 among 0 and 1, or -1 "
    "among +1 and -1, marks a known anomaly; other values need --normal."
)
VALUES = "A value of --label that is normal; repeat for more. All other rows are known anomalies."
CONSTRAINT = "Weight of the gradient constraint in training (alpha in the paper)."
ALIGNMENT = "Weight of the gradients' alignment in the score (beta in the paper)."
ALIGNED = "Align with the mean gradient of the whole objective, or of the reconstruction error alone."


@app.command()
def fit(
    data: Data,
    output: Annotated[Path, _option("The model's folder.", "--output", "-o", show_default=False)],
    detector: Annotated[str, _option(f"One of: {', '.join(DETECTORS)}.")] = "gradcon",
    force: Annotated[bool, _option("Replace a model that is there already.", "--force")] = False,
    label: Annotated[str | None, _option(LABELS, panel=ROWS)] = None,
    normal: Annotated[list[str] | None, _option(VALUES, panel=ROWS, metavar="VALUE")] = None,
    missing: Annotated[Missing, _option("Empty cells of a table.", panel=ROWS)] = Missing.refuse,
    as_published: Annotated[
        bool, _option("The paper's settings, 1000 epochs.", "--as-published", panel=METHOD)
    ] = False,
    target: Annotated[Network, _option("The network to fit.", panel=METHOD)] = Network.auto,
    constraint_weight: Annotated[float | None, _option(CONSTRAINT, panel=METHOD)] = None,
    alignment_weight: Annotated[float | None, _option(ALIGNMENT, panel=METHOD)] = None,
    reference: Annotated[Reference | None, _option(ALIGNED, panel=METHOD)] = None,
    epochs: Annotated[int | None, _option("Passes over the rows, at most.", panel=RUN, min=1)] = None,
    batch_size: Annotated[int | None, _option("Rows a training step.", panel=RUN, min=1)] = None,
    learning_rate: Annotated[float | None, _option("Of Adam.", panel=RUN)] = None,
    calibration: Annotated[
        float | None, _option("Share of the normal rows held out for p values.", panel=RUN)
    ] = None,
    device: Annotated[str, _option("auto, cpu, cuda, cuda:1, mps.", panel=RUN)] = "auto",
    seed: Annotated[int, _option("One seed gives one model.", panel=RUN, min=0)] = 0,
    threads: Annotated[int | None, _option("Processor threads to use.", panel=RUN, min=1)] = None,
) -> None:
    """Fit a detector to rows and save it to a folder.

    Ctrl-C stops it; the same command goes on from there.
    """
    if detector not in DETECTORS:
        raise typer.BadParameter(f"{detector!r} is none of {', '.join(DETECTORS)}", param_hint="--detector")
    if normal and label is None:
        raise typer.BadParameter(
            "it says which values of --label are normal; give --label, too", param_hint="--normal"
        )
    out = _new_model(output, force)
    if threads is not None:
        torch.set_num_threads(threads)
    settings = {
        "alpha": constraint_weight, "beta": alignment_weight, "reference": reference and reference.value,
        "epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate,
        "calibration": calibration,
    }  # fmt: skip
    given = {name: value for name, value in settings.items() if value is not None}
    kind: Any = DETECTORS[detector]
    partial = out.with_name(out.name + ".partial")
    made: Detector = (kind.as_published if as_published else kind)(
        target=target.value, missing=missing.value, device=device, random_state=seed,
        checkpoint=str(partial), **given,
    )  # fmt: skip
    X, y = read_labelled(data, label, normal or [])
    with _parents(out):
        _fit(made, X, y, partial)
        _save(made, out, partial)
    _say_what_was_fitted(made, len(X), output)


def _save(detector: Detector, out: Path, partial: Path) -> None:
    try:
        detector.save(out)  # and then the checkpoint goes
    except OSError as error:
        kept = f"what was trained is kept in {str(partial)!r}: the same command goes on from there"
        raise type(error)(error.errno, f"{error.strerror or error}; {kept}") from error


def _new_model(output: Path, force: bool) -> Path:
    """Return where the model goes, once it is known that it may and can be written there."""
    out = output.resolve()
    store.check_replaceable(out)
    if out.is_dir() and any(out.iterdir()) and not force:
        raise ValueError(
            f"{str(output)!r} holds a model already; give another name with -o, or --force to replace it"
        )
    report.check_writable(next(folder for folder in out.parents if folder.exists()))
    return out


@contextmanager
def _parents(out: Path) -> Iterator[None]:
    """Make the folders above the model, and take the new ones away again where nothing came into them."""
    new = [folder for folder in out.parents if not folder.exists()]
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        with suppress(OSError):
            for folder in new:
                folder.rmdir()  # refused, as it should be, where it holds something


def _fit(detector: Detector, X: Any, y: Any, partial: Path) -> None:
    epochs = int(detector.get_params()["epochs"])
    reached = 0

    def show(name: str, found: Mapping[str, Any]) -> None:
        nonlocal reached
        reached = found["epoch"]
        if name == "resumed":
            typer.echo(f"going on from epoch {reached}, kept in {str(partial)!r}", err=True)
        bar(found)

    try:
        with _bar(epochs) as bar:
            detector.set_params(progress=show).fit(X, y)
    except KeyboardInterrupt:
        said = "stopped before the first epoch was done; nothing is kept"
        if partial.exists():
            said = (
                f"stopped after epoch {reached} of {epochs}; what was trained is kept in {str(partial)!r}: "
                "the same command goes on from there"
            )
        typer.echo(said, err=True)
        raise typer.Exit(STOPPED) from None


@contextmanager
def _bar(epochs: int) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Give a function that moves a bar on stderr, where somebody watches; elsewhere it does nothing."""
    console = Console(stderr=True)
    looks = TextColumn("epoch"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    losses = TextColumn("{task.fields[loss]}")
    bar = Progress(*looks, losses, console=console, disable=not console.is_terminal)
    task = bar.add_task("", total=epochs, loss="")

    def show(found: Mapping[str, Any]) -> None:
        bar.start()  # not before: what is said first would be written across it
        loss = f"validation loss {found['validation_loss']:.4g}" if "validation_loss" in found else ""
        bar.update(task, completed=found["epoch"], loss=loss)

    try:
        yield show
    finally:
        bar.stop()


def _say_what_was_fitted(detector: Any, n: int, output: Path) -> None:
    known = n - sum(detector.split_.values())
    left_out = f"; {known:,} known anomalies left out" if known else ""
    typer.echo(f"rows: {report.split(detector.split_)}{left_out}")
    last = detector.kept_epoch_ == detector.get_params()["epochs"]
    hint = "; the last one was the best, so more --epochs may help" if last else ""
    typer.echo(f"epoch {detector.kept_epoch_} kept, of {len(detector.history_)}{hint}")
    typer.echo(report.smallest_p(len(detector.calibration_.scores)))
    typer.echo(f"saved to {output}")


def _rate(value: float | None) -> float | None:
    if value is not None and not 0 < value < 1:
        raise typer.BadParameter(f"{value} was given; a rate between 0 and 1 is wanted, such as 0.05")
    return value


@app.command()
def score(
    model: Model,
    data: Data,
    output: Annotated[str, _option("A CSV file, or - for stdout.", "--output", "-o", show_default=False)],
    alpha: Annotated[
        float | None,
        _option("Share of normal rows that raise an alarm; 0.05 without a rule.", callback=_rate),
    ] = None,
    fdr: Annotated[float | None, _option("Share of the alarms that may be false.", callback=_rate)] = None,
    budget: Annotated[int | None, _option("Rows there is time for: the highest scores.", min=0)] = None,
    label: Annotated[str | None, _option("A column of a CSV or Parquet file to leave out.")] = None,
) -> None:
    """Score rows and write row, score, p_value and anomaly (0 or 1) to a CSV file."""
    rules = {"alpha": alpha, "fdr": fdr, "budget": budget}
    rule = {name: value for name, value in rules.items() if value is not None} or {"alpha": 0.05}
    if len(rule) > 1:
        raise typer.BadParameter(f"one of --{' and --'.join(rule)} is wanted, not both")
    _check_output(output, data)
    detector = load(model)
    X = read_features(data, label, getattr(detector, "feature_names_in_", None))
    scores = detector.anomaly_score(X)
    p = detector.calibration_.p_values(scores)
    alarms = detector.calibration_.detect(scores, **rule)  # type: ignore[arg-type]
    rows = names(data) or range(len(scores))
    text = report.scores_csv(rows, scores, p, alarms)
    if output == "-":
        sys.stdout.write(text)
    else:
        report.write_whole(output, text.encode(errors="surrogateescape"))
    asked = ", ".join(f"{name} {value}" for name, value in rule.items())
    where = "" if output == "-" else f"; written to {output}"
    typer.echo(f"{len(scores):,} rows, {int(alarms.sum()):,} alarms at {asked}{where}", err=True)


def _check_output(output: str, data: str) -> None:
    """Refuse what cannot be written before the work is done."""
    target = Path(output).resolve()
    if output == "-" or (target.exists() and not target.is_file() and not target.is_dir()):
        return
    if target.is_dir():
        raise ValueError(f"{output!r} is a folder; a file is wanted, such as -o {Path(output, 'scores.csv')}")
    source, archive, _ = data.partition(".npz:")
    if target == Path(source + ".npz" if archive else data).resolve():
        raise ValueError(
            f"{output!r} is the file of the rows, which would be lost; give another name with -o"
        )
    report.check_writable(target.parent)


@app.command()
def info(
    model: Annotated[
        Path | None, _argument("MODEL", "A model's folder; without it: the detectors there are.")
    ] = None,
) -> None:
    """Say what a model is, or which detectors there are."""
    if model is not None:
        _print([("model", [str(model)]), *report.describe(store.read(model))])
        return
    found = [("anograd", [__version__])]
    for name, kind in DETECTORS.items():
        summary = (kind.__doc__ or "").partition("\n")[0]
        found.append((name, [summary, kind.paper.cite()]))
    _print(found)


def _print(parts: list[tuple[str, list[str]]]) -> None:
    width = max(60, shutil.get_terminal_size((100, 24)).columns)
    margin = max(len(heading) for heading, _ in parts) + 2
    for heading, lines in parts:
        for i, line in enumerate(lines):
            start = (heading if i == 0 else "").ljust(margin)
            typer.echo(textwrap.fill(start + line, width, subsequent_indent=" " * (margin + 2)))


@app.command()
def demo(
    output: Annotated[Path, _option("The folder to write to.", "--output", "-o")] = Path("demo"),
    seed: Annotated[int, _option("Of the split and the fit.", min=0)] = 0,
    digit: Annotated[int, _option("The digit that is normal.", min=0, max=9)] = 0,
    epochs: Annotated[int, _option("At most so many.", min=1)] = 100,
) -> None:
    """Try GradCon on scikit-learn's digits, one of them normal: a table, and a picture."""
    with _bar(epochs) as bar:
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

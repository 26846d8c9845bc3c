"""``anograd fit``: rows become a model's folder, and an interrupted fit goes on where it stopped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from anograd import report, store
from anograd.cli.app import LABELS, NORMAL, Data, option
from anograd.cli.bar import moving
from anograd.data import number_of_rows
from anograd.detectors import DETECTORS, Detector
from anograd.labelled import read_labelled
from anograd.ranks import together

STOPPED = 130  # what a shell expects after Ctrl-C
ROWS, METHOD, RUN = "The rows", "The method", "The run"
CONSTRAINT = "GradCon's weight of the gradient constraint in training (alpha in the paper)."
ALIGNMENT = "GradCon's weight of the gradients' alignment in the score (beta in the paper)."
ALIGNED = "Whose mean gradient GradCon aligns with: the whole objective's, or the reconstruction error's."
DROP = "A column of the table to leave out, such as a row's number; repeat for more."
# Parameters of one detector only, and the options that set them.
OF_ONE = {
    "alpha": "--constraint-weight",
    "beta": "--alignment-weight",
    "reference": "--reference",
    "memory": "--memory",
}


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


def fit(
    data: Data,
    output: Annotated[Path, option("The model's folder.", "--output", "-o", show_default=False)],
    detector: Annotated[str, option(f"One of: {', '.join(DETECTORS)}.")] = "gradcon",
    force: Annotated[bool, option("Replace a model that is there already.", "--force")] = False,
    label: Annotated[str | None, option(LABELS, panel=ROWS)] = None,
    normal: Annotated[list[str] | None, option(NORMAL, panel=ROWS, metavar="VALUE")] = None,
    drop: Annotated[list[str] | None, option(DROP, panel=ROWS, metavar="COLUMN")] = None,
    missing: Annotated[Missing, option("Empty cells of a table.", panel=ROWS)] = Missing.refuse,
    as_published: Annotated[
        bool, option("The paper's settings instead of ours.", "--as-published", panel=METHOD)
    ] = False,
    target: Annotated[
        Network | None, option("The network to fit.", panel=METHOD, show_default="auto")
    ] = None,
    constraint_weight: Annotated[float | None, option(CONSTRAINT, panel=METHOD)] = None,
    alignment_weight: Annotated[float | None, option(ALIGNMENT, panel=METHOD)] = None,
    reference: Annotated[Reference | None, option(ALIGNED, panel=METHOD)] = None,
    epochs: Annotated[int | None, option("Passes over the rows, at most.", panel=RUN, min=1)] = None,
    batch_size: Annotated[int | None, option("Rows a training step.", panel=RUN, min=1)] = None,
    learning_rate: Annotated[float | None, option("Of Adam.", panel=RUN)] = None,
    calibration: Annotated[
        float | None, option("Share of the normal rows held out for p values.", panel=RUN)
    ] = None,
    memory: Annotated[
        str | None, option("Memory for rows, such as 2GiB; more are kept in a temporary file.", panel=RUN)
    ] = None,
    device: Annotated[str, option("auto, cpu, cuda, cuda:1, mps.", panel=RUN)] = "auto",
    seed: Annotated[int, option("One seed gives one model.", panel=RUN, min=0)] = 0,
    threads: Annotated[int | None, option("Processor threads to use.", panel=RUN, min=1)] = None,
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
        "target": target and target.value, "alpha": constraint_weight, "beta": alignment_weight,
        "reference": reference and reference.value, "epochs": epochs, "batch_size": batch_size,
        "learning_rate": learning_rate, "calibration": calibration, "memory": memory,
    }  # fmt: skip
    given = {name: value for name, value in settings.items() if value is not None}
    kind: Any = DETECTORS[detector]
    _check_owners(detector, given)
    if as_published and not hasattr(kind, "as_published"):
        owners = ", ".join(name for name, one in DETECTORS.items() if hasattr(one, "as_published"))
        raise typer.BadParameter(
            f"published settings are those of {owners}; leave it out for {detector}",
            param_hint="--as-published",
        )
    partial = out.with_name(out.name + ".partial")
    if "checkpoint" in _parameters(detector):
        given["checkpoint"] = str(partial)
    made: Detector = (kind.as_published if as_published else kind)(
        missing=missing.value, device=device, random_state=seed, **given
    )
    X, y = read_labelled(data, label, normal or [], drop or [])
    if y is not None and len(y) and (y == 0).all():
        typer.echo(f"warning: {label!r} marks no anomaly: all rows count as normal", err=True)
    if together().rank:  # of the processes that torchrun started, the first speaks and saves
        made.fit(X, y)
        return
    with _parents(out):
        _fit(made, X, y, partial)
        _save(made, out, partial)
    _say_what_was_fitted(made, number_of_rows(X), output)


def _parameters(name: str) -> set[str]:
    return set(DETECTORS[name]().get_params(deep=False))


def _check_owners(name: str, given: Mapping[str, Any]) -> None:
    """Refuse an option that the detector has no parameter for."""
    for parameter, option_of_it in OF_ONE.items():
        if parameter in given and parameter not in _parameters(name):
            owners = ", ".join(other for other in DETECTORS if parameter in _parameters(other))
            raise typer.BadParameter(
                f"it belongs to {owners}; leave it out for {name}", param_hint=option_of_it
            )


def _save(detector: Detector, out: Path, partial: Path) -> None:
    try:
        detector.save(out)  # and then the checkpoint goes
    except OSError as error:
        if not partial.exists():
            raise
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
    total = detector.get_params().get("epochs")
    reached = 0

    def show(name: str, found: Mapping[str, Any]) -> None:
        nonlocal reached, total
        reached, total = found["epoch"], found.get("epochs", total)
        if name == "resumed":
            typer.echo(f"going on from epoch {reached}, kept in {str(partial)!r}", err=True)
        bar(found)

    try:
        with moving(total) as bar:
            detector.set_params(progress=show).fit(X, y)
    except KeyboardInterrupt:
        done = f"after epoch {reached} of {total}" if reached else "before the first epoch was done"
        said = f"stopped {done}; nothing is kept"
        if partial.exists():
            said = (
                f"stopped {done}; what was trained is kept in {str(partial)!r}: "
                "the same command goes on from there"
            )
        typer.echo(said, err=True)
        raise typer.Exit(STOPPED) from None


def _say_what_was_fitted(detector: Any, n: int, output: Path) -> None:
    known = n - sum(detector.split_.values())
    done = "learned from" if detector.learns_from_known else "left out"
    typer.echo(
        f"rows: {report.split(detector.split_)}" + (f"; {known:,} known anomalies {done}" if known else "")
    )
    if hasattr(detector, "kept_epoch_"):
        history = detector.history_
        all_done = len(history) == detector.get_params()["epochs"]  # else patience ended it
        hint = (
            "; the last one was the best, so more --epochs may help" if all_done and _rising(history) else ""
        )
        typer.echo(f"epoch {detector.kept_epoch_} kept, of {len(history)}{hint}")
    typer.echo(report.smallest_p(len(detector.calibration_.scores)))
    typer.echo(f"saved to {output}")


def _rising(history: list[dict[str, float]]) -> bool:
    """Tell whether the last epoch was the best on rows that were not trained on."""
    if "validation_auroc" in history[-1]:
        quality = [told["validation_auroc"] + told["validation_average_precision"] for told in history]
    elif "validation_loss" in history[-1]:
        quality = [-told["validation_loss"] for told in history]
    else:
        return False
    return all(earlier < quality[-1] for earlier in quality[:-1])

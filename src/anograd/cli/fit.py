"""``anograd fit``: rows become a model's folder, and an interrupted fit goes on where it stopped."""

from __future__ import annotations

import ast
import json
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from anograd import report, store
from anograd.bench.names import unknown
from anograd.cli.answer import answered, note, stopped, warn
from anograd.cli.bar import moving
from anograd.cli.options import LABELS, NORMAL, Data, check_normal, option
from anograd.data import number_of_rows
from anograd.decide import counted
from anograd.detectors import DETECTORS, R2AD2, Detector
from anograd.labelled import read_labelled
from anograd.ranks import together
from anograd.whole import alone, check_makable

AUTO, FOR_TABLES, FOR_IMAGES = "auto", "r2ad2", "gradcon"
WITH_SETTINGS = "gradscoretest"  # for both, where --for-images or --for-tables asks for its settings
ROWS, METHOD, RUN = "The rows", "The method", "The run"
DETECTOR = f"auto ({FOR_TABLES} for a table, {FOR_IMAGES} for images), or one of: {', '.join(DETECTORS)}."
SET = (
    "A parameter of the detector that has no option here, such as holdout=0.2; repeat for more. "
    "A wrong name lists them all."
)
DROP = "A column of the table to leave out, such as a row's number; repeat for more. Later commands do so."
# Parameters that have an option of their own, or none at all.
OPTIONS = {
    "epochs": "--epochs", "batch_size": "--batch-size", "learning_rate": "--learning-rate",
    "calibration": "--calibration", "memory": "--memory", "device": "--device", "random_state": "--seed",
    "missing": "--missing",
}  # fmt: skip
OF_THE_COMMAND = ("progress", "checkpoint")
PRESETS = {  # classmethods
    "as_published": "--as-published", "for_images": "--for-images", "for_tables": "--for-tables",
}  # fmt: skip


class Missing(StrEnum):
    """Values of --missing."""

    refuse = "refuse"
    impute = "impute"


def fit(
    data: Data,
    output: Annotated[Path, option("The model's folder.", "--output", "-o", show_default=False)],
    detector: Annotated[str, option(DETECTOR, metavar="NAME")] = AUTO,
    force: Annotated[bool, option("Replace a model that is there already.", "--force")] = False,
    label: Annotated[str | None, option(LABELS, panel=ROWS)] = None,
    normal: Annotated[list[str] | None, option(NORMAL, panel=ROWS, metavar="VALUE")] = None,
    drop: Annotated[list[str] | None, option(DROP, panel=ROWS, metavar="COLUMN")] = None,
    missing: Annotated[Missing, option("Empty cells of a table.", panel=ROWS)] = Missing.refuse,
    as_published: Annotated[
        bool, option("The paper's settings instead of ours.", "--as-published", panel=METHOD)
    ] = False,
    for_images: Annotated[
        bool, option(f"The settings for images of {WITH_SETTINGS}.", "--for-images", panel=METHOD)
    ] = False,
    for_tables: Annotated[
        bool, option(f"The settings for tables of {WITH_SETTINGS}.", "--for-tables", panel=METHOD)
    ] = False,
    settings: Annotated[list[str] | None, option(SET, "--set", panel=METHOD, metavar="NAME=VALUE")] = None,
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
    if detector not in (AUTO, *DETECTORS):
        raise typer.BadParameter(
            str(unknown(detector, [AUTO, *DETECTORS], "detector")), param_hint="--detector"
        )
    normal = check_normal(label, normal)
    given = {
        "epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate,
        "calibration": calibration, "memory": memory,
    }  # fmt: skip
    chosen = dict(map(_setting, settings or []))
    preset = _preset(as_published=as_published, for_images=for_images, for_tables=for_tables)
    if detector != AUTO:
        _check(detector, chosen, preset)
    out = _new_model(output, force)
    if threads is not None:
        torch.set_num_threads(threads)
    X, y = read_labelled(data, label, normal, drop or [])
    if y is not None and len(y) and (y == 0).all():
        warn(f"{label!r} marks no anomaly: all rows count as normal")
    free = detector == AUTO
    if free:
        images = isinstance(X, np.ndarray) and X.ndim > 2
        detector = FOR_IMAGES if images else FOR_TABLES
        fitting = "for_images" if images else "for_tables"
        if preset == fitting:
            detector = WITH_SETTINGS
        elif preset in ("for_images", "for_tables"):
            rows = "images" if images else "a table"
            raise typer.BadParameter(
                f"the rows are {rows}: write {PRESETS[fitting]}", param_hint=PRESETS[preset]
            )
        _check(detector, chosen, preset)
    partial = out.with_name(out.name + ".partial")
    parameters = {
        name: value for name, value in {**given, **chosen}.items() if value is not None or name in chosen
    }
    parameters["checkpoint"] = str(partial)
    kind: Any = DETECTORS[detector]
    made: Detector = (getattr(kind, preset) if preset else kind)(
        missing=missing.value, device=device, random_state=seed, **parameters
    )
    if together().rank:  # of the processes that torchrun started, the first speaks and saves
        made.fit(X, y)
        return
    with _parents(out), alone(out):
        _new_model(output, force)  # another run may have been here meanwhile
        _fit(made, X, y, partial)
        _save(made, out, partial)
    if epochs is not None and isinstance(made, R2AD2) and not made.history_:
        warn("no anomaly is known, so no alarm network learned, and --epochs is theirs: it changed nothing")
    _say_what_was_fitted(made, number_of_rows(X), output, free)


def _preset(**asked: bool) -> str | None:
    """Return the name of the settings that were asked for, None for the defaults."""
    found = [name for name, wanted in asked.items() if wanted]
    if len(found) > 1:
        raise typer.BadParameter(
            f"one excludes the other: leave out {PRESETS[found[1]]}", param_hint="settings"
        )
    return found[0] if found else None


def _defaults(name: str) -> dict[str, Any]:
    return dict(DETECTORS[name]().get_params(deep=False))


def _setting(text: str) -> tuple[str, Any]:
    """Return the name and the value in NAME=VALUE, as JSON or Python writes it; what is neither is a text."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise typer.BadParameter(
            f"{text!r} was given; NAME=VALUE is wanted, such as holdout=0.2", param_hint="--set"
        )
    with suppress(ValueError):
        return name, json.loads(value)
    with suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return name, ast.literal_eval(value)
    return name, value


def _check(name: str, chosen: Mapping[str, Any], preset: str | None) -> None:
    """Refuse what the detector has no parameter for, and settings that are another's."""
    there = _defaults(name)
    for parameter, value in chosen.items():
        if parameter in OPTIONS:
            raise typer.BadParameter(
                f"it has an option: {OPTIONS[parameter]} {value}", param_hint=f"--set {parameter}"
            )
        free = {key: default for key, default in there.items() if key not in (*OPTIONS, *OF_THE_COMMAND)}
        if parameter not in free:
            listed = ", ".join(f"{key}={json.dumps(default)}" for key, default in free.items())
            near = unknown(parameter, free, f"parameter of {name}", f"it has, with their defaults: {listed}")
            raise typer.BadParameter(str(near), param_hint="--set")
    if preset and not hasattr(DETECTORS[name], preset):
        owners = ", ".join(other for other, one in DETECTORS.items() if hasattr(one, preset))
        what = "published settings" if preset == "as_published" else f"settings {preset.replace('_', ' ')}"
        raise typer.BadParameter(
            f"{what} are those of {owners}; leave it out for {name}", param_hint=PRESETS[preset]
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
    check_makable(out.parent)
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
            note(f"going on from epoch {reached}, kept in {str(partial)!r}")
        bar(found)

    try:
        with moving(total) as bar:
            detector.set_params(progress=show).fit(X, y)
    except FloatingPointError:
        partial.unlink(missing_ok=True)  # it would end there again, and other settings would not take it
        raise
    except KeyboardInterrupt:
        done = f"after epoch {reached} of {total}" if reached else "before the first epoch was done"
        said = f"stopped {done}; nothing is kept"
        if partial.exists():
            said = (
                f"stopped {done}; what was trained is kept in {str(partial)!r}: "
                "the same command goes on from there"
            )
        raise stopped(said) from None


def _say_what_was_fitted(detector: Any, n: int, output: Path, free: bool) -> None:
    known, m = n - sum(detector.split_.values()), len(detector.calibration_.scores)
    history = getattr(detector, "history_", [])
    found = {
        "model": output,
        "detector": type(detector).__name__,
        "rows": n,
        "split": detector.split_,
        "known_anomalies": known,
        "learned_from_known": detector.learns_from_known and known > 0,
        "epochs": len(history),
        "kept_epoch": getattr(detector, "kept_epoch_", None) if history else None,
        "smallest_p": 1 / (m + 1),
    }
    if answered(found):
        return
    if free:
        kind = "images" if detector.encoder_.table is None else "a table"
        typer.echo(f"detector: {type(detector).__name__.lower()}, as for {kind}; --detector takes another")
    done = "learned from" if detector.learns_from_known else "left out"
    typer.echo(
        f"rows: {report.split(detector.split_)}"
        + (f"; {counted(known, 'known anomaly')} {done}" if known else "")
    )
    if history and hasattr(detector, "kept_epoch_"):
        all_done = len(history) == detector.get_params()["epochs"]  # else patience ended it
        hint = (
            "; the last one was the best, so more --epochs may help" if all_done and _rising(history) else ""
        )
        typer.echo(f"epoch {detector.kept_epoch_} kept, of {len(history)}{hint}")
    typer.echo(report.smallest_p(m))
    typer.echo(
        f"saved to {output}; next: anograd report {shlex.quote(str(output))} NEW -o report.html, NEW being "
        f"rows to judge"
    )


def _rising(history: list[dict[str, float]]) -> bool:
    """Tell whether the last epoch was the best on rows that were not trained on."""
    if "validation_auroc" in history[-1]:
        quality = [told["validation_auroc"] + told["validation_average_precision"] for told in history]
    elif "validation_loss" in history[-1]:
        quality = [-told["validation_loss"] for told in history]
    else:
        return False
    return all(earlier < quality[-1] for earlier in quality[:-1])

"""``anograd bench``: detectors measured side by side, and the tables of what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from anograd.bench import plan as plans
from anograd.bench import results, sets
from anograd.bench import run as runs
from anograd.bench.pages import describe, fill_pages
from anograd.bench.roster import roster
from anograd.cli.answer import INCOMPLETE, answered, as_json, stopped
from anograd.cli.app import Commands
from anograd.cli.config import command
from anograd.cli.options import argument, option


class WithDefault(Commands):
    """Commands of which "run" may be left out: ``anograd bench quick.toml``."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Take the first word for a run file where it is no command."""
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            args = ["run", *args]
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=WithDefault,
    help="Measure detectors side by side: anograd bench RUN.toml, then anograd bench table.",
    no_args_is_help=True,
)


def run(
    plan: Annotated[Path, argument("RUN.toml", "Data sets, protocols, detectors and seeds.")],
    processes: Annotated[int, option("Cells measured at once.", "--processes", "-p", min=1)] = 1,
    threads: Annotated[int, option("Threads that each cell may use.", min=1)] = 1,
    again: Annotated[bool, option("Try cells again that failed before.", "--again")] = False,
    dry: Annotated[bool, option("Only say what would be measured.", "--dry-run")] = False,
) -> None:
    """Measure what a run file asks for; what was measured before is left: a stopped run goes on."""
    asked = plans.read(plan)
    done = _kept(asked)
    begun = {"cells": len(asked.cells), "before": done, "left_out": asked.unsuited, "results": asked.results}
    if not as_json():
        typer.echo(f"{len(asked.cells)} cells, {done} of them measured before; results in {asked.results}")
        for why in asked.unsuited:
            typer.echo(f"left out: {why}")
    if dry:
        answered(begun)
        return
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[left]}"),
        console=console,
        disable=not console.is_terminal,
    )
    task = bar.add_task("measuring", total=len(asked.cells), completed=done, left="")

    def observe(progress: runs.Progress) -> None:
        line = progress.line
        if not as_json() and (not console.is_terminal or "failed" in line):
            console.print(_told(progress), markup=False, highlight=False, soft_wrap=True)
        bar.update(task, completed=progress.done, left=_left(progress), description=line["detector"])

    try:
        with bar:
            lines = runs.run(asked, processes=processes, threads=threads, again=again, observe=observe)
    except KeyboardInterrupt:
        kept = f"{_kept(asked)} of {len(asked.cells)} cells are kept"
        raise stopped(f"stopped: {kept}; the same command goes on") from None
    failed = [line for line in lines if "failed" in line]
    if not answered({**begun, "measured": len(lines) - len(failed), "failed": len(failed)}):
        typer.echo(
            f"{len(lines) - len(failed)} cells measured, {len(failed)} failed: see them as tables with"
        )
        typer.echo(f"anograd bench table {asked.results}")
    if failed:
        raise typer.Exit(INCOMPLETE)


def _kept(asked: plans.Plan) -> int:
    """Return how many cells of a plan its results file holds."""
    there = {results.key(line) for line in results.read(asked.results)}
    return sum(results.key(cell.line()) in there for cell in asked.cells)


def _told(progress: runs.Progress) -> str:
    line = progress.line
    options = " ".join(f"{name} {value}" for name, value in line["options"].items())
    names = (line["data"], line["protocol"], options, line["detector"], "seed", line["seed"])
    what = " ".join([f"{progress.done}/{progress.cells}", *(str(name) for name in names if name != "")])
    if "failed" in line:
        return f"{what}: failed: {line['failed']}"
    first = next(iter(line["scores"].values()))
    numbers = ", ".join(f"{name} {value:.3f}" for name, value in first.items())
    return f"{what}: {numbers}, {line['fit_seconds']:.1f} s; {_left(progress)}"


def _left(progress: runs.Progress) -> str:
    if progress.left is None:
        return "time left not known yet"
    text = f"about {_duration(progress.left)} left"
    return text + (f" ({progress.untimed} cells of detectors not timed yet)" if progress.untimed else "")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def data() -> None:
    """List the data sets: which are here, which are not, and why."""
    there = [{"name": name, "missing": sets.missing(name)} for name in sets.registry()]
    if not answered({"data_sets": there}):
        for one in there:
            typer.echo(f"{one['name']:24} {one['missing'] or 'here'}")


def table(
    files: Annotated[list[Path] | None, argument("[RESULTS.jsonl]...", "What runs wrote.")] = None,
    measure: Annotated[str, option("Such as auroc, average_precision or f1.")] = "auroc",
    score: Annotated[list[str] | None, option("Scores of each fit, such as twin; repeat for more.")] = None,
    pages: Annotated[Path | None, option("Fill the pages that this TOML file names instead.")] = None,
    check: Annotated[bool, option("Only tell whether pages are out of date, by the exit code.")] = False,
) -> None:
    """Turn results into tables: on the terminal, or in the pages of a documentation."""
    labels = {name: entrant.label for name, entrant in roster().items()}
    if (pages is None) == (not files):
        raise typer.BadParameter("either files of results or --pages is wanted, such as results/quick.jsonl")
    if pages is not None:
        stale = fill_pages(pages, check, labels=labels)
        if not answered({"pages": stale}):
            for path in stale:
                typer.echo(f"{path}: {'is out of date' if check else 'made anew'}")
        raise typer.Exit(1 if check and stale else 0)
    lines = []
    for path in files or []:
        if not path.is_file():
            raise FileNotFoundError(
                f"there is no results file {str(path)!r}: anograd bench RUN.toml writes one"
            )
        lines += results.read(path)
    tables = describe(lines, measure, scores=score or ("score",), labels=labels)
    if not answered({"markdown": tables}):
        typer.echo(tables)


command(app, run, "run", config=False)
command(app, data, "data", config=False)
command(app, table, "table", config=False)

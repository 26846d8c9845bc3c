"""``anograd score --engine ray``: a folder of parts, scored on many processors or machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

from anograd.cli.answer import Misused, answered, note, stopped
from anograd.cli.bar import moving
from anograd.decide import counted

MANY = "Many processors"
ENGINE = "Score a folder of Parquet parts on Ray; DATA and --output are folders, on a cluster shared ones."
WORKERS = "Processes that score, one processor each; all processors there are."
KEEP = "A column to write beside the scores, such as an id; repeat for more."


class Engine(StrEnum):
    """Values of --engine."""

    ray = "ray"


def score_parts(
    model: Path, data: str, output: str, rule: Mapping[str, Any], workers: int | None, keep: Sequence[str]
) -> None:
    """Score parts, show how far it is, and say what came of it.

    Parameters
    ----------
    model : Path
    data, output : str
        Folders.
    rule : mapping
    workers : int or None
    keep : sequence of str
    """
    if set(rule) != {"alpha"}:
        way = next(f"{name}={value}" for name, value in rule.items())
        raise Misused(
            "--engine ray judges each row by itself, by --alpha: score so, then judge the column of scores: "
            f"anograd.load(model).calibration_.detect(scores, {way})"
        )
    from anograd.scale import score_on_ray

    reached = "before the first part was done"

    def show(name: str, found: Mapping[str, Any]) -> None:
        nonlocal reached
        reached = f"after {found['part']} of {found['parts']} parts"
        bar({"epoch": found["part"], "epochs": found["parts"]})

    try:
        with moving(None, "part") as bar:
            done = score_on_ray(
                model, data, output, alpha=rule["alpha"], columns=keep, workers=workers, observe=show
            )
    except KeyboardInterrupt:
        raise stopped(f"stopped {reached}; the same command goes on from there") from None
    kept = sum(part.kept for part in done)
    rows, alarms = (sum(getattr(part, name) for part in done) for name in ("rows", "alarms"))
    found = {"rows": rows, "alarms": alarms, "rule": rule, "output": output}
    if answered(found | {"parts": len(done), "kept": kept}):
        return
    aside = f" ({kept} of them from before)" if kept else ""
    note(
        f"{counted(rows, 'row')} in {counted(len(done), 'part')}{aside}, {counted(alarms, 'alarm')} at alpha "
        f"{rule['alpha']}; written to {output}"
    )

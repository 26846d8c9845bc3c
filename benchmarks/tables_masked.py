"""The tables on hidden columns told from the others: the sets that settings are chosen by, and R2-AD2's."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import masked_columns
import record
from table_parts import Line, latest, markdown, origin

DETECTORS = {"for-tables": 100, "for-tables-20": 20}  # epochs at most
SCORES = {
    "score": "`for_tables`", "twin": "its twin", "loss": "loss alone", "statistic": "statistic alone",
    "default": "`GradScoreTest`", "r2ad2": "`R2AD2`, no labels",
}  # fmt: skip
RIVALS = (("isolation-forest", "score"), ("r2ad2", "score"))  # measured in the same protocol
UNLABELLED = ("score", "novelty", "twin")


def development() -> str:
    """Return AUROC on each development set and the means."""
    lines = latest(masked_columns.NAME, ("data", "seed"))
    if not lines:
        return "Not measured yet."
    rows = [
        [line["data"].removeprefix("adbench/"), line["columns"], *_cells([line]), line["fit_seconds"]]
        for line in lines
    ]
    seconds = statistics.median(line["fit_seconds"] for line in lines)
    rows.append([f"**mean of {len(lines)}**", "", *_cells(lines), f"{seconds} (median)"])
    head = ("development set", "columns", *SCORES.values(), "s to fit `for_tables`")
    return "\n\n".join([markdown(head, rows), origin(lines)])


def _cells(lines: Sequence[Line]) -> list[str]:
    return [f"{statistics.mean(line[f'auroc_{score}'] for line in lines):.3f}" for score in SCORES]


def protocol() -> str:
    """Return AUROC and average precision in R2-AD2's protocol, beside detectors that were measured in it."""
    lines = latest("masked", ("data", "detector", "seed"))
    if not lines:
        return "Not measured yet."
    others = [line for line in record.read("r2ad2") if not line["options"]]
    rows = []
    for data in dict.fromkeys(line["data"] for line in lines):
        ours = [line for line in lines if line["data"] == data]
        here = [line for line in ours if line["detector"] != "r2ad2"]
        alone = [line for line in ours if line["detector"] == "r2ad2"]
        seeds = {line["seed"] for line in here}
        beside = [line for line in others if line["data"] == data and line["seed"] in seeds]
        found = [_pair(here, score) for score in ("score", "twin")]
        found += [_pair(alone, score) for score in UNLABELLED]
        for name, score in RIVALS:
            found.append(_pair([line for line in beside if line["detector"] == name], score))
        rows.append([data, len(seeds), DETECTORS[here[0]["detector"]], *found])
    head = (
        "data set", "seeds", "epochs at most", "`for_tables`", "its twin", "`R2AD2`, no labels",
        "its novelty", "its twin", "isolation forest", "`R2AD2`, 100 labels",
    )  # fmt: skip
    return "\n\n".join([markdown(head, rows), origin(lines)])


def _pair(lines: Sequence[Line], score: str) -> str:
    found = [line["scores"][score] for line in lines if "scores" in line]
    if not found:
        return ""
    means = [statistics.mean(one[measure] for one in found) for measure in ("auroc", "average_precision")]
    return " / ".join(f"{mean:.3f}" for mean in means)


TABLES = {"masked-development": development, "masked-protocol": protocol}

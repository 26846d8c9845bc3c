"""The tables on R2-AD2, made of the lines of `r2ad2_tables` and `r2ad2_variants`, for `tables` to place."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from functools import partial

import r2ad2_tables
import r2ad2_variants
import table_sets
from table_parts import Line, latest, markdown, origin, spread

MISSING = "Not measured yet."
METHODS = {
    "default": "R2AD2",
    "novelty": "its novelty alone (no labels)",
    "twin": "its reconstruction error (no labels)",
    "columns": "its scorer on the columns",
    "published": "as published",
    "published-1": "as published, 1 checkpoint",
    "a3": "A3 (activations)",
    "forest": "random forest",
    "isolation": "isolation forest (no labels)",
}
SHORT = {
    "default": "R2AD2",
    "twin": "its reconstruction error",
    "a3": "A3",
    "published": "as published",
    "forest": "random forest",
    "isolation": "isolation forest",
}
PARTS = ("twin", "novelty")  # their fit is that of the default


def measured() -> list[Line]:
    """Return the lines on sets; of fits with the same settings but for the epochs, those of the most."""
    fields = ("data", "transfer", "known_at_most", "seed", "method", "epochs")
    found = [line for line in latest(r2ad2_tables.NAME, fields) if line["known_at_most"] == 100]
    most: dict[tuple[str, bool, str], int] = {}
    for line in found:
        key = (line["data"], line["transfer"], line["method"])
        most[key] = max(most.get(key, 0), line["epochs"] or 0)
    return [
        line
        for line in found
        if (line["epochs"] or 0) == most[line["data"], line["transfer"], line["method"]]
    ]


def of_set(name: str) -> str:
    """Return the tables on one set: ranking, and cost of a fit and of a score."""
    lines = [line for line in measured() if line["data"] == name]
    if not lines:
        return MISSING
    found = []
    for transfer in (False, True):
        group = [line for line in lines if line["transfer"] is transfer]
        if group:
            found += [_sizes(group, transfer), _ranked(group)]
    return "\n\n".join([*found, origin(lines)])


def _sizes(lines: Sequence[Line], transfer: bool) -> str:
    kinds = ""
    if transfer:
        classes = ", ".join(map(str, table_sets.TRANSFER[lines[0]["data"]]))
        kinds = f" of the classes {classes} only"
    sizes = {
        field: _range([line[field] for line in lines])
        for field in ("known", "normal_rows", "test_rows", "test_anomalies")
    }
    text = (
        f"{'Transfer' if transfer else 'All kinds known'}: {sizes['known']} known anomalies{kinds}, "
        f"{sizes['normal_rows']} normal rows; tested on {sizes['test_rows']} rows, "
        f"{sizes['test_anomalies']} of them anomalous."
    )
    published = [line for line in lines if line["method"].startswith("published")]
    fewer = [line for line in published if line["rows_trained_on"] < line["normal_rows"] + line["known"]]
    if fewer:
        rows = _range([line["rows_trained_on"] for line in fewer])
        text += f" The published method learns from {rows} of these rows."
    for method in dict.fromkeys(line["method"] for line in published):
        line = next(line for line in published if line["method"] == method)
        steps = line["epochs"] * math.ceil(line["rows_trained_on"] / line["batch"])
        text += (
            f" {METHODS[method].capitalize()}: {line['epochs']} epochs of the alarm network in batches of "
            f"{line['batch']}, which is {steps:,} steps."
        )
    return text


def _range(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _ranked(lines: Sequence[Line]) -> str:
    measures = ["auroc", "average_precision"]
    head = ["method", "seeds", "AUROC", "average precision"]
    if all("auroc_rare" in line for line in lines):
        measures += ["auroc_rare", "average_precision_rare"]
        head += ["AUROC, R2L and U2R only", "average precision, R2L and U2R only"]
    rows = []
    for method, title in METHODS.items():
        group = [line for line in lines if line["method"] == method]
        if group:
            ranked = [spread([line[measure] for line in group]) for measure in measures]
            seconds = "as R2AD2" if method in PARTS else f"{_median(group, 'fit_seconds'):.1f}"
            fast = f"{_median(group, 'rows_per_second'):,.0f}"
            rows.append([title, len(group), *ranked, seconds, fast])
    return markdown([*head, "fit, s", "rows scored a second"], rows)


def _median(lines: Sequence[Line], field: str) -> float:
    return float(statistics.median(line[field] for line in lines))


def overview() -> str:
    """Return means over seeds on all sets, for README."""
    lines = measured()
    if not lines:
        return MISSING
    rows = []
    for name in table_sets.SETS:
        for transfer in (False, True):
            group = [line for line in lines if line["data"] == name and line["transfer"] is transfer]
            cells = [_means([line for line in group if line["method"] == method]) for method in SHORT]
            if any(cells):
                rows.append([name + (", transfer" if transfer else ""), *cells])
    return "\n\n".join([markdown(["data set", *SHORT.values()], rows), origin(lines)])


def _means(lines: Sequence[Line]) -> str:
    if not lines:
        return ""
    return " / ".join(
        f"{statistics.mean(line[measure] for line in lines):.3f}"
        for measure in ("auroc", "average_precision")
    )


def study(name: str) -> list[Line]:
    """Return the lines of one study of variants."""
    fields = ("study", "variant", "data", "transfer", "seed")
    return [line for line in latest(r2ad2_variants.NAME, fields) if line["study"] == name]


def groups(lines: Sequence[Line]) -> list[list[Line]]:
    """Return the lines by set and variant, sets in order of name, variants by `_place`."""
    found: dict[tuple[str, str], list[Line]] = {}
    for line in sorted(lines, key=lambda line: (line["data"], _place(line))):
        found.setdefault((line["data"], line["variant"]), []).append(line)
    return list(found.values())


def _place(line: Line) -> tuple[list[int], int, str]:
    """Return what variants are sorted by: the target's widths, raw before sketches by size, then the name."""
    settings = line["settings"]
    return list(settings.get("hidden") or []), settings.get("sketch") or 0, line["variant"]


def sketch() -> str:
    """Sketches beside raw gradients."""
    lines = study("sketch")
    if not lines:
        return MISSING
    rows = [
        [
            group[0]["data"], group[0]["variant"], len(group), f"{group[0]['entries']:,}",
            f"{group[0]['input_weights']:,}", *_both(group), f"{_median(group, 'fit_seconds'):.1f}",
            f"{_median(group, 'rows_per_second'):,.0f}",
        ]
        for group in groups(lines)
    ]  # fmt: skip
    head = (
        "data set", "gradients", "seeds", "numbers a checkpoint", "input weights of one alarm network",
        "AUROC", "average precision", "fit, s", "rows scored a second",
    )  # fmt: skip
    return "\n\n".join([markdown(head, rows), origin(lines)])


def time() -> str:
    """One to four checkpoints at equal weights."""
    lines = study("time")
    if not lines:
        return MISSING
    rows = [
        [
            group[0]["data"], group[0]["variant"], len(group),
            ", ".join(map(str, group[0]["settings"]["widths"])), f"{group[0]['weights']:,}",
            *_both(group, "_alarm"), *_both(group), f"{_median(group, 'fit_seconds'):.1f}",
        ]
        for group in groups(lines)
    ]  # fmt: skip
    head = (
        "data set", "alarm networks", "seeds", "widths", "weights of one", "AUROC of the alarm networks",
        "average precision of the alarm networks", "AUROC with novelty", "average precision with novelty",
        "fit, s",
    )  # fmt: skip
    return "\n\n".join([markdown(head, rows), origin(lines)])


def _both(lines: Sequence[Line], which: str = "") -> list[str]:
    return [spread([line[measure + which] for line in lines]) for measure in ("auroc", "average_precision")]


def ablation() -> str:
    """Means over development sets of what the default's parts are worth."""
    lines = study("ablation")
    if not lines:
        return MISSING
    rows = []
    for variant in r2ad2_variants.ABLATION:
        cells = [_compared(lines, variant, transfer) for transfer in (False, True)]
        seconds = [line["fit_seconds"] for line in lines if line["variant"] == variant]
        if seconds:
            rows.append([variant, *cells[0], *cells[1], f"{statistics.median(seconds):.1f}"])
    head = (
        "variant", "fits", "AUROC", "average precision", "fits, transfer", "AUROC, transfer",
        "average precision, transfer", "median fit, s",
    )  # fmt: skip
    return "\n\n".join([markdown(head, rows), origin(lines)])


def _compared(lines: Sequence[Line], variant: str, transfer: bool) -> list[str]:
    """Return fits and means, with the difference to the default on the same sets and seeds."""
    default, own = (
        {
            (line["data"], line["seed"]): line
            for line in lines
            if line["variant"] == one and line["transfer"] is transfer
        }
        for one in ("default", variant)
    )
    shared = [key for key in own if key in default]
    if not shared:
        return ["0", "", ""]
    cells = [str(len(shared))]
    for measure in ("auroc", "average_precision"):
        mean, base = (statistics.mean(found[key][measure] for key in shared) for found in (own, default))
        cells.append(f"{mean:.4f}" + (f" ({mean - base:+.4f})" if variant != "default" else ""))
    return cells


def memory() -> str:
    """Peak memory of fit and score over tables of unlike length."""
    lines = latest("memory", ("stage", "rows", "memory"))
    if not lines:
        return MISSING
    first: dict[tuple[str, str], float] = {}
    rows = []
    for line in sorted(lines, key=lambda one: (one["stage"], one["memory"], one["rows"])):
        least = first.setdefault((line["stage"], line["memory"]), line["peak_mib"])
        rows.append(
            [
                line["stage"], line["memory"], f"{line['rows']:,}", f"{line['peak_mib']:.0f}",
                f"{line['peak_mib'] / least:.2f}", f"{line['seconds']:.1f}",
            ]
        )  # fmt: skip
    head = ("stage", "memory=", "rows", "peak, MiB", "times the shortest", "s")
    return "\n\n".join([markdown(head, rows), origin(lines)])


def checkpoints() -> str:
    """Gradients at three checkpoints by a pass each and by one batched pass."""
    lines = latest("checkpoints", ("data", "rows", "sketch"))
    if not lines:
        return MISSING
    rows = [
        [
            line["data"], line["rows"], "raw" if line["sketch"] is None else f"sketch={line['sketch']}",
            line["each_ms"], line["stacked_ms"], f"{line['ratio']:.2f}",
        ]
        for line in lines
    ]  # fmt: skip
    head = ("network of", "rows", "gradients", "a pass each, ms", "one batched pass, ms", "ratio")
    return "\n\n".join([markdown(head, rows), origin(lines)])


def cost() -> str:
    """One whole fit and score in a process of its own, with all threads."""
    lines = latest("cost", ("data", "detector", "threads"))
    if not lines:
        return MISSING
    rows = [
        [
            line["data"], line["detector"], line["threads"], f"{line['fit_seconds']:.0f}",
            f"{line['peak_mib']:.0f}", f"{line['rows_per_second']:,}",
        ]
        for line in lines
    ]  # fmt: skip
    head = ("set", "detector", "threads", "fit, s", "peak of fit and score, MiB", "rows scored a second")
    return "\n\n".join([markdown(head, rows), origin(lines)])


TABLES: dict[str, Callable[[], str]] = {
    "r2ad2-memory": memory,
    "r2ad2-checkpoints": checkpoints,
    "r2ad2-cost": cost,
    "tables": overview,
    **{f"r2ad2-{name}": partial(of_set, name) for name in table_sets.SETS},
    "r2ad2-sketch": sketch,
    "r2ad2-time": time,
    "r2ad2-ablation": ablation,
}

"""The tables on R2-AD2, for `tables` to place: as published, its parts, and README's on tables."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Iterator, Sequence

import r2ad2_published
import r2ad2_variants
import record
from anograd.bench import results
from table_parts import Line, latest, markdown, origin, spread

MISSING = "Not measured yet."
RIVALS = {  # of README's table: detector and score
    "R2AD2": ("r2ad2", "score"),
    "its reconstruction error": ("r2ad2", "twin"),
    "random forest": ("random-forest", "score"),
    "A3": ("a3", "score"),
    "isolation forest": ("isolation-forest", "score"),
    "DeepSAD": ("deepsad", "score"),
    "CatBoost": ("catboost", "score"),
}
MEASURES = ("auroc", "average_precision")


def published() -> str:
    """Short runs of the published method, and the default on the same sets beside it."""
    fields = ("data", "transfer", "checkpoints", "epochs", "batch", "seed")
    runs: dict[tuple[str, bool], dict[tuple[int, int, int], list[Line]]] = {}
    for line in latest(r2ad2_published.NAME, fields):
        of_set = runs.setdefault((line["data"], line["transfer"]), {})
        of_set.setdefault((-line["checkpoints"], line["epochs"], line["batch"]), []).append(line)
    rows, used = [], []
    for place, default in _of_paper("r2ad2"):
        ours = ["", "", ""]
        if default:
            scores = [line["scores"]["score"] for line in default]
            ours = [*_both(scores), f"{_median(default, 'fit_seconds'):.1f}"]
        for (checkpoints, epochs, batch), group in sorted(runs.get(place, {}).items()):
            trained = [line["rows_trained_on"] for line in group]
            rows.append(
                [
                    _titled(*place), -checkpoints, _range(trained), f"{epochs} x {batch}",
                    f"{epochs * math.ceil(max(trained) / batch):,}", len(group), *_both(group),
                    f"{_median(group, 'fit_seconds'):.1f}", *ours,
                ]
            )  # fmt: skip
            used += [*group, *default]
    head = (
        "data set", "checkpoints", "rows learned from", "epochs x batch", "steps", "seeds", "AUROC",
        "average precision", "fit, s", "R2AD2: AUROC", "R2AD2: average precision", "R2AD2: fit, s",
    )  # fmt: skip
    return "\n\n".join([markdown(head, rows), origin(used)])


def _of_paper(detector: str) -> Iterator[tuple[tuple[str, bool], list[Line]]]:
    """Yield each set of R2-AD2's protocol, whether transfer, and a detector's lines if it has all seeds."""
    found = results.read(record.RESULTS / "r2ad2.jsonl")
    for name in r2ad2_published.SETS:
        for transfer in (False, True):
            options = {"transfer": True} if transfer else {}
            cell = {"data": name, "detector": detector, "settings": {}, "options": options}
            lines = [
                line
                for line in found
                if "scores" in line and all(line[field] == value for field, value in cell.items())
            ]
            whole = {line["seed"] for line in lines} >= set(r2ad2_published.SEEDS)
            yield (name, transfer), lines if whole else []


def _titled(name: str, transfer: bool) -> str:
    return name + (", transfer" if transfer else "")


def _range(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _median(lines: Sequence[Line], field: str) -> float:
    return float(statistics.median(line[field] for line in lines))


def overview() -> str:
    """Return means over seeds on all sets, for README."""
    rows: dict[str, list[str]] = {}
    used: list[Line] = []
    for detector, score in RIVALS.values():
        for place, lines in _of_paper(detector):
            means = (
                statistics.mean(line["scores"][score][measure] for line in lines) for measure in MEASURES
            )
            cell = " / ".join(f"{mean:.3f}" for mean in means) if lines else ""
            rows.setdefault(_titled(*place), []).append(cell)
            used += lines
    shown = [[title, *cells] for title, cells in rows.items() if any(cells)]
    return "\n\n".join([markdown(["data set", *RIVALS], shown), origin(used)])


def study(name: str) -> list[Line]:
    """Return the lines of one study of variants."""
    fields = ("study", "variant", "data", "regime", "transfer", "seed")
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
            *_both(group, "_alarm"), *_both(group), f"{_median(group, 'cpu_seconds'):.1f}",
        ]
        for group in groups(lines)
    ]  # fmt: skip
    head = (
        "data set", "alarm networks", "seeds", "widths", "weights of one", "AUROC of the alarm networks",
        "average precision of the alarm networks", "AUROC with novelty", "average precision with novelty",
        "fit, CPU s",
    )  # fmt: skip
    return "\n\n".join([markdown(head, rows), origin(lines)])


def _both(lines: Sequence[Line], which: str = "") -> list[str]:
    return [spread([line[measure + which] for line in lines]) for measure in MEASURES]


def ablation() -> str:
    """Means over development sets of what the default's parts are worth."""
    lines = study("ablation")
    if not lines:
        return MISSING
    rows = []
    for variant in r2ad2_variants.ABLATION:
        cells = [_compared(lines, variant, *one) for one in r2ad2_variants.REGIMES]
        seconds = [line["fit_seconds"] for line in lines if line["variant"] == variant]
        if seconds:
            rows.append([variant, *itertools.chain(*cells), f"{statistics.median(seconds):.1f}"])
    head = (
        "variant", "fits", "AUROC", "average precision", "fits, transfer", "AUROC, transfer",
        "average precision, transfer", "fits, contaminated", "AUROC, contaminated",
        "average precision, contaminated", "median fit, s",
    )  # fmt: skip
    return "\n\n".join([markdown(head, rows), origin(lines)])


def _compared(lines: Sequence[Line], variant: str, regime: str, transfer: bool) -> list[str]:
    """Return fits and means, with the difference to the default on the same sets and seeds."""
    default, own = (
        {
            (line["data"], line["seed"]): line
            for line in lines
            if (line["variant"], line["regime"], line["transfer"]) == (one, regime, transfer)
        }
        for one in ("default", variant)
    )
    shared = [key for key in own if key in default]
    if not shared:
        return ["0", "", ""]
    cells = [str(len(shared))]
    for measure in MEASURES:
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


TABLES: dict[str, Callable[[], str]] = {
    "r2ad2-memory": memory,
    "r2ad2-checkpoints": checkpoints,
    "tables": overview,
    "r2ad2-published": published,
    "r2ad2-sketch": sketch,
    "r2ad2-time": time,
    "r2ad2-ablation": ablation,
}

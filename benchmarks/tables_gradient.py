"""The tables on gradient scores: what each is and costs, and what its gradients add to its twin."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from scipy.stats import wilcoxon

import detector_costs
import engine_kinds
import gradient_scores
from anograd.bench.stats import holm
from anograd.detectors import DETECTORS, Detector
from table_parts import Line, latest, markdown, origin

AIM = 1.3


def means(lines: Sequence[Line], score: str, field: str) -> list[float]:
    """Return the mean over seeds of a field, one number a data set, in the order of the sets' names."""
    found: dict[str, list[float]] = {}
    for line in lines:
        if line["detector"] == score:
            found.setdefault(line["data"], []).append(line[field])
    return [statistics.mean(found[name]) for name in sorted(found)]


def twins() -> str:
    """Each score beside its twin and beside the loss, over all sets."""
    lines = latest(gradient_scores.NAME, ("data", "seed", "detector"))
    scores = [name for name in gradient_scores.SCORES if name != "loss" and means(lines, name, "auroc_score")]
    if not scores:
        return "Not measured yet."
    loss = means(lines, "loss", "auroc_score")
    tests: dict[str, list[float]] = {"twin": [], "loss": []}
    for score in scores:
        own, twin = (means(lines, score, f"auroc_{which}") for which in ("score", "twin"))
        for against, other in (("twin", twin), ("loss", loss)):
            tests[against].append(float(wilcoxon(own, other).pvalue))
    corrected = {against: holm(values) for against, values in tests.items()}
    rows = []
    for i, score in enumerate(scores):
        own, twin = (means(lines, score, f"auroc_{which}") for which in ("score", "twin"))
        precisions = (means(lines, score, f"average_precision_{which}") for which in ("score", "twin"))
        learns = next(line["learns_from_known"] for line in lines if line["detector"] == score)
        rows.append(
            [
                f"`{score}`", "yes" if learns else "no", f"{statistics.mean(own):.3f}",
                f"{statistics.mean(twin):.3f}", f"{statistics.median(_differences(own, twin)):+.3f}",
                f"{sum(a > b for a, b in zip(own, twin, strict=True))} of {len(own)}",
                f"{corrected['twin'][i]:.3f}", f"{statistics.median(_differences(own, loss)):+.3f}",
                f"{corrected['loss'][i]:.3f}",
                " / ".join(f"{statistics.mean(values):.3f}" for values in precisions),
            ]
        )  # fmt: skip
    head = (
        "score", "learns from labels", "AUROC", "twin's AUROC", "median difference",
        "sets on which it is higher", "p (twin)", "median difference to the loss", "p (loss)",
        "average precision / twin's",
    )  # fmt: skip
    sets, seeds = len({line["data"] for line in lines}), len({line["seed"] for line in lines})
    about = (
        f"{sets} data sets of ADBench, {seeds} seeds, means over seeds first. Clean regime, at most "
        f"{gradient_scores.MOST_NORMAL:,} normal rows and {gradient_scores.KNOWN} known anomalies. The loss "
        f"alone (reconstruction error) has a mean AUROC of {statistics.mean(loss):.3f}. p: two-sided "
        f"Wilcoxon signed-rank test over the sets, corrected by Holm over the {len(scores)} scores."
    )
    return "\n\n".join([about, markdown(head, rows), _by_set(lines, scores), origin(lines)])


def _differences(own: Sequence[float], other: Sequence[float]) -> list[float]:
    return [a - b for a, b in zip(own, other, strict=True)]


def _by_set(lines: Sequence[Line], scores: Sequence[str]) -> str:
    names = sorted({line["data"] for line in lines})
    columns = {
        score: list(zip(*(means(lines, score, f"auroc_{which}") for which in ("score", "twin")), strict=True))
        for score in scores
    }
    loss = means(lines, "loss", "auroc_score")
    rows = [
        [
            name,
            f"{loss[i]:.3f}",
            *(f"{columns[score][i][0]:.3f} / {columns[score][i][1]:.3f}" for score in scores),
        ]
        for i, name in enumerate(names)
    ]
    head = ("AUROC, score / twin", "loss", *(score.replace("Grad", "", 1) for score in scores))
    return markdown(head, rows)


def cards() -> str:
    """Every detector: its paper, what it needs, what it reads, what a score costs, its twin."""
    lines = latest(detector_costs.NAME, ("detector", "rows"))
    if not lines:
        return "Not measured yet."
    rows = []
    for name in dict.fromkeys(line["detector"] for line in lines):
        kind = next(kind for kind in DETECTORS.values() if kind.__name__ == name.partition("(")[0])
        by_rows = {line["rows"]: line for line in lines if line["detector"] == name}
        costs, peaks = (
            " / ".join(f"{by_rows[rows][field]:.2f}" for rows in detector_costs.ROWS)
            for field in ("times_forward_backward", "peak_times_forward_backward")
        )
        paper = f"[{kind.paper.venue} {kind.paper.year}](https://arxiv.org/abs/{kind.paper.arxiv})"
        labels = "learns from a few" if kind.learns_from_known else "none"
        rows.append([f"`{name}`", paper, labels, _targets(kind), costs, peaks, kind.twin])
    head = (
        "detector", "paper", "labels", "networks", "time of a score, table / images",
        "peak memory, table / images", "forward-only twin",
    )  # fmt: skip
    about = (
        "Times and peak memory of a score are multiples of one forward and backward pass of the same "
        "network, one thread: a table of 40 columns, 512 rows at once; images of 28 x 28, 128 at once."
    )
    return "\n\n".join([about, markdown(head, rows), origin(lines)])


def _targets(kind: type[Detector]) -> str:
    own = [name for name in getattr(kind, "kinds", ("dense", "conv")) if name != "auto"]
    if not own:
        return "a classifier of clusters; any classifier, adopted"
    return ", ".join(own) + ("; any network, adopted" if hasattr(kind, "kinds") else "")


def kinds() -> str:
    """Cost of norm, inner product and sketch of all gradients, over kinds of networks."""
    lines = latest(engine_kinds.NAME, ("kind", "way"))
    if not lines:
        return "Not measured yet."
    ways = [way for way in dict.fromkeys(line["way"] for line in lines) if way != "forward + backward"]
    rows = []
    for kind in dict.fromkeys(line["kind"] for line in lines):
        by_way = {line["way"]: line for line in lines if line["kind"] == kind}
        plain = by_way["forward + backward"]
        cells = [_cost(by_way.get(way), plain) for way in ways]
        rows.append(
            [kind, plain["batch"], f"{plain['milliseconds']:.0f} ms, {plain['peak_mib']:.0f} MiB", *cells]
        )
    head = ("network", "rows at once", "one forward + backward", *ways)
    about = (
        "Norm, inner product and sketch of every parameter's gradient, out of one pass over the rows, one "
        "thread; the other ways store the gradients and give norm and inner product. Times are multiples "
        "of one forward and backward pass of the same network; memory is the peak of what is allocated."
    )
    slower = [
        line["kind"] for line in lines if line["way"] == "anograd" and line["times_forward_backward"] > AIM
    ]
    aim = f"The aim, {AIM} times, is met on {len(rows) - len(slower)} of {len(rows)} networks"
    aim += f"; missed on: {'; '.join(slower)}." if slower else "."
    why = sorted({f"{line['way']}, {line['kind']}: {line['failed']}" for line in lines if line.get("failed")})
    notes = "\n".join(f"- {one}" for one in why)
    measured = [line for line in lines if not line.get("failed")]
    return "\n\n".join([about, markdown(head, rows), aim, "Failed:", notes, origin(measured)])


def _cost(line: Line | None, plain: Line) -> str:
    if line is None:
        return f"not tried: {4 * plain['batch'] * plain['weights'] / 2**30:.1f} GiB of gradients"
    if line.get("failed"):
        return "fails"
    return f"{line['times_forward_backward']:.2f} x, {line['peak_mib']:.0f} MiB"


TABLES = {"gradient-twins": twins, "detectors": cards, "engine-kinds": kinds}

"""The table on the score test on images: each class, and the means beside the published ones."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence

import score_test_images
from table_parts import Line, latest, markdown, origin

SETS = {"mnist": "MNIST", "cifar10": "CIFAR-10", "fashion_mnist": "Fashion-MNIST"}
# Mean one-class AUROC of GradCon in its authors' abstract of an earlier version of the paper.
PUBLISHED = {"mnist": "0.973", "cifar10": "0.664", "fashion_mnist": "0.934"}
COLUMNS = (
    ("score test", "reconstruction"), ("score test", "statistic"), ("score test", "score"),
    ("score test", "twin"), ("GradCon", "score"),
)  # fmt: skip
WHOLE_COLUMNS = (
    (score_test_images.WHOLE, "reconstruction"), ("score test", "score"), ("score test", "twin"),
    *((score_test_images.WHOLE, score) for score in (
        "statistic", "score", "twin_statistic", "twin", "both_statistics", "both_and_error",
    )),
)  # fmt: skip
ROTATIONS_COLUMNS = (
    (score_test_images.WHOLE, "both_and_error"), (score_test_images.WHOLE, "twin"),
    *((score_test_images.ROTATIONS, score) for score in ("decoder", "turns", "score", "twin")),
    (score_test_images.LONG_GRADCON, "reconstruction"), (score_test_images.LONG_GRADCON, "score"),
)  # fmt: skip
CLASSES = 10
COLLAPSED = 1.0  # of the error of the mean image


def table() -> str:
    """Reconstruction, statistic, score, twin and GradCon, a line a class and a mean a data set."""
    lines = _lines()
    lines = [line for line in lines if line["method"] in ("score test", "GradCon")]
    if not lines:
        return "Not measured yet."
    rows = []
    for data, title in SETS.items():
        here = [line for line in lines if line["data"] == data]
        if not here:
            continue
        inliers = sorted({line["inlier"] for line in here})
        each = {
            inlier: [_mean(here, inlier, method, score) for method, score in COLUMNS] for inlier in inliers
        }
        for inlier, cells in each.items():
            shown = [_cell(cell) for cell in cells]
            if any(line["error_by_variance"] > COLLAPSED for line in _of(here, inlier, "GradCon")):
                shown[-1] += " (collapsed)"
            if any(line["error_by_variance"] > COLLAPSED for line in _of(here, inlier, "score test")):
                shown[0] += " (collapsed)"
            rows.append([f"{title} {inlier}", _seeds(here, inlier), *shown, ""])
        columns = list(zip(*each.values(), strict=True))
        means = [None if None in column else statistics.mean(column) for column in columns]
        label = f"**{title}, mean of {len(inliers)} classes**"
        bold = ["" if mean is None else f"**{_cell(mean)}**" for mean in means]
        rows.append([label, "", *bold, PUBLISHED[data]])
    head = (
        "inlier class", "seeds", "reconstruction", "statistic alone", "score", "its twin, forward only",
        "GradCon, weight 0.12, 5 epochs", "GradCon, published",
    )  # fmt: skip
    return "\n\n".join([markdown(head, rows), origin(lines)])


def longer() -> str:
    """Return what a hundred epochs bring beside ten, of the same classes and seeds, a line a data set."""
    lines = _lines()
    long = [line for line in lines if line["method"] == score_test_images.LONG]
    if not long:
        return "Not measured yet."
    # A seed of which only some classes were run would weigh these more than the others.
    run = Counter((line["data"], line["seed"]) for line in long)
    most = {data: max(count for (of, _), count in run.items() if of == data) for data, _ in run}
    long = [line for line in long if run[line["data"], line["seed"]] == most[line["data"]]]
    short = [line for line in _beside(long, lines) if line["method"] == "score test"]
    rows = []
    for data, title in SETS.items():
        for label, found in (("10", short), ("100", long)):
            here = [line for line in found if line["data"] == data]
            if not here:
                continue
            means = [
                statistics.mean(line[f"auroc_{score}"] for line in here)
                for score in ("reconstruction", "statistic", "score", "twin")
            ]
            classes = ", ".join(str(one) for one in sorted({line["inlier"] for line in here}))
            seeds = len({line["seed"] for line in here})
            rows.append([title, label, classes, str(seeds), *map(_cell, means)])
    head = (
        "data set", "epochs", "inlier classes", "seeds", "reconstruction", "statistic alone", "score",
        "its twin, forward only",
    )  # fmt: skip
    return "\n\n".join([markdown(head, rows), origin(long)])


def whole() -> str:
    """Return what all of F brings beside its diagonal, of the same classes and seeds, a line a data set."""
    head = (
        "reconstruction", "diagonal: score", "its twin", "all of F: statistic alone", "score",
        "inputs' statistic alone", "twin", "both statistics", "both and the error",
    )  # fmt: skip
    return _means(score_test_images.WHOLE, WHOLE_COLUMNS, head)


def rotations() -> str:
    """Return what telling turns brings, of the same classes and seeds, a line a data set."""
    head = (
        "autoencoder alone", "its twin", "beside a classifier of turns: decoder alone", "turns alone",
        "score", "twin", "GradCon's reconstruction, 30 epochs", "GradCon, weight 0.12, 30 epochs",
    )  # fmt: skip
    return _means(score_test_images.ROTATIONS, ROTATIONS_COLUMNS, head)


def _means(method: str, columns: Sequence[tuple[str, str]], head: Sequence[str]) -> str:
    """Return means over the seeds of which a method was run on all classes, and others beside it as well."""
    lines = _lines()
    run = Counter((line["data"], line["seed"], line["method"]) for line in lines)
    lines = [line for line in lines if run[line["data"], line["seed"], line["method"]] == CLASSES]
    found = [line for line in lines if line["method"] == method]
    if not found:
        return "Not measured yet."
    read = {whose for whose, _ in columns}
    both, rows = [line for line in _beside(found, lines) if line["method"] in read], []
    for data, title in SETS.items():
        of_data = [line for line in both if line["data"] == data]
        if not of_data:
            continue
        seeds = len({line["seed"] for line in of_data})
        cells = [_mean_of(of_data, whose, score, seeds) for whose, score in columns]
        rows.append([title, str(seeds), *cells, PUBLISHED[data]])
    titles = ("data set", "seeds", *head, "GradCon, published")
    return "\n\n".join([markdown(titles, rows), origin(both)])


def _mean_of(lines: Sequence[Line], method: str, score: str, seeds: int) -> str:
    """Return the mean of a method's score as text, with how many seeds where others have more."""
    own = [line for line in lines if line["method"] == method]
    if not own:
        return ""
    cell = _cell(statistics.mean(line[f"auroc_{score}"] for line in own))
    count = len({line["seed"] for line in own})
    return cell if count == seeds else f"{cell} ({count} of {seeds} seeds)"


def _lines() -> list[Line]:
    return latest(score_test_images.NAME, ("data", "inlier", "seed", "method"))


def _beside(found: Sequence[Line], lines: Sequence[Line]) -> list[Line]:
    """Return the lines, of any method, of the same data, classes and seeds."""
    runs = {(line["data"], line["inlier"], line["seed"]) for line in found}
    return [line for line in lines if (line["data"], line["inlier"], line["seed"]) in runs]


def _of(lines: Sequence[Line], inlier: int, method: str) -> list[Line]:
    return [line for line in lines if line["inlier"] == inlier and line["method"] == method]


def _mean(lines: Sequence[Line], inlier: int, method: str, score: str) -> float | None:
    values = [line[f"auroc_{score}"] for line in _of(lines, inlier, method)]
    return statistics.mean(values) if values else None


def _seeds(lines: Sequence[Line], inlier: int) -> str:
    counts = [len(_of(lines, inlier, method)) for method in ("score test", "GradCon")]
    return str(counts[0]) if counts[0] == counts[1] else f"{counts[0]}, GradCon {counts[1]}"


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


TABLES = {
    "score-test-images": table,
    "score-test-longer": longer,
    "score-test-whole": whole,
    "score-test-rotations": rotations,
}

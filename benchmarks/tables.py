"""Every table in README and docs, made anew from the result lines: ``python benchmarks/tables.py``.

Tables of what ``anograd bench`` measured are asked for by ``pages.toml``, all others are made here. A table
stands between ``<!-- NAME:begin -->`` and ``<!-- NAME:end -->``; what is between is replaced.
With ``--check`` nothing is written, and the exit code tells whether something would be.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any

import tables_bench
import tables_costs
import tables_deletion
import tables_gradient
import tables_masked
import tables_onnx
import tables_published
import tables_r2ad2
import tables_scale
import tables_score_test
import tables_service
import tables_verdicts
from anograd.bench.pages import fill_pages
from anograd.bench.roster import roster
from gradcon_images import AUTHORS
from table_parts import Line, latest, markdown, origin, spread

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))


def images() -> str:
    """GradCon one-class on images, mean and range over seeds."""
    lines = latest("gradcon_images", ("data", "inlier", "seed", "epochs", "keep"))
    groups: dict[tuple[Any, ...], list[Line]] = {}
    for line in lines:
        groups.setdefault((line["data"], line["inlier"], line["epochs"], line["keep"]), []).append(line)
    rows = []
    for (data, inlier, epochs, keep), group in sorted(groups.items(), key=lambda item: str(item[0])):
        measures = [
            spread([line[f"auroc_{name}"] for line in group])
            for name in ("reconstruction", "cosine", "score")
        ]
        authors = " / ".join(f"{value:.3f}" for value in AUTHORS[data, inlier]) if keep == "last" else ""
        rows.append([f"{data} {inlier}", epochs, keep, len(group), *measures, authors])
    head = (
        "inlier class", "epochs", "weights kept", "seeds", "reconstruction", "cosine", "score",
        "authors' code, one seed",
    )  # fmt: skip
    protocol = (
        "AUROC, mean (lowest to highest over seeds), of `GradCon.as_published()` at 20 epochs instead of "
        "1000. One-class: trained on one class's training images (clean, no labels), tested on all test "
        "images. "
        "The last column is reconstruction / cosine / score of the authors' own code, last weights."
    )
    return "\n\n".join([protocol, markdown(head, rows), origin(lines)])


def engine() -> str:
    """Cost of one GradCon score a row, beside the other ways."""
    lines = latest("engine", ("case", "way"))
    rows = [
        [
            line["case"], line["batch"], line["way"], line["milliseconds"],
            line["times_forward_backward"], line["peak_mib"], line["peak_times_forward_backward"],
        ]
        for line in lines
    ]  # fmt: skip
    head = (
        "network and parameters", "batch", "way", "ms", "times forward + backward", "peak MiB",
        "peak, times forward + backward",
    )  # fmt: skip
    return "\n\n".join([markdown(head, rows), origin(lines)])


def training() -> str:
    """Cost of the gradient constraint in training."""
    lines = latest("training", ("case", "way"))
    rows = [[line["case"], line["way"], line["seconds_an_epoch"], line["times_plain"]] for line in lines]
    return "\n\n".join([markdown(("network", "training", "s an epoch", "times plain"), rows), origin(lines)])


def gpu() -> str:
    """Scoring and training on a GPU, where one was measured."""
    lines = latest("gpu", ("device", "part", "case", "rows"))
    if not lines:
        return "Not measured yet: no GPU was at hand."
    told = {
        "scoring": ("times_forward_backward", "times forward + backward"),
        "training": ("times_plain", "times a plain epoch"),
        "ten classes": ("minutes_for_1000_epochs", "minutes for 1000 epochs, by the time of 12"),
        "1000 epochs": ("minutes_for_1000_epochs", "minutes for 1000 epochs, measured"),
        "equality": ("largest_difference", "largest difference of scores between CPU and GPU"),
    }
    rows = []
    for line in lines:
        field, name = told[line["part"]]
        beside = {
            "scoring": f"{line.get('published_times_anograd')} times as fast as the published loop",
            "ten classes": f"{line.get('in_turn_times_together')} times as fast as in turn",
        }.get(line["part"], "")
        rows.append(
            [line["device"], line["case"], line.get("rows", ""), f"{name}: {line[field]:.3g}", beside]
        )
    return "\n\n".join([markdown(("GPU", "case", "rows at once", "", ""), rows), origin(lines)])


def false_alarms() -> str:
    """Measured false-alarm rate and its interval over fits."""
    lines = latest("false_alarms", ("n", "alpha"))
    rows = [
        [
            line["n"], line["calibration_rows"], line["alpha"], line["rate"],
            f"{line['interval_low']:.3f} to {line['interval_high']:.3f}",
        ]
        for line in lines
    ]  # fmt: skip
    head = (
        "normal rows in fit",
        "of them for calibration",
        "alpha",
        "measured rate",
        "95 % interval over fits",
    )
    fits = ", ".join(
        sorted({f"{line['fits']} fits, {line['fresh_rows']} fresh normal rows" for line in lines})
    )
    return "\n\n".join([f"At each n: {fits}.", markdown(head, rows), origin(lines)])


TABLES = {
    "images": images,
    "engine": engine,
    "training": training,
    "gpu": gpu,
    "false-alarms": false_alarms,
    **tables_scale.TABLES,
    **tables_r2ad2.TABLES,
    **tables_gradient.TABLES,
    **tables_score_test.TABLES,
    **tables_bench.TABLES,
    **tables_costs.TABLES,
    **tables_deletion.TABLES,
    **tables_verdicts.TABLES,
    **tables_service.TABLES,
    **tables_onnx.TABLES,
    **tables_masked.TABLES,
    **tables_published.TABLES,
}


def fill(text: str) -> str:
    """Return a page with its tables made anew."""
    for name, make in TABLES.items():
        pattern = re.compile(rf"(<!-- {name}:begin -->\n).*?(<!-- {name}:end -->)", re.DOTALL)
        if pattern.search(text):
            table = make()
            text = pattern.sub(lambda found, table=table: f"{found[1]}\n{table}\n\n{found[2]}", text)
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale = [page for page in PAGES if fill(page.read_text()) != page.read_text()]
    if not check:
        for page in stale:
            page.write_text(fill(page.read_text()))
    labels = {name: entrant.label for name, entrant in roster().items()}
    stale += fill_pages(ROOT / "benchmarks" / "pages.toml", check, labels=labels)
    for page in dict.fromkeys(stale):
        print(f"{page.relative_to(ROOT)}: {'is out of date' if check else 'made anew'}")
    sys.exit(1 if check and stale else 0)


if __name__ == "__main__":
    main()

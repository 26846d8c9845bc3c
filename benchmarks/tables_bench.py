"""The tables on `anograd bench`: who takes part, and our harness beside ADBench's published figures."""

from __future__ import annotations

import statistics
from typing import Any

import development_sets
import record
from anograd.bench import results, stats
from anograd.bench.regimes import cells, each_class, means
from anograd.bench.rivals import own
from anograd.bench.roster import roster
from anograd.bench.table import origin
from table_parts import markdown

# Percent: Han et al., ADBench, NeurIPS 2022, tables D (1 % of the anomalies labelled; mean of three seeds).
PUBLISHED = {
    ("cover", "catboost"): (97.90, 38.30),
    ("cover", "devnet"): (99.04, 68.57),
    ("cover", "xgbod"): (92.92, 58.61),
    ("cover", "prenet"): (98.63, 65.28),
    ("cover", "deepsad"): (87.11, 24.22),
    ("mammography", "catboost"): (89.83, 37.72),
    ("mammography", "devnet"): (88.57, 40.49),
    ("mammography", "xgbod"): (78.78, 23.52),
    ("mammography", "prenet"): (84.47, 36.69),
    ("mammography", "deepsad"): (84.40, 32.24),
    ("thyroid", "catboost"): (98.57, 58.56),
    ("thyroid", "devnet"): (96.75, 74.23),
    ("thyroid", "xgbod"): (91.16, 45.13),
    ("thyroid", "prenet"): (97.78, 79.44),
    ("thyroid", "deepsad"): (91.81, 38.94),
}
# AUROC of the isolation forest without labels, mean of the three seeds in the result files of ADBench's
# repository (AUCROC_DB_test_Tabular_None_None_unsupervise.csv).
FORESTS = {
    "Pima": 72.4,
    "Hepatitis": 68.7,
    "glass": 75.7,
    "Lymphography": 99.9,
    "WBC": 98.9,
    "Ionosphere": 84.1,
}
NEAR = 3.0  # points


def entrants() -> str:
    """Every detector by name, what it does with known anomalies, and whose settings it has."""
    does = {"ignored": "leaves them out", "used": "learns from them", "needed": "needs some"}
    rows = []
    for name, entrant in roster().items():
        paper = entrant.paper
        source = "" if paper is None else f"[{paper.venue} {paper.year}](https://arxiv.org/abs/{paper.arxiv})"
        takes = "images" if entrant.rows == "images" else "any"
        rows.append(
            [
                f"`{name}`",
                entrant.label,
                does[entrant.known],
                takes,
                entrant.settings,
                source,
                entrant.needs or "",
            ]
        )
    head = ("name", "in tables", "known anomalies", "rows", "settings", "paper", "needs")
    return markdown(head, rows)


def published() -> str:
    """Our figures beside ADBench's, on its protocol."""
    lines = [line for line in results.read(record.RESULTS / "adbench.jsonl") if "scores" in line]
    rows, near, used = [], 0, []
    asked = [
        *((data, name, 0.01, figures) for (data, name), figures in PUBLISHED.items()),
        *((data, "isolation-forest", 0.0, (figure, None)) for data, figure in FORESTS.items()),
    ]
    for data, name, labelled, (auroc, precision) in asked:
        own = [
            line
            for line in lines
            if (line["data"], line["detector"], line["options"]["labelled"])
            == (f"adbench/{data}", name, labelled)
        ]
        if not own:
            continue
        used += own
        values = [100 * line["scores"]["score"]["auroc"] for line in own]
        areas = [100 * line["scores"]["score"]["average_precision"] for line in own]
        mean = statistics.mean(values)
        near += abs(mean - auroc) <= NEAR
        rows.append(
            [
                data, roster()[name].label, f"{labelled:.0%}", len(own), f"{auroc:.1f}",
                f"{mean:.1f} ({min(values):.1f} to {max(values):.1f})", f"{mean - auroc:+.1f}",
                "" if precision is None else f"{precision:.1f}",
                f"{statistics.mean(areas):.1f} ({min(areas):.1f} to {max(areas):.1f})",
            ]
        )  # fmt: skip
    if not rows:
        return "Not measured yet."
    head = (
        "data set", "detector", "labelled", "seeds", "AUROC, published", "ours (lowest to highest)",
        "difference", "AP, published", "ours (lowest to highest)",
    )  # fmt: skip
    told = f"Percent. {near} of {len(rows)} mean AUROCs lie within {NEAR:.0f} points of the published ones."
    return "\n\n".join([told, markdown(head, rows), origin(used)])


def leaders() -> str:
    """Who is best of anograd's detectors in each regime, beside the best of all others."""
    rows, used = [], []
    for file, protocol, options, unseen, called in REGIMES:
        lines = [
            line
            for line in results.read(record.RESULTS / f"{file}.jsonl")
            if line["protocol"] == protocol
            and _agree(line["options"], options)
            and not (unseen and line["data"] in DEVELOPMENT)
        ]
        lines = each_class(lines)
        used += lines
        for measure in ("auroc", "average_precision") if protocol != "one-class" else ("auroc",):
            table = means(cells(lines, measure)) if lines else {}
            whole, _ = stats.blocks(table)
            if not whole:
                continue
            found = {name: [values[one] for one in whole] for name, values in table.items() if values}
            found = {name: values for name, values in found.items() if len(values) == len(whole)}
            kind = {line["detector"]: line["settings"].get("detector", line["detector"]) for line in lines}
            ours = {name for name in found if kind.get(name.partition(" (")[0]) in OURS}
            others = set(found) - ours - {"columns"}  # R2AD2's scorer without gradients is nobody's rival
            if not ours or not others:
                continue
            own, rival = (
                max(names, key=lambda name: statistics.mean(found[name])) for names in (ours, others)
            )
            difference = [a - b for a, b in zip(found[own], found[rival], strict=True)]
            label = {name: entrant.label for name, entrant in roster().items()}
            both = [statistics.mean(found[name]) for name in (own, rival)]
            told = [
                f"{_label(name, label)}, {mean:.3f}" for name, mean in zip((own, rival), both, strict=True)
            ]
            rows.append(
                [
                    called, "AUROC" if measure == "auroc" else "average precision", len(whole),
                    *(f"**{one}**" if own == max(both) else one for one, own in zip(told, both, strict=True)),
                    f"{sum(one > 0 for one in difference)} of {len(whole)}",
                    f"{stats.signed_rank(difference):.3f}" if len(whole) >= FEWEST else "",
                ]
            )  # fmt: skip
    if not rows:
        return "Not measured yet."
    head = (
        "regime", "measure", "data sets", "best of anograd's", "best of the others",
        "sets on which ours is higher", "p, uncorrected",
    )  # fmt: skip
    return "\n\n".join([markdown(head, rows), origin(used)])


def _agree(given: dict[str, Any], wanted: dict[str, Any]) -> bool:
    return all(given.get(name) == value for name, value in wanted.items())


def _label(name: str, labels: dict[str, str]) -> str:
    own, _, settings = name.partition(" (")
    return labels.get(own, own) + (f" ({settings}" if settings else "")


OURS = tuple(name for name in own.ENTRANTS if name not in ("reconstruction", "gradient-trees"))
FEWEST = 6  # data sets: on fewer no signed-rank test can find p < 0.05
# A set that the defaults were chosen on is tested here on other splits: without them nothing is left of it.
DEVELOPMENT = set(map(development_sets.registered, development_sets.SETS))
# Result file, protocol, options, whether to leave the development sets out, and what it is called.
REGIMES: tuple[tuple[str, str, dict[str, Any], bool, str], ...] = (
    ("adbench", "adbench", {"labelled": 0.01}, False, "ADBench, contaminated, 1 % of the anomalies labelled"),
    ("adbench", "adbench", {"labelled": 0.01}, True, "the same, without sets that settings were chosen on"),
    ("adbench", "adbench", {"labelled": 0.05}, False, "ADBench, contaminated, 5 % labelled"),
    ("adbench", "adbench", {"labelled": 0.05}, True, "the same, without sets that settings were chosen on"),
    ("adbench", "adbench", {"labelled": 0.0}, False, "ADBench, contaminated, no labels"),
    ("adbench", "adbench", {"labelled": 0.0}, True, "the same, without sets that settings were chosen on"),
    ("r2ad2", "r2ad2", {"transfer": None}, False, "R2-AD2, clean, 100 known anomalies"),
    ("r2ad2", "r2ad2", {"transfer": True}, False, "R2-AD2, clean, known anomalies of some kinds only"),
    ("gradcon", "one-class", {}, False, "GradCon, clean, one class of images, 30 epochs"),
)
TABLES = {"leaders": leaders, "bench-entrants": entrants, "adbench-published": published}

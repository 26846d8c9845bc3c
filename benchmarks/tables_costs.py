"""The table of what a rule by costs costs."""

from __future__ import annotations

import statistics
from collections import defaultdict

from table_parts import Line, latest, markdown, origin

RULES = {"none": "no alarm", "alpha": "alpha 0.05", "fdr": "fdr 0.1"}


def costs() -> str:
    """Realised costs over the least possible, by prevalence and costs."""
    lines = [
        line
        for line in latest("cost_rules", ("data", "seed", "prevalence", "miss"))
        if not line["developed_on"]
    ]
    groups: dict[tuple[float, int], list[Line]] = defaultdict(list)
    for line in lines:
        groups[line["prevalence"], line["miss"]].append(line)
    rules = list(dict.fromkeys(rule for line in lines for rule in line["cost"] if rule != "least"))
    rows = [
        [f"{prevalence:g}", f"1:{miss}", *(_multiple(group, rule) for rule in rules)]
        for (prevalence, miss), group in sorted(groups.items())
    ]
    head = ["prevalence", "costs", *(RULES.get(rule, f"{rule} labelled") for rule in rules)]
    names = ", ".join(sorted({line["data"].removeprefix("adbench/") for line in lines}))
    seeds = len({line["seed"] for line in lines})
    draws = ", ".join(sorted({str(line["draws"]) for line in lines}))
    protocol = (
        f"Geometric mean over data sets (the worst of them), costs summed over {draws} draws of about 2,000 "
        f"rows from each of {seeds} fits: {names}. R2AD2, fitted to clean rows and 20 known anomalies. The "
        "rule was developed on six other sets."
    )
    return "\n\n".join([protocol, markdown(head, rows), origin(lines)])


def _multiple(lines: list[Line], rule: str) -> str:
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for line in lines:
        if rule in line["cost"]:
            sums[line["data"]][0] += line["cost"][rule]
            sums[line["data"]][1] += line["cost"]["least"]
    found = [real / least for real, least in sums.values() if least]
    return f"{statistics.geometric_mean(found):.2f} ({max(found):.1f})" if found else ""


TABLES = {"cost-rules": costs}

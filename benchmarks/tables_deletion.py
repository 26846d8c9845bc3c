"""The table on how faithful explanations are."""

from __future__ import annotations

import deletion
from table_parts import latest, markdown, origin, spread

ORDERS = {"explain": "`explain`", "reconstruction": "reconstruction error", "chance": "chance"}


def areas() -> str:
    """Area under the curve of what is left of a score, for each order."""
    lines = latest(deletion.NAME, ("data", "detector", "seed"))
    if not lines:
        return "Not measured yet."
    rows = []
    for data, name in dict.fromkeys((line["data"], line["detector"]) for line in lines):
        group = [line for line in lines if (line["data"], line["detector"]) == (data, name)]
        cells = [spread([line[f"area_{order}"] for line in group]) for order in ORDERS]
        fifth = [f"{sum(line[f'curve_{order}'][2] for line in group) / len(group):.2f}" for order in ORDERS]
        counts = (len(group), sum(line["anomalies"] for line in group), group[0]["parts"])
        rows.append([data, f"`{name}`", *counts, *cells, " / ".join(fifth)])
    head = (
        "data set", "detector", "seeds", "anomalies", "parts",
        *(f"area, by {order}" for order in ORDERS.values()), "left after a fifth of the parts",
    )  # fmt: skip
    return "\n\n".join([markdown(head, rows), origin(lines)])


TABLES = {"deletion": areas}

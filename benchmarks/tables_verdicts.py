"""Tables on verdicts: measured rates beside what was promised, and how one calibration's rate varies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import beta, t

import verdicts
from table_parts import Line, latest, markdown, origin

NAMES = {"creditcard": "credit card", "nsl_kdd": "NSL-KDD", "fashion_mnist": "Fashion-MNIST 0"}
Cell = tuple[int, str]  # rows given, and the way to calibrate


def rates() -> str:
    """Measured false-alarm rates of detect(alpha=0.05)."""
    lines = latest(verdicts.NAME, ("data", "detector", "n", "seed"))
    if not lines:
        return "Not measured yet."
    ways = {(100, "own"): "100 rows, m = 19", (1000, "own"): "1,000 rows, m = 199", **_drawn()}
    rows = [
        [*who, *(_mean(group, way, "false_alarms", verdicts.ALPHA) for way in ways)]
        for who, group in _groups(lines)
    ]
    head = ("data", "detector", *ways.values())
    return "\n\n".join([markdown(head, rows), origin(lines)])


def discoveries() -> str:
    """Measured shares of false alarms by detect(fdr=0.1), and of detect(budget=20)."""
    lines = latest(verdicts.NAME, ("data", "detector", "n", "seed"))
    if not lines:
        return "Not measured yet."
    ways: dict[Cell, str] = {(1000, "own"): "m = 199", **_drawn()}
    rows = []
    for who, group in _groups([line for line in lines if line["n"] == 1000]):
        cells = [_mean(group, way, "false_discoveries", verdicts.FDR) for way in ways]
        found = [_values(group, way, "found") for way in ways]
        shares = [f"; {np.mean(one):.0%}" if len(one) else "" for one in found]
        budget = max(_values(group, (1000, "own"), "alarms", np.max))
        missed = np.mean(_values(group, (1000, "own"), "false_in_budget"))
        cells = [cell + share for cell, share in zip(cells, shares, strict=True)]
        rows.append([*who, *cells, int(budget), f"{missed:.2f}"])
    head = ("data", "detector", *ways.values(), "budget: most alarms", "false")
    return "\n\n".join([markdown(head, rows), origin(lines)])


def spread() -> str:
    """How the rate of one calibration varies, beside the Beta distribution."""
    lines = latest(verdicts.NAME, ("data", "detector", "n", "seed"))
    if not lines:
        return "Not measured yet."
    rows = []
    for n, way, m in ((100, "own", 19), (1000, "100", 100), (1000, "own", 199), (1000, "1000", 1000)):
        found = [rate for line in lines if line["m"] and line["n"] == n for rate in line["ways"][way]["rate"]]
        level = int(verdicts.ALPHA * (m + 1) + 1e-9)
        middle = beta(level, m + 1 - level).ppf((0.05, 0.5, 0.95))
        rows.append(
            [
                m,
                *(
                    " / ".join(f"{x:.3f}" for x in of)
                    for of in (np.quantile(found, (0.05, 0.5, 0.95)), middle)
                ),
            ]
        )
    head = ("m", "measured: 5 % / half / 95 % of calibrations are below", "Beta distribution")
    return markdown(head, rows)


def _drawn() -> dict[Cell, str]:
    return {(1000, str(m)): f"m = {m:,}, drawn" for m in verdicts.DRAWN[1000]}


def _groups(lines: Sequence[Line]) -> list[tuple[tuple[str, str], list[Line]]]:
    keys = sorted({(line["data"], line["detector"]) for line in lines}, key=lambda key: _place(*key))
    return [
        ((NAMES[data], name), [line for line in lines if (line["data"], line["detector"]) == (data, name)])
        for data, name in keys
    ]


def _place(data: str, name: str) -> tuple[int, int]:
    return list(NAMES).index(data), list(verdicts.DETECTORS).index(name)


def _values(group: Sequence[Line], way: Cell, field: str, of_fit: Any = np.mean) -> list[float]:
    """Return a number of each fit, whose repetitions share a detector and, if its own, a calibration."""
    return [
        of_fit(line["ways"][way[1]][field])
        for line in group
        if line["n"] == way[0] and way[1] in line["ways"]
    ]


def _mean(group: Sequence[Line], way: Cell, field: str, level: float) -> str:
    """Return the mean over fits and its 95 % interval, bold where all of it lies above the level."""
    values = _values(group, way, field)
    if not values:
        return ""
    mean, error = float(np.mean(values)), float(np.std(values, ddof=1)) / len(values) ** 0.5
    low, high = mean + np.array([-1, 1]) * t.ppf(0.975, len(values) - 1) * error
    shown = f"{mean:.3f} ({max(low, 0):.3f} to {high:.3f})"
    return f"**{shown}**" if low > level else shown


TABLES = {"verdict-rates": rates, "verdict-discoveries": discoveries, "verdict-spread": spread}

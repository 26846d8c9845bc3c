"""Tables on the service: requests a second, and what it said to hostile ones."""

from __future__ import annotations

import record
import service_load
from table_parts import Line, markdown, origin


def _lines(kind: str, *key: str) -> list[Line]:
    """Return the last line of each key."""
    lines = [line for line in record.read(service_load.NAME) if line["kind"] == kind]
    return list({tuple(line[one] for one in key): line for line in lines}.values())


def load() -> str:
    """Return requests a second and how long they take."""
    lines = _lines("load", "way", "rows")
    if not lines:
        return "Not measured yet."
    alone = {line["rows"]: line["a_second"] for line in lines if line["way"] == "in Python"}
    rows = [
        [
            line["rows"], line["way"], line["requests"], line["a_second"],
            f"{line['a_second'] / alone[line['rows']]:.2f}", line["p50_ms"], line["p99_ms"],
        ]
        for line in sorted(lines, key=lambda line: line["rows"])
    ]  # fmt: skip
    head = ("rows a request", "way", "requests", "a second", "times in Python", "median ms", "p99 ms")
    return "\n\n".join([markdown(head, rows), origin(lines)])


def attack() -> str:
    """Return what was said to hostile requests, and memory before and after."""
    lines = _lines("attack", "model")
    if not lines:
        return "Not measured yet."
    rows = [
        [
            line["model"], line["requests"],
            ", ".join(f"{n} x {'cut off' if one == '0' else one}" for one, n in line["statuses"].items()),
            line["above_500"], line["rss_before_mib"], line["rss_after_mib"], line["health_ms"],
        ]
        for line in lines
    ]  # fmt: skip
    head = ("model", "requests", "answers", "5xx", "MiB before", "MiB after", "`/health` after, ms")
    return "\n\n".join([markdown(head, rows), origin(lines)])


TABLES = {"service-load": load, "service-attack": attack}

"""Tables on long files, and on what breaks: kills and broken files."""

from __future__ import annotations

from table_parts import latest, markdown, origin


def long_files() -> str:
    """Rows a second and peak memory for each detector, length and engine, and whether scores are the same."""
    lines = latest("streams", ("detector", "engine", "rows"))
    rows = []
    for line in lines:
        same = [one for one in lines if (one["detector"], one["rows"]) == (line["detector"], line["rows"])]
        few = next(
            one for one in lines
            if (one["detector"], one["engine"]) == (line["detector"], line["engine"])
            and one["rows"] == min(each["rows"] for each in lines)
        )  # fmt: skip
        rows.append([
            f"`{line['detector']}`", f"{line['rows']:,}", line["engine"], f"{line['rows_per_second']:,}",
            f"{line['peak_mib']:,.0f}", f"{line['peak_mib'] / few['peak_mib']:.2f}",
            "yes" if len({one["scores"] for one in same}) == 1 else "no",
        ])  # fmt: skip
    head = (
        "detector", "rows", "engine", "rows a second", "peak MiB", "times that of the shortest",
        "same scores in all engines",
    )  # fmt: skip
    return "\n\n".join([markdown(head, rows), origin(lines)])


def killed() -> str:
    """How often each command was killed, went on from where it was, and left or made something wrong."""
    lines = latest("kills", ("task",))
    rows = [[line["task"], line["killed"], line["resumed"], len(line["wrong"])] for line in lines]
    rows.append(["all", *(sum(row[i] for row in rows) for i in (1, 2, 3))])
    return "\n\n".join([markdown(("command", "killed", "of them resumed", "wrong"), rows), origin(lines)])


def broken() -> str:
    """How many broken files each reader was given, and what else than an answer or a line came of it."""
    lines = latest("fuzz", ("reader",))
    rows = [
        [line["reader"], f"{line['inputs']:,}", len(line["findings"]), line["peak_mib"]] for line in lines
    ]
    rows.append(["all", f"{sum(line['inputs'] for line in lines):,}", sum(row[2] for row in rows), ""])
    head = ("reader", "inputs", "neither read nor refused in one line", "memory grew by, MiB")
    return "\n\n".join([markdown(head, rows), origin(lines)])


TABLES = {"long-files": long_files, "kills": killed, "fuzz": broken}

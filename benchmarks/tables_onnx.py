"""The table of ONNX files beside PyTorch."""

from __future__ import annotations

import onnx_latency
from table_parts import latest, markdown, origin


def beside_torch() -> str:
    """Differences from PyTorch, and the time of each."""
    lines = latest(onnx_latency.NAME, ("detector", "kind"))
    rows = [
        [
            f"{line['detector']}, {line['kind']}",
            " / ".join(f"{value:.0e}" for value in line["differences"].values()),
            line["other_p_values"],
            *(f"{line['one_row_ms'][way]:.2f}" for way in ("onnx", "torch")),
            *(f"{line['rows_a_second'][way]:,}" for way in ("onnx", "torch")),
            f"{line['megabytes']:.1f}",
        ]
        for line in lines
    ]
    head = (
        "detector, rows", "largest difference at batches of 1 / 7 / 512", "other p values",
        "one row, ms: ONNX", "PyTorch", "rows a second: ONNX", "PyTorch", "MB",
    )  # fmt: skip
    return "\n\n".join([markdown(head, rows), origin(lines)])


TABLES = {"onnx": beside_torch}

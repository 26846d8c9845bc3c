"""A stranger's Parquet file, read in a process of its own, whose memory and time have an end.

A few bytes of Parquet can unpack to gigabytes, and a damaged file can make its reader wait for ever. This
file is run by its path, so it imports nothing of anograd.
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from typing import Any

MEMORY = 2 * 2**30  # bytes of address space, of which polars reserves a part before it reads anything
PER_BYTE = 16  # more of it for each byte that a request may hold


def unpack(source: str, target: str, wanted: dict[str, Any]) -> dict[str, Any]:
    """Return what is in a Parquet file; where it is small enough, write its rows to an Arrow file.

    Parameters
    ----------
    source, target : str
    wanted : dict
        At most so many "rows", "columns" and "bytes" of text; "fitted", the columns to read, or None.

    Returns
    -------
    dict
        The number of "rows", the names of the "columns", and "texts", the bytes of their cells.
    """
    import polars

    table = polars.scan_parquet(source, glob=False)
    names = table.collect_schema().names()
    n = int(table.select(polars.len()).collect().item())
    found: dict[str, Any] = {"rows": n, "columns": names[: wanted["columns"] + 1], "texts": 0}
    if n > wanted["rows"] or len(names) > wanted["columns"]:
        return found
    fitted = wanted["fitted"]
    if fitted is not None:
        if set(fitted) <= set(names):
            table = table.select([name for name in names if name in set(fitted)])
        else:
            table = table.head(1)  # enough to say which columns are wrong
    frame = table.collect()
    for column in frame:  # a file may hold a long text once, and its cells a million times
        if column.dtype == polars.String:
            found["texts"] += int(column.str.len_bytes().cast(polars.Int64).sum())
        elif column.dtype in (polars.Categorical, polars.Enum):
            found["texts"] += int(column.cat.len_bytes().cast(polars.Int64).sum())
    if found["texts"] <= wanted["bytes"]:
        frame.write_ipc(target)
    return found


def main() -> None:
    """Unpack the file that the arguments name, and print what was found as JSON."""
    source, target, text = sys.argv[1:]
    wanted = json.loads(text)
    most = MEMORY + PER_BYTE * wanted["bytes"]
    with suppress(ImportError, ValueError, OSError):  # there is no such limit on every system
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    print(json.dumps(unpack(source, target, wanted)))


if __name__ == "__main__":
    main()

"""Counts of requests and rows, and how long answers took, in the text format of Prometheus."""

from __future__ import annotations

import threading
from collections import Counter

BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)  # seconds


class Metrics:
    """What one process has served since it started.

    Examples
    --------
    >>> metrics = Metrics()
    >>> metrics.add("/score", 200, 0.02, rows=3)
    >>> [line for line in metrics.text().splitlines() if line.startswith("anograd_rows")]
    ['anograd_rows_scored_total 3']
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, int]] = Counter()
        self._within: Counter[tuple[str, float]] = Counter()
        self._seconds: dict[str, float] = {}
        self._rows = 0

    def add(self, path: str, status: int, seconds: float, rows: int = 0) -> None:
        """Count one answer.

        Parameters
        ----------
        path : str
            A route's own path, so that hostile ones cannot make this grow.
        status : int
        seconds : float
        rows : int
            That were scored.
        """
        with self._lock:
            self._requests[path, status] += 1
            self._within.update((path, bound) for bound in BOUNDS if seconds <= bound)
            self._seconds[path] = self._seconds.get(path, 0.0) + seconds
            self._rows += rows

    def text(self) -> str:
        """Return all counts, one a line."""
        with self._lock:
            lines = ["# HELP anograd_requests_total Answers.", "# TYPE anograd_requests_total counter"]
            for (path, status), count in sorted(self._requests.items()):
                lines.append(f'anograd_requests_total{{path="{path}",status="{status}"}} {count}')
            lines += ["# HELP anograd_errors_total Answers with a status of 400 or more."]
            lines += ["# TYPE anograd_errors_total counter"]
            errors: Counter[int] = Counter()
            for (_, status), count in self._requests.items():
                errors[status] += count if status >= 400 else 0
            lines += [f'anograd_errors_total{{status="{s}"}} {n}' for s, n in sorted(errors.items()) if n]
            lines += ["# HELP anograd_rows_scored_total Rows scored."]
            lines += ["# TYPE anograd_rows_scored_total counter", f"anograd_rows_scored_total {self._rows}"]
            name = "anograd_request_seconds"
            lines += [f"# HELP {name} Seconds from request to answer.", f"# TYPE {name} histogram"]
            for path, total in sorted(self._seconds.items()):
                count = sum(n for (other, _), n in self._requests.items() if other == path)
                for bound in BOUNDS:
                    lines.append(f'{name}_bucket{{path="{path}",le="{bound}"}} {self._within[path, bound]}')
                lines.append(f'{name}_bucket{{path="{path}",le="+Inf"}} {count}')
                lines += [f'{name}_sum{{path="{path}"}} {total!r}', f'{name}_count{{path="{path}"}} {count}']
        return "\n".join(lines) + "\n"

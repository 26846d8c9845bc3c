"""The measured false-alarm rate of ``detect(alpha=0.05)`` on fresh normal rows, with its interval over fits.

Normal rows in 6 correlated dimensions; 200 fits at each n, 20 fresh normal rows a fit. Within a fit the
rows share their calibration, so the rate varies from fit to fit (a Beta distribution), and the interval is
Student's over fits; the mean over fits is what alpha promises. Seed of a fit: its number. Run
``python benchmarks/false_alarms.py``.
"""

from __future__ import annotations

import numpy as np
import torch

import record
from anograd import GradCon
from anograd.bench.stats import mean

REPETITIONS, FRESH, ALPHA = 200, 20, 0.05


def main() -> None:
    torch.set_num_threads(1)
    for n in (100, 200, 1000):
        alarms = np.zeros(REPETITIONS, dtype=int)
        for seed in range(REPETITIONS):
            rng = np.random.default_rng([n, seed])
            rows = rng.normal(size=(n + FRESH, 6)) @ rng.normal(size=(6, 6))
            detector = GradCon(epochs=20, random_state=seed).fit(rows[:n])
            alarms[seed] = detector.detect(rows[n:], alpha=ALPHA).sum()
        rate = mean(alarms / FRESH)
        assert rate.half is not None
        line = {
            "n": n,
            "alpha": ALPHA,
            "calibration_rows": len(detector.calibration_.scores),
            "fits": REPETITIONS,
            "fresh_rows": REPETITIONS * FRESH,
            "alarms": int(alarms.sum()),
            "rate": round(rate.value, 4),
            "interval_low": round(rate.value - rate.half, 4),
            "interval_high": round(rate.value + rate.half, 4),
        }
        record.write("false_alarms", line)
        print(line, flush=True)


if __name__ == "__main__":
    main()

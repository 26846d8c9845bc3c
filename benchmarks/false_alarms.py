"""The measured false-alarm rate of ``detect(alpha=0.05)`` on fresh normal rows, beside its binomial interval.

Normal rows in 6 correlated dimensions; 50 fits at each n, 20 fresh normal rows a fit. Within a fit the
rows share their calibration, so the rate varies from fit to fit (a Beta distribution); the share over
fits is what alpha promises. Run ``python benchmarks/false_alarms.py``.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.stats import binom

import record
from anograd import GradCon

REPETITIONS, FRESH, ALPHA = 50, 20, 0.05


def main() -> None:
    torch.set_num_threads(1)
    for n in (100, 200, 1000):
        alarms = np.zeros(REPETITIONS, dtype=int)
        for seed in range(REPETITIONS):
            rng = np.random.default_rng([n, seed])
            rows = rng.normal(size=(n + FRESH, 6)) @ rng.normal(size=(6, 6))
            detector = GradCon(epochs=20, random_state=seed).fit(rows[:n])
            alarms[seed] = detector.detect(rows[n:], alpha=ALPHA).sum()
        low, high = binom.interval(0.95, REPETITIONS * FRESH, ALPHA)
        line = {
            "n": n,
            "alpha": ALPHA,
            "calibration_rows": len(detector.calibration_.scores),
            "fits": REPETITIONS,
            "fresh_rows": REPETITIONS * FRESH,
            "alarms": int(alarms.sum()),
            "rate": round(float(alarms.mean() / FRESH), 4),
            "interval_low": float(low / (REPETITIONS * FRESH)),
            "interval_high": float(high / (REPETITIONS * FRESH)),
            "inside": bool(low <= alarms.sum() <= high),
        }
        record.write("false_alarms", line)
        print(line, flush=True)


if __name__ == "__main__":
    main()

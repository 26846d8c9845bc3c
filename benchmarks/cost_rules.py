"""What a rule by costs costs, beside the other rules and the best threshold there is.

R2AD2 is fitted to clean normal rows and 20 known anomalies. It is calibrated with other normal rows and with
other known anomalies, 10, 20 or 50 of them; rows to come are drawn from what is left, at three prevalences.
Realised costs are summed over draws. The rule was developed on DEVELOPED alone; it was then measured on
all. Run ``python benchmarks/cost_rules.py``.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
from numpy.typing import NDArray

import record
from anograd import R2AD2
from anograd.bench import sets
from anograd.costs import Anomalies, least
from anograd.decide import Calibration

DEVELOPED = ("annthyroid", "Cardiotocography", "landsat", "thyroid", "SpamBase", "satimage-2")
REPORTED = ("mammography", "magic.gamma", "mnist", "cover", "Wilt", "ALOI")
OTHERS = ("creditcard", "nsl_kdd")
SEEDS, DRAWS, ROWS = (0, 1), 30, 2000
LEARNED, CALIBRATED, LEFT, TO_LEARN_FROM = 6000, 1000, 10_000, 20
PREVALENCES, MISSES, LABELLED = (0.005, 0.02, 0.1), (1, 10, 50, 200), (10, 20, 50)
Scores = NDArray[np.float64]


def scored(name: str, seed: int) -> tuple[Scores, Scores, Scores]:
    """Return scores of normal rows to calibrate with, of other normal rows, and of anomalies."""
    loaded = sets.load(name)
    odd = loaded.kinds == 1 if loaded.kinds.dtype.kind in "iub" else loaded.kinds != "normal"
    rng = np.random.default_rng([seed, 5])
    normal, anomalous = (rng.permutation(np.flatnonzero(which)) for which in (~odd, odd))
    a = min(len(normal) * 2 // 5, LEARNED)
    b = a + min(len(normal) // 10, CALIBRATED)
    k = min(TO_LEARN_FROM, len(anomalous) // 4)
    learned = loaded.rows[np.concatenate([normal[:a], anomalous[:k]])]
    detector = R2AD2(random_state=seed).fit(learned, np.repeat([0, 1], [a, k]))
    parts = (normal[a:b], normal[b : b + LEFT], anomalous[k:][:3000])
    return tuple(detector.anomaly_score(loaded.rows[part]) for part in parts)


def cost(alarms: NDArray[np.bool_], odd: NDArray[np.bool_], miss: float) -> float:
    return float((alarms & ~odd).sum() + miss * (~alarms & odd).sum())


def measured(
    scores: tuple[Scores, Scores, Scores], prevalence: float, miss: float, seed: int
) -> dict[str, float]:
    """Return what each rule costs, summed over draws of rows to come."""
    held_out, normal, anomalous = scores
    rng = np.random.default_rng([seed, 9])
    found: dict[str, float] = {}
    for _ in range(DRAWS):
        n, o = rng.permutation(normal), rng.permutation(anomalous)
        k = max(1, min(round(ROWS * prevalence), len(o) // 2))
        m = min(len(n), round(k * (1 - prevalence) / prevalence))
        rows, odd = np.concatenate([n[:m], o[:k]]), np.repeat([False, True], [m, k])
        plain = Calibration(held_out)
        costs = {"least": least(rows, odd, (1, miss)), "none": cost(np.zeros(len(rows), bool), odd, miss)}
        for rule, value in (("alpha", 0.05), ("fdr", 0.1)):
            costs[rule] = cost(plain.detect(rows, **{rule: value}), odd, miss)
        for labelled in LABELLED:
            if len(o) - k >= labelled:
                known = Anomalies(o[k : k + labelled], prevalence)
                alarms = Calibration(held_out, known).detect(rows, costs=(1, miss))
                costs[f"costs, {labelled}"] = cost(alarms, odd, miss)
        for rule, value in costs.items():
            found[rule] = found.get(rule, 0.0) + value
    return found


def main() -> None:
    warnings.simplefilter("ignore")  # too few calibration rows for a level
    torch.set_num_threads(1)
    reported, developed = ([f"adbench/{name}" for name in names] for names in (REPORTED, DEVELOPED))
    for seed in SEEDS:
        for name in (*OTHERS, *reported, *developed):
            if record.done("cost_rules", {"data": name, "seed": seed}):
                continue
            scores = scored(name, seed)
            for prevalence in PREVALENCES:
                for miss in MISSES:
                    line = {
                        "data": name,
                        "developed_on": name.rpartition("/")[2] in DEVELOPED,
                        "seed": seed,
                        "prevalence": prevalence,
                        "miss": miss,
                        "draws": DRAWS,
                        "calibration_rows": len(scores[0]),
                        "cost": measured(scores, prevalence, miss, seed),
                    }
                    record.write("cost_rules", line)
            print(name, seed, flush=True)


if __name__ == "__main__":
    main()

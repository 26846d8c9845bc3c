"""Many detectors fitted in one call: alike ones at once, the others in turn."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, TypeGuard, TypeVar

from anograd.detectors.base import Detector
from anograd.detectors.gradcon import GradCon
from anograd.detectors.precise import at_home
from anograd.detectors.progress import observer
from anograd.detectors.split import Split
from anograd.spill import Rows
from anograd.stack import train_together
from anograd.target import undisturbed

ALIKE = (
    "target", "hidden", "alpha", "reference", "averaging", "keep", "epochs", "patience", "batch_size",
    "learning_rate", "device",
)  # fmt: skip
MOST_AT_ONCE = 16  # networks; each holds a batch's activations
AnyDetector = TypeVar("AnyDetector", bound=Detector)
Begun = tuple[GradCon, Rows, Split, int]


@undisturbed()
def fit_together(
    detectors: Sequence[AnyDetector], data: Sequence[Any], labels: Sequence[Any] | None = None
) -> list[AnyDetector]:
    """Return the detectors, each fitted to its own rows as by ``detector.fit(X, y)``.

    GradCon's networks that are alike (settings, shape of a row, device) are trained at once, up to 16 of
    them: each step is one pass over their stacked weights. That saves time where networks are small, as one
    for each class, machine or seed often are. All other detectors are fitted in turn, and on a CPU networks
    for images, whose convolutions would take longer together.

    Parameters
    ----------
    detectors : sequence of Detector
        Each with its own ``random_state``. No detector may stand there twice.
    data : sequence of arrays, tensors or frames
        The rows of each, as for `fit`; their numbers may differ.
    labels : sequence of arrays, optional
        Known anomalies of each, as for `fit`; None in place of one: none are known.

    Notes
    -----
    Every network sees the batches that it would see alone, in that order, keeps the epoch that it would keep
    and stops where it would stop. What differs is rounding, and in long training it grows: see the guide.

    Examples
    --------
    >>> import numpy as np
    >>> rows = [np.random.default_rng(i).normal(size=(200, 3)) for i in range(2)]
    >>> both = fit_together([GradCon(epochs=5, random_state=i) for i in range(2)], rows)
    >>> [detector.kept_epoch_ for detector in both]
    [5, 5]
    """
    labels = [None] * len(data) if labels is None else labels
    if not len(detectors) == len(data) == len(labels):
        raise ValueError(
            f"{len(detectors)} detectors were given, and {len(data)} tables with {len(labels)} labels: "
            "give each detector its own rows, fit_together([one, other], [rows_of_one, rows_of_other])"
        )
    if len(set(map(id, detectors))) < len(detectors):
        raise ValueError(
            "a detector stands there twice, and can be fitted to one table only: make one for each, "
            "[GradCon(random_state=i) for i in range(len(data))]"
        )
    alike: dict[Any, list[Begun]] = {}
    for detector, X, y in zip(detectors, data, labels, strict=True):
        if _stacks(detector):
            rows, split, seed = detector._begin(X, y)
            kind = _kind(detector, rows)
            group = [*alike.pop(kind, []), (detector, rows, split, seed)]
            if kind is None or len(group) == MOST_AT_ONCE:  # no more rows are held than this
                with at_home():
                    _fit_at_once(group)
            else:
                alike[kind] = group
        else:
            detector.fit(X, y)
    for group in alike.values():
        with at_home():
            _fit_at_once(group)
    return list(detectors)


def _stacks(detector: Detector) -> TypeGuard[GradCon]:
    """Tell whether a network can be one of a stack: a VAE draws noise, and a checkpoint is of one network."""
    own = type(detector) is GradCon and isinstance(detector.target, str)
    return own and detector.target != "vae" and detector.checkpoint is None


def _kind(detector: GradCon, rows: Rows) -> tuple[Any, ...] | None:
    """Return what is the same of those that are to be trained at once; None: by itself."""
    # Images on a CPU take 1.4 times longer together, and what is in files stays there.
    if rows.spilled or (len(rows.shape) > 1 and detector._device().type == "cpu"):
        return None
    settings = (getattr(detector, name) for name in ALIKE)
    return rows.shape, *(tuple(one) if hasattr(one, "__len__") else one for one in settings)


def _fit_at_once(group: Sequence[Begun]) -> None:
    if len(group) == 1:
        detector, rows, split, seed = group[0]
        detector._learn(rows, split, seed)
        detector._end(rows, split)
        return
    tasks = [detector._task(rows, split, seed) for detector, rows, split, seed in group]
    with ExitStack() as bars:
        observers = [
            bars.enter_context(observer(detector.progress, detector.epochs)) for detector, *_ in group
        ]
        trained = train_together(
            [task.target for task in tasks],
            [task.rows[:] for task in tasks],
            [task.validation[:] for task in tasks],
            tasks[0].plan,
            seeds=[task.seed for task in tasks],
            observers=observers,
        )
    for (detector, rows, split, _), task, found in zip(group, tasks, trained, strict=True):
        detector._take(task, found)
        detector._end(rows, split)

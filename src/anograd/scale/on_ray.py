"""Parts scored by a pool of Ray actors, each of which loads the detector once."""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from anograd.decoded import in_words
from anograd.detectors.changed import tally_of
from anograd.heap import keep_freed_memory
from anograd.scale import parts
from anograd.scale.parts import Done, Part
from anograd.scale.scorer import Scorer
from anograd.train import Observer
from anograd.whole import check_makable, clear

ATTEMPTS = 3  # at a part whose process dies
Batch = dict[str, Any]
FOUND = ("name", "rows", "alarms", "counts", "error")  # of a part
AT_MOST = 5  # failures told of
NO_RAY = "scoring on Ray needs ray: pip install 'anograd[ray]'"


def score_on_ray(
    model: str | Path,
    source: str | Path,
    output: str | Path,
    *,
    alpha: float = 0.05,
    columns: Sequence[str] = (),
    workers: int | None = None,
    observe: Observer = lambda name, data: None,
) -> list[Done]:
    """Score a folder of Parquet parts on Ray, and return what became of each, in the order of their names.

    Each part becomes a part of the same name with its rows in order: `columns`, score (high = anomalous),
    p_value and anomaly (0 or 1). A part that is there, scored by the same model from the same rows, is kept,
    so that a run that was interrupted goes on. Rows are read where they are scored: Ray carries names.

    Parameters
    ----------
    model, source, output : str or Path
        Folders; on a cluster all machines see them under these names.
    alpha : float, default 0.05
        False-alarm rate. A false-discovery rate or a budget looks at all scores together, once all are there.
    columns : sequence of str, default ()
        Columns that are taken over, such as a row's id.
    workers : int, optional
        Actors, of one processor each; by default as many as the cluster has processors.
    observe : callable
        Called as ``observe("part", {...})`` after each part.

    Returns
    -------
    list of Done

    Raises
    ------
    ImportError
        Ray is not installed.
    ValueError
        Something is wrong with the model, or with parts, which are named; all others are scored.

    Warns
    -----
    UserWarning
        The rows of all parts together are unlike those that the model was fitted to.

    Notes
    -----
    Runs on the cluster that Ray is connected to; else on the one that the environment variable RAY_ADDRESS
    names; else on this machine, where it starts Ray and ends it, without dashboard and usage statistics.
    """
    if find_spec("ray") is None:
        raise ImportError(NO_RAY)
    scorer = Scorer(str(model), alpha, tuple(columns))
    all_parts = parts.find_parts(source, output)
    parts.check(scorer, all_parts[0])
    done = {part.name: found for part in all_parts if (found := parts.kept(scorer, part))}

    def tell(one: Done) -> None:
        observe("part", {**asdict(one), "part": len(done), "parts": len(all_parts)})

    if done:
        tell(next(reversed(done.values())))
    todo = [part for part in all_parts if part.name not in done]
    if todo:
        check_makable(Path(output).resolve())
        failed: list[str] = []
        _forget(todo)
        try:
            with _ray() as ray:
                for one in _scored(ray, scorer, todo, workers):
                    if isinstance(one, Done):
                        done[one.name] = one
                        tell(one)
                    else:
                        failed.append(one)
        finally:
            _forget(todo)
            for part in todo:
                if part.name not in done:  # its process may have been killed while it wrote
                    clear(Path(part.output))
        if failed:
            more = f" (and {len(failed) - AT_MOST} more)" if len(failed) > AT_MOST else ""
            raise ValueError(
                f"{len(failed)} of {len(all_parts)} parts were not scored, the others are kept: "
                f"{'; '.join(failed[:AT_MOST])}{more}"
            )
    tally = tally_of(scorer.detector())
    if tally is not None:
        tally.counts += np.sum([one.counts for one in done.values()], axis=0)
        if unlike := tally.many():
            warnings.warn(in_words(unlike), stacklevel=2)
    return [done[part.name] for part in all_parts]


class _Actor:
    """Scores parts, one row of a Ray batch each."""

    def __init__(self, scorer: Scorer) -> None:
        warnings.simplefilter("ignore", UserWarning)  # the driver has warned
        keep_freed_memory()
        self.scorer = scorer
        scorer.detector()

    def __call__(self, batch: Batch) -> Batch:
        """Return what became of the one part that a batch names."""
        part = Part(*(str(batch[name][0]) for name in ("name", "source", "output")))
        done, wrong = Done(part.name, 0, 0, ()), ""
        try:
            _attempt(part)
            done = parts.score_part(self.scorer, part)
        except (ValueError, TypeError, OSError, MemoryError) as error:
            wrong = " ".join(str(error).split()) or type(error).__name__
        told = (done.name, done.rows, done.alarms, json.dumps(done.counts), wrong)
        return {name: [value] for name, value in zip(FOUND, told, strict=True)}


def _attempt(part: Part) -> None:
    """Count one more attempt at a part; Ray begins anew, without end, what a dead process was at."""
    begun = _begun(part)
    begun.parent.mkdir(parents=True, exist_ok=True)
    with begun.open("ab") as file:
        file.write(b".")
    if begun.stat().st_size > ATTEMPTS:
        raise ValueError(
            f"its process died {ATTEMPTS} times; where memory ran out take fewer workers, or smaller parts"
        )


def _begun(part: Part) -> Path:
    output = Path(part.output)
    return output.with_name(f".{output.name}.begun")


def _forget(todo: list[Part]) -> None:
    """Remove the counts of attempts."""
    for part in todo:
        _begun(part).unlink(missing_ok=True)


def _scored(ray: Any, scorer: Scorer, todo: list[Part], workers: int | None) -> Iterator[Done | str]:
    """Yield what becomes of parts, and of those that fail what is said of them, as they get ready."""
    most = int(ray.cluster_resources().get("CPU", 1))
    pool = ray.data.ActorPoolStrategy(size=min(workers or most, len(todo)))
    dataset = ray.data.from_items([asdict(part) for part in todo], override_num_blocks=len(todo))
    dataset = dataset.map_batches(
        _Actor, fn_constructor_args=(scorer,), batch_size=None, compute=pool, num_cpus=1
    )
    for batch in dataset.iter_batches(batch_size=None, prefetch_batches=0):  # each as soon as it is there
        for name, rows, alarms, counts, error in zip(*(batch[of] for of in FOUND), strict=True):
            found = Done(str(name), int(rows), int(alarms), tuple(json.loads(str(counts))))
            yield f"{name}: {error}" if error else found


@contextmanager
def _ray() -> Iterator[Any]:
    """Give Ray, connected and quiet; end it where it was started here."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ImportError(NO_RAY) from error
    started = not ray.is_initialized()
    if started:
        # Left alone, Ray would join whatever cluster it finds a note of, even of one that is no more.
        address = None if os.environ.get("RAY_ADDRESS") else "local"
        ray.init(address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    context = ray.data.DataContext.get_current()
    bars, context.enable_progress_bars = context.enable_progress_bars, False
    loggers = [logging.getLogger(name) for name in ("ray.data", "ray")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield ray
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        context.enable_progress_bars = bars
        if started:
            ray.shutdown()

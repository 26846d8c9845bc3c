"""Several processes that measure cells; one that dies or takes too long costs its cell and nothing else."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from typing import Any

import numpy as np

from anograd.bench.measure import measure
from anograd.bench.plan import Cell
from anograd.bench.results import Line
from anograd.bench.roster import roster

SLICE = 0.5  # seconds between two looks at the clock
GRACE = 5.0  # seconds that a process may take to end
START = 120.0  # seconds that a process may take to load what it needs


@dataclass
class _Worker:
    process: Any
    pipe: Connection
    cell: Cell | None = None
    began: float = 0.0  # of the cell; until the process is up, so much later as that may take
    up: bool = False


def measured(
    cells: Sequence[Cell], processes: int, seconds: float, threads: int = 1, entrants: str | None = None
) -> Iterator[tuple[Cell, Line]]:
    """Yield each cell with its line, as they are done.

    Parameters
    ----------
    cells : sequence of Cell
    processes : int
        How many measure at once.
    seconds : float
        After which a cell is ended and counted as failed.
    threads : int, default 1
        That each process may use.
    entrants : str, optional
        See `roster`; each process asks for them by itself, as functions do not travel.

    Raises
    ------
    RuntimeError
        A process ended before it was ready for a cell.
    ValueError
        In it the module of one's own entrants cannot be imported.
    """
    context = _context()
    waiting = list(reversed(cells))
    workers = [_start(context, threads, entrants) for _ in range(min(processes, len(cells)))]
    try:
        for worker in workers:
            _hand_over(worker, waiting)
        while any(worker.cell for worker in workers):
            ready = wait([end for w in workers if w.cell for end in (w.pipe, w.process.sentinel)], SLICE)
            for place, worker in enumerate(workers):
                cell = worker.cell
                if cell is None:
                    continue
                line = _outcome(worker, ready, seconds)
                if line is None:
                    continue
                if waiting and not worker.process.is_alive():
                    workers[place] = worker = _start(context, threads, entrants)
                _hand_over(worker, waiting)
                yield cell, line
    finally:
        for worker in workers:
            worker.pipe.close()  # which ends a process that waits for a cell
        for worker in workers:
            if worker.cell is None:
                worker.process.join(GRACE)
            _end(worker.process)


def _outcome(worker: _Worker, ready: Sequence[Any], seconds: float) -> Line | None:
    """Return the line of a worker that is done, has died or has been ended; None where it is still at it."""
    cell = worker.cell
    assert cell is not None
    if worker.pipe in ready:
        try:
            line: Line | str | None = worker.pipe.recv()
        except (EOFError, OSError):
            worker.process.join()
        else:
            if isinstance(line, str):  # why it cannot measure anything
                raise ValueError(line)
            if line is None:  # it says that it is up, and the cell begins now
                worker.up, worker.began = True, time.monotonic()
            return line
    dead = worker.process.sentinel in ready or not worker.process.is_alive()
    if not dead and time.monotonic() - worker.began <= seconds:
        return None
    _end(worker.process)
    given = seconds if worker.up else seconds + START
    cause = _cause(worker.process.exitcode or 0)
    why = f"its process ended: {cause}" if dead else f"ended after {given:g} s"
    if not worker.up:
        raise RuntimeError(
            f"no process is ready to measure ({why}); what it says of it stands above. A script that runs a "
            "benchmark must be a file, and do so below the line: if __name__ == '__main__':"
        )
    return cell.line() | {"failed": why}


def _cause(code: int) -> str:
    try:
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    except ValueError:  # one that has no name of its own
        return f"signal {-code}"


def _end(process: Any) -> None:
    """End a process, and what it has started."""
    with suppress(AttributeError, ProcessLookupError):  # no groups on this system, or none of its own yet
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join()


def _context() -> Any:
    """Return a way to start processes; on Linux each is forked from one that has loaded what all need.

    To load it takes seconds, and a process that died or was ended is to be followed by another at once.
    Elsewhere libraries of linear algebra do not outlive a fork.
    """
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "torch"])
    with _waiting_asleep(), _deaf():
        forkserver.ensure_running()
    return context


def _start(context: Any, threads: int, entrants: str | None) -> _Worker:
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, threads, entrants, dict(os.environ)), daemon=True)
    with _waiting_asleep():
        process.start()
    there.close()
    return _Worker(process, here)


@contextmanager
def _waiting_asleep() -> Iterator[None]:
    """Let waiting threads of processes that begin meanwhile not spin: OpenMP asks once, as it is loaded."""
    name = "OMP_WAIT_POLICY"
    given = name in os.environ
    os.environ.setdefault(name, "PASSIVE")
    try:
        yield
    finally:
        if not given:
            del os.environ[name]


@contextmanager
def _deaf() -> Iterator[None]:
    """Let processes that begin meanwhile be deaf to Ctrl-C, which is for the run: it ends them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _hand_over(worker: _Worker, waiting: list[Cell]) -> None:
    worker.cell = waiting.pop() if waiting else None
    worker.began = time.monotonic() + (0 if worker.up else START)
    if worker.cell is not None:
        worker.pipe.send(worker.cell)


def _serve(pipe: Connection, threads: int, entrants: str | None, environment: dict[str, str]) -> None:
    """Measure one cell after the other, until the run ends."""
    os.environ.clear()  # of the time when the process that this one is forked from began
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)  # a group to be ended with all that a detector starts
    threading.Thread(target=_outlive_nobody, daemon=True).start()
    sys.stdout = sys.stderr  # stdout is for what the run says,
    os.dup2(2, 1)  # also where a library writes there by itself
    multiprocessing.current_process().daemon = False  # a detector may start processes, which end with it
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(threads)
    try:
        known, own = roster(entrants), os.getpid()
    except ValueError as error:  # a module that could be imported in the run, and cannot be here
        pipe.send(str(error))
        return
    with threadpool_limits(threads), suppress(EOFError, OSError):  # where the run has ended
        pipe.send(None)
        while True:
            cell = pipe.recv()
            # What draws without the seed that it is given would draw alike in all processes: they are copies.
            random.seed(cell.seed)
            np.random.seed(cell.seed % 2**32)  # noqa: NPY002, the state that others draw from
            torch.manual_seed(cell.seed)
            line = measure(cell, known)
            if os.getpid() != own:  # a copy that a detector has made, and let go
                os._exit(1)
            pipe.send(line)


def _outlive_nobody() -> None:
    """End this process, and what it has started, when the run is gone, however that came."""
    run = multiprocessing.parent_process()
    assert run is not None
    wait([run.sentinel])
    with suppress(AttributeError):
        os.killpg(0, signal.SIGKILL)
    os._exit(1)

"""What a command says in the end: text for people or, with ``--json``, one JSON object; and how it ends."""

from __future__ import annotations

import json
import math
import os
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import typer

from anograd.whole import to_stdout

FAILED, MISUSED, INCOMPLETE, STOPPED, CLOSED = (
    1,
    2,
    3,
    130,
    141,
)  # the last two as of a signal: 128 + 2, 128 + 13
UsageError: Any = typer.BadParameter.__base__  # wherever this typer keeps it
KINDS: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str], ...] = (
    (OSError, "file"),
    (ImportError, "extra"),
    (MemoryError, "memory"),
    ((ValueError, TypeError, FloatingPointError), "input"),
)
ERRORS = (ValueError, TypeError, OSError, ImportError, FloatingPointError, MemoryError)
NO_ROOM = re.compile("failed to map|[Cc]annot allocate memory")  # for a library that is to be loaded
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
ARRAY = re.compile(r"(array=|\n)\[[-+.,\s\deijnaf\[\]]*\]\.?(?=\n|$)")
# The warnings of a command that was asked for JSON; None for people.
_said: ContextVar[list[str] | None] = ContextVar("said", default=None)


class Misused(ValueError):
    """An error of whoever called: one line, and the exit code of wrong usage."""


def one_answer(output: str) -> None:
    """Refuse to write both rows and one JSON object to stdout.

    Parameters
    ----------
    output : str
        Where the rows go.
    """
    if output == "-" and as_json():
        raise Misused("--json prints one object to stdout, where -o - writes to as well: give a file with -o")


def as_json() -> bool:
    """Tell whether one JSON object is wanted instead of text."""
    return _said.get() is not None


def answered(found: Mapping[str, Any]) -> bool:
    """Print what was found as one JSON object where ``--json`` asks for it; tell whether it did.

    Parameters
    ----------
    found : mapping
        What the text says, by name. The warnings so far are added.
    """
    said = _said.get()
    if said is not None:
        to_stdout(f"{in_json({**found, 'warnings': said})}\n".encode())
    return said is not None


def in_json(found: Any, indent: int | None = None) -> str:
    """Return JSON of what was found: paths as texts, null in the place of what is no finite number.

    Parameters
    ----------
    found : mapping, list or plain value
    indent : int, optional
        Spaces before what is inside; left out, all stands on one line.
    """
    return json.dumps(_plain(found), allow_nan=False, indent=indent)


@contextmanager
def ending(words: list[str], debug: bool) -> Iterator[None]:
    """Let what is expected to go wrong end a command with one line on stderr, and an exit code.

    Parameters
    ----------
    words : list of str
        The command line.
    debug : bool
        Whether errors are shown with the place where they arose.
    """
    token = _said.set([] if "--json" in words or as_json() else None)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default", UserWarning)
            warnings.showwarning = _warn
            yield
            if sys.stdout is not None:  # as it is where a shell has closed it
                sys.stdout.flush()  # a closed pipe shows here, not in the interpreter's last breath
    except BrokenPipeError:  # the reader has seen enough: no error to speak of
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(CLOSED) from None
    except KeyboardInterrupt:
        raise stopped("stopped") from None
    except UsageError as error:
        if not as_json():
            raise
        _refuse(error.format_message(), "usage")
        raise typer.Exit(MISUSED) from None
    except ERRORS as error:
        if debug:
            raise
        misused = isinstance(error, Misused)
        _refuse(one_line(error), "usage" if misused else _kind(error))
        raise typer.Exit(MISUSED if misused else FAILED) from None
    finally:
        _said.reset(token)


def stopped(text: str) -> typer.Exit:
    """Return the end of a command that Ctrl-C stopped, after saying so.

    Parameters
    ----------
    text : str
    """
    _refuse(text, "stopped", start="")
    return typer.Exit(STOPPED)


def note(text: str) -> None:
    """Tell people on stderr what goes on; programs that asked for JSON are told at the end.

    Parameters
    ----------
    text : str
    """
    if not as_json():
        typer.echo(text, err=True)


def warn(text: str) -> None:
    """Warn on stderr, or among the warnings of the JSON object.

    Parameters
    ----------
    text : str
    """
    said = _said.get()
    if said is not None:
        said.append(text)
    else:
        typer.echo(f"warning: {text}", err=True)


def one_line(error: BaseException | str) -> str:
    """Return what an error says, on one line, without the array that scikit-learn puts into it.

    Parameters
    ----------
    error : exception or str
    """
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror + (f": {str(error.filename)!r}" if error.filename else "")
    if isinstance(error, MemoryError) and not text:
        text = "the memory does not suffice: give the process more, or fewer rows at once"
    text = CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", " ".join(ARRAY.sub(" ", text).split()))
    return text or type(error).__name__


def _warn(message: Warning | str, *_: Any, **__: Any) -> None:
    warn(one_line(message))


def _refuse(text: str, kind: str, start: str = "error: ") -> None:
    said = json.dumps({"error": one_line(text), "kind": kind}) if as_json() else f"{start}{text}"
    typer.echo(said, err=True)


def _kind(error: Exception) -> str:
    if isinstance(error, ImportError) and NO_ROOM.search(str(error)):
        return "memory"
    return next(name for kind, name in KINDS if isinstance(error, kind))


def _plain(value: Any) -> Any:
    """Return a value as JSON has it: paths as texts, numpy's numbers as Python's, no infinity."""
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value

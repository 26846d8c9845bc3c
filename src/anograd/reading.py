"""What the readers of files share: optional packages by name, and the error that names a damaged file."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

# What readers raise on a damaged file: of any kind, such as the errors of Python's tokenizer, which NumPy
# reads headers with. A missing file has been dealt with before.
BROKEN = (Exception,)


def check_stopped(error: BaseException) -> None:
    """Raise KeyboardInterrupt where that is what an error stands for: polars makes its own of a Ctrl-C."""
    if "KeyboardInterrupt" in str(error):
        raise KeyboardInterrupt from error


def damaged(path: Path, error: BaseException) -> ValueError:
    """Return the error that names a file which could not be read, and why."""
    check_stopped(error)
    return ValueError(f"{str(path)!r} could not be read, it is damaged or cut short: {first_line(error)}")


def unread(path: Path, error: BaseException) -> ValueError:
    """Return the error that names a file which polars could not read: for its name, or damaged."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return ValueError(
            f"the name {str(path)!r} is not in UTF-8, and polars opens no such file: give it another"
        )
    return damaged(path, error)


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, or its kind where it says nothing."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def extra(module: str, extra: str, path: Path) -> ModuleType:
    """Return a module that an extra brings; without it, ImportError names the extra."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = "pillow" if extra == "images" else module
        raise ImportError(f"reading {str(path)!r} needs {package}: pip install 'anograd[{extra}]'") from error

"""Sentences by topic, out of the documentation that ships with SciPy: nothing is downloaded."""

from __future__ import annotations

import inspect
import re
from importlib import import_module

CODE = re.compile(r">>>|::|\.\. |[\[\]{}<>=_|*^\\]")  # a sentence with any of it is half code
WHOLE = re.compile(r"[A-Z][a-z]* .*[a-z]\.")


def sentences(module: str, least: int = 8, most: int = 28) -> list[str]:
    """Return the sentences in the documentation of a module's public functions and classes, sorted.

    Parameters
    ----------
    module : str
        Such as "scipy.stats".
    least, most : int
        Words of a sentence.
    """
    package = import_module(module)
    things = [getattr(package, name) for name in package.__all__]
    texts = [inspect.getdoc(thing) or "" for thing in things if callable(thing)]
    return sorted({one for text in texts for one in prose(text) if least <= len(one.split()) <= most})


def prose(text: str) -> list[str]:
    """Return the whole sentences of a docstring, without code and lists of parameters."""
    kept = []
    text = re.sub(r"^.*\n *[-=~]{3,} *$", "", text, flags=re.MULTILINE)  # headings
    for paragraph in re.split(r"\n\s*\n", text):
        if re.search(r"^ ", paragraph, flags=re.MULTILINE):  # indented: a parameter, a reference, a table
            continue
        joined = " ".join(re.sub(r":\w+:`|`", "", paragraph).split())
        found = re.split(r"(?<=[.!?]) (?=[A-Z])", joined)
        kept += [one for one in found if WHOLE.fullmatch(one) and not CODE.search(one)]
    return kept

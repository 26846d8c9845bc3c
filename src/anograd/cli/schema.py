"""What a command takes: names, types, ranges and choices, as its function says; and a file of all that."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import typer

WANTED = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
EXAMPLES = {"costs": "1:50", "rows": "3,17"}  # of texts that have a form


@dataclass(frozen=True)
class Key:
    """One option or argument of a command.

    Attributes
    ----------
    key : str
        What it is called in a file.
    name : str
        What the function calls it.
    flags : tuple of str
        What it is called on the command line; none for an argument.
    kind : type
        bool, int, float, str, or a StrEnum of choices.
    many : bool
        Whether several are taken.
    default : object
        None where there is none.
    needed : bool
        Whether there is no default at all.
    info : object
        What typer was told: help, min, max.
    """

    key: str
    name: str
    flags: tuple[str, ...]
    kind: type
    many: bool
    default: Any
    needed: bool
    info: Any

    @property
    def wanted(self) -> str:
        """Return which values are taken, in words."""
        if issubclass(self.kind, StrEnum):
            return "one of " + ", ".join(self.kind)
        bounds = [
            f"{word} {bound}"
            for word, bound in (("at least", self.info.min), ("at most", self.info.max))
            if bound is not None
        ]
        return " ".join([WANTED[self.kind], *([" and ".join(bounds)] if bounds else [])])

    @property
    def line(self) -> str:
        """Return a line of a file that sets it: to its default, where there is one."""
        value = self.default
        if value is None:
            value = {bool: True, int: max(1, self.info.min or 1), float: 0.05}.get(self.kind, self._text())
            value = [value] if self.many else value
        return f"{self.key} = {json.dumps(value)}"

    def _text(self) -> str:
        if issubclass(self.kind, StrEnum):
            return next(iter(self.kind))
        return EXAMPLES.get(self.key, self.info.metavar or self.key)

    def taken(self, value: Any) -> Any:
        """Return a value of a file as the command line would give it; raise ValueError where it cannot.

        Parameters
        ----------
        value : object
        """
        if not self.many:
            return self._one(value)
        if isinstance(value, dict):
            return [f"{name}={json.dumps(one)}" for name, one in value.items()]
        values = value if isinstance(value, list) else [value]
        return [json.dumps(one) if self._is_number(one) else self._one(one) for one in values]

    def _one(self, value: Any) -> Any:
        if self.kind is float and self._is_number(value):
            return float(value)
        if issubclass(self.kind, StrEnum):
            if value not in list(self.kind):
                raise ValueError
        elif type(value) is not self.kind:
            raise ValueError
        return value

    @staticmethod
    def _is_number(value: Any) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool)


def schema(function: Callable[..., Any]) -> Iterator[Key]:
    """Return what a command takes, in its order.

    Parameters
    ----------
    function : callable
        As typer gets it.
    """
    hints = get_type_hints(inspect.unwrap(function), include_extras=True)
    for name, parameter in inspect.signature(inspect.unwrap(function)).parameters.items():
        hint, info = get_args(hints[name])[:2]
        if get_origin(hint) is UnionType:
            (hint,) = (one for one in get_args(hint) if one is not type(None))
        many = get_origin(hint) is list
        kind = get_args(hint)[0] if many else hint
        flags: tuple[str, ...] = ()
        if isinstance(info, typer.models.OptionInfo):
            told = [info.default, *(info.param_decls or ())]
            flags = tuple(one for one in told if isinstance(one, str)) or (f"--{name.replace('_', '-')}",)
        key = next((flag[2:] for flag in flags if flag.startswith("--")), name)
        needed = parameter.default is parameter.empty
        default = None if needed else parameter.default
        if isinstance(default, Path):
            default = str(default)
        yield Key(key, name, flags, str if kind is Path else kind, many, default, needed, info)


def template(name: str, function: Callable[..., Any]) -> str:
    """Return a TOML file in which every option of a command stands with its default, commented out.

    Parameters
    ----------
    name : str
        Of the command.
    function : callable
    """
    lines = [
        f"# anograd {name} --config FILE: take the # away from what is to be set; the command line wins.",
        f"[{name}]",
    ]
    for key in schema(function):
        lines += [
            "",
            f"# {key.info.help} {key.wanted.capitalize()}{', needed' * key.needed}.",
            f"# {key.line}",
        ]
    return "\n".join(lines)

"""Options out of a TOML file, held against what the command itself says that it takes."""

from __future__ import annotations

import inspect
import json
import tomllib
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer
from typer.core import TyperCommand

from anograd.cli.answer import Misused, UsageError
from anograd.cli.schema import Key, schema, template

RULES = ("alpha", "fdr", "budget", "costs")  # of which the command line may give another than the file
FILE = "Options from a TOML file with a table of the command's name; those given here win."
JSON = "One JSON object on stdout, for programs; errors as one on stderr."
SHOW = "Print a file for --config with every option and its default."
PANEL = "The command"


def _added(kind: Any, flag: str, text: str, **more: Any) -> Any:
    return Annotated[kind, typer.Option(flag, help=text, rich_help_panel=PANEL, **more)]


ADDED = {
    "config": _added(Path | None, "--config", FILE, metavar="RUN.toml"),
    "show_config": _added(bool, "--show-config", SHOW),
    "json": _added(bool, "--json", JSON),
}


class Configured(TyperCommand):
    """A command whose options a file may give."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take from the file what is not on the command line."""
        assert self.callback is not None
        if "--show-config" in args and not ctx.resilient_parsing:
            typer.echo(template(str(ctx.info_name), self.callback))
            raise typer.Exit
        path = _path(args)
        if path is None or ctx.resilient_parsing:
            return super().parse_args(ctx, args)
        ctx.default_map = read(path, str(ctx.info_name), ctx.parent.command.every(), ctx)
        rest = super().parse_args(ctx, [*self._before(ctx, args), *args])
        sources = {name: ctx.get_parameter_source(name) for name in RULES if name in ctx.params}
        if any(source.name == "COMMANDLINE" for source in sources.values()):
            ctx.params.update(
                {name: None for name, source in sources.items() if source.name == "DEFAULT_MAP"}
            )
        return rest

    def _before(self, ctx: Any, args: list[str]) -> list[str]:
        """Return the file's arguments that come before those of the command line, which fill the gaps."""
        names = [param.name for param in self.params if param.param_type_name == "argument"]
        typed, _, _ = self.make_parser(ctx).parse_args(args=list(args))
        count = sum(typed.get(name) is not None for name in names)
        gaps = [name for name in names if name not in ctx.default_map]
        if not 0 < count < len(names):
            return []
        if count != len(gaps):
            both = " and ".join(str(name).upper() for name in names)
            raise typer.BadParameter(f"the file gives {both}, too: give both here, or neither")
        return [ctx.default_map[name] for name in names[: names.index(gaps[0])]]


def read(path: str, command: str, commands: Mapping[str, Any], ctx: Any) -> dict[str, Any]:
    """Return what a file gives for a command, by the names of the function's parameters.

    Parameters
    ----------
    path : str
    command : str
        Of which the table is wanted; keys above all tables are for every command that has such an option.
    commands : mapping of str to command
        All of them, by name; every table is looked at.
    ctx : context

    Raises
    ------
    Misused
        One line: the file, the key, the nearest names, and the line to write.
    FileNotFoundError
        No such file.
    """
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise FileNotFoundError(
            f"there is no file {path!r}: anograd {command} --show-config > {path} writes one"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Misused(f'{path}: this is no TOML: {error}; a line is such as: label = "is_fraud"') from None
    known: dict[str, Any] = {name: one for name, one in commands.items() if isinstance(one, Configured)}
    keys = {name: {key.key: key for key in schema(one.callback)} for name, one in known.items()}
    shared = {_dashed(key): value for key, value in content.items() if key not in known}
    for key, value in shared.items():
        if isinstance(value, dict):
            tables = ", ".join(f"[{name}]" for name in known)
            raise Misused(
                f"{path}: there is no command {key!r}{_near(key, known)}; wanted is one of: {tables}"
            )
        if not any(key in of_one for of_one in keys.values()):
            every = {name: one for of_one in keys.values() for name, one in of_one.items()}
            raise _unknown(f"{path}: above all tables", key, every)
    found: dict[str, Any] = {}
    for name, one in known.items():
        table = content.get(name, {})
        if not isinstance(table, dict):
            raise Misused(f"{path}: {name} is a command, and a table is wanted; write: [{name}]")
        given = {
            **{k: v for k, v in shared.items() if k in keys[name]},
            **{_dashed(k): v for k, v in table.items()},
        }
        for key, value in given.items():
            if key not in keys[name]:
                raise _unknown(f"{path}: [{name}]", key, keys[name])
            taken = _checked(f"{path}: [{name}] {key}", keys[name][key], value, one, ctx)
            if name == command:
                found[keys[name][key].name] = taken
    return found


def _checked(where: str, key: Key, value: Any, command: Any, ctx: Any) -> Any:
    """Return a value as the command line would give it, or say what is wrong with it."""
    try:
        taken = key.taken(value)
        next(param for param in command.params if param.name == key.name).process_value(ctx, taken)
    except UsageError as error:
        raise Misused(f"{where} = {_toml(value)}: {error.message}; write: {key.line}") from None
    except ValueError:
        raise Misused(f"{where} = {_toml(value)}: {key.wanted} is wanted; write: {key.line}") from None
    return taken


def _unknown(where: str, key: str, keys: Mapping[str, Key]) -> Misused:
    near = get_close_matches(key, keys, n=3, cutoff=0.5)
    hint = f" write: {keys[near[0]].line}" if near else f"; wanted is one of: {', '.join(keys)}"
    return Misused(f"{where} has no key {key!r}{_near(key, keys)}{hint}")


def _near(given: str, names: Mapping[str, Any]) -> str:
    near = get_close_matches(given, names, n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else ""


def _dashed(key: str) -> str:
    return key.replace("_", "-")


def _toml(value: Any) -> str:
    return json.dumps(value, default=str)


def _path(args: list[str]) -> str | None:
    """Return the file that the command line names."""
    for i, word in enumerate(args):
        if word == "--config" and i + 1 < len(args):
            return args[i + 1]
        if word.startswith("--config="):
            return word.removeprefix("--config=")
    return None


def command(
    app: typer.Typer, function: Callable[..., Any], name: str, *, config: bool = True, json: bool = True
) -> None:
    """Add a command, with the options that commands have in common.

    Parameters
    ----------
    app : Typer
    function : callable
    name : str
    config : bool, default True
        Whether a file may give its options.
    json : bool, default True
        Whether it can answer in JSON.
    """
    names = [*(["config", "show_config"] if config else []), *(["json"] if json else [])]
    added = {one: ADDED[one] for one in names}
    hints = get_type_hints(function, include_extras=True) | added

    @wraps(function)
    def call(**given: Any) -> Any:
        return function(**{one: value for one, value in given.items() if one not in added})

    own = inspect.signature(function).parameters.values()
    also = [
        inspect.Parameter(one, inspect.Parameter.KEYWORD_ONLY, default=None if one == "config" else False)
        for one in added
    ]
    taken = [one.replace(annotation=hints[one.name]) for one in (*own, *also)]
    vars(call).update(__signature__=inspect.Signature(taken))
    call.__annotations__ = {one.name: one.annotation for one in taken}
    app.command(name, cls=Configured if config else None)(call)

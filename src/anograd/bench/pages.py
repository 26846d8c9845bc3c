"""Pages with generated tables and pictures: what a TOML file asks for stands between two marks of a page.

A table stands between ``<!-- NAME:begin -->`` and ``<!-- NAME:end -->``; what is between is replaced, and all
else stays. A picture is written to ``pictures/NAME.svg`` beside its page. The TOML file has a ``[[page]]``
with its ``path`` for each page and a ``[[page.table]]`` for each table or picture, with ``name``, ``kind``,
``results`` (files of result lines), what is chosen of them (``protocol``, ``options``, ``regime``, ``data``,
``detectors``, ``seeds``), and how it is shown (``measure``, ``scores`` and what its kind needs). At its head
it may have ``root``, the folder of the pages' paths (".." without it), ``folder``, that of the result files
("results"), both from the TOML file, and ``[labels]``, what detectors are called.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anograd.bench import plots
from anograd.bench.average import inliers, sweep
from anograd.bench.costs import costs
from anograd.bench.names import unknown
from anograd.bench.regimes import INLIER, MEASURES, SCORE, cells, check_scores, means, only
from anograd.bench.results import Line, key, read
from anograd.bench.table import NOTHING, absent, origin, tables
from anograd.whole import write_whole

PICTURES = "pictures"


@dataclass(frozen=True)
class Kind:
    """What can stand between two marks.

    Attributes
    ----------
    make : function
        From lines and what is asked for to text.
    keys : tuple of str
        What may be asked for.
    needs : tuple of str
        What must be.
    picture : bool
        Whether the text is SVG.
    """

    make: Callable[..., str]
    keys: tuple[str, ...]
    needs: tuple[str, ...] = ()
    picture: bool = False


def _ranking(lines: Sequence[Line], measure: str = "auroc", **asked: Any) -> str:
    title, alpha = asked.pop("title", ""), asked.pop("alpha", 0.05)
    regime = only(lines)
    table = means(cells(lines, measure, **asked))
    told = title or f"Mean ranks by {MEASURES.get(measure, measure)}, {regime}"
    return plots.critical_difference_diagram(table, title=told, alpha=alpha)


SHOWN = ("measure", "scores")
KINDS = {
    "table": Kind(tables, SHOWN),
    "sweep": Kind(sweep, (*SHOWN, "option"), ("option",)),
    "inliers": Kind(inliers, SHOWN),
    "costs": Kind(costs, ("against", "by_data")),
    "critical-difference": Kind(_ranking, (*SHOWN, "title", "alpha"), picture=True),
    "boxes": Kind(plots.boxes, (*SHOWN, "title"), picture=True),
    "curve": Kind(plots.curve, (*SHOWN, "title", "x"), picture=True),
}
CHOOSE = ("protocol", "options", "regime", "data", "detectors", "seeds")
NEEDED = ("name", "kind", "results")
HEAD = ("root", "folder", "labels", "page")


def fill_pages(
    toml_path: Path, check: bool = False, *, labels: Mapping[str, str] | None = None
) -> list[Path]:
    """Return the pages and pictures that were out of date, and make them anew.

    Parameters
    ----------
    toml_path : Path
        See the head of this module.
    check : bool
        Write nothing.
    labels : mapping of str to str, optional
        What detectors are called, where the TOML file does not say.

    Raises
    ------
    ValueError
        A key, kind, protocol, option, detector, measure or score that is not known, a page without the
        marks, or a picture of several regimes.
    FileNotFoundError
        A page that is not there.
    ImportError
        Pictures need ``pip install 'anograd[report]'``.
    """
    toml_path = Path(toml_path)
    asked = tomllib.loads(toml_path.read_text(encoding="utf-8"))
    _keys(asked, HEAD, ("page",), str(toml_path))
    root = toml_path.parent / asked.get("root", "..")
    folder = toml_path.parent / asked.get("folder", "results")
    named = {**(labels or {}), **asked.get("labels", {})}
    made: dict[Path, str] = {}
    for page in asked["page"]:
        _keys(page, ("path", "table"), ("path", "table"), f"a page of {toml_path}")
        path = (root / page["path"]).resolve()
        text = made[path] if path in made else path.read_text(encoding="utf-8")
        for table in page["table"]:
            where = f"table {table.get('name', '')!r} of page {page['path']!r}"
            content, picture = _made(table, folder, named, where)
            if picture:
                made[path.parent / PICTURES / f"{table['name']}.svg"] = picture
            text = fill(text, table["name"], content, page["path"])
        made[path] = text
    stale = [path for path, text in made.items() if not _holds(path, text)]
    for path in stale:
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, made[path].encode())
    return stale


def _holds(path: Path, text: str) -> bool:
    return path.exists() and path.read_bytes() == text.encode()


def fill(text: str, name: str, content: str, page: str = "the page") -> str:
    r"""Return a page with what stands between two marks replaced.

    Parameters
    ----------
    text : str
    name : str
        Of the marks.
    content : str
    page : str
        What the page is called in errors.

    Raises
    ------
    ValueError
        The page does not have both marks, once each.

    Examples
    --------
    >>> fill("<!-- a:begin -->\nold\n<!-- a:end -->\n", "a", "new")
    '<!-- a:begin -->\n\nnew\n\n<!-- a:end -->\n'
    """
    begin, end = f"<!-- {name}:begin -->\n", f"<!-- {name}:end -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        there = re.findall(r"<!-- (\S+):begin -->", text)
        raise ValueError(
            f"{page!r} wants the lines {begin.strip()!r} and {end!r}, once each and in this order, where "
            f"the table is to stand; it has marks of: {', '.join(there) or 'nothing'}"
        )
    before, _, rest = text.partition(begin)
    return f"{before}{begin}\n{content}\n\n{end}{rest.partition(end)[2]}"


def _made(table: dict[str, Any], folder: Path, labels: Mapping[str, str], where: str) -> tuple[str, str]:
    """Return what stands between the marks, and the picture that it shows."""
    if (given := table.get("kind")) is not None and given not in KINDS:
        raise ValueError(f"{where}: {unknown(str(given), KINDS, 'kind')}")
    kind = KINDS[given or "table"]
    own = tuple(one for one in kind.keys if one not in CHOOSE)
    _keys(table, (*NEEDED, *CHOOSE, *own), (*NEEDED, *kind.needs), where)
    every = once(line for name in table["results"] for line in read(folder / name))
    try:
        chosen = {one: table[one] for one in CHOOSE if one in table}
        if "against" in table and "detectors" in table:
            chosen["detectors"] = [*table["detectors"], table["against"]]
        lines = choose(every, **chosen)
        if not lines:
            return NOTHING, ""
        check_scores(lines, table.get("scores", ()))
        shown = {one: table[one] for one in own if one in table}
        made = kind.make(lines, **shown, detectors=table.get("detectors"), labels=labels)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    if not kind.picture:
        return made, ""
    title = re.search(r"<title>(.*?)</title>", made, re.DOTALL)
    alt = title[1].replace("[", "(").replace("]", ")") if title else table["name"]
    below = " ".join(filter(None, [absent(lines, table.get("detectors"), labels), origin(lines)]))
    return "\n\n".join(filter(None, [f"![{alt}]({PICTURES}/{table['name']}.svg)", below])), made


def _keys(given: Mapping[str, Any], known: Iterable[str], needed: Iterable[str], where: str) -> None:
    known = tuple(known)
    for one in given:
        if one not in known:
            raise ValueError(f"{where}: {unknown(one, known, 'key')}")
    if missing := [one for one in needed if one not in given]:
        raise ValueError(
            f"{where}: it has {', '.join(given) or 'no keys'}; wanted as well: {', '.join(missing)}"
        )


def choose(
    lines: Sequence[Line],
    *,
    protocol: str | None = None,
    options: Mapping[str, Any] | None = None,
    regime: str | None = None,
    data: Sequence[str] | None = None,
    detectors: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
) -> list[Line]:
    """Return the lines that are asked for; all that is left out is as it may be.

    Parameters
    ----------
    lines : sequence of dict
    protocol : str, optional
    options : mapping of str, optional
        Values of the protocol's options; a list names several.
    regime : str, optional
        Such as "clean".
    data : sequence of str, optional
        Data sets.
    detectors : sequence of str, optional
    seeds : sequence of int, optional

    Raises
    ------
    ValueError
        A protocol, option, regime, data set, detector or seed that none of the lines has, while there are
        lines.

    Examples
    --------
    >>> line = {"protocol": "adbench", "options": {"labels": 0.01}, "data": "wine", "detector": "gradcon"}
    >>> len(choose([line], options={"labels": [0.01, 0.05]})), len(choose([line], options={"labels": 0.1}))
    (1, 0)
    """
    if not lines:
        return []
    wanted = {
        "protocol": None if protocol is None else [protocol],
        "regime": None if regime is None else [regime],
        "data": data,
        "detector": detectors,
        "seed": seeds,
    }
    for field, values in wanted.items():
        there = dict.fromkeys(line[field] for line in lines if line.get(field) is not None)
        for value in values or ():
            if value not in there:
                raise unknown(value, there, "data set" if field == "data" else field)
    named = dict.fromkeys(name for line in lines for name in line["options"])
    for name in options or ():
        if name not in named:
            raise unknown(name, named, "option")
    return [
        line
        for line in lines
        if all(values is None or line.get(field) in values for field, values in wanted.items())
        and all(
            line["options"].get(name) in (value if isinstance(value, list) else [value])
            for name, value in (options or {}).items()
        )
    ]


def once(lines: Iterable[Line]) -> list[Line]:
    """Return the last line of each cell, where several files may have measured the same one."""
    return list({key(line): line for line in lines}.values())


def describe(
    lines: Iterable[Line],
    measure: str = "auroc",
    *,
    scores: Sequence[str] = (SCORE,),
    labels: Mapping[str, str] | None = None,
) -> str:
    """Return the tables of all regimes in some result lines, to be read in a terminal.

    Parameters
    ----------
    lines : iterable of dict
        Result lines. Where the normal class changes (option "inlier"), tables are means over it.
    measure : str
        High = better.
    scores : sequence of str
        Which scores of each fit, such as ("score", "twin").
    labels : mapping of str to str, optional
        What detectors are called.

    Raises
    ------
    ValueError
        A measure or score that no line has.
    """
    lines = once(lines)
    check_scores(lines, scores)
    turns = [line for line in lines if INLIER in line["options"]]
    others = [line for line in lines if INLIER not in line["options"]]
    parts = [
        tables(others, measure, scores=scores, labels=labels) if others else "",
        inliers(turns, measure, scores=scores, labels=labels) if turns else "",
    ]
    return "\n\n".join(filter(None, parts)) or NOTHING

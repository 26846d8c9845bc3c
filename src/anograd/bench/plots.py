"""Pictures of a comparison as SVG text: mean ranks, spread over data sets, a measure along a setting.

The text of a picture stays text, and the same lines give the same file.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from anograd.bench import stats
from anograd.bench.average import complete, in_order
from anograd.bench.names import unknown
from anograd.bench.regimes import MEASURES, SCORE, Cell, cells, each_class, means, only
from anograd.bench.results import Line
from anograd.pictures import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT = "#222222", "#8a8a8a"
# Colours that people with any colour vision tell apart (M. Okabe and K. Ito), less yellow, pale on white.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000", "#8a8a8a")
MARKERS = "osD^vPX*"
LOGARITHMIC = 20  # times from the least to the largest setting: then steps are shown as ratios


def critical_difference_diagram(table: stats.Table, *, title: str = "", alpha: float = 0.05) -> str:
    """Return the SVG of mean ranks on an axis, best on the right, with bars that join what does not differ.

    Thick bars are the runs of `anograd.bench.stats.cliques` (Wilcoxon, Holm over all pairs). The thin bar
    above the axis is Nemenyi's critical difference, for the size of it; the thick bars are not made from it.

    Parameters
    ----------
    table : mapping of detector to mapping of data set to float
        High = better; of two or more detectors.
    title : str
        Left out, it says what is ranked.
    alpha : float

    Raises
    ------
    ValueError
        Fewer than two detectors, or no data set on which all have a value.
    ImportError
        Pictures need ``pip install 'anograd[report]'``.
    """
    whole, left_out = stats.blocks(table)
    left = f" ({len(left_out)} left out)" if left_out else ""
    told = f"Mean ranks of {len(table)} detectors on {len(whole)} data sets{left}"
    return svg(rank_figure(table, alpha=alpha), title or told)


def rank_figure(table: stats.Table, *, alpha: float = 0.05) -> Figure:
    """Return the figure of `critical_difference_diagram`.

    Parameters
    ----------
    table : mapping of detector to mapping of data set to float
    alpha : float
    """
    whole, left_out = stats.blocks(table)
    k, n = len(table), len(whole)
    if k < 2 or n < 1:
        raise ValueError(
            f"ranks want 2 or more detectors and a data set on which all have a value; got {k} detectors and "
            f"{n} such data sets: leave out the detectors that lack most"
        )
    placed = stats.ranks(table)
    order = sorted(placed, key=lambda name: placed[name])  # best first
    runs = stats.cliques(table, alpha)
    right = order[: (k + 1) // 2]
    left = order[(k + 1) // 2 :][::-1]  # worst first, so that lines do not cross
    lanes = _lanes([(placed[run[0]], placed[run[-1]]) for run in runs])
    bars = 1 + max(lanes, default=-1)
    depth = 0.5 + 0.32 * bars + 0.5 * max(len(right), len(left))
    longest = max(map(len, order))
    margin = 0.09 * longest + 0.9  # inches beside the axis
    inches = max(3.6, 0.36 * (k - 1))
    figure = new_figure(inches + 2 * margin, 0.52 * (depth + 2.4))
    axes: Axes = figure.subplots()
    beyond = margin / inches * (k - 1)
    axes.set_xlim(k + beyond, 1 - beyond)  # rank 1, the best, on the right
    axes.set_ylim(depth + 0.3, -2.1)
    axes.set_axis_off()
    axes.plot([1, k], [0, 0], color=INK, linewidth=1.2)
    for rank in range(1, k + 1):
        axes.plot([rank, rank], [0, -0.15], color=INK, linewidth=1)
        axes.text(rank, -0.25, str(rank), ha="center", va="bottom", fontsize=9, color=INK)
    _bar_of_difference(axes, k, n, alpha)
    for (best, *_, worst), lane in zip(runs, lanes, strict=True):
        y = 0.32 * (lane + 1)
        ends = [placed[best] - 0.012 * k, placed[worst] + 0.012 * k]
        axes.plot(ends, [y, y], color=INK, linewidth=4, solid_capstyle="butt")
    for side, column in ((1 - 0.15 * beyond, right), (k + 0.15 * beyond, left)):
        for place, name in enumerate(column):
            y = 0.5 + 0.32 * bars + 0.5 * place
            at = placed[name]
            axes.plot([at, at, side], [0, y, y], color=FAINT, linewidth=0.8)
            align: Any = "left" if column is right else "right"
            step = -0.03 * beyond if column is right else 0.03 * beyond
            axes.text(side + step, y, f"{name} ({at:.2f})", ha=align, va="center", fontsize=9, color=INK)
    left_text = f"; {len(left_out)} left out, as a detector has no value" if left_out else ""
    axes.text(
        0.5, 0.0, f"mean rank on {n} data sets, 1 = best{left_text}; thick bars: no difference found "
        f"(Wilcoxon, Holm, {alpha})", transform=axes.transAxes, ha="center", va="bottom", fontsize=8,
        color=INK, wrap=True,
    )  # fmt: skip
    return figure


def _bar_of_difference(axes: Axes, k: int, n: int, alpha: float) -> None:
    """Draw Nemenyi's critical difference above the axis, from the best rank on, as far as the axis goes."""
    width = stats.critical_difference(k, n, alpha)
    end = min(1 + width, k)
    axes.plot([1, end], [-1.15, -1.15], color=INK, linewidth=1)
    for x in (1, end) if end == 1 + width else (1,):
        axes.plot([x, x], [-1.28, -1.02], color=INK, linewidth=1)
    longer = " (longer than the axis)" if end < 1 + width else ""
    axes.text(
        (1 + end) / 2,
        -1.35,
        f"Nemenyi CD {width:.2f}{longer}",
        ha="center",
        va="bottom",
        fontsize=8,
        color=INK,
    )


def _lanes(spans: Sequence[tuple[float, float]]) -> list[int]:
    """Return in which lane each bar is drawn, so that none touches another.

    Examples
    --------
    >>> _lanes([(1.0, 2.0), (1.5, 3.0), (2.5, 4.0)])
    [0, 1, 0]
    """
    ends: list[float] = []
    found = []
    for start, end in spans:
        lane = next((i for i, taken in enumerate(ends) if taken + 0.3 < start), len(ends))
        ends[lane : lane + 1] = [end]
        found.append(lane)
    return found


def boxes(
    lines: Sequence[Line],
    measure: str = "auroc",
    *,
    detectors: Sequence[str] | None = None,
    scores: Sequence[str] = (SCORE,),
    labels: Mapping[str, str] | None = None,
    title: str = "",
) -> str:
    """Return the SVG of a box a detector over data sets, each of which is a dot: its mean over seeds.

    Only data sets on which every detector has a value are drawn; how many are left out stands below.

    Parameters
    ----------
    lines : sequence of dict
        Result lines of one regime.
    measure : str
        High = better.
    detectors : sequence of str, optional
        Which, in this order; left out, all.
    scores : sequence of str
        Which scores of each fit.
    labels : mapping of str to str, optional
        What detectors are called.
    title : str
        Left out, it is the measure and the regime.

    Raises
    ------
    ValueError
        Lines of several regimes, a measure or a score that no line has, or no data set that is complete.
    ImportError
        Pictures need ``pip install 'anograd[report]'``.
    """
    regime = only(lines)
    found = cells(lines, measure, detectors=detectors, scores=scores, labels=labels)
    return svg(box_figure(means(found), measure), title or f"{_called(measure)}, {regime}")


def box_figure(table: stats.Table, measure: str) -> Figure:
    """Return the figure of `boxes`.

    Parameters
    ----------
    table : mapping of detector to mapping of data set to float
    measure : str
    """
    whole, left_out = stats.blocks(table)
    if not whole:
        raise ValueError(
            "boxes want a data set on which all detectors have a value; got none: leave out the detectors "
            "that lack most"
        )
    figure = new_figure(7.5, 0.9 + 0.36 * len(table))
    axes: Axes = figure.subplots()
    for y, values in enumerate(table.values()):
        here = np.array([values[data] for data in whole])
        low, middle, high = np.quantile(here, (0.25, 0.5, 0.75))
        reach = 1.5 * (high - low)
        inside = here[(here >= low - reach) & (here <= high + reach)]
        axes.plot([inside.min(), inside.max()], [y, y], color=FAINT, linewidth=1, zorder=1)
        axes.barh(y, high - low, left=low, height=0.6, facecolor="#cfe0ee", edgecolor=COLOURS[0], zorder=2)
        axes.plot([middle, middle], [y - 0.3, y + 0.3], color=COLOURS[1], linewidth=2, zorder=4)
        dots: Any = {"s": 9, "facecolors": "none", "edgecolors": INK, "linewidths": 0.6, "zorder": 3}
        axes.scatter(here, np.full(len(here), y), **dots)
    axes.set_yticks(range(len(table)), list(table), fontsize=9)
    axes.set_ylim(len(table) - 0.4, -0.6)
    left = f", {len(left_out)} left out, as a detector has no value" if left_out else ""
    axes.set_xlabel(f"{_called(measure)} on {len(whole)} data sets{left}")
    _plain(axes)
    axes.tick_params(axis="y", length=0)
    return figure


def curve(
    lines: Sequence[Line],
    x: str = "epochs",
    measure: str = "auroc",
    *,
    detectors: Sequence[str] | None = None,
    scores: Sequence[str] = (SCORE,),
    labels: Mapping[str, str] | None = None,
    title: str = "",
) -> str:
    """Return the SVG of a measure along a setting or an option: a line a detector, a band of 95 % over seeds.

    Every point is a mean over the same data sets, those that are complete. A detector without the setting is
    a level line.

    Parameters
    ----------
    lines : sequence of dict
        Result lines of one regime but for the option; every normal class counts as a data set.
    x : str
        A setting of detectors, or an option of the protocol; its values are numbers.
    measure : str
        High = better.
    detectors : sequence of str, optional
        Which, in this order; left out, all.
    scores : sequence of str
        Which scores of each fit.
    labels : mapping of str to str, optional
        What detectors are called.
    title : str
        Left out, it is the measure, the setting and the regime.

    Raises
    ------
    ValueError
        A setting, measure or score that no line has, values that are no numbers, lines of several regimes,
        or no data set that is complete.
    ImportError
        Pictures need ``pip install 'anograd[report]'``.
    """
    lines = each_class(lines)
    regime = only(lines, (x,))
    there = {name for line in lines for name in (*line["settings"], *line["options"])}
    if x not in there:
        raise unknown(x, sorted(there), "setting or option")
    found = cells(lines, measure, detectors=detectors, scores=scores, labels=labels, swept=x)
    return svg(curve_figure(found, x, measure), title or f"{_called(measure)} along {x}, {regime}")


def curve_figure(found: Sequence[Cell], x: str, measure: str) -> Figure:
    """Return the figure of `curve`.

    Parameters
    ----------
    found : sequence of Cell
    x : str
    measure : str
    """
    units: dict[str, dict[float | None, dict[str, dict[int, float]]]] = {}
    for cell in found:
        if cell.value is not None:
            place = _number(cell.line["settings"].get(x, cell.line["options"].get(x)), x)
            units.setdefault(cell.row, {}).setdefault(place, {}).setdefault(cell.data, {})[cell.seed] = (
                cell.value
            )
    whole, left_out = complete(
        [there for row in units.values() for there in row.values()], sorted({cell.data for cell in found})
    )
    if not whole:
        raise ValueError(
            f"a curve wants a data set with a value at every {x} of every detector; got none: leave out the "
            "detectors that lack most"
        )
    figure = new_figure(7.5, 4.2)
    axes: Axes = figure.subplots()
    places = in_order({place for row in units.values() for place in row if place is not None})
    if not places or any(None in row and len(row) > 1 for row in units.values()):
        raise ValueError(
            f"a curve wants a number for {x} in each line of a detector; got lines without: choose detectors "
            "that have it, or say in the run file what it is"
        )
    if places[0] > 0 and places[-1] / places[0] >= LOGARITHMIC:
        axes.set_xscale("log")
    axes.set_xticks(places, [f"{place:g}" for place in places])
    axes.set_xticks([], minor=True)
    for i, (name, row) in enumerate(units.items()):
        colour, marker = COLOURS[i % len(COLOURS)], MARKERS[(i // len(COLOURS) + i) % len(MARKERS)]
        level = list(row) == [None]
        at = [places[0], places[-1]] if level else in_order(place for place in row if place is not None)
        pooled = [stats.pooled({data: row[None if level else place][data] for data in whole}) for place in at]
        values = np.array([one.value for one in pooled])
        half = [one.half or 0.0 for one in pooled]
        ends = [one.ends or (one.value - by, one.value + by) for one, by in zip(pooled, half, strict=True)]
        style: Any = {"linestyle": "--"} if level else {"marker": marker, "markersize": 5}
        axes.plot(at, values, color=colour, label=name, linewidth=1.6, **style)
        axes.fill_between(at, *np.transpose(ends), color=colour, alpha=0.15, linewidth=0)
    left = f", {len(left_out)} left out, as one is missing" if left_out else ""
    several = "s" if len(whole) > 1 else ""
    axes.set_xlabel(x)
    axes.set_ylabel(f"{_called(measure)}, mean of {len(whole)} data set{several}{left}", fontsize=9)
    _plain(axes)
    figure.legend(loc="outside lower center", ncols=min(3, len(units)), fontsize=9, frameon=False)
    return figure


def _number(value: Any, x: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"a curve wants numbers along {x}; got {value!r}: make a table of it (kind 'sweep')")
    return float(value)


def _called(measure: str) -> str:
    return MEASURES.get(measure, measure.replace("_", " "))


def _plain(axes: Axes) -> None:
    axes.grid(visible=True, color="#e4e4e4", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["left", "top", "right"]].set_visible(False)


def svg(figure: Figure, title: str) -> str:
    """Return a figure as SVG text on white, with a title that screen readers read.

    Parameters
    ----------
    figure : Figure
    title : str
    """
    import matplotlib

    content = io.StringIO()
    settings: Any = {"svg.hashsalt": "anograd", "svg.fonttype": "none"}
    nothing: Any = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context(settings):
        figure.savefig(content, format="svg", facecolor="white", metadata={**nothing, "Title": title})
    lines = content.getvalue().replace("<svg ", '<svg role="img" ', 1).splitlines()
    return "".join(line.rstrip() + "\n" for line in lines)

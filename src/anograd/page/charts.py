"""The charts of a page, as SVG that takes its colours from the page and keeps its text as text."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from anograd.page.curves import Curve
from anograd.page.scored import Chunk, PValues
from anograd.pictures import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import Formatter

Floats = NDArray[np.float64]
# What is drawn in these colours takes the page's, light or dark.
INK, FAINT, GRID, ONE, TWO = "#101112", "#707172", "#d0d1d2", "#0072b2", "#c24e00"
PAGE = {
    INK: "currentColor",
    "#000000": "currentColor",
    FAINT: f"var(--faint, {FAINT})",
    GRID: f"var(--grid, {GRID})",
    ONE: f"var(--one, {ONE})",
    TWO: f"var(--two, {TWO})",
}
SIZE = (5.0, 3.1)  # inches: as wide as a phone, where text is then as large as it is drawn
TEXT = 10
BINS = 40
LOGARITHMIC = 50  # rows in the fullest bar
REACH = 8  # times the middle half of the scores: what is beyond goes to the last bar


def scores(values: Floats, odd: NDArray[np.bool_] | None, line: float | None) -> str:
    """Return how many rows have which score; anomalies hatched, where the truth is known.

    Parameters
    ----------
    values : ndarray, (n,)
        High = anomalous.
    odd : ndarray of bool, (n,), optional
    line : float, optional
        From where alarms are raised.
    """
    edges, below, beyond = _edges(values, line)
    shown = np.clip(values, edges[0], edges[-1])
    figure, axes = _axes()
    groups = [("rows", shown)] if odd is None else [("normal", shown[~odd]), ("anomalous", shown[odd])]
    counts = [np.histogram(group, edges)[0] for _, group in groups]
    log = max(int(count.max()) for count in counts) > LOGARITHMIC
    _bars(axes, edges, counts, [f"{name} ({len(group):,})" for name, group in groups], log)
    if line is not None:
        axes.axvline(line, color=INK, linewidth=1.4, linestyle="--")
        right = line > (edges[0] + 2 * edges[-1]) / 3
        axes.annotate(
            "alarm \N{RIGHTWARDS ARROW}", (line, 1), xycoords=("data", "axes fraction"),
            xytext=(-4 if right else 4, -3), textcoords="offset points", va="top",
            ha="right" if right else "left", fontsize=TEXT, color=INK,
        )  # fmt: skip
    ends = [f"first bar: below {edges[1]:.3g} ({below:,})"] if below else []
    ends += [f"last bar: {edges[-2]:.3g} and above ({beyond:,})"] if beyond else []
    axes.set_xlabel("score, high = anomalous" + (f"\n{'; '.join(ends)}" if ends else ""))
    axes.set_ylabel("rows, logarithmic" if log else "rows")
    _legend(figure, len(groups) > 1)
    return svg(figure, "scores", "Histogram of the scores")


def _edges(values: Floats, line: float | None) -> tuple[Floats, int, int]:
    """Return the edges of the bars, and how many rows the first and the last take in from beyond them."""
    real = values[np.isfinite(values)]
    if not len(real):
        return np.linspace(0, 1, BINS + 1), 0, len(values)
    low, high = float(real.min()), float(real.max())
    first, third = np.quantile(real, (0.25, 0.75))
    if third > first:
        low = max(low, float(first - REACH * (third - first)))
        high = min(high, float(third + REACH * (third - first)))
    if line is not None:
        high = max(high, line + 0.1 * (line - low))
        low = min(low, line)
    if high <= low:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, BINS + 1)
    below = int((values < edges[1]).sum()) if real.min() < low else 0
    beyond = int((values >= edges[-2]).sum()) if values.max() > high else 0
    return edges, below, beyond


def _bars(axes: Axes, edges: Floats, counts: Sequence[Any], names: Sequence[str], log: bool) -> None:
    floor = 0.5 if log else 0.0
    looks: Any = (
        {"facecolor": ONE, "edgecolor": ONE, "alpha": 0.65, "linewidth": 0.5},
        {"facecolor": "none", "edgecolor": TWO, "hatch": "////", "linewidth": 1.2},
    )
    for count, name, look in zip(counts, names, looks, strict=False):
        axes.stairs(np.maximum(count, floor), edges, baseline=floor, fill=True, label=name, **look)
    from matplotlib.ticker import MaxNLocator, NullLocator

    axes.yaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
    if log:
        axes.set_yscale("log")
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_ylim(bottom=floor)
    axes.yaxis.set_major_formatter(_counted())


def _counted() -> Formatter:
    """Return what writes numbers of rows on an axis."""
    from matplotlib.ticker import FuncFormatter

    return FuncFormatter(lambda x, _: f"{x:,.0f}" if x >= 1 or not x else "")


def p_values(found: PValues) -> str:
    """Return how many rows have which p value, and what would be usual if all were normal.

    Parameters
    ----------
    found : PValues
    """
    figure, axes = _axes()
    counts = [found.normal] if found.odd is None else [found.normal, found.odd]
    names = ["rows"] if found.odd is None else ["normal", "anomalous"]
    log = max(int(count.max()) for count in counts) > 10 * max(1.0, float(found.high.max()))
    floor = 0.5 if log else 0.0
    _bars(axes, found.edges, counts, names, log)
    low, high = (np.maximum(x, floor) for x in (found.low, found.high))
    axes.stairs(high, found.edges, baseline=low, fill=True, color=FAINT, alpha=0.3, label="95 % of the time")
    axes.stairs(
        found.expected, found.edges, baseline=None, color=INK, linestyle="--", linewidth=1.4,
        label="expected if normal",
    )  # fmt: skip
    axes.set_xlim(0, 1)
    axes.set_xlabel("p value, low = anomalous")
    axes.set_ylabel("rows, logarithmic" if log else "rows")
    _legend(figure, True)
    return svg(figure, "p-values", "Histogram of the p values, with what is expected of normal rows")


def roc(curve: Curve, twin: Curve | None) -> str:
    """Return anomalies found against false alarms.

    Parameters
    ----------
    curve : Curve
    twin : Curve, optional
        Of the score without gradients.
    """
    figure, axes = _axes(1.3)
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=":", label="chance")
    _curves(axes, curve, twin, "post")
    axes.set_xlabel("false-alarm rate")
    axes.set_ylabel("anomalies found")
    _legend(figure, True)
    return svg(figure, "roc", "ROC curve: anomalies found against false alarms, with 95 % band")


def precision_recall(curve: Curve, twin: Curve | None, chance: float) -> str:
    """Return precision against recall.

    Parameters
    ----------
    curve : Curve
    twin : Curve, optional
        Of the score without gradients.
    chance : float
        The share of anomalies.
    """
    figure, axes = _axes(1.3)
    axes.axhline(chance, color=FAINT, linewidth=1, linestyle=":", label="chance")
    _curves(axes, curve, twin, "pre")
    axes.set_xlabel("recall: anomalies found")
    axes.set_ylabel("precision: right alarms")
    _legend(figure, True)
    return svg(figure, "precision-recall", "Precision against recall, with 95 % band")


def _curves(axes: Axes, curve: Curve, twin: Curve | None, step: Any) -> None:
    axes.fill_between(
        curve.x,
        curve.low,
        curve.high,
        step=step,
        color=ONE,
        alpha=0.2,
        linewidth=0,
        label="95 % of the score",
    )
    if twin is not None:
        axes.step(
            twin.x, twin.y, where=step, color=TWO, linewidth=1.5, linestyle="--", label="without gradients"
        )
    axes.step(curve.x, curve.y, where=step, color=ONE, linewidth=2, label="score")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)


def drift(found: Sequence[Chunk], overall: float, level: float) -> str:
    """Return the share of low p values in consecutive chunks of the rows, with intervals.

    Parameters
    ----------
    found : sequence of Chunk
    overall : float
        The share among all rows.
    level : float
        Up to which a p value is low.
    """
    from matplotlib.ticker import MaxNLocator

    figure, axes = _axes()
    x = [(chunk.first + chunk.last) / 2 for chunk in found]
    y, low, high = np.array([chunk.share for chunk in found]).T
    axes.axhline(overall, color=INK, linewidth=1.2, linestyle="--", label=f"all rows: {overall:.3g}")
    axes.vlines(x, low, high, color=ONE, linewidth=1.4, label="95 % interval")
    away = (low > overall) | (high < overall)
    dots: Any = {"linestyle": "none", "color": ONE, "markersize": 5}
    axes.plot(np.array(x)[~away], y[~away], marker="o", markerfacecolor="none", label="chunk", **dots)
    if away.any():
        axes.plot(np.array(x)[away], y[away], marker="D", label="chunk away from all rows", **dots)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("row, in the order of the file")
    axes.set_ylabel(f"share with p \N{LESS-THAN OR EQUAL TO} {level:.3g}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.xaxis.set_major_formatter(_counted())
    _legend(figure, True)
    return svg(figure, "drift", "Share of low p values over the order of the rows")


def _axes(taller: float = 1.0) -> tuple[Figure, Axes]:
    figure = new_figure(SIZE[0], SIZE[1] * taller)
    axes: Axes = figure.subplots()
    axes.grid(visible=True, color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(colors=FAINT, labelcolor=INK, labelsize=TEXT)
    axes.xaxis.label.set(color=INK, fontsize=TEXT)
    axes.yaxis.label.set(color=INK, fontsize=TEXT)
    return figure, axes


def _legend(figure: Figure, wanted: bool) -> None:
    if wanted:
        figure.legend(
            loc="outside lower center",
            ncols=2,
            fontsize=TEXT,
            frameon=False,
            labelcolor=INK,
            handlelength=2.4,
        )


def svg(figure: Figure, name: str, title: str) -> str:
    """Return a figure as an SVG element to stand in a page: transparent, with a title, names of its own.

    Parameters
    ----------
    figure : Figure
    name : str
        Put before every name in it, so that several can stand in one page.
    title : str
        For who cannot see it.
    """
    import matplotlib

    content = io.StringIO()
    nothing: Any = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    settings: Any = {"svg.hashsalt": "anograd", "svg.fonttype": "none", "axes.unicode_minus": True}
    with matplotlib.rc_context(settings):
        figure.savefig(content, format="svg", transparent=True, metadata=nothing)
    text = content.getvalue()
    text = text[text.index("<svg ") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style .*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r"font-family: [^;\"]*;? ?", "", text)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r"url\(#", f"url(#{name}-", text)
    text = re.sub(r'xlink:href="#', f'href="#{name}-', text)
    for colour, var in PAGE.items():
        text = re.sub(rf"(fill|stroke): {colour}", rf"\1: {var}", text)
    head = f'<svg role="img" aria-labelledby="{name}-title" class="chart" viewBox="{_box(text)}">'
    body = text[text.index(">") + 1 :]
    lines = (head + f'<title id="{name}-title">{escape(title)}</title>' + body).splitlines()
    return "\n".join(line for line in map(str.strip, lines) if line)


def _box(text: str) -> str:
    found = re.search(r'viewBox="([^"]*)"', text)
    assert found is not None
    return found.group(1)

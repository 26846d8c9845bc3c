"""From scores, reasons and a model's description to the text of the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.resources import files
from typing import Any

import numpy as np

from anograd.decide import counted
from anograd.evaluate import evaluate
from anograd.page import charts
from anograd.page.curves import Comparison, Estimate, compare
from anograd.page.scored import Scored, agreement, chunks, levels, p_values, share
from anograd.page.why import Reason
from anograd.report import smallest_p

TEMPLATE = "report.html.j2"


@dataclass(frozen=True)
class Card:
    """What is said of the data and of the model.

    Attributes
    ----------
    data : str
        The file of the rows.
    data_sum : str, optional
        Its SHA-256.
    folder : str
        Of the model.
    detector : str
    twin : str
        What the score without gradients is.
    written : str
        When the model was written, and by what.
    described : sequence of (str, list of str)
        As from `anograd.report.describe`.
    versions : sequence of (str, str)
        Of what made the page.
    sums : sequence of (str, str)
        The model's files and their SHA-256.
    """

    data: str
    data_sum: str | None
    folder: str
    detector: str
    twin: str
    written: str
    described: Sequence[tuple[str, list[str]]]
    versions: Sequence[tuple[str, str]] = ()
    sums: Sequence[tuple[str, str]] = ()


def page(scored: Scored, card: Card, reasons: Sequence[Reason], untold: str = "", among: str = "") -> str:
    """Return the page as HTML: the same input gives the same text.

    Parameters
    ----------
    scored : Scored
    card : Card
    reasons : sequence of Reason
        As from `anograd.page.reasons`.
    untold : str
        Why there are no reasons, if so.
    among : str
        The file of the normal rows to compare with.

    Raises
    ------
    ImportError
        The page needs ``pip install 'anograd[report]'``.
    """
    template = _template()
    found = p_values(scored)
    parts = chunks(scored)
    overall = float((scored.p <= scored.level).mean())
    same = agreement(scored)
    text: str = template.render(
        scored=scored,
        card=card,
        described=dict(card.described),
        n=len(scored.scores),
        raised=int(scored.alarms.sum()),
        promise=promise(scored),
        smallest=smallest_p(len(scored.calibration.scores)),
        score_chart=charts.scores(scored.scores, scored.odd, scored.line),
        p=found,
        p_chart=charts.p_values(found),
        truth=_truth(scored) if scored.odd is not None else None,
        levels=levels(scored),
        reasons=reasons,
        untold=untold,
        among=among,
        chunks=parts,
        overall=overall,
        away=[one for one in parts if not one.share[1] <= overall <= one.share[2]],
        drift_chart=charts.drift(parts, overall, scored.level) if parts else "",
        agreement=same,
    )
    return text


def expected(count: float) -> str:
    """Return how many rows are expected as text: to a tenth, or to the first digit that is not zero."""
    return f"{count:,.1f}" if not count or count >= 0.95 else f"{count:.1g}"


def promise(scored: Scored) -> str:
    """Return what the rule promises, in numbers of these rows.

    Parameters
    ----------
    scored : Scored
    """
    (name, value), n = next(iter(scored.rule.items())), len(scored.scores)
    if name == "alpha":
        normal = n if scored.odd is None else int((~scored.odd).sum())
        whose = "if all rows were normal" if scored.odd is None else f"of the {counted(normal, 'normal row')}"
        return (
            f"Of normal rows, on average at most {value:.4g} raise an alarm: here at most "
            f"{expected(value * normal)} false alarms {whose}."
        )
    if name == "fdr":
        raised = int(scored.alarms.sum())
        return (
            f"Of the alarms, on average at most {value:.4g} are false: here at most "
            f"{expected(value * raised)} of {raised:,}."
        )
    if name == "costs":
        known = scored.calibration.anomalies
        assert known is not None
        return (
            f"Of all lines, the one that costs least on average where a false alarm costs {value[0]:g} and a "
            f"miss {value[1]:g}, by {len(known.scores):,} known anomalies that are taken to be "
            f"{known.prevalence:.3g} of the rows."
        )
    return f"At most {value:,} alarms, the highest scores; nothing is promised about how many are false."


def _truth(scored: Scored) -> dict[str, Any]:
    """Return what the template shows where the truth is known."""
    assert scored.odd is not None
    found = evaluate(scored.scores, scored.odd, scored.alarms)
    ranked = compare(scored.scores, scored.twin, scored.odd)
    twin = ranked.twin
    chance = found.anomalous / (found.anomalous + found.normal)
    return {
        "found": found,
        "ranked": ranked,
        "precision": share(found.found, found.alarms),
        "recall": share(found.found, found.anomalous),
        "false": (found.false_alarm_rate, *found.interval),
        "verdict": _verdict(ranked),
        "exact": any(one.low == one.high for one in (ranked.score.auroc, ranked.score.average_precision)),
        "chance": chance,
        "roc": charts.roc(ranked.score.roc, twin.roc if twin else None),
        "precision_recall": charts.precision_recall(
            ranked.score.precision, twin.precision if twin else None, chance
        ),
    }


def _verdict(ranked: Comparison) -> str:
    """Return what the intervals of the differences say, nothing where there is nothing to compare with."""
    told = []
    for name, gain in (("AUROC", ranked.auroc), ("average precision", ranked.average_precision)):
        if gain is not None and gain.low > 0:
            told.append(f"By {name} the gradients help on these rows.")
        elif gain is not None and gain.high < 0:
            told.append(f"By {name} these rows are ranked better without gradients, which is also cheaper.")
        elif gain is not None:
            told.append(f"By {name} these rows do not tell whether the gradients help.")
    return " ".join(told)


def check_needs() -> None:
    """Return nothing where what makes the page is installed.

    Raises
    ------
    ImportError
        The page needs ``pip install 'anograd[report]'``.
    """
    for name in ("jinja2", "matplotlib"):
        try:
            import_module(name)
        except ImportError as error:
            raise ImportError(f"the report needs {name}: pip install 'anograd[report]'") from error


def _template() -> Any:
    check_needs()
    from jinja2 import Environment, StrictUndefined

    house = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    house.filters.update(
        shown=_shown, interval=_interval, estimate=_estimate, counted=counted, expected=expected
    )
    return house.from_string(files("anograd.page").joinpath(TEMPLATE).read_text(encoding="utf-8"))


def _shown(value: Any) -> str:
    """Return a cell for people: four digits of a number, more of a large whole one, a text as it is."""
    if value is None:
        return "none"
    if isinstance(value, bool | np.bool_):
        return str(bool(value))
    if isinstance(value, int | float | np.number):
        number = float(value)
        whole = 1e6 <= abs(number) < 1e15 and number.is_integer()
        return f"{number:,.0f}" if whole else f"{number:,.4g}"
    return str(value)


def _interval(found: tuple[float, float, float] | None) -> str:
    return "none raised" if found is None else f"{found[0]:.3f} ({found[1]:.3f} to {found[2]:.3f})"


def _estimate(found: Estimate) -> str:
    return f"{found.value:.4f} ({found.low:.4f} to {found.high:.4f})"

"""What people read: the file of scores, what a model is, and how well it did."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from anograd.alarm.fusion import NETWORKS, largest_weight
from anograd.decide import counted
from anograd.detectors import DETECTORS, Detector
from anograd.evaluate import Evaluation
from anograd.store import Stored
from anograd.trajectory import FIRST_EPOCHS, FURTHER_EPOCHS
from anograd.whole import written_whole

Floats = NDArray[np.float64]
# Not worth a line among the settings: they say where and with which draw a fit ran.
CIRCUMSTANCES = ("device", "random_state")
COLUMNS = ("row", "score", "p_value", "anomaly")
# What the rows are called, their scores, p values and alarms.
Judged = tuple[Sequence[int | str] | NDArray[np.int64], Floats, Floats, NDArray[np.bool_]]


def scores_csv(pieces: Iterable[Judged]) -> Iterator[str]:
    r"""Return pieces of a CSV text: columns row, score (high = anomalous), p_value and anomaly (0 or 1).

    Parameters
    ----------
    pieces : iterable of (rows, scores, p, alarms)
        What each row is called, its index or the name of its file; its score and p value, written so that
        they read back to the same float64; whether it raises an alarm.

    Yields
    ------
    str

    Examples
    --------
    >>> "".join(scores_csv([([0], np.array([0.1]), np.array([0.05]), np.array([True]))]))
    'row,score,p_value,anomaly\n0,0.1,0.05,1\n'
    """
    head = ",".join(COLUMNS) + "\n"  # comes with the first piece: before it, all may still go wrong
    for rows, scores, p, alarms in pieces:
        # p values repeat themselves: each is written once.
        levels, level = np.unique(p, return_inverse=True)
        ends = [f",{value!r},{alarm}\n" for value in levels.tolist() for alarm in (0, 1)]
        ending = (2 * level + alarms).tolist()
        names = rows.tolist() if isinstance(rows, np.ndarray) else map(_cell, rows)
        lines = zip(names, scores.tolist(), ending, strict=True)
        yield head + "".join([f"{name},{score!r}{ends[end]}" for name, score, end in lines])
        head = ""


def _cell(value: int | str) -> int | str:
    """Return a cell as CSV wants it: in quotes where it must be."""
    if isinstance(value, str) and set(value) & set(',"\r\n'):
        return '"' + value.replace('"', '""') + '"'
    return value


def write_scores(path: str | Path, pieces: Iterable[Judged]) -> None:
    """Write what `scores_csv` describes as CSV, or as Parquet where the name ends so, whole or not at all.

    Parameters
    ----------
    path : str or Path
    pieces : as for `scores_csv`

    Raises
    ------
    OSError
        The disk is full, or writing is not allowed; the message names the file.
    """
    with written_whole(path) as file:
        if Path(path).suffix.lower() == ".parquet":
            _write_parquet(file, iter(pieces))
            return
        for text in scores_csv(pieces):
            file.write(text.encode(errors="surrogateescape"))


def _write_parquet(file: BinaryIO, pieces: Iterator[Judged]) -> None:
    import polars
    from polars.io.plugins import register_io_source

    frames = (
        polars.DataFrame(dict(zip(COLUMNS, (rows, scores, p, alarms.astype(np.int8)), strict=True)))
        for rows, scores, p, alarms in pieces
    )
    first = next(frames)

    def source(*_: Any) -> Iterator[Any]:
        yield first
        yield from frames

    try:
        register_io_source(source, schema=first.schema).sink_parquet(file)
    except polars.exceptions.PolarsError as error:  # what polars makes of a full disk
        raise OSError(errno.EIO, str(error)) from error


def describe(stored: Stored) -> list[tuple[str, list[str]]]:
    """Return what a stored model is, as headings with the lines below each.

    The network is not rebuilt, so that a model of a network that was handed in is described as well.

    Parameters
    ----------
    stored : Stored
        What `anograd.store.read` returned.

    Raises
    ------
    ValueError
        A kind of detector that this version does not know, or a manifest that says too little.
    """
    try:
        return _described(stored)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"the model is damaged: what it says of itself does not fit ({error})") from error


def _described(stored: Stored) -> list[tuple[str, list[str]]]:
    manifest = stored.manifest
    kinds = {kind.__name__: kind for kind in DETECTORS.values()}
    name = str(manifest["detector"])
    if name not in kinds:
        raise ValueError(
            f"the model is a {name}, this anograd knows {', '.join(kinds)}: pip install -U anograd, or if it "
            f"is a detector of your own, load it in Python, anograd.load(folder, kinds=[{name}])"
        )
    paper = kinds[name].paper
    given, fitted = manifest["parameters"], manifest["fitted"]
    settings, unlike = _settings(kinds[name], given)
    network = dict(fitted["network"])
    kind = network.pop("kind")
    # Where there are checkpoints, all are of one network.
    weights = {n: t for n, t in stored.tensors.items() if n.startswith(("weights/", "checkpoint0/"))}
    built = ", ".join(f"{key} {value}" for key, value in network.items())
    return [
        ("detector", [name]),
        ("fitted", [_when(manifest["fitted_by"])]),
        ("paper", [paper.cite()]),
        ("rows", _rows(manifest, stored)),
        ("settings", settings),
        ("seed", [str(given.get("random_state"))]),
        ("normal rows", [split(manifest["split"])]),
        ("calibration", [_calibration(manifest["split"], len(stored.tensors["calibration/scores"]))]),
        *([("costs", [_costs(stored)])] if "prevalence" in manifest else []),
        ("network", [f"{kind} ({built}), {sum(t.numel() for t in weights.values()):,} weights"]),
        *(_checkpoints if "shape" in fitted else _network)(manifest, stored),
        *([("unlike the paper", list(paper.differences))] if unlike else []),
        ("limits", list(paper.limits)),
    ]


def _when(made: dict[str, str]) -> str:
    """Return when a model was fitted, and by what."""
    by = f"anograd {made['anograd']}, torch {made['torch']}, Python {made['python']}"
    return f"{made['at'].replace('T', ' ').removesuffix('Z')} UTC by {by}"


def _settings(kind: type[Detector], given: dict[str, Any]) -> tuple[list[str], bool]:
    """Return what differs from the defaults or the published settings, and whether from the defaults."""
    models = {"default": kind()}
    if hasattr(kind, "as_published"):
        models["published"] = kind.as_published()
    apart = {}
    for name, model in models.items():
        usual = model.get_params(deep=False)
        apart[name] = [
            f"{key}={value!r} ({name} {usual[key]!r})"
            for key, value in given.items()
            if key in usual and key not in CIRCUMSTANCES and not _same(value, usual[key])
        ]
    if "published" in apart and len(apart["published"]) < len(apart["default"]):
        return (
            ["as published, but for:", *apart["published"]] if apart["published"] else ["as published"]
        ), False
    return apart["default"] or ["all as the defaults"], True


def _calibration(counts: dict[str, int], m: int) -> str:
    """Return which normal rows p values refer to, and what follows from it."""
    rows = counted(m, "normal row")
    if not counts["calibration"] and m == counts["validation"]:
        rows += ", which chose the epoch, too: p values come out slightly too small"
    elif not counts["calibration"] and m == counts["train"]:
        rows += ", which were trained on, too: p values come out too small"
    return f"{rows}; {smallest_p(m)}"


def _costs(stored: Stored) -> str:
    """Return what the rule by costs rests on."""
    known = len(stored.tensors["calibration/anomalies"])
    return f"{known:,} known anomalies, taken to be {stored.manifest['prevalence']:.3g} of the rows to come"


def _network(manifest: dict[str, Any], stored: Stored) -> list[tuple[str, list[str]]]:
    """Return what a detector of one network learned."""
    given, fitted = manifest["parameters"], manifest["fitted"]
    if "columns" in fitted:
        known = fitted["known"]
        return [
            ("epochs", [_epochs(fitted, given)]),
            ("gradients", [f"{fitted['columns'][0]:,} numbers a row"]),
            *([("known anomalies", [f"{known:,} learned from"])] if known else []),
        ]
    weight = fitted.get("beta", given["beta"])  # models of early versions have it as given
    return [
        ("epochs", [_epochs(fitted, given)]),
        ("score", [f"loss - {weight:.3g} * mean cosine"]),
        (
            "gradients read",
            [
                f"{n.partition('/')[2]}  {'x'.join(map(str, t.shape))}"
                for n, t in sorted(stored.tensors.items())
                if n.startswith("reference/")
            ],
        ),
    ]


def _checkpoints(manifest: dict[str, Any], stored: Stored) -> list[tuple[str, list[str]]]:
    """Return what R2-AD2 learned."""
    given, fitted = manifest["parameters"], manifest["fitted"]
    checkpoints, entries, networks = (fitted["shape"][n] for n in ("checkpoints", "entries", "networks"))
    after = [str(FIRST_EPOCHS + FURTHER_EPOCHS * i) for i in range(checkpoints)]
    how = "raw" if fitted["sketch"] is None else f"sketched, at most {fitted['sketch'][0]} for each parameter"
    widths = ", ".join(map(str, given["widths"]))
    known = fitted.get("known")  # not told by models of early versions
    parts = [
        ("checkpoints", [f"{checkpoints}, after epoch {', '.join(after)} of the autoencoder"]),
        ("gradients read", [f"{checkpoints} x {entries:,} numbers a row, {how}"]),
        *([("known anomalies", [f"{known:,} learned from"])] if known is not None else []),
        *([("noise", [f"{given['noise']} rows, called anomalous"])] if given["noise"] and networks else []),
    ]
    grown = fitted["shape"].get("trees", 0)
    if not networks and grown:
        foil = f"{grown} on columns, each taught by other made-up rows: there are no known anomalies"
        return [*parts, ("trees", [foil]), ("novelty", _novelty(given, fitted, stored))]
    if not networks:
        nothing = "none: there are no known anomalies and no noise to learn from"
        return [*parts, ("alarm networks", [nothing]), ("novelty", ["the score is the novelty alone"])]
    kind = "LSTMs and dense layers" if given["recurrent"] and checkpoints > 1 else "dense layers"
    alarms = [f"{networks}: {kind} of {widths}", f"epoch {_epochs(fitted, given)}"]
    if fitted["shape"]["columns"] and given["training"] != "published":
        share = float(stored.tensors["scorer/alarms.0.share"])
        alarms.append(f"gradients count {share:.0%}, columns {1 - share:.0%}")
    if grown:
        alarms.append(f"beside them {grown} trees on columns, which count {1 / NETWORKS:.0f} times as much")
    reached = fitted["history"][fitted["kept_epoch"] - 1]
    if "validation_auroc" in reached:
        alarms.append(
            f"on left-out known anomalies AUROC {reached['validation_auroc']:.4f}, average precision "
            f"{reached['validation_average_precision']:.4f}"
        )
    return [*parts, ("alarm networks", alarms), ("novelty", _novelty(given, fitted, stored))]


def _novelty(given: dict[str, Any], fitted: dict[str, Any], stored: Stored) -> list[str]:
    if given["training"] == "published":
        return ["none, as published"]
    weight, tried = float(stored.tensors["scorer/weight"]), fitted["weights_tried"]
    if not tried:
        why = "as given" if given["novelty"] != "auto" else "fewer than two known anomalies to choose it by"
        return [f"weight {weight:g}: {why}"]
    share = float(stored.tensors["scorer/alarms.0.share"])
    limit = largest_weight(fitted.get("known", 0))
    told = [f"weight {weight:g}: the largest that ranks left-out known anomalies nearly as well as the best"]
    for one in tried:
        if one["share"] == share:
            ranked = f"AUROC {one['auroc']:.4f}, average precision {one['average_precision']:.4f}"
            few = "  too much for so few known anomalies" if one["weight"] > limit else ""
            taken = "  <- taken" if one["weight"] == weight else few
            told.append(f"weight {one['weight']:<4g}  {ranked}{taken}")
    return told


def split(counts: dict[str, int]) -> str:
    """Return how many normal rows did what.

    Examples
    --------
    >>> split({"train": 1700, "validation": 200, "calibration": 100})
    '1,700 to train, 200 to validate, 100 to calibrate'
    """
    train, validation, calibration = (f"{counts[name]:,}" for name in ("train", "validation", "calibration"))
    return f"{train} to train, {validation} to validate, {calibration} to calibrate"


def smallest_p(m: int) -> str:
    """Return a sentence on the smallest p value that m calibration rows allow.

    Examples
    --------
    >>> smallest_p(19)
    'the smallest reachable p value is 0.05 (1 / 20)'
    """
    return f"the smallest reachable p value is {1 / (m + 1):.4g} (1 / {m + 1:,})"


def evaluation(
    found: Evaluation,
    twin: tuple[float, float] | None,
    rule: str,
    cost: Mapping[str, float] | None = None,
) -> list[tuple[str, list[str]]]:
    """Return what an evaluation found, as headings with the lines below each.

    Parameters
    ----------
    found : Evaluation
    twin : tuple of float, or None
        AUROC and average precision of the score without gradients.
    rule : str
        By which the alarms were raised, such as "alpha 0.05".
    cost : mapping, optional
        What the alarms cost, what the best threshold for these rows would have, and what alpha 0.05 would.

    Examples
    --------
    >>> evaluation(Evaluation(20, 4, 0.9, 0.75, 4, 3, (0.0, 0.25)), None, "budget 4")[-1]
    ('false-alarm rate', ['0.050: 1 of 20 normal rows (95 % interval 0.000 to 0.250)'])
    """
    ranked = [f"{found.auroc:.4f}", f"{found.average_precision:.4f}"]
    if twin is not None:
        ranked = [f"{ours} ({plain:.4f} without gradients)" for ours, plain in zip(ranked, twin, strict=True)]
    right = "none raised" if found.precision is None else f"{found.precision:.3f}: {found.found:,} of "
    right += f"{found.alarms:,} alarms" if found.alarms else ""
    low, high = found.interval
    told = cost and (
        f"{cost['cost']:,.6g}; the best threshold for these rows would cost {cost['least']:,.6g}, alpha 0.05 "
        f"{cost['alpha_0.05']:,.6g}"
    )
    return [
        ("rows", [f"{found.normal:,} normal, {found.anomalous:,} anomalous"]),
        ("AUROC", [ranked[0]]),
        ("average precision", [ranked[1]]),
        ("rule", [rule]),
        ("right alarms", [right]),
        ("anomalies found", [f"{found.recall:.3f}: {found.found:,} of {found.anomalous:,}"]),
        (
            "false-alarm rate",
            [
                f"{found.false_alarm_rate:.3f}: {found.alarms - found.found:,} of {found.normal:,} normal "
                f"rows (95 % interval {low:.3f} to {high:.3f})"
            ],
        ),
        *([("cost", [told])] if told else []),
    ]


def _same(stored: Any, default: Any) -> bool:
    return bool(stored == (list(default) if isinstance(default, tuple) else default))  # JSON has no tuples


def _epochs(fitted: dict[str, Any], given: dict[str, Any]) -> str:
    if not fitted["history"]:
        return "none: the network was handed in, trained already"
    return f"{fitted['kept_epoch']} kept, of {len(fitted['history'])} trained (at most {given['epochs']})"


def _rows(manifest: dict[str, Any], stored: Stored) -> list[str]:
    encoder = manifest["encoder"]
    shape = " x ".join(map(str, encoder["shape"]))
    if stored.table is None:
        pixels = encoder["pixels"]
        if pixels is None:
            return [f"{shape}, taken as they are"]
        family = "integers" if pixels["integer"] else "floats"
        return [f"images {shape} (C x H x W), {family}; {pixels['low']:g}..{pixels['high']:g} become 0..1"]
    state = stored.table.state()
    names = state["names_in"] or [str(j) for j in range(state["n_in"])]
    columns = [
        (name if name and name == name.strip() else repr(name))
        + (" (category)" if kind == "category" else "")
        for name, kind in zip(names, state["kinds"], strict=True)
    ]
    shown = ", ".join(columns[:40]) + (f", ... {len(columns) - 40} more" if len(columns) > 40 else "")
    return [f"table of {len(columns)} columns, encoded as {shape} numbers: {shown}"]

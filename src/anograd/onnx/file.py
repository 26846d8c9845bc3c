"""Traces a detector, writes the graph, and compares it with PyTorch before the file is there."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted
from torch import Tensor
from torch._decomp import decomposition_table
from torch._ops import OpOverload
from torch._subclasses import FakeTensorMode
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.attention import SDPBackend, sdpa_kernel

from anograd._version import __version__
from anograd.decide import level
from anograd.detectors import Detector
from anograd.lazy import collect, is_lazy
from anograd.levels import spellings
from anograd.onnx.inputs import STRANGE, Feed, Inputs, TableInputs, inputs_of
from anograd.onnx.nodes import TRANSLATIONS
from anograd.onnx.operations import DECOMPOSITIONS
from anograd.onnx.scores import Score, check_kind, score_of
from anograd.onnx.translate import name_of, translate
from anograd.onnx.writer import IR, OPSET, OPSET_ML, ROWS, Writer
from anograd.whole import write_whole

OUTPUTS = {"score": np.float64, "p_value": np.float64, "verdict": np.bool_}
TOLERANCE = 1e-4  # largest relative difference from PyTorch's scores
BATCHES = (1, 7, 512)  # rows at once, in which the graph is compared
FEW_ROWS = 64  # compared in small batches, which take long
DRAWN = 1024  # rows that are drawn where none are given
MOST_BYTES = 2**31 - 1  # of one ONNX file


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes
    ----------
    path : Path
    inputs : dict of str to (str, tuple of int)
        Name of each input, its type, and the shape of one row.
    columns : dict of str to list of str
        For a table, which columns each input takes, in order.
    difference : float
        Largest relative difference from PyTorch's scores.
    compared : int
        Rows that were compared.
    """

    path: Path
    inputs: dict[str, tuple[str, tuple[int, ...]]]
    columns: dict[str, list[str]]
    difference: float
    compared: int


def export(detector: Detector, path: str | Path, *, alpha: float = 0.05, check: Any = None) -> Exported:
    """Write a fitted detector as one ONNX file, and return what was written.

    The graph goes from raw columns or pixels to ``score`` (high = anomalous), ``p_value`` and ``verdict``
    (True = alarm), for any number of rows at once; scaling, levels of categories, the network, its gradients
    and the calibration scores are inside. Run by onnxruntime it must agree with PyTorch, or nothing is
    written.

    Parameters
    ----------
    detector : Detector
        Fitted, and on the CPU.
    path : path
        The file; an earlier one is replaced when all is well.
    alpha : float, default 0.05
        False-alarm rate of ``verdict``. It stays an input of the graph, with this default.
    check : as for `fit`, optional
        Rows to compare by; a network that was handed in needs them. Rows like those of the fit are drawn
        where they are left out.

    Raises
    ------
    ValueError
        A detector, layer or operation that cannot be written; an alpha out of range; scores that differ by
        more than 1e-4.
    ImportError
        The extra is missing: ``pip install 'anograd[onnx]'``.
    """
    _check_installed()
    check_kind(detector)
    check_is_fitted(detector)
    if detector._device().type != "cpu":
        raise ValueError(
            f"the detector is on {detector._device()}, and is exported from the CPU: save it and take "
            f"ag.load(folder, device='cpu')"
        )
    detector.calibration_.detect([0.0], alpha=alpha)  # refuses a wrong alpha, warns of one without alarms
    check = collect(check) if is_lazy(check) else check
    encoded = torch.cat(list(detector._encode(check))) if check is not None else None
    inputs = inputs_of(detector.encoder_, encoded, getattr(detector, "target_", None))
    if encoded is None:
        feed, encoded = inputs.draw(DRAWN, np.random.default_rng(0))
    else:
        feed = inputs.feed(check)
    model = build(detector, inputs, encoded, alpha)
    expected = detector._batched(detector._score_batch, [encoded])
    content = _serialised(model)
    difference = compare(content, feed, expected, detector, alpha)
    _note(model, detector, inputs, alpha, difference, len(encoded))
    write_whole(path, _serialised(model))
    given = {one.name: (one.kind, one.shape) for one in inputs.given}
    return Exported(Path(path), given, inputs.columns, difference, len(encoded))


def build(detector: Detector, inputs: Inputs, rows: Tensor, alpha: float) -> Any:
    """Return the ONNX model of a detector, not yet compared.

    Parameters
    ----------
    detector : Detector
    inputs : Inputs
    rows : torch.Tensor, (n, ...)
        A few encoded rows.
    alpha : float
        The default of the input of that name.
    """
    from onnx import helper

    traced = _trace(_whole(detector, inputs, score_of(detector, rows[:64])), inputs)
    writer = Writer(inputs.given[0].name)
    if isinstance(inputs, TableInputs) and inputs.levels:
        _read_texts(writer, inputs)
    found = translate(traced, writer, [*(one.name for one in inputs.traced), "alpha"])
    for name, own in zip(OUTPUTS, found, strict=True):
        writer.add("Identity", own, outputs=[name])

    def described(name: str, dtype: Any, *shape: Any) -> Any:
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return helper.make_tensor_value_info(name, kind, shape)

    given = [described(one.name, one.dtype, "n", *one.shape) for one in inputs.given]
    given.append(described("alpha", np.float64))
    returned = [described(name, dtype, "n") for name, dtype in OUTPUTS.items()]
    default = writer.numpy_helper.from_array(np.array(alpha, dtype=np.float64), "alpha")
    graph = helper.make_graph(
        writer.nodes, type(detector).__name__, given, returned, [*writer.constants, default]
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", OPSET_ML)]
    return helper.make_model(
        graph, opset_imports=opsets, ir_version=IR, producer_name="anograd", producer_version=__version__
    )


def _whole(detector: Detector, inputs: Inputs, score: Score) -> Callable[..., tuple[Tensor, ...]]:
    """Return the function from raw inputs and alpha to score, p value and verdict."""
    ordered = torch.from_numpy(detector.calibration_.ceilings.copy())

    def whole(*given: Tensor) -> tuple[Tensor, ...]:
        *raw, alpha = given
        rows, usable = inputs.encode(*raw)
        scores = score(rows).double()
        usable = torch.logical_and(usable, torch.logical_not(torch.isnan(scores)))
        scores = torch.where(usable, scores, math.nan)
        at_least = (1 + len(ordered)) - count_below(ordered, scores)
        p = torch.where(usable, at_least.double() / (len(ordered) + 1), math.nan)
        # A row that cannot be scored raises an alarm.
        return scores, p, torch.logical_not(p > level(alpha))

    return whole


def count_below(ordered: Tensor, values: Tensor) -> Tensor:
    """Return how many of some ordered numbers (m,) lie below each value, (n,), by blocks of sqrt(m)."""
    side = math.isqrt(len(ordered) - 1) + 1
    blocks = -(-len(ordered) // side)
    padded = ordered.new_full(((blocks + 1) * side,), math.inf)
    padded[: len(ordered)] = ordered
    table = padded.reshape(blocks + 1, side)
    whole = (table[:-1, -1] < values.unsqueeze(1)).sum(1)
    return whole * side + (table.index_select(0, whole) < values.unsqueeze(1)).sum(1)


def _trace(function: Callable[..., tuple[Tensor, ...]], inputs: Inputs) -> GraphModule:
    with FakeTensorMode(allow_non_fake_inputs=True):
        given = [
            torch.empty(ROWS, *one.shape, dtype=torch.from_numpy(np.empty(0, one.dtype)).dtype)
            for one in inputs.traced
        ]
        given.append(torch.empty((), dtype=torch.float64))
    # PyTorch knows most operations in terms of others; those that have a translation stay as they are.
    table = {
        one: how
        for one, how in decomposition_table.items()
        if isinstance(one, OpOverload) and name_of(one) not in TRANSLATIONS
    }
    table |= DECOMPOSITIONS
    # Attention in one piece has no backward pass that could be written out.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        traced: GraphModule = make_fx(
            function, decomposition_table=table, tracing_mode="fake", _allow_non_fake_inputs=True
        )(*given)
    traced.graph.eliminate_dead_code()
    return traced


def _read_texts(writer: Writer, inputs: TableInputs) -> None:
    """Add what turns categories into the numbers of encoded columns, (n, columns) int64, named "codes"."""
    columns = list(inputs.levels)
    names = ["categories"]
    if len(columns) > 1:
        names = [writer.name() for _ in columns]
        writer.add("Split", "categories", outputs=names, axis=1, num_outputs=len(columns))
    coded = [
        writer.add(
            "LabelEncoder", name, domain="ai.onnx.ml", keys_strings=list(places),
            values_int64s=list(places.values()), default_int64=inputs.unseen(j),
        )
        for name, j in zip(names, columns, strict=True)
        for levels in (inputs.levels[j] or {STRANGE: inputs.unseen(j)},)  # it may have been empty in the fit
        for places in (levels | {text: levels[meant] for text, meant in spellings(levels).items()},)
    ]  # fmt: skip
    writer.add("Concat", *coded, outputs=["codes"], axis=1)


def compare(
    content: bytes, feed: Feed, expected: NDArray[np.float64], detector: Detector, alpha: float
) -> float:
    """Return the largest relative difference between a graph's scores and PyTorch's, over all batch sizes.

    A difference is in units of the score, or of the median calibration score where that is larger.

    Parameters
    ----------
    content : bytes
        The model.
    feed : dict of str to ndarray
        Its inputs.
    expected : ndarray (n,)
        What PyTorch makes of them.
    detector : Detector
    alpha : float

    Raises
    ------
    ValueError
        The scores differ by more than 1e-4, or p values and verdicts do not follow from them.
    """
    usual = float(np.median(np.abs(detector.calibration_.scores)))
    scale = np.maximum(np.abs(expected), usual)
    largest, where = 0.0, 0
    session = opened(content)
    for size in BATCHES:
        rows = len(expected) if size == max(BATCHES) else min(len(expected), FEW_ROWS)
        score, p, verdict = in_batches(session, {name: x[:rows] for name, x in feed.items()}, size)
        with np.errstate(invalid="ignore", divide="ignore"):
            difference = np.abs(score - expected[:rows]) / scale[:rows]
        difference[score == expected[:rows]] = 0.0  # infinite ones and zeros among them
        difference[np.isnan(difference)] = math.inf
        if difference.max() > largest:
            largest, where = float(difference.max()), int(difference.argmax())
        wanted = detector.calibration_.p_values(score) if not np.isnan(score).any() else p
        if not (np.array_equal(p, wanted) and np.array_equal(verdict, wanted <= level(alpha))):
            raise ValueError(
                f"the graph's p values do not follow from its scores in batches of {size}: nothing was "
                f"written; please report this with the versions of torch, onnx and onnxruntime"
            )
    if largest > TOLERANCE:
        raise ValueError(
            f"scored by onnxruntime, row {where} of {len(expected)} differs from PyTorch by {largest:.2g} of "
            f"its score, more than {TOLERANCE:g}: nothing was written. Rows far outside of the training data "
            f"can differ by rounding: give rows of yours with check=, or --check rows.csv"
        )
    return largest


def in_batches(session: Any, feed: Feed, size: int) -> tuple[NDArray[Any], ...]:
    """Return score, p value and verdict, (n,) each, of rows that go to onnxruntime so many at a time."""
    rows = len(next(iter(feed.values())))
    parts = [
        session.run(list(OUTPUTS), {name: x[start : start + size] for name, x in feed.items()})
        for start in range(0, rows, size)
    ]
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))


def opened(content: bytes) -> Any:
    """Return a session of onnxruntime, on the CPU and with as many threads as PyTorch has."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # it warns of every input that has a default, as alpha has
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _note(
    model: Any, detector: Detector, inputs: Inputs, alpha: float, difference: float, compared: int
) -> None:
    import onnx
    import onnxruntime

    paper = detector.paper
    model.doc_string = f"{type(detector).__name__}, after {paper.cite()}"
    told = {
        "detector": type(detector).__name__,
        "paper": paper.cite(),
        "columns": json.dumps(inputs.columns, ensure_ascii=False),
        "alpha": repr(alpha),
        "calibration_rows": str(len(detector.calibration_.scores)),
        "missing": detector.missing,
        "largest_difference": f"{difference:.3g}",
        "rows_compared": str(compared),
        "version": __version__,
        "torch": torch.__version__,
        "onnx": onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
    }
    for name, value in told.items():
        model.metadata_props.add(key=f"anograd.{name}", value=value)


def _serialised(model: Any) -> bytes:
    if model.ByteSize() > MOST_BYTES:
        raise ValueError(
            f"the graph takes {model.ByteSize() / 2**30:.1f} GiB, and one ONNX file holds 2: fit R2AD2 with "
            f"sketch=32, or a smaller network"
        )
    content: bytes = model.SerializeToString()
    return content


def _check_installed() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "an ONNX file is written with onnx and compared by onnxruntime: pip install 'anograd[onnx]'"
        ) from error

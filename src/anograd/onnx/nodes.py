"""What each operation on numbers is in ONNX, and the register of all of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anograd.onnx.writer import Value, Writer

Translation = Callable[..., Any]
# Called with the writer, the result without data, and what the operation takes; gives names of results.
TRANSLATIONS: dict[str, Translation] = {}


def translates(*names: str) -> Callable[[Translation], Translation]:
    """Return a decorator that registers a translation under the names of operations."""

    def register(function: Translation) -> Translation:
        TRANSLATIONS.update(dict.fromkeys(names, function))
        return function

    return register


def operand(writer: Writer, value: Value | float, dtype: torch.dtype) -> str:
    """Return the name of a value, or of a number as a constant, in a type."""
    if isinstance(value, Value):
        return writer.cast(value, dtype).name
    return writer.constant(torch.tensor(value, dtype=dtype))


def _of_two(name: str, kind: str, *, compares: bool = False) -> None:
    @translates(name)
    def two(writer: Writer, like: Tensor, a: Any, b: Any, *, alpha: float = 1) -> str:
        dtype = like.dtype
        if compares:
            sides = (one.like if isinstance(one, Value) else one for one in (a, b))
            dtype = torch.result_type(*sides)
        if alpha != 1:
            b = Value(writer.add("Mul", operand(writer, b, dtype), operand(writer, alpha, dtype)), like)
        return writer.add(kind, operand(writer, a, dtype), operand(writer, b, dtype))


for _name, _kind in {
    "add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "minimum": "Min", "maximum": "Max",
    "logical_and": "And", "logical_or": "Or", "bitwise_and": "And", "bitwise_or": "Or",
}.items():  # fmt: skip
    _of_two(_name, _kind)
for _name, _kind in {
    "lt": "Less", "le": "LessOrEqual", "gt": "Greater", "ge": "GreaterOrEqual", "eq": "Equal",
}.items():  # fmt: skip
    _of_two(_name, _kind, compares=True)


def _of_one(name: str, kind: str) -> None:
    @translates(name)
    def one(writer: Writer, like: Tensor, x: Value) -> str:
        return writer.add(kind, writer.cast(x, like.dtype).name if kind not in ("IsNaN", "IsInf") else x.name)


for _name, _kind in {
    "relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh", "exp": "Exp", "log": "Log", "sqrt": "Sqrt",
    "abs": "Abs", "neg": "Neg", "reciprocal": "Reciprocal", "sign": "Sign", "erf": "Erf", "sin": "Sin",
    "cos": "Cos", "floor": "Floor", "isnan": "IsNaN", "isinf": "IsInf", "logical_not": "Not",
    "bitwise_not": "Not",
}.items():  # fmt: skip
    _of_one(_name, _kind)


@translates("ne")
def _not_equal(writer: Writer, like: Tensor, a: Any, b: Any) -> str:
    return writer.add("Not", TRANSLATIONS["eq"](writer, like, a, b))


@translates("rsqrt")
def _rsqrt(writer: Writer, like: Tensor, x: Value) -> str:
    return writer.add("Reciprocal", writer.add("Sqrt", x.name))


@translates("log1p")
def _log1p(writer: Writer, like: Tensor, x: Value) -> str:
    return writer.add("Log", writer.add("Add", x.name, operand(writer, 1.0, like.dtype)))


@translates("expm1")
def _expm1(writer: Writer, like: Tensor, x: Value) -> str:
    return writer.add("Sub", writer.add("Exp", x.name), operand(writer, 1.0, like.dtype))


@translates("pow")
def _pow(writer: Writer, like: Tensor, x: Value, exponent: float) -> str:
    if exponent == 2:
        return writer.add("Mul", x.name, x.name)
    return writer.add("Pow", x.name, operand(writer, exponent, like.dtype))


@translates("where")
def _where(writer: Writer, like: Tensor, condition: Value, a: Any, b: Any) -> str:
    return writer.add("Where", condition.name, *(operand(writer, one, like.dtype) for one in (a, b)))


@translates("clamp", "clamp_min", "clamp_max")
def _clamp(writer: Writer, like: Tensor, x: Value, low: Any = None, high: Any = None, **named: Any) -> str:
    low, high = named.get("min", low), named.get("max", high)
    bounds = ["" if one is None else operand(writer, one, like.dtype) for one in (low, high)]
    return writer.add("Clip", x.name, *bounds)


def _filled(name: str, fill: float | None) -> None:
    @translates(name)
    def filled(writer: Writer, like: Tensor, *args: Any, **options: Any) -> str:
        value = args[1] if fill is None else fill
        return writer.add("Expand", operand(writer, value, like.dtype), writer.sizes(like.shape))


for _name, _fill in {
    "full": None, "full_like": None, "ones_like": 1.0, "ones": 1.0, "zeros_like": 0.0, "zeros": 0.0,
    "new_zeros": 0.0,
}.items():  # fmt: skip
    _filled(_name, _fill)


@translates("mm", "bmm")
def _product(writer: Writer, like: Tensor, a: Value, b: Value) -> str:
    return writer.add("MatMul", a.name, b.name)


@translates("addmm")
def _addmm(
    writer: Writer, like: Tensor, bias: Value, a: Value, b: Value, *, beta: float = 1, alpha: float = 1
) -> str:
    return writer.add("Gemm", a.name, b.name, bias.name, alpha=float(alpha), beta=float(beta))


@translates("convolution")
def _convolution(
    writer: Writer,
    like: Tensor,
    x: Value,
    weight: Value,
    bias: Value | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> str:
    axes = len(x.shape) - 2
    stride, padding, dilation, extra = (
        list(one) * (axes // len(one)) for one in (stride, padding, dilation, output_padding)
    )
    kind = "ConvTranspose" if transposed else "Conv"
    more: dict[str, Any] = {"output_padding": extra} if transposed else {}
    inputs = [one.name for one in (x, weight, bias) if one is not None]
    return writer.add(
        kind, *inputs, strides=stride, pads=padding * 2, dilations=dilation, group=groups, **more
    )


def _reduces(name: str, kind: str) -> None:
    @translates(name)
    def reduced(
        writer: Writer, like: Tensor, x: Value, axes: Any = None, keep: bool = False, **options: Any
    ) -> str:
        # Truth values are counted; all else is summed as it is.
        x = writer.cast(x, torch.int64 if x.like.dtype == torch.bool else x.like.dtype)
        over = [axes] if isinstance(axes, int) else list(axes or range(len(x.shape)))
        places = writer.constant(np.array(over, dtype=np.int64))
        return writer.add(kind, x.name, places, keepdims=int(keep))


for _name, _kind in {
    "sum": "ReduceSum", "mean": "ReduceMean", "prod": "ReduceProd", "amax": "ReduceMax",
    "amin": "ReduceMin",
}.items():  # fmt: skip
    _reduces(_name, _kind)


@translates("any")
def _any(writer: Writer, like: Tensor, x: Value, axis: int, keep: bool = False) -> str:
    number = Value(writer.cast(x, torch.int32).name, x.like.int())
    found = TRANSLATIONS["amax"](writer, like, number, axis, keep)
    return writer.cast(Value(found, like.int()), torch.bool).name


@translates("prims::var")
def _variance(writer: Writer, like: Tensor, x: Value, axes: Sequence[int], correction: float = 1) -> str:
    places = writer.constant(np.array(axes, dtype=np.int64))
    centred = writer.add("Sub", x.name, writer.add("ReduceMean", x.name, places, keepdims=1))
    total = writer.add("ReduceSumSquare", centred, places, keepdims=0)
    count = math.prod(x.shape[axis] for axis in axes) - correction
    return writer.add("Div", total, operand(writer, float(count), like.dtype))


@translates("linalg_vector_norm")
def _norm(
    writer: Writer, like: Tensor, x: Value, order: float = 2, axes: Any = None, keep: bool = False
) -> str:
    kinds = {1: "ReduceL1", 2: "ReduceL2"}
    over = list(axes or range(len(x.shape)))
    return writer.add(kinds[int(order)], x.name, writer.constant(np.array(over)), keepdims=int(keep))


@translates("argmax")
def _argmax(writer: Writer, like: Tensor, x: Value, axis: int, keep: bool = False) -> str:
    return writer.add("ArgMax", x.name, axis=axis, keepdims=int(keep))


@translates("_softmax")
def _softmax(writer: Writer, like: Tensor, x: Value, axis: int, half: bool) -> str:
    return writer.add("Softmax", x.name, axis=axis)


@translates("_log_softmax")
def _log_softmax(writer: Writer, like: Tensor, x: Value, axis: int, half: bool) -> str:
    return writer.add("LogSoftmax", x.name, axis=axis)


@translates("topk")
def _topk(
    writer: Writer,
    like: Sequence[Tensor],
    x: Value,
    count: int,
    axis: int = -1,
    largest: bool = True,
    ordered: bool = True,
) -> tuple[str, ...]:
    names = [writer.name(), writer.name()]
    counted = writer.constant(np.array([count], dtype=np.int64))
    writer.add("TopK", x.name, counted, outputs=names, axis=axis, largest=int(largest), sorted=int(ordered))
    return tuple(names)

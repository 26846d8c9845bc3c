"""A traced function of tensors becomes nodes of an ONNX graph: what each operation is there."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._subclasses import FakeTensor
from torch.fx import GraphModule, Node

from anograd.onnx.writer import Value, Writer, is_of_rows

aten = torch.ops.aten
Result = Value | tuple[Value, ...]
Translation = Callable[..., Any]
TRANSLATIONS: dict[str, Translation] = {}


def translate(traced: GraphModule, writer: Writer, inputs: Sequence[str]) -> list[str]:
    """Add the nodes of a traced function, and return the names of what it returns.

    What depends on constants alone is worked out here.

    Parameters
    ----------
    traced : torch.fx.GraphModule
        Of ATen's operations.
    writer : Writer
    inputs : sequence of str
        Names of the arguments, in order.

    Raises
    ------
    ValueError
        For an operation that has no translation.
    """
    found: dict[Node, Any] = {}
    waiting = list(inputs)

    def value_of(node: Node) -> Any:
        known = found[node]
        return Value(writer.constant(known), known) if isinstance(known, Tensor) else known

    for node in traced.graph.nodes:
        if node.op == "placeholder":
            found[node] = Value(waiting.pop(0), node.meta["val"])
        elif node.op == "get_attr":
            found[node] = getattr(traced, node.target).detach()
        elif node.op == "output":
            return [value_of(one).name for one in node.args[0]]
        elif node.target is operator.getitem:
            found[node] = found[node.args[0]][node.args[1]]
        elif _is_constant(node, found):
            arguments = torch.fx.node.map_arg((node.args, node.kwargs), lambda one: found[one])
            operation: Any = node.target
            found[node] = operation(*arguments[0], **arguments[1])
        else:
            arguments = torch.fx.node.map_arg((node.args, node.kwargs), value_of)
            found[node] = _translated(writer, node, *arguments)
    raise AssertionError("a traced function has an output")


def _is_constant(node: Node, found: dict[Node, Any]) -> bool:
    known = all(isinstance(found[one], Tensor) for one in node.all_input_nodes)
    return known and not _of_rows(node.meta["val"])


def _of_rows(value: Any) -> bool:
    values = value if isinstance(value, list | tuple) else [value]
    return any(is_of_rows(size) for one in values for size in one.shape)


def name_of(operation: Any) -> str:
    """Return the name of one of ATen's operations, the same for its overloads and for what works in place."""
    return str(operation._schema.name).removeprefix("aten::").removesuffix("_")


def _translated(writer: Writer, node: Node, args: Any, named: Any) -> Any:
    name = name_of(node.target)
    if name not in TRANSLATIONS:
        raise ValueError(
            f"the network or its loss uses the operation {node.target}, which this export has no ONNX "
            f"translation for: exchange that layer, or score in PyTorch (anograd score, anograd serve)"
        )
    like = node.meta["val"]
    made = TRANSLATIONS[name](writer, like, *args, **named)
    if isinstance(made, tuple):
        return tuple(Value(one, meta) for one, meta in zip(made, like, strict=True))
    return Value(made, like)


def _translates(*names: str) -> Callable[[Translation], Translation]:
    def register(function: Translation) -> Translation:
        TRANSLATIONS.update(dict.fromkeys(names, function))
        return function

    return register


def _operand(writer: Writer, value: Value | float, dtype: torch.dtype) -> str:
    if isinstance(value, Value):
        return writer.cast(value, dtype).name
    return writer.constant(torch.tensor(value, dtype=dtype))


def _of_two(name: str, kind: str, *, compares: bool = False) -> None:
    @_translates(name)
    def two(writer: Writer, like: Tensor, a: Any, b: Any, *, alpha: float = 1) -> str:
        dtype = like.dtype
        if compares:
            sides = (one.like if isinstance(one, Value) else one for one in (a, b))
            dtype = torch.result_type(*sides)
        if alpha != 1:
            b = Value(writer.add("Mul", _operand(writer, b, dtype), _operand(writer, alpha, dtype)), like)
        return writer.add(kind, _operand(writer, a, dtype), _operand(writer, b, dtype))


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
    @_translates(name)
    def one(writer: Writer, like: Tensor, x: Value) -> str:
        return writer.add(kind, writer.cast(x, like.dtype).name if kind not in ("IsNaN", "IsInf") else x.name)


for _name, _kind in {
    "relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh", "exp": "Exp", "log": "Log", "sqrt": "Sqrt",
    "abs": "Abs", "neg": "Neg", "reciprocal": "Reciprocal", "sign": "Sign", "erf": "Erf", "sin": "Sin",
    "cos": "Cos", "floor": "Floor", "isnan": "IsNaN", "isinf": "IsInf", "logical_not": "Not",
    "bitwise_not": "Not",
}.items():  # fmt: skip
    _of_one(_name, _kind)


@_translates("alias", "detach", "clone", "lift_fresh_copy", "_to_copy")
def _same(writer: Writer, like: Tensor, x: Value, **options: Any) -> str:
    return writer.cast(x, like.dtype).name


@_translates("view", "_unsafe_view", "reshape", "unsqueeze", "squeeze", "flatten")
def _reshape(writer: Writer, like: Tensor, x: Value, *args: Any) -> str:
    shape = [-1 if is_of_rows(size) else size for size in like.shape]
    if shape.count(-1) > 1:
        return writer.add("Reshape", x.name, writer.sizes(like.shape))
    return writer.add("Reshape", x.name, writer.constant(np.array(shape, dtype=np.int64)))


@_translates("ne")
def _not_equal(writer: Writer, like: Tensor, a: Any, b: Any) -> str:
    return writer.add("Not", TRANSLATIONS["eq"](writer, like, a, b))


@_translates("rsqrt")
def _rsqrt(writer: Writer, like: Tensor, x: Value) -> str:
    return writer.add("Reciprocal", writer.add("Sqrt", x.name))


@_translates("log1p")
def _log1p(writer: Writer, like: Tensor, x: Value) -> str:
    return writer.add("Log", writer.add("Add", x.name, _operand(writer, 1.0, like.dtype)))


@_translates("pow")
def _pow(writer: Writer, like: Tensor, x: Value, exponent: float) -> str:
    if exponent == 2:
        return writer.add("Mul", x.name, x.name)
    return writer.add("Pow", x.name, _operand(writer, exponent, like.dtype))


@_translates("where")
def _where(writer: Writer, like: Tensor, condition: Value, a: Any, b: Any) -> str:
    return writer.add("Where", condition.name, *(_operand(writer, one, like.dtype) for one in (a, b)))


@_translates("clamp", "clamp_min", "clamp_max")
def _clamp(writer: Writer, like: Tensor, x: Value, low: Any = None, high: Any = None, **named: Any) -> str:
    low, high = named.get("min", low), named.get("max", high)
    bounds = ["" if one is None else _operand(writer, one, like.dtype) for one in (low, high)]
    return writer.add("Clip", x.name, *bounds)


def _filled(name: str, fill: float | None) -> None:
    @_translates(name)
    def filled(writer: Writer, like: Tensor, *args: Any, **options: Any) -> str:
        value = args[1] if fill is None else fill
        return writer.add("Expand", _operand(writer, value, like.dtype), writer.sizes(like.shape))


for _name, _fill in {
    "full": None, "full_like": None, "ones_like": 1.0, "ones": 1.0, "zeros_like": 0.0, "zeros": 0.0,
    "new_zeros": 0.0,
}.items():  # fmt: skip
    _filled(_name, _fill)


@_translates("expand")
def _expand(writer: Writer, like: Tensor, x: Value, *args: Any, **options: Any) -> str:
    # Where the rows are there already a size of 1 leaves them as they are.
    before = (1,) * (like.ndim - len(x.shape)) + x.shape
    sizes = [1 if is_of_rows(old) else new for old, new in zip(before, like.shape, strict=True)]
    return writer.add("Expand", x.name, writer.sizes(sizes))


@_translates("repeat")
def _repeat(writer: Writer, like: Tensor, x: Value, times: Sequence[int]) -> str:
    shape = (1,) * (len(times) - len(x.shape)) + x.shape
    inner = _reshape(writer, torch.empty(shape, device="meta"), x)
    return writer.add("Tile", inner, writer.sizes(times))


@_translates("permute")
def _permute(writer: Writer, like: Tensor, x: Value, order: Sequence[int]) -> str:
    return writer.add("Transpose", x.name, perm=[axis % len(order) for axis in order])


@_translates("mm", "bmm")
def _product(writer: Writer, like: Tensor, a: Value, b: Value) -> str:
    return writer.add("MatMul", a.name, b.name)


@_translates("addmm")
def _addmm(
    writer: Writer, like: Tensor, bias: Value, a: Value, b: Value, *, beta: float = 1, alpha: float = 1
) -> str:
    return writer.add("Gemm", a.name, b.name, bias.name, alpha=float(alpha), beta=float(beta))


@_translates("convolution")
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


@_translates("constant_pad_nd")
def _pad(writer: Writer, like: Tensor, x: Value, pads: Sequence[int], fill: float = 0) -> str:
    # From the last axis to the first, (before, after) each -> all before, then all after.
    free = [0] * (len(x.shape) - len(pads) // 2)
    order = [*free, *pads[::2][::-1], *free, *pads[1::2][::-1]]
    sizes = writer.constant(np.array(order, dtype=np.int64))
    return writer.add("Pad", x.name, sizes, _operand(writer, fill, like.dtype))


@_translates("slice")
def _slice(
    writer: Writer, like: Tensor, x: Value, axis: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> str:
    size = x.shape[axis]
    if like.shape[axis] == size:
        return x.name
    bounds = (start or 0, size if end is None else min(end, size), axis, step)
    return writer.add("Slice", x.name, *(writer.constant(np.array([one], dtype=np.int64)) for one in bounds))


@_translates("select")
def _select(writer: Writer, like: Tensor, x: Value, axis: int, place: int) -> str:
    return writer.add("Gather", x.name, writer.constant(np.array(place, dtype=np.int64)), axis=axis)


@_translates("index_select")
def _index_select(writer: Writer, like: Tensor, x: Value, axis: int, index: Value) -> str:
    return writer.add("Gather", x.name, index.name, axis=axis)


@_translates("index")
def _index(writer: Writer, like: Tensor, x: Value, indices: Sequence[Value | None]) -> str:
    axes = [axis for axis, one in enumerate(indices) if one is not None]
    chosen = [one for one in indices if one is not None]
    if len(axes) == 1:
        return writer.add("Gather", x.name, chosen[0].name, axis=axes[0])
    if axes != list(range(axes[0], axes[-1] + 1)) or any(isinstance(one.like, FakeTensor) for one in chosen):
        raise ValueError("the network picks entries along several axes at once by what it computes itself")
    place = torch.zeros((), dtype=torch.int64)
    for axis, one in zip(axes, chosen, strict=True):
        place = place * x.shape[axis] + one.like % x.shape[axis]
    joined = x.like.flatten(axes[0], axes[-1])
    flat = _reshape(writer, joined, x)
    return writer.add("Gather", flat, writer.constant(place), axis=axes[0])


@_translates("cat")
def _cat(writer: Writer, like: Tensor, parts: Sequence[Value], axis: int = 0) -> str:
    return writer.add("Concat", *(writer.cast(one, like.dtype).name for one in parts), axis=axis)


@_translates("split_with_sizes")
def _split(
    writer: Writer, like: Sequence[Tensor], x: Value, sizes: Sequence[int], axis: int = 0
) -> tuple[str, ...]:
    names = [writer.name() for _ in sizes]
    writer.add("Split", x.name, writer.constant(np.array(sizes, dtype=np.int64)), outputs=names, axis=axis)
    return tuple(names)


def _reduces(name: str, kind: str) -> None:
    @_translates(name)
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


@_translates("any")
def _any(writer: Writer, like: Tensor, x: Value, axis: int, keep: bool = False) -> str:
    number = Value(writer.cast(x, torch.int32).name, x.like.int())
    found = TRANSLATIONS["amax"](writer, like, number, axis, keep)
    return writer.cast(Value(found, like.int()), torch.bool).name


@_translates("linalg_vector_norm")
def _norm(
    writer: Writer, like: Tensor, x: Value, order: float = 2, axes: Any = None, keep: bool = False
) -> str:
    kinds = {1: "ReduceL1", 2: "ReduceL2"}
    over = list(axes or range(len(x.shape)))
    return writer.add(kinds[int(order)], x.name, writer.constant(np.array(over)), keepdims=int(keep))


@_translates("argmax")
def _argmax(writer: Writer, like: Tensor, x: Value, axis: int, keep: bool = False) -> str:
    return writer.add("ArgMax", x.name, axis=axis, keepdims=int(keep))


@_translates("_softmax")
def _softmax(writer: Writer, like: Tensor, x: Value, axis: int, half: bool) -> str:
    return writer.add("Softmax", x.name, axis=axis)


@_translates("_log_softmax")
def _log_softmax(writer: Writer, like: Tensor, x: Value, axis: int, half: bool) -> str:
    return writer.add("LogSoftmax", x.name, axis=axis)


@_translates("topk")
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

"""A traced function of tensors becomes nodes of an ONNX graph: what each operation is there."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

import anograd.onnx.moves  # noqa: F401, it registers what moves numbers
from anograd.onnx.nodes import TRANSLATIONS
from anograd.onnx.writer import Value, Writer, is_of_rows


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
    if name not in TRANSLATIONS:  # what others are made of is called as ATen's own
        name = name.removeprefix("prims::")
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

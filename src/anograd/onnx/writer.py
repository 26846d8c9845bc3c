"""Nodes and constants of an ONNX graph, as they are added one after the other.

The number of rows is free in the graph. While it is written `ROWS` stands for it, a prime larger than any
other size, so that a size which is made of it can be told from all that are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

ROWS = 1_000_003
OPSET, OPSET_ML, IR = 20, 3, 9


@dataclass(frozen=True)
class Value:
    """A tensor in the graph: its name there, and one without data of the same shape and type."""

    name: str
    like: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the sizes, those made of the number of rows as multiples of `ROWS`."""
        return tuple(self.like.shape)


class Writer:
    """Collects nodes and constants.

    Parameters
    ----------
    first : str
        The name of an input whose first axis is the rows.

    Attributes
    ----------
    nodes : list of onnx.NodeProto
    constants : list of onnx.TensorProto
    """

    def __init__(self, first: str) -> None:
        import onnx

        self.first = first
        self.helper, self.numpy_helper = onnx.helper, onnx.numpy_helper
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._known: dict[Any, str] = {}
        self._names = 0

    def name(self) -> str:
        """Return a name that nothing has yet."""
        self._names += 1
        return f"v{self._names}"

    def add(
        self, kind: str, *inputs: str, outputs: Sequence[str] = (), domain: str = "", **attributes: Any
    ) -> str:
        """Add a node and return the name of its first output.

        Parameters
        ----------
        kind : str
            Of the operation.
        *inputs : str
            Names; "" leaves an optional one out.
        outputs : sequence of str, optional
            Names of the outputs; one fresh name where left out.
        domain : str, optional
            Of the operation, where it is none of ONNX's own.
        **attributes
            Of the node.
        """
        names = list(outputs) or [self.name()]
        # Named, because onnxruntime before 1.24 calls all that it makes of nameless ones the same.
        made = self.helper.make_node(kind, list(inputs), names, names[0], domain=domain, **attributes)
        self.nodes.append(made)
        return names[0]

    def constant(self, value: Any) -> str:
        """Return the name of a constant, the same one for equal values.

        Parameters
        ----------
        value : torch.Tensor or array
        """
        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
        array = np.ascontiguousarray(array).reshape(array.shape)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._known:
            self._known[key] = self.name()
            self.constants.append(self.numpy_helper.from_array(array, self._known[key]))
        return self._known[key]

    def sizes(self, shape: Sequence[int]) -> str:
        """Return the name of a shape, (axes,) int64, with the number of rows that there are at run time."""
        if not any(is_of_rows(size) for size in shape):
            return self.constant(np.array(shape, dtype=np.int64))
        parts = [
            self._rows(size // ROWS) if is_of_rows(size) else self.constant(np.array([size], dtype=np.int64))
            for size in shape
        ]
        return parts[0] if len(parts) == 1 else self._once("Concat", *parts, axis=0)

    def cast(self, value: Value, to: torch.dtype) -> Value:
        """Return the value in another type."""
        if value.like.dtype == to:
            return value
        return Value(self.add("Cast", value.name, to=self.type_of(to)), value.like.to(to))

    def type_of(self, dtype: torch.dtype) -> int:
        """Return ONNX's number of a type."""
        array = torch.empty(0, dtype=dtype).numpy()
        return int(self.helper.np_dtype_to_tensor_dtype(array.dtype))

    def _rows(self, times: int) -> str:
        """Return the name of a multiple of the number of rows, (1,) int64."""
        rows = self._once("Shape", self.first, start=0, end=1)
        return rows if times == 1 else self._once("Mul", rows, self.constant(np.array([times])))

    def _once(self, kind: str, *inputs: str, **attributes: Any) -> str:
        key = (kind, inputs, tuple(attributes.items()))
        if key not in self._known:
            self._known[key] = self.add(kind, *inputs, **attributes)
        return self._known[key]


def is_of_rows(size: int) -> bool:
    """Tell whether a size is made of the number of rows."""
    return size != 0 and size % ROWS == 0

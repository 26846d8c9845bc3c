"""A fitted detector as one ONNX file: from raw columns or pixels to score, p value and verdict."""

from anograd.onnx.file import Exported, export

__all__ = ["Exported", "export"]

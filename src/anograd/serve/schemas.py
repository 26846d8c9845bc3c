"""What OpenAPI says of bodies and answers."""

from __future__ import annotations

from typing import Any

from anograd.detectors import Detector
from anograd.serve.limits import Limits

RATE = {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}
RULES: dict[str, Any] = {
    "alpha": {
        **RATE,
        "description": "Share of normal rows that raise an alarm; 0.05 without a rule. One rule at most.",
    },
    "fdr": {**RATE, "description": "Share of the alarms that may be false."},
    "budget": {
        "type": "integer",
        "minimum": 0,
        "description": "Rows there is time for: the highest scores.",
    },
}
COSTS = "Of a false alarm and of a miss; the model must have been calibrated with known anomalies."
PAIR = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2, "description": COSTS}
NUMBERS = {"type": "array", "items": {"type": "number"}}
TEXTS = {"type": "array", "items": {"type": "string"}}
FILES: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {"type": "array", "items": {"type": "string", "format": "binary"}},
                        "rows": {"type": "string", "description": "To explain, counted from 0: 3,17"},
                        **RULES,
                        "costs": {"type": "string", "description": f"Such as 1:50. {COSTS}"},
                    },
                }
            }
        },
    }
}
SCORED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "One entry a row, in their order; /explain adds reasons",
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "rule": {"type": "object"},
                        "rows": {"type": "integer"},
                        "alarms": {"type": "integer"},
                        "names": {"type": "array", "items": {}},
                        "scores": NUMBERS,
                        "p_values": NUMBERS,
                        "anomalies": {"type": "array", "items": {"type": "boolean"}},
                        "warnings": TEXTS,
                        "reasons": {"type": "array", "items": {"type": "object"}},
                    },
                }
            }
        },
    }
}


def body(detector: Detector, limits: Limits) -> dict[str, Any]:
    """Return what OpenAPI says of a body of rows for one detector.

    Parameters
    ----------
    detector : Detector
    limits : Limits
    """
    rows = {
        "type": "array",
        "minItems": 1,
        "maxItems": limits.rows,
        "items": _row(detector),
        "description": "Lists of cells, objects of cells by column, or nested pixels.",
    }
    schema = {
        "type": "object",
        "required": ["rows"],
        "properties": {"rows": rows, **RULES, "costs": PAIR},
        "additionalProperties": False,
    }
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _row(detector: Detector) -> dict[str, Any]:
    table = detector.encoder_.table
    if table is None:
        row: dict[str, Any] = {"type": "number"}
        for size in reversed(detector.encoder_.shape):
            row = {"type": "array", "items": row, "minItems": size, "maxItems": size}
        return row
    empty = ["null"] if table.missing == "impute" else []
    of_kind = {"number": ["number", *empty], "category": ["string", "boolean", *empty]}
    cells = [{"type": of_kind[kind]} for kind in table.state()["kinds"]]
    row = {"type": "array", "prefixItems": cells, "minItems": len(cells), "maxItems": len(cells)}
    if table.names_in is None:
        return row
    named = {"type": "object", "required": table.names_in}
    return {"oneOf": [row, {**named, "properties": dict(zip(table.names_in, cells, strict=True))}]}

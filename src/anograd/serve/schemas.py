"""What OpenAPI says of bodies and answers."""

from __future__ import annotations

from typing import Any

RATES: dict[str, Any] = {
    "alpha": {
        "type": "number",
        "description": "Share of normal rows that raise an alarm; 0.05 without a rule.",
    },
    "fdr": {"type": "number", "description": "Share of the alarms that may be false."},
    "budget": {"type": "integer", "description": "Rows there is time for: the highest scores."},
}
COSTS = "Of a false alarm and of a miss; the model must have been calibrated with known anomalies."
PAIR = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2, "description": COSTS}
NUMBERS = {"type": "array", "items": {"type": "number"}}
TEXTS = {"type": "array", "items": {"type": "string"}}
JSON: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["rows"],
                    "properties": {
                        "rows": {
                            "type": "array",
                            "minItems": 1,
                            "items": {},
                            "description": "Lists of cells, objects of cells by column, or nested pixels.",
                        },
                        **RATES,
                        "costs": PAIR,
                    },
                    "additionalProperties": False,
                }
            }
        },
    }
}
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
                        **RATES,
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

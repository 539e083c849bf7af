"""What FastAPI cannot read off the signatures: bodies that are streamed, and the answers of refusals."""

from __future__ import annotations

from typing import Any

from forgery_det.serving.http.problems import CODES
from forgery_det.serving.http.schema import PredictBody, Problem

_PIXEL_PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAIAAAACCAIAAAD91JpzAAAAFklEQVR4nGP4z8DA8J+BkYHh////DAAe9gT9Ce00PgAAAABJRU5ErkJggg=="
)
"""A picture of four pixels, for the documentation."""


def _inlined(model: dict[str, Any]) -> dict[str, Any]:
    """Return a JSON schema without `$defs`: the body stands inside the operation, where they could not be found."""
    definitions = model.pop("$defs", {})

    def walk(value: Any) -> Any:
        if isinstance(value, dict):
            reference = value.get("$ref")
            if reference is not None:
                return walk(definitions[reference.rpartition("/")[2]])
            return {key: walk(entry) for key, entry in value.items()}
        return [walk(entry) for entry in value] if isinstance(value, list) else value

    found: dict[str, Any] = walk(model)
    return found


def _body() -> dict[str, Any]:
    json_schema = _inlined(PredictBody.model_json_schema())
    form = {
        "type": "object",
        "required": ["files"],
        "additionalProperties": False,
        "properties": {"files": {"type": "array", "minItems": 1, "items": {"type": "string", "format": "binary"}}},
    }
    example = {"images": [{"name": "four.png", "base64": _PIXEL_PNG}]}
    return {
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {"schema": form},
                "application/json": {"schema": json_schema, "examples": {"base64": {"value": example}}},
            },
        }
    }


BODY = _body()
"""`openapi_extra` of the endpoints that take images."""


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the documented refusals of an endpoint.

    Example:
        >>> problems(429)[429]["description"]
        'queue_full: too many requests or images wait already; see Retry-After'
    """
    found: dict[int | str, dict[str, Any]] = {}
    for status in statuses:
        meanings = [f"{code}: {text}" for code, (its_status, text) in CODES.items() if its_status == status]
        found[status] = {"model": Problem, "description": "; ".join(meanings)}
        if status in (429, 503):
            found[status]["headers"] = {"Retry-After": {"schema": {"type": "integer", "minimum": 1}}}
    return found

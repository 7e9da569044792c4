"""The OpenAPI document of the server, from the very models that check its requests.

Contract: what it says is accepted or refused is; tests send what it allows and forbids.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from lite import __version__
from lite.server.errors import ErrorBody
from lite.server.protocol import ChatRequest
from lite.server.responses import Chunk, Completion

REFERENCE = "#/components/schemas/{model}"
DESCRIPTION = (
    "OpenAI's chat completions, answered by a multimodal model on this machine. Answers have two "
    "fields more: `note`, a sentence for the person, and `timings`."
)


class Health(BaseModel):
    status: str


class ModelCard(BaseModel):
    """A model that can be asked for by its id; `notice` says what the demo model knows."""

    id: str
    object: str
    created: int
    owned_by: str
    notice: str | None = None


class ModelList(BaseModel):
    object: str
    data: list[ModelCard]


# Of one event.
EVENT = {
    "type": "object",
    "required": ["data"],
    "properties": {
        "data": {
            "type": "string",
            "anyOf": [
                {"const": "[DONE]"},
                {
                    "contentMediaType": "application/json",
                    "contentSchema": {"$ref": REFERENCE.format(model="Chunk")},
                },
            ],
        }
    },
}
DESCRIBED: tuple[type[BaseModel], ...] = (
    *(ChatRequest, Completion, Chunk, ErrorBody),
    *(Health, ModelCard, ModelList),
)


def document(model: str, keyed: bool) -> dict[str, Any]:
    """The document for a server of one model.

    Args:
        model: its id.
        keyed: whether clients need a key.
    """
    definitions = models_json_schema(
        [(model, "validation") for model in DESCRIBED], ref_template=REFERENCE
    )[1]["$defs"]
    definitions["ChatRequest"]["properties"]["model"]["enum"] = [model, None]
    security: dict[str, Any] = {"security": [{"key": []}]} if keyed else {}
    chat: dict[str, Any] = {
        "summary": "Continue a conversation",
        "requestBody": {"required": True, "content": _json(ChatRequest)},
        "responses": {
            "200": {
                "description": "The answer, whole or as server-sent events",
                "content": {
                    **_json(Completion),
                    "text/event-stream": {"schema": EVENT},
                },
            },
            **_errors(400, 404, 408, 413, 415, 429, 500, 503),
        },
        **security,
    }
    paths: dict[str, Any] = {
        "/health": {"get": _get("Whether the server is up", _json(Health))},
        "/metrics": {
            "get": _get("Figures for Prometheus", {"text/plain": {"schema": {"type": "string"}}})
            | security
        },
        "/v1/models": {"get": _get("The one model", _json(ModelList)) | security},
        "/v1/models/{id}": {
            "get": _get("The model of that id", _json(ModelCard), 404)
            | {"parameters": [_path_parameter("id")]}
            | security
        },
        "/v1/chat/completions": {"post": chat},
    }
    if keyed:
        for path in paths.values():
            for operation in path.values():
                if "security" in operation:
                    operation["responses"] |= _errors(401)
    bearer = {"key": {"type": "http", "scheme": "bearer"}}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "mmgpt-lite",
            "version": __version__,
            "description": DESCRIPTION,
        },
        "paths": paths,
        "components": {"schemas": definitions, "securitySchemes": bearer if keyed else {}},
    }


def _get(summary: str, content: dict[str, Any], *errors: int) -> dict[str, Any]:
    answer = {"200": {"description": "OK", "content": content}}
    return {"summary": summary, "responses": answer | _errors(*errors)}


def _json(model: type[BaseModel]) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": REFERENCE.format(model=model.__name__)}}}


def _errors(*statuses: int) -> dict[str, Any]:
    return {str(s): {"description": "An error", "content": _json(ErrorBody)} for s in statuses}


def _path_parameter(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}

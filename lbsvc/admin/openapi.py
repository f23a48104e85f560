"""The OpenAPI 3.1 file, made from the table that the site answers by, so that the two cannot say different things.

Promises: every operation with its parameters, bodies, and every status that it may answer, problems as problem+json.
Pure. Served at /api/v1/openapi.json by api.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import lbsvc
from lbsvc.admin.channel import BODY_LIMIT
from lbsvc.admin.operations import Operation
from lbsvc.admin.schemas import SCHEMAS, ref

#: Where it is served, which is an operation like any other.
PATH: Final = "/api/v1/openapi.json"

_TAG: Final = {"description": "The pool's revision, for If-Match.", "schema": {"type": "string"}}
_READY: Final = {"text/plain": {"schema": {"type": "string"}}}

#: The three pages that need neither token nor a known Host.
_OPEN_PAGES: Final = {
    "/livez": ("isAlive", "200 while the process runs.", {"200": "It runs."}),
    "/readyz": ("isReady", "200 or 503 with the reason.", {"200": "It is ready.", "503": "It is not: why."}),
    "/metrics": ("showMetrics", "Prometheus text; by Accept OpenMetrics, or a JSON array.", {"200": "The metrics."}),
}


def document(operations: Iterable[Operation], has_token: bool = False) -> dict[str, Any]:
    """The whole file; where a token is set, nothing passes without it."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _described(operation)
    for path, (name, summary, answers) in _OPEN_PAGES.items():
        responses = {status: {"description": words, "content": _READY} for status, words in answers.items()}
        if path == "/metrics":
            responses["200"]["content"] = _METRICS
        paths[path] = {"get": {"operationId": name, "summary": summary, "security": [], "responses": responses}}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "lbsvc",
            "summary": "The admin interface of the load balancer.",
            "version": lbsvc.__version__,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}] if has_token else [],
        "paths": paths,
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "description": "where one is set"}},
        },
    }


_METRICS: Final = {
    "text/plain": {"schema": {"type": "string"}},
    "application/openmetrics-text": {"schema": {"type": "string"}},
    "application/json": {"schema": {"type": "array", "items": {"type": "object"}}},
}


def _described(operation: Operation) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in operation.names
    ]
    parameters += [
        {"name": name, "in": "query", "required": needed, "schema": schema} for name, schema, needed in operation.query
    ]
    if operation.is_tagged:
        parameters.append(
            {"name": "If-Match", "in": "header", "schema": {"type": "string", "pattern": r'^(\*|"[!#-~]+")$'}}
        )
    success: dict[str, Any] = {"description": operation.summary, "content": {operation.answer_type: {}}}
    if operation.answer:
        success["content"][operation.answer_type]["schema"] = operation.answer
    if "pool" in operation.names:
        success["headers"] = {"ETag": _TAG}
    if operation.status == 201:
        success.setdefault("headers", {})["Location"] = {"schema": {"type": "string"}, "description": "Where it is."}
    responses: dict[str, Any] = {str(operation.status): success}
    for status, words in sorted(problems(operation).items()):
        responses[str(status)] = {
            "description": words,
            "content": {"application/problem+json": {"schema": ref("Problem")}},
        }
    found: dict[str, Any] = {"operationId": operation.name, "summary": operation.summary, "responses": responses}
    if parameters:
        found["parameters"] = parameters
    if operation.body is not None:
        is_needed = operation.body_type == "application/json"  # an empty file is a text like any other
        found["requestBody"] = {"required": is_needed, "content": {operation.body_type: {"schema": operation.body}}}
    return found


def problems(operation: Operation) -> Mapping[int, str]:
    """Each status that a call may be refused with."""
    found = {
        400: "The request cannot be read.",
        401: "A token is needed, or this one is wrong.",
        403: "The request comes from another site.",
        429: "Too many wrong tokens: Retry-After says when the next one is looked at.",
        421: "The Host is not served here (admin.hosts).",
    }
    if operation.is_change:
        found[403] = "The interface is read-only, or the request comes from another site."
    if operation.names or any(name == "pool" for name, _, _ in operation.query):
        found[404] = "There is no such pool or backend."
    if operation.is_tagged:
        found[412] = "If-Match names another revision of the pool than the one in force."
    if operation.method not in ("GET", "DELETE"):
        limit = f"{BODY_LIMIT // 1024} KiB" if operation.body_type == "application/json" else "1 MiB"
        found[413] = f"The body is over {limit}."
    if operation.body is not None:
        found[415] = "The body has a Content-Encoding, which is not understood."
        if operation.body_type == "application/json":
            found[422] = "A value is wrong, or a key is not known."
        else:
            found[503] = "As many wait already as may at one time, or it takes too long."
    return {**found, **operation.problems}

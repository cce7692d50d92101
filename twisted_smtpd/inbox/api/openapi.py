"""The OpenAPI document, made from the table of routes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from twisted_smtpd.inbox.api.checking import resolved
from twisted_smtpd.inbox.api.route import JSON, Route
from twisted_smtpd.inbox.api.schemas import COMPONENTS, Schema, ref

__all__ = ["document", "encoded"]

_MEANINGS = {
    400: "The request is wrong; the body says how.",
    401: "A password or a token is missing or wrong.",
    403: "The token is for one mailbox only, or for another one.",
    404: "It is not there.",
    409: "There are too many already.",
    413: "The body is too large.",
    502: "The server to which the message was to go has not taken it.",
    503: "There is too much to do, or the store does not answer: try again later.",
}
#: What each route may answer besides its own errors.
COMMON_ERRORS = (400, 401, 403)


def document(routes: Iterable[Route], version: str) -> dict[str, Any]:
    """The document (https://spec.openapis.org/oas/v3.1.0).

    :param routes: the table.
    :param version: the version of twisted-smtpd.
    """
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "twisted-smtpd inbox",
            "version": version or "0",
            "description": "Mailpit's paths and JSON, and more.",
        },
        "servers": [{"url": "."}],
        "security": [{}, {"token": []}, {"password": []}],
        "paths": paths,
        "components": {
            "schemas": COMPONENTS,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "password": {"type": "http", "scheme": "basic"},
            },
        },
    }


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "tags": [route.group],
        "parameters": [*map(_path_parameter, route.variables), *map(_query_parameter, route.query)],
        "responses": _responses(route),
    }
    if route.description:
        operation["description"] = route.description
    if route.body is not None:
        kinds = [JSON, *(["application/x-www-form-urlencoded"] if route.form else [])]
        needed = bool(resolved(route.body).get("required"))
        content = {kind: {"schema": route.body} for kind in kinds}
        operation["requestBody"] = {"required": needed, "content": content}
    if route.open:
        operation["security"] = [{}]
    return operation


def _path_parameter(name: str) -> Mapping[str, Any]:
    what = 'Number of the message, or "latest".' if name == "ID" else ""
    return {
        "name": name,
        "in": "path",
        "required": True,
        "schema": {"type": "string"},
        **({"description": what} if what else {}),
    }


def _query_parameter(parameter: Any) -> Mapping[str, Any]:
    return {
        "name": parameter.name,
        "in": "query",
        "required": parameter.required,
        "description": parameter.description,
        "schema": parameter.schema,
    }


def _responses(route: Route) -> dict[str, Any]:
    content: dict[str, Schema]
    if isinstance(route.returns, str):
        content = {route.returns: {"schema": {"type": "string"}}} if route.returns != "*/*" else {"*/*": {}}
    else:
        content = {JSON: {"schema": route.returns}}
    large = (503,) if route.large else ()
    common = () if route.open else COMMON_ERRORS
    errors = sorted({*common, *route.errors, *large, *((413,) if route.body else ())})
    error = {JSON: {"schema": ref("Error")}}
    return {
        str(route.status): {"description": route.summary, "content": content},
        **{str(status): {"description": _MEANINGS[status], "content": error} for status in errors},
    }


def encoded(routes: Iterable[Route], version: str) -> bytes:
    """The document as it is sent."""
    return json.dumps(document(routes, version), separators=(",", ":")).encode()

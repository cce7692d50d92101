"""Checks the body of a request against its schema, with errors that a person can act on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

from twisted_smtpd.inbox.api.schemas import COMPONENTS, Schema

__all__ = ["BadBody", "check", "read_body", "resolved"]

_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "null": type(None),
}
_MAX_FIELDS = 20_000


class BadBody(ValueError):
    """The body is not what the route takes; its text says why in one line."""


def resolved(schema: Schema) -> Schema:
    """A schema, or what it refers to; of one that allows null as well, the other."""
    schema = schema.get("anyOf", [schema])[0]
    reference = schema.get("$ref")
    return schema if reference is None else COMPONENTS[reference.rpartition("/")[2]]


def read_body(octets: bytes, schema: Schema, *, form: bool) -> Any:
    """The value of a body.

    :param octets: the body; an empty one is an empty object.
    :param schema: what it has to be.
    :param form: whether it may be a form as well, which some of Mailpit's clients send.
    :raises BadBody: if it is something else.
    """
    if form and octets.lstrip()[:1] not in (b"", b"{", b"["):
        return check(_from_form(octets, resolved(schema)), schema)
    try:
        value = json.loads(octets) if octets.strip() else {}
    except (ValueError, RecursionError) as error:
        raise BadBody(f"the body is no JSON: {str(error)[:200]}") from None
    return check(value, schema)


def _from_form(octets: bytes, schema: Schema) -> dict[str, Any]:
    try:
        fields = parse_qs(octets.decode(), keep_blank_values=True, max_num_fields=_MAX_FIELDS)
    except ValueError as error:
        raise BadBody(f"the body is neither JSON nor a form: {str(error)[:200]}") from None
    kinds = {name.casefold(): _kind(kind) for name, kind in schema["properties"].items()}
    value: dict[str, Any] = {}
    for name, texts in fields.items():
        kind = kinds.get(name.casefold())
        if kind == "array":
            value[name] = texts
        elif kind == "boolean":
            value[name] = {"true": True, "1": True, "false": False, "0": False}.get(texts[-1].casefold(), texts[-1])
        else:
            value[name] = texts[-1]
    return value


def _kind(schema: Schema) -> str:
    kind = resolved(schema)["type"]
    return kind if isinstance(kind, str) else str(kind[0])


def check(value: Any, schema: Schema, name: str = "the body") -> Any:
    """Check a value of JSON.

    :param value: the value.
    :param schema: what it has to be: the part of JSON Schema that :mod:`.schemas` uses.
    :param name: what it is called in errors.
    :returns: the value; names of properties are as in the schema, since Mailpit takes them in any case.
    :raises BadBody: it is something else.
    """
    schema = resolved(schema)
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if not any(_is(value, kind) for kind in kinds):
        raise BadBody(f"{name}: {' or '.join(kinds)} is wanted")
    if isinstance(value, dict):
        return _checked_object(value, schema, name)
    if isinstance(value, list):
        if len(value) > schema.get("maxItems", len(value)):
            raise BadBody(f"{name}: at most {schema['maxItems']} items")
        return [check(item, schema["items"], f"{name}[{number}]") for number, item in enumerate(value)]
    if isinstance(value, str):
        _check_length(value, schema, name)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        _check_bounds(value, schema, name)
    return value


def _is(value: Any, kind: str) -> bool:
    # To Python, True is a number.
    return isinstance(value, _TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))


def _checked_object(value: dict[str, Any], schema: Schema, name: str) -> dict[str, Any]:
    others = schema.get("additionalProperties")
    if others:
        return {key: check(item, others, f"{name}.{key[:100]}") for key, item in value.items()}
    properties = schema["properties"]
    known = {key.casefold(): key for key in properties}
    checked: dict[str, Any] = {}
    for key, item in value.items():
        proper = known.get(key.casefold())
        if proper is None:
            # Without this, {"ID": …} for {"IDs": …} would delete all messages.
            raise BadBody(f"{name} has the unknown {key[:100]!r}; known are {', '.join(properties)}")
        # Clients write null for what they don't set.
        if item is not None or proper in schema.get("required", ()):
            checked[proper] = check(item, properties[proper], f"{name}.{proper}" if name != "the body" else proper)
    for key in schema.get("required", ()):
        if key not in checked:
            raise BadBody(f"{name} lacks {key!r}")
    return checked


def _check_length(value: str, schema: Schema, name: str) -> None:
    low, high = schema.get("minLength", 0), schema.get("maxLength")
    if len(value) < low or (high is not None and len(value) > high):
        raise BadBody(
            f"{name}: {low} to {high} characters" if high is not None else f"{name}: {low} or more characters"
        )
    try:
        value.encode()
    except UnicodeEncodeError:
        # JSON can write half a character; nothing that comes later could be written to a file or a socket.
        raise BadBody(f"{name}: half of a character (a lone surrogate)") from None


def _check_bounds(value: float, schema: Schema, name: str) -> None:
    low, high = schema.get("minimum"), schema.get("maximum")
    above = schema.get("exclusiveMinimum")
    # NaN compares false with everything.
    if (low is not None and not value >= low) or (high is not None and not value <= high):
        raise BadBody(f"{name}: {low} to {high}" if high is not None else f"{name}: {low} or more")
    if above is not None and not value > above:
        raise BadBody(f"{name}: more than {above}")

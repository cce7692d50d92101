"""A directive of Sphinx for the routes of the inbox's REST interface, made from their table.

``.. api-routes:: message`` describes the routes of a group.
"""

from __future__ import annotations

from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from twisted_smtpd.inbox.api import schemas, table
from twisted_smtpd.inbox.api.route import Parameter, Route
from twisted_smtpd.inbox.api.schemas import COMPONENTS, Schema


def sentence(text: str) -> str:
    """A text that ends with a full stop."""
    return text if text.endswith(".") else f"{text}."


def returned(route: Route) -> str:
    """What a route answers."""
    if isinstance(route.returns, str):
        kind = {"*/*": "the octets", "text/plain": "plain text"}.get(route.returns, f"``{route.returns}``")
        return kind
    names = [one["$ref"].rpartition("/")[2] for one in route.returns.get("anyOf", [route.returns]) if "$ref" in one]
    return " or ".join(f"``{name}``" for name in names) or "a JSON object"


def parameter_text(parameter: Parameter) -> str:
    """A parameter, its bounds and its default."""
    facts = []
    if parameter.kind in (int, float) and parameter.high < 2**53:
        facts.append(f"{parameter.low:g} to {parameter.high:g}")
    if parameter.default is not None:
        default = str(parameter.default).lower() if parameter.kind is bool else f"{parameter.default:g}"
        facts.append(f"by default {default}")
    if parameter.required:
        facts.append("required")
    note = f" ({'; '.join(facts)})" if facts else ""
    return f"``{parameter.name}``: {parameter.description.rstrip('.')}{note}."


def fields(schema: Schema) -> str:
    """The names in the body of a request."""
    properties = COMPONENTS[schema["$ref"].rpartition("/")[2]]["properties"]
    return ", ".join(f"``{name}``" for name in properties)


def route_text(route: Route) -> list[str]:
    """A route, as reStructuredText."""
    lines = [f"``{route.method} {route.path}``"]
    text = " ".join(filter(None, (sentence(route.summary), route.description)))
    lines.append(f"    {text}")
    lines.append("")
    lines += [f"    - {parameter_text(parameter)}" for parameter in route.query]
    if route.body is not None:
        lines.append(f"    - Body: {fields(route.body)}.")
    lines.append(f"    - Answers {returned(route)}.")
    return [*lines, ""]


class Routes(SphinxDirective):
    """The routes of a group."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The nodes of their descriptions."""
        group = self.arguments[0]
        routes = [route for route in table.ROUTES if route.group == group]
        if not routes:
            raise self.error(f"there are no routes of the group {group!r}")
        # A page with such a list is built anew when the table of routes changes.
        for module in (table, schemas):
            self.env.note_dependency(module.__file__)
        container = nodes.container()
        lines = [line for route in routes for line in route_text(route)]
        self.state.nested_parse(StringList(lines, source=self.get_source_info()[0]), self.content_offset, container)
        return list(container.children)


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the directive."""
    app.add_directive("api-routes", Routes)
    return {"parallel_read_safe": True}

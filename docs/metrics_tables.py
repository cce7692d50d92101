"""The table of the documentation about metrics, made from what the server shows.

``.. metrics-table::`` lists the metrics that each server has.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from twisted.internet.task import Clock

from twisted_smtpd.metrics.exposition import families
from twisted_smtpd.metrics.figures import Reading, snapshot
from twisted_smtpd.runtime.connections import Connections

#: The labels of those that have no values before something has happened.
_LABELS = {
    "smtpd_refusals": "verb, code",
    "smtpd_auth": "mechanism, result",
    "smtpd_tls": "version",
    "smtpd_messages": "verdict",
}


class MetricsTable(SphinxDirective):
    """Lists the metrics."""

    def run(self) -> list[nodes.Node]:
        """Make the table."""
        return self.parse_text_to_nodes("\n".join(_lines()))

    def parse_text_to_nodes(self, text: str) -> list[nodes.Node]:
        """What the text says, as nodes."""
        node = nodes.Element()
        self.state.nested_parse(StringList(text.splitlines(), source="metrics"), 0, node)
        return node.children


def _lines() -> Iterator[str]:
    yield from (".. list-table::", "    :header-rows: 1", "    :widths: auto", "")
    yield from ("    * - name", "      - type", "      - labels", "      - what it is")
    for family in families([Reading(1, snapshot([Connections(Clock())]))]):
        suffix = "_total" if family.type == "counter" else ""
        yield f"    * - ``{family.name}{suffix}``"
        yield from (f"      - {family.type}", f"      - {_LABELS.get(family.name, '')}".rstrip())
        yield f"      - {family.documentation}"


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the directive."""
    app.add_directive("metrics-table", MetricsTable)
    return {"parallel_read_safe": True}

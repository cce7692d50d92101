"""A directive of Sphinx for tables of command-line options, made from the table of options.

``.. option-table:: limits`` lists the options of a group.
"""

from __future__ import annotations

from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from twisted_smtpd.options import command, table
from twisted_smtpd.options.reference import option_table


class OptionTable(SphinxDirective):
    """The table of a group of options."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The nodes of the table."""
        group = self.arguments[0]
        options = [option for option in command.SETTINGS.values() if option.group == group]
        if not options:
            raise self.error(f"there are no options of the group {group!r}")
        # A page with such a table is built anew when the table of options changes.
        for module in (command, table):
            self.env.note_dependency(module.__file__)
        container = nodes.container()
        text = option_table(options).splitlines()
        self.state.nested_parse(StringList(text, source=self.get_source_info()[0]), self.content_offset, container)
        return list(container.children)


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the directive."""
    app.add_directive("option-table", OptionTable)
    return {"parallel_read_safe": True}

"""Directives that draw the table of states, and its diagram, from :mod:`twisted_smtpd.protocol.states`."""

from __future__ import annotations

from html import escape
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from twisted_smtpd.protocol import states
from twisted_smtpd.protocol.states import NEXT, TABLE, VERBS, Refusal, State, for_lmtp, verdict

TABLES = {"smtp": TABLE, "lmtp": for_lmtp(TABLE)}

# The diagram: where each state is drawn (column, row), and the size of a box and of the grid.
PLACES = {
    State.UNWELCOME: (0, 0),
    State.NEW: (1, 0),
    State.STRANGER: (2, 0),
    State.READY: (3, 0),
    State.CLEAR: (1, 1),
    State.WEAK: (1, 2),
    State.SENDER: (3, 1),
    State.RECIPIENT: (2, 1),
    State.REFUSED: (3, 2),
    State.CHUNKS: (2, 2),
}
BOX = (104, 32)
GRID = (196, 96)
MARGIN = 44


def cell_text(refusal: Refusal | None) -> str:
    """A cell of the table: ``yes``, or the code of the refusal."""
    return "yes" if refusal is None else str(refusal.code)


def rows(protocol: str) -> list[list[str]]:
    """The table: a row for each verb, a column for each state."""
    table = TABLES[protocol]
    absent = {"HELO", "EHLO"} if protocol == "lmtp" else {"LHLO"}
    return [
        [verb, *(cell_text(verdict(state, verb, table)) for state in State)] for verb in VERBS if verb not in absent
    ]


def list_table(header: list[str], body: list[list[str]]) -> list[str]:
    """The lines of a ``list-table``."""
    lines = [".. list-table::", "   :class: states", "   :header-rows: 1", "   :stub-columns: 1", ""]
    for row in (header, *body):
        for number, text in enumerate(row):
            lines.append(f"   {'* -' if number == 0 else '  -'} {text}")
    return [*lines, ""]


def refusals(protocol: str) -> list[list[str]]:
    """What each refusal says, and where."""
    found: dict[Refusal, dict[str, list[str]]] = {}
    for state in State:
        for verb in VERBS:
            refusal = verdict(state, verb, TABLES[protocol])
            if refusal is not None:
                found.setdefault(refusal, {}).setdefault(state.name, []).append(verb)
    return [
        [f"{refusal.code} {refusal.enhanced} {refusal.text}", ", ".join(states)] for refusal, states in found.items()
    ]


class StateTable(SphinxDirective):
    """``.. state-table:: smtp``: states, verbs and verdicts."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        protocol = self.arguments[0]
        lines = list_table(["verb", *(state.name for state in State)], rows(protocol))
        lines += list_table(["reply", "in these states"], refusals(protocol))
        return self._parsed(lines)

    def _parsed(self, lines: list[str]) -> list[nodes.Node]:
        # The page is built anew when the table changes.
        self.env.note_dependency(states.__file__)
        node = nodes.container()
        self.state.nested_parse(StringList(lines, source="states"), self.content_offset, node)
        return list(node.children)


class StateList(StateTable):
    """``.. state-list::``: what is true in each state."""

    required_arguments = 0

    def run(self) -> list[nodes.Node]:
        return self._parsed(list_table(["state", "what is true"], [[state.name, state.value] for state in State]))


def _center(state: State) -> tuple[float, float]:
    column, row = PLACES[state]
    return MARGIN + BOX[0] / 2 + column * GRID[0], MARGIN + row * GRID[1]


def _arrow(start: State, end: State, label: str) -> str:
    (x1, y1), (x2, y2) = _center(start), _center(end)
    arc = y1 == y2 and abs(x2 - x1) > GRID[0]
    if arc:
        # Past another box: above it.
        y1, y2 = y1 - BOX[1] / 2, y2 - BOX[1] / 2
    elif y1 == y2:
        side = 1 if x2 > x1 else -1
        x1, x2 = x1 + side * BOX[0] / 2, x2 - side * BOX[0] / 2
    else:
        down = 1 if y2 > y1 else -1
        y1, y2 = y1 + down * BOX[1] / 2, y2 - down * BOX[1] / 2
    x, y = (x1 + x2) / 2, (y1 + y2) / 2 - (48 if arc else 0)
    path = f"M{x1:.0f} {y1:.0f} Q{x:.0f} {y:.0f} {x2:.0f} {y2:.0f}"
    words = label.split(", ")
    # Beside a line that goes up or down, above one that does not.
    anchor, left, top = ("start", 5, 4 - 6 * (len(words) - 1)) if y1 != y2 else ("middle", 0, 6 - 12 * len(words))
    lines = ""
    for number, word in enumerate(words):
        line = y + top + 12 * number + (22 if arc else 0)
        lines += f'<text x="{x + left:.0f}" y="{line:.0f}" class="l {anchor}">{escape(word)}</text>'
    return f'<path d="{path}" class="a" marker-end="url(#h)"/>{lines}'


def diagram() -> str:
    """The diagram, as SVG."""
    width = 2 * MARGIN + BOX[0] + max(column for column, _ in PLACES.values()) * GRID[0]
    height = 2 * MARGIN + max(row for _, row in PLACES.values()) * GRID[1]
    style = (
        "text{font:12px sans-serif;text-anchor:middle;fill:currentColor}.l{font-size:11px}.start{text-anchor:start}"
        ".b{fill:none;stroke:currentColor}.a{fill:none;stroke:currentColor;stroke-opacity:.6}"
    )
    boxes = ""
    for state in State:
        x, y = _center(state)
        corner = f'x="{x - BOX[0] / 2:.0f}" y="{y - BOX[1] / 2:.0f}"'
        boxes += f'<rect {corner} width="{BOX[0]}" height="{BOX[1]}" rx="6" class="b"/>'
        boxes += f'<text x="{x:.0f}" y="{y + 4:.0f}">{state.name}</text>'
    arrows = "".join(_arrow(start, end, label) for start, label, end in NEXT)
    size = 'viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7"'
    head = f'<marker id="h" {size} orient="auto"><path d="M0 0 8 4 0 8z" fill="currentColor"/></marker>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="The states of a connection"><style>{style}</style><defs>{head}</defs>{arrows}{boxes}</svg>'
    )


class StateDiagram(SphinxDirective):
    """``.. state-diagram::``: the states, and what leads from one to another."""

    def run(self) -> list[nodes.Node]:
        return [nodes.raw("", diagram(), format="html")]


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the directives."""
    app.add_directive("state-table", StateTable)
    app.add_directive("state-list", StateList)
    app.add_directive("state-diagram", StateDiagram)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

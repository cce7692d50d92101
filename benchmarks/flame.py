"""Draw a flame graph as an SVG file: no scripts, a tooltip for each frame."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from html import escape

WIDTH, ROW, MARGIN = 960.0, 15, 8
FONT_SIZE = 10
# Of a monospaced font, in its size.
LETTER = 0.602
# Frames below this part of the whole are left out: they would be too narrow to see.
SMALLEST = 0.002


@dataclass(frozen=True)
class Frame:
    """One frame of a stack.

    :ivar name: the function.
    :ivar layer: what it is part of; frames of one layer have one colour.
    :ivar where: the file, for the tooltip.
    """

    name: str
    layer: str
    where: str = ""


@dataclass
class Node:
    """A frame, and those it called.

    :ivar weight: what it and they cost, in any unit.
    """

    frame: Frame
    weight: float = 0.0
    children: dict[Frame, Node] = field(default_factory=dict)

    def add(self, stack: Iterable[Frame], weight: float) -> None:
        """Count one stack, its outermost frame first."""
        node = self
        node.weight += weight
        for frame in stack:
            node = node.children.setdefault(frame, Node(frame))
            node.weight += weight

    def prune(self, smallest: float) -> None:
        """Leave out what is too small to be seen."""
        self.children = {frame: node for frame, node in self.children.items() if node.weight >= smallest}
        for node in self.children.values():
            node.prune(smallest)

    def layers(self) -> set[str]:
        """Those of this node and of what is above it."""
        return {self.frame.layer}.union(*(node.layers() for node in self.children.values()))

    def depth(self) -> int:
        """Rows this node and what is above it take."""
        return 1 + max((node.depth() for node in self.children.values()), default=0)


def draw(root: Node, title: str, unit: str, total: float, colours: Mapping[str, str]) -> str:
    """The picture: callers below, what they called above them, as wide as it is costly.

    :param root: the tree.
    :param title: the caption.
    :param unit: of ``total``, for the tooltips.
    :param total: what the whole tree cost.
    :param colours: of the layers; the legend has those that are to be seen, in this order.
    """
    root.prune(root.weight * SMALLEST)
    seen = root.layers()
    legend = _legend({layer: colour for layer, colour in colours.items() if layer in seen})
    top = MARGIN + 20 + len(legend) * 16 + 6
    height = top + root.depth() * ROW + MARGIN
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:.0f} {height}" role="img"'
        f' font-family="ui-monospace, DejaVu Sans Mono, Consolas, monospace" font-size="{FONT_SIZE}" fill="#1a1a1a">',
        "<style>rect { stroke: #fff; stroke-width: .5 } g:hover > rect { stroke: #000 }</style>",
        f'<path fill="#fff" d="M0 0h{WIDTH:.0f}v{height}H0z"/>',
        f'<text x="{MARGIN}" y="{MARGIN + 10}" font-size="13" font-weight="bold">{escape(title)}</text>',
        *(line for number, row in enumerate(legend) for line in _legend_row(row, MARGIN + 20 + number * 16)),
    ]
    scale = (WIDTH - 2 * MARGIN) / root.weight
    _draw_node(lines, root, MARGIN, height - MARGIN - ROW, scale, (root.weight, total, unit), colours)
    return "\n".join([*lines, "</svg>"]) + "\n"


def _legend(colours: Mapping[str, str]) -> list[list[tuple[float, str, str]]]:
    """Position, name and colour of each layer, in rows that fit."""
    rows: list[list[tuple[float, str, str]]] = [[]]
    x: float = MARGIN
    for name, colour in colours.items():
        width = 16 + (len(name) + 2) * FONT_SIZE * LETTER
        if x + width > WIDTH - MARGIN:
            rows.append([])
            x = MARGIN
        rows[-1].append((x, name, colour))
        x += width
    return rows


def _legend_row(row: list[tuple[float, str, str]], y: float) -> Iterable[str]:
    for x, name, colour in row:
        yield f'<rect x="{x:.0f}" y="{y}" width="12" height="12" fill="{colour}"/>'
        yield f'<text x="{x + 16:.0f}" y="{y + 9.5}">{escape(name)}</text>'


def _draw_node(
    lines: list[str],
    node: Node,
    x: float,
    y: float,
    scale: float,
    whole: tuple[float, float, str],
    colours: Mapping[str, str],
) -> None:
    weight, total, unit = whole
    width, share = node.weight * scale, node.weight / weight
    frame = node.frame
    where = f" ({frame.where})" if frame.where else ""
    tooltip = f"{frame.name}{where}: {share * total:,.1f} {unit}, {share:.1%}"
    lines.append(
        f'<g><title>{escape(tooltip)}</title><rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{ROW}"'
        f' fill="{colours[frame.layer]}"/>{_label(frame.name, x, y, width)}</g>'
    )
    for child in sorted(node.children.values(), key=lambda child: (child.frame.layer, child.frame.name)):
        _draw_node(lines, child, x, y - ROW, scale, whole, colours)
        x += child.weight * scale


def _label(name: str, x: float, y: float, width: float) -> str:
    room = int((width - 4) / (FONT_SIZE * LETTER))
    if room < 3:
        return ""
    # The end of a long name says more than its class does.
    short = name.rpartition(".")[2]
    text = name if len(name) <= room else short if len(short) <= room else f"{short[: room - 1]}…"
    return f'<text x="{x + 2:.1f}" y="{y + 11}">{escape(text)}</text>'

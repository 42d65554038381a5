"""The graph of a Dockerfile's stages as SVG, DOT and Mermaid. Names that an image or a context brings are escaped."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

import msgspec

from builder.api.drawing.layout import place
from builder.dockerfile.stage_graph import COPY, FROM, MOUNT, STAGE, StageGraph, StageNode

STYLE = """\
.stages { font: 13px system-ui, sans-serif; --line: #57606a; --text: #1f2328; --box: #f6f8fa; --copy: #0969da;
  --mount: #8250df; }
@media (prefers-color-scheme: dark) { .stages { --line: #9198a1; --text: #f0f6fc; --box: #212830; --copy: #4493f8;
  --mount: #ab7df8; } }
.stages text { fill: var(--text); text-anchor: middle; }
.stages .note { font-size: 11px; opacity: .75; }
.stages rect { fill: var(--box); stroke: var(--line); }
.stages .image rect, .stages .context rect, .stages .scratch rect { fill: none; }
.stages .target rect { stroke-width: 2.5; }
.stages .target .name { font-weight: 600; }
.stages .unneeded { opacity: .65; }
.stages .unneeded rect, .stages path.unneeded { stroke-dasharray: 5 4; }
.stages path { fill: none; stroke: var(--line); stroke-width: 1.3; }
.stages path.copy { stroke: var(--copy); }
.stages path.mount { stroke: var(--mount); stroke-dasharray: 1.5 3; stroke-linecap: round; stroke-width: 2; }
.stages marker path { stroke: none; fill: var(--line); }
.stages .copy-head path { fill: var(--copy); }
.stages .mount-head path { fill: var(--mount); }
"""
"""Style sheet of the SVG, for light and dark."""

_CHARACTER, _PADDING, _NARROWEST = 7.6, 28.0, 84.0
_HEIGHT, _DISTANCE, _MARGIN = 44.0, 40.0, 12.0
_LONGEST = 34
_WORDS = {FROM: "FROM", COPY: "COPY --from", MOUNT: "RUN --mount"}


class Note(msgspec.Struct, frozen=True):
    """What is said of a stage: a short line below its name, a CSS class, and where a click leads."""

    text: str = ""
    style: str = ""
    href: str = ""


def svg(graph: StageGraph, notes: Mapping[str, Note] | None = None, *, alone: bool = True) -> str:
    """An SVG image. `notes` are by the names of stages; `alone` adds the style sheet, for a file of its own."""
    notes = notes or {}
    shown = [_cut(node.name) for node in graph.nodes]
    texts = [notes.get(node.name, Note()).text if node.kind == STAGE else "" for node in graph.nodes]
    widths = [
        max(_NARROWEST, max(len(name), len(text) * 0.85) * _CHARACTER + _PADDING)
        for name, text in zip(shown, texts, strict=True)
    ]
    placed = place(widths, [(edge.source, edge.user) for edge in graph.edges], height=_HEIGHT, distance=_DISTANCE)
    width, height = placed.width + 2 * _MARGIN, placed.height + 2 * _MARGIN
    root = Element(
        "svg",
        {
            "class": "stages",
            "role": "img",
            "aria-label": "The graph of stages",
            "viewBox": f"0 0 {width:.0f} {height:.0f}",
            "width": f"{width:.0f}",
            "height": f"{height:.0f}",
        },
    )
    if alone:
        root.set("xmlns", "http://www.w3.org/2000/svg")
        SubElement(root, "style").text = STYLE
    _heads(root)
    drawing = SubElement(root, "g", {"transform": f"translate({_MARGIN:.0f} {_MARGIN:.0f})"})
    for edge, route in zip(graph.edges, placed.routes, strict=True):
        unneeded = "" if graph.nodes[edge.user].needed else " unneeded"
        line = SubElement(
            drawing,
            "path",
            {"class": f"{edge.kind}{unneeded}", "d": _curve(route), "marker-end": f"url(#{edge.kind}-head)"},
        )
        SubElement(line, "title").text = f"{_WORDS[edge.kind]}, line {edge.line}"
    for position, (node, (x, y)) in enumerate(zip(graph.nodes, placed.centres, strict=True)):
        _box(drawing, graph, position, shown[position], notes.get(node.name, Note()), (x, y, widths[position]))
    return ElementTree.tostring(root, encoding="unicode")


def _heads(root: Element) -> None:
    definitions = SubElement(root, "defs")
    for kind in _WORDS:
        marker = SubElement(
            definitions,
            "marker",
            {
                "id": f"{kind}-head",
                "class": f"{kind}-head",
                "viewBox": "0 0 8 8",
                "refX": "7",
                "refY": "4",
                "markerWidth": "8",
                "markerHeight": "8",
                "markerUnits": "userSpaceOnUse",
                "orient": "auto",
            },
        )
        SubElement(marker, "path", {"d": "M0 0L8 4L0 8z"})


def _box(
    drawing: Element, graph: StageGraph, position: int, name: str, note: Note, at: tuple[float, float, float]
) -> None:
    node = graph.nodes[position]
    is_stage = node.kind == STAGE
    x, y, width = at
    classes = [node.kind, note.style if is_stage else ""]
    classes += ["" if node.needed else "unneeded", "target" if is_stage and position == graph.target else ""]
    parent = SubElement(drawing, "a", {"href": note.href}) if is_stage and note.href else drawing
    group = SubElement(parent, "g", {"class": " ".join(filter(None, classes))})
    SubElement(group, "title").text = clean(_told(node))
    SubElement(
        group,
        "rect",
        {
            "x": f"{x - width / 2:.1f}",
            "y": f"{y - _HEIGHT / 2:.1f}",
            "width": f"{width:.1f}",
            "height": f"{_HEIGHT:.0f}",
            "rx": "6" if is_stage else "22",
        },
    )
    text = note.text if is_stage else node.kind if node.kind != node.name else ""
    label = SubElement(group, "text", {"class": "name", "x": f"{x:.1f}", "y": f"{y - 2 if text else y + 5:.1f}"})
    label.text = name
    if text:
        under = SubElement(group, "text", {"class": "note", "x": f"{x:.1f}", "y": f"{y + 14:.1f}"})
        under.text = clean(text)


def _told(node: StageNode) -> str:
    told = f"{node.kind} {node.name}" if node.kind != node.name else node.name
    told += f", line {node.line}" if node.line else ""
    return told if node.needed else f"{told}, not needed"


def _curve(points: tuple[tuple[float, float], ...]) -> str:
    parts = [f"M{points[0][0]:.1f} {points[0][1]:.1f}"]
    for (x1, y1), (x2, y2) in pairwise(points):
        middle = (y1 + y2) / 2
        parts.append(f"C{x1:.1f} {middle:.1f} {x2:.1f} {middle:.1f} {x2:.1f} {y2:.1f}")
    return "".join(parts)


def clean(text: str) -> str:
    """A text with nothing in it that XML does not know, or that is not to be seen."""
    return "".join(character if character.isprintable() else "�" for character in text)


def _cut(name: str) -> str:
    """A name for a box; of a long one the end, which tells images apart."""
    name = clean(name)
    return name if len(name) <= _LONGEST else f"{name[:8]}…{name[-(_LONGEST - 9) :]}"


# --- for other programs

_DOT_STYLE = {FROM: "", COPY: ' color="#0969da" label="COPY"', MOUNT: ' color="#8250df" label="mount"'}


def dot(graph: StageGraph) -> str:
    """The graph in Graphviz's language."""
    lines = [
        "digraph stages {",
        '  node [shape=box fontname="sans-serif"]',
        '  edge [fontname="sans-serif" fontsize=10]',
    ]
    for position, node in enumerate(graph.nodes):
        styles = ["rounded"] if node.kind != STAGE else []
        styles += ["dashed"] if not node.needed else []
        styles += ["bold"] if node.kind == STAGE and position == graph.target else []
        style = f' style="{",".join(styles)}"' if styles else ""
        lines.append(f"  n{position} [label={_quoted(node.name)}{style}]")
    for edge in graph.edges:
        dashed = ' style="dashed"' if not graph.nodes[edge.user].needed else ""
        attributes = f"{_DOT_STYLE[edge.kind]}{dashed}".strip()
        lines.append(f"  n{edge.source} -> n{edge.user}" + (f" [{attributes}]" if attributes else ""))
    return "\n".join([*lines, "}", ""])


def _quoted(text: str) -> str:
    escaped = clean(text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


_UNUSUAL = re.compile(r"[^\w ./:@,+=-]")  # what may mean something to Mermaid
_MERMAID_ARROW = {FROM: "-->", COPY: "-- COPY -->", MOUNT: "-- mount -->"}


def mermaid(graph: StageGraph) -> str:
    """The graph as a Mermaid flow chart."""
    lines = ["flowchart TD"]
    for position, node in enumerate(graph.nodes):
        label = f'"{_UNUSUAL.sub(_entity, clean(node.name))}"'
        shape = f"[{label}]" if node.kind == STAGE else f"([{label}])"
        lines.append(f"  n{position}{shape}")
    for edge in graph.edges:
        arrow = _MERMAID_ARROW[edge.kind]
        if not graph.nodes[edge.user].needed:
            arrow = arrow.replace("-->", ".->").replace("-- ", "-. ") if " " in arrow else "-.->"
        lines.append(f"  n{edge.source} {arrow} n{edge.user}")
    if graph.nodes:
        lines.append(f"  style n{graph.target} stroke-width:3px")
    unneeded = [f"n{position}" for position, node in enumerate(graph.nodes) if not node.needed]
    if unneeded:
        lines += ["  classDef unneeded stroke-dasharray: 5 4", f"  class {','.join(unneeded)} unneeded"]
    return "\n".join([*lines, ""])


def _entity(match: re.Match[str]) -> str:
    return f"#{ord(match[0])};"

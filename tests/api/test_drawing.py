"""Pictures of stages: where the boxes are, and that no name gets out of its place."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.api.drawing.layout import GAP, place
from builder.api.drawing.stages import Note, dot, mermaid, svg
from builder.dockerfile.stage_graph import StageEdge, StageGraph, StageNode

HOSTILE = "x</text><script>alert(1)</script>\"'&]]>\x1b[1m\n%%;{}[]()|`--> y"
GRAPH = StageGraph(
    nodes=(
        StageNode("base", line=1),
        StageNode("unused", line=3, needed=False),
        StageNode("final", line=5),
        StageNode(HOSTILE, "image"),
    ),
    edges=(
        StageEdge(3, 0, "from", 1),
        StageEdge(0, 1, "from", 3),
        StageEdge(0, 2, "from", 5),
        StageEdge(0, 2, "copy", 6),
        StageEdge(3, 2, "mount", 7),
    ),
    target=2,
)
SVG = "{http://www.w3.org/2000/svg}"


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[float], list[tuple[int, int]]]:
    count = draw(st.integers(0, 14))
    widths = [draw(st.sampled_from([10.0, 80.0, 200.0])) for _ in range(count)]
    edges = [
        (upper, lower) for lower in range(count) for upper in sorted(draw(st.sets(st.integers(0, lower), max_size=3)))
    ]
    return widths, [(upper, lower) for upper, lower in edges if upper != lower]


@given(graphs())
def test_boxes_keep_apart_and_edges_lead_down(drawn: tuple[list[float], list[tuple[int, int]]]) -> None:
    widths, edges = drawn
    placed = place(widths, edges, height=40, distance=30)
    for upper, lower in edges:
        assert placed.centres[upper][1] < placed.centres[lower][1]
    for number, (x, y) in enumerate(placed.centres):
        assert widths[number] / 2 - 0.01 <= x <= placed.width - widths[number] / 2 + 0.01
        assert 20 <= y <= placed.height - 20
        for other in range(number):
            if placed.centres[other][1] == y:
                apart = abs(placed.centres[other][0] - x)
                assert apart >= (widths[number] + widths[other]) / 2 + GAP - 0.01
    for (upper, lower), route in zip(edges, placed.routes, strict=True):
        assert route[0] == (placed.centres[upper][0], placed.centres[upper][1] + 20)
        assert route[-1] == (placed.centres[lower][0], placed.centres[lower][1] - 20)


def test_a_chain_is_straight() -> None:
    placed = place([100, 60, 80], [(0, 1), (1, 2)], height=40, distance=30)
    assert len({round(x, 3) for x, _ in placed.centres}) == 1


def test_two_hundred_stages_are_laid_out_quickly() -> None:
    edges = [(number - 1, number) for number in range(1, 200)] + [(0, number) for number in range(2, 200, 5)]
    started = time.process_time()
    place([100.0] * 200, edges, height=40, distance=30)
    assert time.process_time() - started < 5


def test_svg() -> None:
    root = ElementTree.fromstring(svg(GRAPH, {"base": Note("1 ran · 2.0s", "ran", "#step-1")}))
    assert len(root.findall(f".//{SVG}rect")) == 4
    assert len(root.findall(f"./{SVG}g/{SVG}path")) == 5
    groups = {group.findtext(f"{SVG}title"): group.get("class") for group in root.iter(f"{SVG}g")}
    assert groups["stage base, line 1"] == "stage ran"
    assert groups["stage unused, line 3, not needed"] == "stage unneeded"
    assert groups["stage final, line 5"] == "stage target"
    link = root.find(f".//{SVG}a")
    assert link is not None
    assert link.get("href") == "#step-1"
    assert "1 ran · 2.0s" in [text.text for text in root.iter(f"{SVG}text")]


def test_a_hostile_name_is_text_in_svg() -> None:
    text = svg(GRAPH)
    assert "<script" not in text
    assert "\x1b" not in text
    assert {element.tag.removeprefix(SVG) for element in ElementTree.fromstring(text).iter()} <= {
        "svg", "style", "defs", "marker", "path", "g", "title", "rect", "text",
    }  # fmt: skip


def test_dot() -> None:
    lines = dot(GRAPH).splitlines()
    assert lines[0] == "digraph stages {"
    assert '  n1 [label="unused" style="dashed"]' in lines
    assert '  n2 [label="final" style="bold"]' in lines
    assert '  n0 -> n1 [style="dashed"]' in lines
    assert '  n0 -> n2 [color="#0969da" label="COPY"]' in lines
    assert sum(line.startswith("  n3 [label=") for line in lines) == 1
    assert re.search(r'n3 \[label="x</text>.*\\"\'&', dot(GRAPH))


@pytest.mark.skipif(shutil.which("dot") is None, reason="needs dot (Debian package graphviz)")
def test_graphviz_reads_it() -> None:
    done = subprocess.run(["dot", "-Tplain"], input=dot(GRAPH).encode(), capture_output=True, check=True)
    assert sum(line.startswith(b"node ") for line in done.stdout.splitlines()) == 4
    assert done.stderr == b""


def test_mermaid() -> None:
    lines = mermaid(GRAPH).splitlines()
    assert lines[:4] == ["flowchart TD", '  n0["base"]', '  n1["unused"]', '  n2["final"]']
    assert re.fullmatch(r'  n3\(\["x[\w #;./:@,+=-]*"\]\)', lines[4])
    assert "  n0 -.-> n1" in lines
    assert "  n0 --> n2" in lines
    assert "  n0 -- COPY --> n2" in lines
    assert "  n3 -- mount --> n2" in lines
    assert "  class n1 unneeded" in lines

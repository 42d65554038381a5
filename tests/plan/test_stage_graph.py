"""The graph of stages that people see: read from a Dockerfile alone, and as a plan has it."""

from __future__ import annotations

from typing import Any

import pytest

from builder.dockerfile.parser import parse
from builder.dockerfile.stage_graph import StageGraph
from builder.errors import PlanError
from builder.plan.locate import Locator
from builder.plan.planner import plan_stages
from tests.plan.support import make_plan, options

DOCKERFILE = """\
ARG BASE=debian:12
FROM $BASE AS build
RUN make
FROM build AS test
RUN make check
FROM scratch AS other
COPY --from=build /a /
FROM build
COPY --from=0 /out /out
COPY --from=0 /more /more
COPY --from=busybox /bin/sh /sh
RUN --mount=from=test,target=/t true
"""


def graph(text: str, **case: Any) -> StageGraph:
    return plan_stages(parse(text.encode(), "Dockerfile"), options(case), Locator("Dockerfile", text))


def edges(found: StageGraph) -> list[tuple[str, str, str, int]]:
    return [(found.nodes[edge.source].name, edge.kind, found.nodes[edge.user].name, edge.line) for edge in found.edges]


def test_nodes_and_edges() -> None:
    found = graph(DOCKERFILE)
    assert [(node.name, node.kind, node.line, node.needed) for node in found.nodes] == [
        ("build", "stage", 2, True),
        ("test", "stage", 4, True),
        ("other", "stage", 6, False),
        ("stage-3", "stage", 8, True),
        ("debian:12", "image", 0, True),
        ("scratch", "scratch", 0, False),
        ("busybox:latest", "image", 0, True),
    ]
    assert edges(found) == [
        ("debian:12", "from", "build", 2),
        ("build", "from", "test", 4),
        ("scratch", "from", "other", 6),
        ("build", "copy", "other", 7),
        ("build", "from", "stage-3", 8),
        ("build", "copy", "stage-3", 9),  # once, however often it is copied from
        ("busybox:latest", "copy", "stage-3", 11),
        ("test", "mount", "stage-3", 12),
    ]
    assert found.nodes[found.target].name == "stage-3"


def test_target_and_arguments() -> None:
    found = graph(DOCKERFILE, target="other", args={"BASE": "alpine"})
    assert found.nodes[found.target].name == "other"
    assert [node.name for node in found.nodes if node.needed] == ["build", "other", "alpine:latest", "scratch"]


def test_contexts_replace_images_and_stages() -> None:
    contexts = {
        "debian:12": {},
        "test": {"reference": "docker.io/library/tested:1"},
        "busybox": {"stage": "build"},
    }
    found = graph(DOCKERFILE, contexts=contexts)
    assert ("debian:12", "from", "build", 2) in edges(found)
    assert {node.name: node.kind for node in found.nodes}["debian:12"] == "context"
    assert ("tested:1", "from", "test", 4) in edges(found)
    assert ("build", "copy", "stage-3", 9) in edges(found)


def test_a_plan_has_the_same_graph() -> None:
    text = "FROM scratch AS a\nCOPY x /\nFROM scratch AS left\nCOPY y /\nFROM a\nCOPY --from=a /x /y\n"
    planned, _ = make_plan({"dockerfile": text})
    assert planned.stages == graph(text)
    assert [node.name for node in planned.stages.nodes if not node.needed] == ["left"]


def test_what_is_no_graph() -> None:
    with pytest.raises(PlanError, match="needs itself"):
        graph("FROM scratch AS a\nCOPY --from=b /x /\nFROM a AS b\nCOPY x /\n")
    with pytest.raises(PlanError, match="was not found"):
        graph(DOCKERFILE, target="nothing")

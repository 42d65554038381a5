"""`builder graph`."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from tests.support.builds import Cli, context

DOCKERFILE = """\
ARG BASE=registry.invalid/base:1
FROM $BASE AS build
RUN make
FROM scratch AS unused
COPY --from=build /a /
FROM scratch
COPY --from=build /b /
"""


def test_formats(cli: Cli, tmp_path: Path) -> None:
    tree = context(tmp_path / "context", DOCKERFILE)  # the registry does not exist: nobody asks it
    done = cli("graph", tree)
    assert (done.status, done.err) == (0, "")
    root = ElementTree.fromstring(done.out)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert b"registry.invalid/base:1" in done.out
    assert b"not needed" in done.out
    assert cli("graph", "--format", "dot", tree).out.startswith(b"digraph stages {\n")
    assert cli("graph", "--format", "mermaid", tree).out.startswith(b"flowchart TD\n")
    done = cli("graph", "-o", tmp_path / "out.svg", tree)
    assert (done.status, done.out) == (0, b"")
    assert (tmp_path / "out.svg").read_bytes() == cli("graph", tree).out


def test_options(cli: Cli, tmp_path: Path) -> None:
    tree = context(tmp_path / "context", "FROM scratch", other=DOCKERFILE)
    done = cli(
        "graph", "-f", tree / "other", "--target", "unused", "--build-arg", "BASE=alpine", "--format", "dot", tree
    )
    assert b'"alpine:latest"' in done.out
    assert b'n1 [label="unused" style="bold"]' in done.out
    assert b'n2 [label="stage-2" style="dashed"]' in done.out
    assert cli("graph", "-f", "-", "--format", "dot", tree, stdin=b"FROM scratch AS given\n").out.count(b"given") == 1


def test_refused(cli: Cli, tmp_path: Path) -> None:
    tree = context(tmp_path / "context", "FROM scratch AS a\nCOPY --from=b / /\nFROM a AS b\nRUN x\n")
    done = cli("graph", tree)
    assert done.status == 1
    assert "needs itself" in done.err
    assert done.out == b""
    assert cli("graph", "--format", "png", tree).status == 2

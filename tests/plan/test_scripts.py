"""The scripts of RUN instructions and the way back to the Dockerfile's lines and columns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.dockerfile.instructions import Run
from builder.dockerfile.located import physical_lines
from builder.dockerfile.parser import parse
from builder.plan.scripts import Script, find_script

PIECES = st.lists(
    st.sampled_from(("echo hi", " && ls", "  | cat", " é", "\ttab", " 'a b'", ";", " \\\n", "\\\n", "\\  \n", " ")),
    min_size=1,
    max_size=12,
).map("".join)
BETWEEN = st.sampled_from(("", "# a comment\n", "  # indented\n", "\n", "   \n"))


def script_of(text: str) -> Script | None:
    """The script of the first RUN."""
    dockerfile = parse(text)
    run = next(i for i in dockerfile.stages[0].instructions if isinstance(i, Run))
    return find_script(physical_lines(text), run.range, run.command, dockerfile.escape)


def check_positions(text: str, script: Script) -> None:
    """Every character of the script must stand where its position says."""
    lines = text.split("\n")
    for number, line in enumerate(script.text.split("\n"), 1):
        for column, character in enumerate(line, 1):
            position = script.position(number, column)
            assert position is not None
            assert lines[position[0] - 1][position[1] - 1] == character, (number, column, position)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FROM a\nRUN  ls  -l", "ls  -l"),
        ("FROM a\n  RUN --network=none --mount=type=tmpfs,target=/t ls", "ls"),
        ("FROM a\nRUN \\\n  ls \\\n# comment\n\n  -l", "ls   -l"),
        ("FROM a\r\nRUN ls \\\r\n  -l\r\nRUN x", "ls   -l"),
        ("# escape=`\nFROM a\nRUN ls `\n  a\\b", "ls   a\\b"),
        ("FROM a\nRUN <<EOF\nls\n  x\nEOF\nRUN y", "ls\n  x\n"),
        ("FROM a\nRUN --network=none <<-'EOF'\n\tls\n\t\tx\n\tEOF\n", "ls\nx\n"),
        ("FROM a\nRUN cat <<A \\\n <<-B && ls\n1\nA\n\t2\n\tB\n", "cat <<A  <<-B && ls\n1\nA\n\t2\nB"),
        ("FROM a\nRUN cat <<-A\n\t1\n\tA\n", "cat <<-A\n\t1\nA"),
        ("\ufeffFROM a\nRUN ls", "ls"),
    ],
)
def test_scripts(text: str, expected: str) -> None:
    script = script_of(text)
    assert script is not None
    assert script.text == expected
    check_positions(text, script)


def test_the_exec_form_has_none() -> None:
    assert script_of('FROM a\nRUN ["ls", "-l"]') is None
    assert script_of("FROM a\nRUN") is None


def test_comments_within() -> None:
    script = script_of("FROM a\nRUN ls \\\n  # shellcheck disable=SC2012\n | cat")
    assert script is not None
    assert script.comments == ("shellcheck disable=SC2012",)


def test_beyond_the_end() -> None:
    script = script_of("FROM a\nRUN ls")
    assert script is not None
    assert script.position(2, 1) is None
    assert script.position(0, 1) is None


@given(PIECES, BETWEEN)
def test_positions(body: str, between: str) -> None:
    body = body.replace("\\\n", "\\\n" + between).replace("\\  \n", "\\  \n" + between)
    text = f"FROM a\nRUN {body}\n"
    script = script_of(text)
    if script is not None:
        check_positions(text, script)

"""Lines that are read without the grammar: what comes out is what the grammar gives."""

from __future__ import annotations

import string
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from builder.dockerfile import plain
from builder.dockerfile.forms import line_parser
from builder.dockerfile.grammar import exchange
from builder.dockerfile.parser import parse
from builder.dockerfile.text import SPACE
from tests.support.builds import PROJECT

# What has a meaning somewhere, and a few others.
CHARACTERS = " \t\n\r\v\f\x85\xa0\u2003\x1c-=[]\"'\\`,:$<>#a/\0é\ud800"
TEXTS = (
    st.lists(
        st.sampled_from(["RUN", " ", "  ", "--", "--a=", " as "])
        | st.text(CHARACTERS + string.ascii_letters, max_size=4)
    )
    .map("".join)
    .map(lambda text: text.strip(SPACE))
)
ESCAPES = st.sampled_from("\\`")


def by_grammar(rule: str, text: str, escape: str) -> object:
    """None where the text does not have the rule's form."""
    from lark import UnexpectedInput

    try:
        found = line_parser().parse(exchange(text, escape), start=rule)
    except UnexpectedInput:
        return None
    return found


@given(line=TEXTS, escape=ESCAPES)
@example(line="RUN --mount=type=cache,target=/x --network=none echo", escape="\\")
@example(line="RUN -- echo", escape="\\")
@example(line="RUN --a", escape="\\")
@example(line="RUN --a -b", escape="\\")
@example(line="copy --from=`a b", escape="`")
@example(line="RUN a\nb", escape="\\")
@example(line="RUN", escape="\\")
def test_commands(line: str, escape: str) -> None:
    found = plain.command(line)
    if found is not None:
        expected: Any = by_grammar("command", line, escape)
        assert expected is not None
        keyword, flags, body = expected
        assert found == (
            exchange(keyword, escape), tuple(exchange(flag, escape) for flag in flags), exchange(body, escape)
        )  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "read"), [("words", plain.words), ("arguments", plain.words), ("origin", plain.origin)]
)
@given(text=TEXTS.filter(bool), escape=ESCAPES)
@example(text="a as b", escape="\\")
@example(text="a\tAs  b", escape="\\")
@example(text="a as", escape="\\")
@example(text="a b c", escape="\\")
@example(text="a=b c", escape="`")
def test_words(rule: str, read: Callable[[str], object], text: str, escape: str) -> None:
    found = read(text)
    if found is not None:
        expected: Any = by_grammar(rule, text, escape)
        assert expected is not None
        assert found == [exchange(item, escape) for item in expected]


@given(text=st.text('[]",\\: \tab\n\x01\ud800{}', max_size=20).map("[{}".format))
@example(text='["a", "b"]')
@example(text='["a","b" ,"" ]')
@example(text="[]")
@example(text="[ ]")
@example(text='["a",]')
@example(text='["\ud800"]')
def test_arrays(text: str) -> None:
    found = plain.array(text)
    if found is not None:
        assert found == by_grammar("array", text, "\\")


@pytest.mark.parametrize(
    ("read", "text", "expected"),
    [
        (plain.command, "RUN --a=b --c  d e", ("RUN", ("--a=b", "--c"), "d e")),
        (plain.command, 'CMD ["x"]', ("CMD", (), '["x"]')),
        (plain.words, "A=1  B=2", ["A=1", "B=2"]),
        (plain.origin, "x:1 AS y", ["x:1", "AS", "y"]),
        (plain.array, '["a", "b c"]', ["a", "b c"]),
    ],
)
def test_what_is_plain(read: Callable[[str], object], text: str, expected: object) -> None:
    assert read(text) == expected


def test_a_plain_dockerfile_needs_no_grammar() -> None:
    text = (
        "ARG V=1\nFROM --platform=linux/amd64 a:1 AS one\nENV A=1 B=2\nLABEL x=y\nEXPOSE 80 81/udp\nWORKDIR /w\n"
        'COPY --chown=1:2 a b /c/\nRUN --network=none echo "a" \\\n  b\nUSER 1\nCMD ["/bin/x", "y"]\n'
        "FROM one\nCOPY --from=one /c /d\nVOLUME /v\nSTOPSIGNAL 9\nENTRYPOINT echo x\n"
    )
    asked = "import sys\nfrom builder.dockerfile.parser import parse\nparse(sys.argv[1])\nprint('lark' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", asked, text], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize(
    ("text", "looks"),
    [
        ("", True),
        ('FROM a AS b\nENV A=1 \\\n  B=2\nEXPOSE 80\nCMD ["/bin/x", "y"]\n', True),
        ("FROM a\nrun echo $A `b` 'c' \\\n  \"$D\"\nUSER x\n", True),
        ("FROM a\nENV A=$B\n", False),
        ("FROM a\nENV A=1 \\\n  B=$C\n", False),
        ('FROM a\nLABEL a="b"\n', False),
        ("FROM a\nLABEL a=b\\ c\n", False),
        ("FROM a\nRUN <<E\nx\nE\n", False),
        ("FROM a\nRUN b\nLABEL c='d'\n", False),
        ("# escape=`\nFROM a\n", False),
    ],
)
def test_what_looks_plain_is(text: str, looks: bool) -> None:
    assert plain.looks_plain(text.encode()) is looks
    if looks and text:
        with plain.plain_only():
            parsed = parse(text)
        assert parsed == parse(text)


@pytest.mark.parametrize(
    "line", ["ENV a b", "ENV a=$b", 'ENV a="b"', 'CMD ["\\n"]', "RUN cat <<E\nE", "ADD --chown='1' a b"]
)
def test_what_is_not_plain(line: str) -> None:
    with pytest.raises(plain.GrammarNeeded), plain.plain_only():
        parse(f"FROM a\n{line}\n")
    assert parse(f"FROM a\n{line}\n").stages

"""Printing: what was parsed, printed and parsed again has the same structure, whatever the text was."""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.dockerfile import instructions as df
from builder.dockerfile.parser import parse
from builder.errors import DockerfileError
from tests.dockerfile.golden import CASES, case_names
from tests.dockerfile.test_parser import PIECES
from tests.dockerfile.written import Writer
from tests.support.printer import print_dockerfile


def structure(value: Any) -> Any:
    """A parsed Dockerfile without what depends on its layout: ranges, the text as written, and NoEmptyContinuation."""
    if isinstance(value, df.Dockerfile):
        notices = tuple(notice for notice in value.notices if notice.rule != "NoEmptyContinuation")
        value = msgspec.structs.replace(value, notices=notices)
    if isinstance(value, msgspec.Struct):
        left_out = {"range", "source"} if isinstance(value, df.Instruction) else {"range"}
        fields = {
            field.name: structure(getattr(value, field.name))
            for field in msgspec.structs.fields(value)
            if field.name not in left_out
        }
        return type(value).__name__, fields
    return tuple(structure(item) for item in value) if isinstance(value, tuple) else value


def check(text: str | bytes) -> str:
    parsed = parse(text)
    printed = print_dockerfile(parsed)
    again = parse(printed)
    assert structure(again) == structure(parsed), printed
    assert print_dockerfile(again) == printed
    return printed


@pytest.mark.parametrize("case", [case for case in case_names() if not case.startswith("error-")])
def test_cases(case: str) -> None:
    check((CASES / case / "Dockerfile").read_bytes())


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        (
            "#syntax = x\n# escape=`\n\n# about a\nFROM a`\n  as b\n",
            "# syntax=x\n# escape=`\n\n# about a\nFROM a as b\n",
        ),
        ("arg A\nFROM a\n\n\nFROM b\nRUN x", "arg A\n\nFROM a\n\nFROM b\nRUN x\n"),
        ("#\n# syntax=x\nFROM a", "\n# syntax=x\nFROM a\n"),
        (
            'FROM a\nRUN --security="insecure" --network=none  ls  -l',
            "FROM a\nRUN --network=none --security=insecure ls  -l\n",
        ),
        ('FROM a\nCMD [ "a","\\u00e9" ]\nRUN []', 'FROM a\nCMD ["a", "é"]\nRUN []\n'),
        ("FROM a\nCOPY --exclude='a b' x y", "FROM a\nCOPY --exclude='a b' x y\n"),
        ("FROM a\nRUN --mount=type=bind,target=C:\\\\x ls", "FROM a\nRUN --mount='type=bind,target=C:\\\\x' ls\n"),
        ('FROM a\nCOPY ["a\\nb", "c"]', 'FROM a\nCOPY ["a\\nb", "c"]\n'),
        ("FROM a\nRUN -- --x", "FROM a\nRUN -- --x\n"),
        (
            "FROM a\nCOPY --exclude=a\\\"b\\'\\\\ <<E /\nx\nE\n",
            "FROM a\nCOPY --exclude='a\"b'\"'\"'\\\\' <<E /\nx\nE\n",
        ),
        ('FROM a\nCOPY ["a b", "c"]\nCOPY ["a", "b"]', 'FROM a\nCOPY ["a b", "c"]\nCOPY a b\n'),
        (
            "FROM a\nCOPY x <<-A <<'B' y\n\t$1\nA\n\t$1\nB\nRUN <<-E\n\tx\n\tE\n",
            'FROM a\nCOPY <<A <<"B" x y\n$1\nA\n\t$1\nB\nRUN <<-E\nx\nE\n',
        ),
        ("FROM a\nCOPY <<A <<-A /\nx\nA\n\ty\n\tA\n", "FROM a\nCOPY <<A <<-A /\nA\n\ty\nA\n"),
        ("FROM a\nONBUILD run <<E\n\tx\nE", "FROM a\nONBUILD run <<E\n\tx\nE\n"),
        (
            "FROM a\nHEALTHCHECK --timeout=90s --interval=1500us CMD x",
            "FROM a\nHEALTHCHECK --interval=1500us --timeout=90s CMD x\n",
        ),
        ("FROM a\nENV a\\  b=c", "FROM a\nENV a\\  b=c\n"),
        ("FROM a\nRUN x\\ \\", "FROM a\nRUN x\\ \\\n"),
        (
            "FROM a\nADD --keep-git-dir=false --unpack --link a b",
            "FROM a\nADD --link --keep-git-dir=false --unpack=true a b\n",
        ),
    ],
)  # fmt: skip
def test_text(text: str, printed: str) -> None:
    assert check(text) == printed


def test_a_line_beyond_the_limit_is_continued() -> None:
    words = " ".join(["é#\\\\", *["word  #"] * 20000])
    text = "FROM a\nRUN " + words.replace("word", "\\\nword")
    printed = check(text)
    assert max(len(line.encode()) for line in printed.split("\n")) <= 65535
    assert len(printed.split("\n")) == 5


@settings(max_examples=120, deadline=None)
@given(st.integers(0, 1 << 32))
def test_dockerfiles_of_every_form(seed: int) -> None:
    text = Writer(Random(seed)).dockerfile()
    if _valid(text):
        check(text)


def test_most_of_them_are_valid() -> None:
    assert sum(_valid(Writer(Random(seed)).dockerfile()) for seed in range(100)) > 90


def _valid(text: str) -> bool:
    try:
        parse(text)
    except DockerfileError:
        return False
    return True


@settings(max_examples=150, deadline=None)
@given(PIECES)
def test_any_text_that_is_accepted(text: str) -> None:
    for source in (text, f"FROM a\n{text}", f"# escape=`\nFROM a\nCOPY {text}", f"FROM a\nONBUILD {text}"):
        if _valid(source):
            check(source)

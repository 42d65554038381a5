"""A Dockerfile without the values of secrets: what goes, and that every line stays where it is."""

from __future__ import annotations

import pytest

from builder.dockerfile.left_out import leave_out_values
from builder.dockerfile.parser import parse
from builder.plan.checks import is_sensitive

# what is written and what is left of it
CASES = {
    "ARG TOKEN=a": "ARG TOKEN=",
    "ARG TOKEN": "ARG TOKEN",
    "arg A=TOKEN=1 TOKEN=\"a b\" B=2": "arg A=TOKEN=1 TOKEN= B=2",
    "ENV TOKEN a  b # c": "ENV TOKEN ",
    "ENV A=TOKEN TOKEN=TOKEN": "ENV A=TOKEN TOKEN=",
    "  ENV A=1 \\\n  # TOKEN=is here\n\n  TOKEN=a\\\nb\\\r\n  B=$TOKEN \\\n  API_KEY='x y'": (
        "  ENV A=1 \\\n  # TOKEN=is here\n\n  TOKEN=\\\n\\\r\n  B=$TOKEN \\\n  API_KEY="
    ),
    'ENV "MY_TOKEN"=a ${X}_PASSWORD=b TO\\KEN=c': 'ENV "MY_TOKEN"= ${X}_PASSWORD= TO\\KEN=',
    "ENV PUBLIC_KEY=a TOKEN_FILE=b": "ENV PUBLIC_KEY=a TOKEN_FILE=b",
    "ONBUILD ENV TOKEN=a B=b": "ONBUILD ENV TOKEN= B=b",
    "ONBUILD ARG TOKEN=a\nENV TOKEN=${TOKEN:-b}": "ONBUILD ARG TOKEN=\nENV TOKEN=",
    "LABEL TOKEN=a\nRUN TOKEN=a": "LABEL TOKEN=a\nRUN TOKEN=a",
}  # fmt: skip


@pytest.mark.parametrize("written", CASES)
@pytest.mark.parametrize("before", ["FROM scratch\n", "\ufeff# a\n\nFROM scratch\n", "ARG TOKEN\nFROM scratch\n"])
def test_what_is_left(written: str, before: str) -> None:
    source = before + written + "\n"
    assert leave_out_values(source, parse(source), is_sensitive) == before + CASES[written] + "\n"


def test_global_arguments_and_the_other_escape_character() -> None:
    source = "# escape=`\nARG TOKEN=a`\nb A=1\nFROM scratch\n"
    assert leave_out_values(source, parse(source), is_sensitive) == "# escape=`\nARG TOKEN=`\n A=1\nFROM scratch\n"
